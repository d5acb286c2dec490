r"""Exports a checkpoint as one file from images to labels: freeze.pb.

    python export_model.py \
      --checkpoint_path=${CKPT_DIR} --export_path=${PB_OUTPUT_DIR} \
      --num_classes=32 --output_stride=16 --decoder_output_stride=4 \
      --train_crop_size=512,512 \
      --min_resize_value=512 --max_resize_value=512 --resize_factor=16

The graph does not resize: the resize flags are written to freeze.json beside
it, for users of the graph. Add --quantize_delay_step=0 for a quantization-aware
checkpoint.

--format=frozen_graph,saved_model,onnx also writes the same graph as a
SavedModel, in freeze_saved_model/, and as freeze.onnx, which needs the modern
environment. docs/exports.md describes inputs and outputs.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

from deeplab.cli import runner  # found through the line above
from deeplab.cli import script_flags


def main(**options):
  from deeplab.export import freeze

  result = freeze.export(**options)
  print('{}: {} nodes, {:.1f} MB, from {}'.format(
      ', '.join(result.paths), result.nodes, result.size / 1e6,
      result.checkpoint))
  print('  ' + ', '.join('{} {}'.format(count, operation) for operation, count
                         in sorted(result.operations.items())))
  if result.inference_graph:
    print('  graph without weights: ' + result.inference_graph)


if __name__ == '__main__':
  runner.run(main, script_flags.EXPORT)
