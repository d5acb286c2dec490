r"""Evaluates a TFLite file on images that gen_preprocessed_data.py wrote.

    python segmentation_inference_eval_seg_tflite.py \
      --net_file=checkpoints/quantize_aware_training/freeze_qat.tflite \
      --test_dir=${OUTPUT_DIR}/images --val_label_dir=${OUTPUT_DIR}/annotations

Type and range of the input are read from the file. Every flag has a default,
so that a file in its place is evaluated by the script's name alone.

The last line of the table is the mean that the published figures are: over
classes 1 to 31, on labelled pixels. A quantized file scores differently from
one interpreter to the next, so the report names the interpreter; the published
figures are TensorFlow 2.2's.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

from deeplab.cli import runner  # found through the line above
from deeplab.cli import script_flags


def main(options, eval_options):
  from deeplab.evaluation import tflite

  tflite.evaluate(options, eval_options)


if __name__ == '__main__':
  runner.run(main, script_flags.TFLITE_EVAL)
