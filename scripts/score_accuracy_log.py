r"""Scores an mlperf_log_accuracy.json that LoadGen wrote.

    python scripts/score_accuracy_log.py \
      --accuracy_log=loadgen/accuracy/mlperf_log_accuracy.json \
      --test_dir=${OUTPUT_DIR}/images

The images must be the run's: sample N of the log is the N-th image of the
folder. MLPerf Mobile reports "mIoU, app". It needs no TensorFlow.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from deeplab.cli import runner  # found through the line above
from deeplab.cli import script_flags


def main(options, eval_options):
  from deeplab.mlperf import accuracy_log

  accuracy_log.score_log(options, eval_options)


if __name__ == '__main__':
  runner.run(main, script_flags.SCORE_LOG)
