r"""Prints the scores of several evaluations as one table.

    python scripts/stage_table.py \
      --report='checkpoint=ckpt.json' --report='frozen graph=pb.json'

eval.py, eval_pb.py and the TFLite evaluation write the files with
--report_json. It needs no TensorFlow.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from deeplab.cli import runner  # found through the line above
from deeplab.cli import script_flags


def main(stages):
  from deeplab.evaluation import report

  print(report.stage_table(stages))


if __name__ == '__main__':
  runner.run(main, script_flags.STAGE_TABLE)
