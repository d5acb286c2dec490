r"""Compares models on the same images; writes an HTML page.

    python scripts/compare_models.py \
      --model=float=checkpoints/float/freeze.tflite \
      --model=qat=checkpoints/quantize_aware_training/freeze_qat.tflite \
      --preprocessed_dataset_dir=${OUTPUT_DIR} --output_dir=comparison

Give two or more checkpoints, frozen graphs and TFLite files. Images are records
(--dataset_dir), a folder of preprocessed pairs, or any pictures without labels
(--pictures). comparison/index.html is self-contained.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from deeplab.cli import runner  # found through the line above
from deeplab.cli import script_flags
from deeplab.system import streams


def main(models, options):
  from deeplab.tools.comparison import run

  streams.show(*run.summary_lines(run.compare(models, options)))


if __name__ == '__main__':
  runner.run(main, script_flags.COMPARE)
