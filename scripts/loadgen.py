r"""Runs MLCommons' LoadGen on a model: an unofficial MLPerf Mobile run.

    python scripts/loadgen.py \
      --model=checkpoints/quantize_aware_training/freeze_qat.tflite \
      --test_dir=${OUTPUT_DIR}/images --output_dir=loadgen --mode=quick

gen_preprocessed_data.py writes the images. The model is a TFLite file, a frozen
graph or a checkpoint. One run measures speed; another one covers every image
and is scored from its mlperf_log_accuracy.json. docs/mlperf.md has the rules.
Only logs of the MLPerf Mobile app can be submitted.
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
