r"""Converts ADE20K into TFRecords: 4 shards for train and 4 for val.

    python build_ade20k_data.py \
      --train_image_folder=${TRAIN_IMAGE_FOLDER} \
      --train_image_label_folder=${TRAIN_LABEL_FOLDER} \
      --val_image_folder=${VAL_IMAGE_FOLDER} \
      --val_image_label_folder=${VAL_LABEL_FOLDER} \
      --output_dir=${OUTPUT_DIR}

Every image and label is decoded first, and all problems are reported at once.
Both splits are published together, or neither. The defaults are the folders
that download_and_convert_ade20k.sh makes. A split is skipped if its flags are
not given and its default folder does not exist, as long as the other split's
flags are given.

--label_map=FILE maps ids of the labels to your own classes; later steps read it
from the records. docs/own_data.md has an example.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

from deeplab import constants
from deeplab.cli import runner  # found through the line above
from deeplab.cli import script_flags


def main(splits):
  from deeplab.data import builder

  summaries = builder.build(splits)
  for options, summary in zip(splits, summaries):
    print(builder.summary_line(summary, options))
  for split in constants.SPLITS:
    if split not in [summary.split for summary in summaries]:
      print('{0}: left out (no --{0}_image_folder given, and its default does '
            'not exist)'.format(split))
  print('Share of pixels ("other" holds {}):'.format(
      'every id that {} does not list'.format(splits[0].label_map)
      if splits[0].label_map else 'ids 0 and {} to {}'.format(
          constants.NUM_CLASSES, constants.LARGEST_LABEL_ON_DISK)))
  print('\n'.join(builder.histogram_table(summaries)))
  if summaries[0].split == 'train':
    print('To weight rare classes more in training (see docs/own_data.md):')
    print('--label_weights=' + ','.join(
        map('{:.4g}'.format, summaries[0].label_weights)))


if __name__ == '__main__':
  runner.run(main, script_flags.BUILD)
