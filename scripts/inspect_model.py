r"""Lists the contents of a model file, and compares it with another one.

    python scripts/inspect_model.py --model=freeze.tflite
    python scripts/inspect_model.py \
      --model=checkpoints/post_train_quant/freeze_ptq.tflite \
      --other_model=${CKPT_DIR}
    python scripts/inspect_model.py \
      --model=freeze_qat.tflite \
      --preprocessed_dataset_dir=${PREPROCESSED_DATA_DIR}

Prints layers, parameters, multiply-adds, types and ranges of a checkpoint, a
frozen graph or a TFLite file, and operators of a TFLite file that clip inputs.
Weights are compared as used in inference: batch norm folded, and quantized if
the file is. Activations are compared by scale and zero point. With images, in
the modern environment, the share of clipped values is measured.
docs/quantization.md has examples.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from deeplab.cli import runner  # found through the line above
from deeplab.cli import script_flags
from deeplab.system import streams


def main(options):
  from deeplab.tools.inspection import run

  streams.show(*run.inspect(options).lines)


if __name__ == '__main__':
  runner.run(main, script_flags.INSPECT)
