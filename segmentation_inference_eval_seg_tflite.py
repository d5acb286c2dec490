r"""Evaluates a TFLite file on images that gen_preprocessed_data.py wrote.

    python segmentation_inference_eval_seg_tflite.py \
      --net_file=checkpoints/quantize_aware_training/freeze_qat.tflite \
      --test_dir=${OUTPUT_DIR}/images --val_label_dir=${OUTPUT_DIR}/annotations

Type and range of the input are read from the file. Every flag has a default.

The last line of the table is the mean to compare with the published figures:
over classes 1 to 31, on labelled pixels. The scores of a quantized file depend
on the interpreter, so the report names it; the published figures are TensorFlow
2.2's.
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
