r"""Quantizes a float frozen graph to an 8-bit TFLite file, after training.

    python post_training_quant.py \
      --dataset_dir=${PREPROCESSED_DATA_DIR} --graph_def=${INPUT_PB_FILE} \
      --out_tflite=${OUTPUT_TFLITE_FILE} --input_type=uint8 --sample_num=500

gen_preprocessed_data.py makes the calibration images. The result depends on the
version of TensorFlow: 2.2 made the published file.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

from deeplab.cli import runner  # found through the line above
from deeplab.cli import script_flags


def main(options):
  from deeplab.export import tflite_conversion

  result = tflite_conversion.post_training_quantize(options)
  print('\n'.join(tflite_conversion.summary_lines(result)))


if __name__ == '__main__':
  runner.run(main, script_flags.POST_TRAINING_QUANT)
