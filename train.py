r"""Trains DeepLabv3 + MobileNetV2 on ADE20K, in float or quantization-aware.

    python train.py \
      --dataset_dir=${DATA_DIR} --train_logdir=${OUTPUT_DIR} \
      --tf_initial_checkpoint=${PRETRAINED_CKPT_FILE} \
      --initialize_last_layer=False --fine_tune_batch_norm=False \
      --train_crop_size=512,512 --decoder_output_stride=4 \
      --min_resize_value=512 --max_resize_value=512 --resize_factor=16

After Ctrl-C, SIGTERM or a closed terminal, a checkpoint is saved; the same
command resumes there. The README has the documented commands in full.
"""
import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

from deeplab.cli import runner  # found through the line above
from deeplab.cli import script_flags


def main(**options):
  from deeplab.training import train

  result = train.train(**options)
  print('{} at step {}: loss {:.4f}, {} steps in {:.0f} s, {}'.format(
      'stopped by ' + result.stopped_by if result.stopped_by else 'finished',
      result.step, result.loss, result.steps_done, result.seconds,
      result.checkpoint or 'saved by task 0'))
  if result.stopped_by:
    print('run the same command again to resume')
    sys.exit(128 + signal.Signals[result.stopped_by])


if __name__ == '__main__':
  runner.run(main, script_flags.TRAIN)
