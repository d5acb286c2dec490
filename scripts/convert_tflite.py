r"""Converts a frozen graph to TFLite: float, smaller weights, or 8 bits.

    python scripts/convert_tflite.py \
      --graph_def=${PB_FILE} --out_tflite=freeze.tflite --mode=float
    python scripts/convert_tflite.py \
      --graph_def=${QAT_PB_FILE} --out_tflite=freeze_qat.tflite --mode=qat

--mode=float16 halves the size of a float file, --mode=dynamic quarters it.

post_training_quant.py quantizes float graphs after training.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from deeplab.cli import runner  # found through the line above
from deeplab.cli import script_flags
from deeplab.system import streams


def main(options):
  from deeplab.export import tflite_conversion

  result = tflite_conversion.convert(options)
  streams.show(*tflite_conversion.summary_lines(result))


if __name__ == '__main__':
  runner.run(main, script_flags.CONVERT_TFLITE)
