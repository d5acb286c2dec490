"""Paints a small data set in ADE20K's folder layout, to try the suite with.

    python scripts/make_synthetic_ade20k.py --output_dir=demo_output

It needs no TensorFlow and no download. The folder that it makes,
OUTPUT_DIR/ADEChallengeData2016, is what build_ade20k_data.py reads.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from deeplab import cli  # found through the line above
from deeplab.flag_sets import data as flag_sets  # found through the line above


def define_flags(flag_values):
  flag_sets.define_synthetic_flags(flag_values)


def main(flag_values):
  from deeplab.data import synthetic

  folder = synthetic.make_dataset(
      output_dir=flag_values.output_dir, train_images=flag_values.train_images,
      val_images=flag_values.val_images, long_side=flag_values.size,
      seed=flag_values.seed)
  print('{} training and {} validation pairs in {}'.format(
      flag_values.train_images, flag_values.val_images, folder))


if __name__ == '__main__':
  cli.run(main, define_flags, environments=())
