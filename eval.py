r"""Evaluates checkpoints of a folder as they appear, or one checkpoint once.

    python eval.py \
      --checkpoint_dir=${CKPT_DIR} --dataset_dir=${DATA_DIR} \
      --eval_logdir=log --eval_crop_size=512,512 \
      --min_resize_value=512 --max_resize_value=512 --resize_factor=16 \
      --decoder_output_stride=4

Add --max_number_of_evaluations=1 to evaluate once, --report_json=FILE to save
the scores, --quantize_delay_step=0 for a quantization-aware checkpoint, and
--keep_best to keep the best checkpoint in ${CKPT_DIR}/best, which
export_model.py takes as --checkpoint_path.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

from deeplab.cli import runner  # found through the line above
from deeplab.cli import script_flags


def main(**options):
  from deeplab.evaluation import evaluate

  evaluate.evaluate_checkpoints(**options)


if __name__ == '__main__':
  runner.run(main, script_flags.EVAL)
