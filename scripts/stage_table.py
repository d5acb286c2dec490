r"""Prints the scores of several evaluations as one table.

    python scripts/stage_table.py \
      --report='checkpoint=ckpt.json' --report='frozen graph=pb.json'

The files are what eval.py, eval_pb.py and the TFLite evaluation write with
--report_json. It needs no TensorFlow.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from deeplab import cli  # found through the line above
from deeplab.flag_sets import tflite as flag_sets


def define_flags(flag_values):
  flag_sets.define_stage_table_flags(flag_values)


def main(flag_values):
  stages = flag_sets.stages(flag_values)

  from deeplab import report

  print(report.stage_table(
      [report.stage_row(stage, path) for stage, path in stages]))


if __name__ == '__main__':
  cli.run(main, define_flags, environments=())
