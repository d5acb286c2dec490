r"""Says what is in a model's file, and whether another has the same weights.

    python scripts/inspect_model.py --model=freeze.tflite
    python scripts/inspect_model.py \
      --model=checkpoints/post_train_quant/freeze_ptq.tflite \
      --other_model=${CKPT_DIR}
    python scripts/inspect_model.py \
      --model=freeze.pb --calibration_dir=${PREPROCESSED_DATA_DIR}

Layers, parameters, multiply-adds, types and ranges of a checkpoint, a frozen
graph or a TFLite file. Weights are compared as they are used: batch norm folded
in, quantized where the file says so. The last command measures what 8 bits cost
each layer, in the modern environment. docs/quantization.md has examples.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from deeplab import cli  # found through the line above
from deeplab import script_flags


def main(options, cost_options):
  from deeplab.inspection import run

  print('\n'.join(run.inspect(options, cost_options).lines))


if __name__ == '__main__':
  cli.run(main, script_flags.INSPECT)
