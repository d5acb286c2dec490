r"""Overlays a model's predictions on pictures of any shape, at full size.

    python scripts/visualize.py \
      --model=checkpoints/float/freeze.tflite --pictures=photos \
      --output_dir=overlays

The model is a checkpoint, a frozen graph or a TFLite file. Pictures are JPEG or
PNG of any colour type and shape; their EXIF orientation is applied.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from deeplab.cli import runner  # found through the line above
from deeplab.cli import script_flags
from deeplab.system import streams


def main(options):
  from deeplab.tools import overlays

  streams.show(*overlays.summary_lines(overlays.make(options)))


if __name__ == '__main__':
  runner.run(main, script_flags.VISUALIZE)
