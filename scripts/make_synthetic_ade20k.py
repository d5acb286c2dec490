"""Paints a small data set in ADE20K's folder layout, to try the suite.

    python scripts/make_synthetic_ade20k.py --output_dir=demo_output

It needs no TensorFlow and no download. build_ade20k_data.py reads the result,
OUTPUT_DIR/ADEChallengeData2016.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from deeplab.cli import runner  # found through the line above
from deeplab.cli import script_flags  # found through the line above
from deeplab.system import streams


def main(options):
  from deeplab.data import synthetic

  streams.show('{} training and {} validation pairs in {}'.format(
      options.train_images, options.val_images,
      synthetic.make_dataset(options)))


if __name__ == '__main__':
  runner.run(main, script_flags.SYNTHETIC)
