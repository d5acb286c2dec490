r"""Writes records as PNG files, for TFLite evaluation and for calibration.

    python gen_preprocessed_data.py \
      --eval_crop_size='512,512' \
      --min_resize_value=512 --max_resize_value=512 \
      --dataset_dir=${DATA_DIR} \
      --preprocessed_dataset_dir=${OUTPUT_DIR} \
      --eval_split=val

OUTPUT_DIR gets images/img_N.png, annotations/img_N.png, and manifest.json,
which lists the data set's image for each img_N. N counts records from 0.

Write the 500 calibration images of post-training quantization, in order, from
the train records with

      --eval_split=train --image_list=checkpoints/post_train_quant/ptq.txt
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

from deeplab.cli import runner  # found through the line above
from deeplab.cli import script_flags


def main(dataset_options, preprocess_options, options):
  from deeplab.data import dataset
  from deeplab.data import png_folder_writer

  names = None
  if options.image_list:
    names = png_folder_writer.read_image_list(options.image_list)
  summary = png_folder_writer.write(
      dataset.Batches(dataset_options, preprocess_options, names=names),
      names=names, split=dataset_options.split,
      preprocess_options=preprocess_options, options=options)
  print(png_folder_writer.summary_line(summary))


if __name__ == '__main__':
  runner.run(main, script_flags.PREPROCESSED)
