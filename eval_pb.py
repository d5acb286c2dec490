r"""Evaluates what export_model.py writes: a frozen graph, or another format.

    python eval_pb.py \
      --pb=${PB_FILE} --dataset_dir=${DATA_DIR} \
      --eval_logdir=log --eval_crop_size=512,512 \
      --min_resize_value=512 --max_resize_value=512 --resize_factor=16

The network is in the graph: flags that shape it have no place here. --pb may
also be a SavedModel, which is a folder, or an ONNX file.
"""
from deeplab import cli
from deeplab.flag_sets import network as flag_sets


def define_flags(flag_values):
  flag_sets.define_eval_pb_flags(flag_values)


def main(flag_values):
  options = flag_sets.eval_pb_options(flag_values)

  from deeplab import evaluation

  evaluation.evaluate_frozen_graph(**options)


if __name__ == '__main__':
  cli.run(main, define_flags, environments=('tf1', 'tf2', 'modern'))
