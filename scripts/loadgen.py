r"""Runs MLCommons' LoadGen over a model: an MLPerf Mobile run, unofficially.

    python scripts/loadgen.py \
      --model=checkpoints/quantize_aware_training/freeze_qat.tflite \
      --test_dir=${OUTPUT_DIR}/images --output_dir=loadgen --mode=quick

The images are those that gen_preprocessed_data.py wrote. The model is a TFLite
file, a frozen graph or a checkpoint. One run measures speed, one asks for every
image and is scored from its mlperf_log_accuracy.json; docs/mlperf.md says by
which rules. Only logs that the MLPerf Mobile app wrote can be submitted.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from deeplab.cli import runner  # found through the line above
from deeplab.cli import script_flags
from deeplab.system import streams


def main(options):
  from deeplab.mlperf import loadgen

  summary = loadgen.run(options)
  streams.show(*loadgen.summary_lines(summary, options.output_dir))


if __name__ == '__main__':
  runner.run(main, script_flags.LOADGEN)
