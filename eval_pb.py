r"""Evaluates a frozen graph or another export of export_model.py.

    python eval_pb.py \
      --pb=${PB_FILE} --dataset_dir=${DATA_DIR} \
      --eval_logdir=log --eval_crop_size=512,512 \
      --min_resize_value=512 --max_resize_value=512 --resize_factor=16

The graph contains the network, so there are no flags for its structure. --pb
may also be a SavedModel's folder or an ONNX file.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

from deeplab.cli import runner  # found through the line above
from deeplab.cli import script_flags


def main(**options):
  from deeplab.evaluation import evaluate

  evaluate.evaluate_frozen_graph(**options)


if __name__ == '__main__':
  runner.run(main, script_flags.EVAL_PB)
