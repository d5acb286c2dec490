r"""Rebuilds a checkpoint from a TFLite file, to evaluate or fine-tune it.

    python scripts/rebuild_checkpoint.py \
      --tflite=freeze_qat.tflite --output_dir=rebuilt

A quantization-aware file gives a quantization-aware checkpoint. A file that was
quantized after training gives a float checkpoint of the rounded weights. Batch
norm is folded: fine-tune with --fine_tune_batch_norm=False, or with
--quantize_delay_step=0, which freezes it.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from deeplab.cli import runner  # found through the line above
from deeplab.cli import script_flags
from deeplab.system import streams


def main(options):
  from deeplab.export import rebuild_checkpoint

  result = rebuild_checkpoint.rebuild(options)
  streams.show('{}: {} checkpoint, {} weights in {} layers'.format(
      result.checkpoint,
      'quantization-aware' if result.model_options.is_quantized else 'float',
      result.weights, result.layers))
  flags = []
  if result.model_options.decoder_output_stride:
    flags.append('--decoder_output_stride={}'.format(
        *result.model_options.decoder_output_stride))
  if result.model_options.is_quantized:
    flags.append('--quantize_delay_step=0')
  if flags:
    streams.show('  use it with ' + ' '.join(flags))


if __name__ == '__main__':
  runner.run(main, script_flags.REBUILD)
