"""Measures whole scripts, from their start to their end."""
import itertools
import os
import subprocess
import sys
import tempfile
import time

from deeplab import constants
from deeplab.system import environment
from deeplab.tools.benchmark import cases

# The difference of two runs on several hosts excludes their start.
_FEW_STEPS, _MORE_STEPS = 2, 14


def start_evaluation(sizes: cases.Sizes, paths: cases.Paths) -> cases.Measured:
  """Measures eval.py on a few images."""
  return _seconds(
      'eval.py', '--eval_crop_size={0},{0}'.format(sizes.side),
      '--checkpoint_dir=' + paths('float', 'model.ckpt-0'),
      '--dataset_dir=' + paths('few records'), *_network_flags(sizes)), ''


def start_training(sizes: cases.Sizes, paths: cases.Paths) -> cases.Measured:
  """Measures train.py with one step."""
  return _train('train.py', sizes, paths, 'few records', 1), ''


def train_on_hosts(sizes: cases.Sizes, paths: cases.Paths, *,
                   hosts: int) -> cases.Measured:
  """Measures training by several processes, for each image.

  They share this machine's cores, so this shows the overhead of distribution,
  not the speed-up by more machines.
  """
  few, more = (
      _train('scripts/launch_local.py', sizes, paths, 'records', steps,
             '--hosts={}'.format(hosts), '--')
      for steps in (_FEW_STEPS, _MORE_STEPS))
  return ((more - few) / ((_MORE_STEPS - _FEW_STEPS) * sizes.batch),
          '{} steps less {} steps'.format(_MORE_STEPS, _FEW_STEPS))


def _train(script, sizes, paths, records, steps, *launcher_flags):
  """Trains with the documented flags, from random weights; returns seconds."""
  with tempfile.TemporaryDirectory(dir=paths()) as logdir:
    return _seconds(
        script, *launcher_flags, '--dataset_dir=' + paths(records),
        '--train_logdir=' + logdir,
        '--training_number_of_steps={}'.format(steps),
        '--train_crop_size={0},{0}'.format(sizes.side),
        '--train_batch_size={}'.format(sizes.batch),
        '--fine_tune_batch_norm=False', '--optimizer=adam',
        '--adam_learning_rate=.000005', *_network_flags(sizes))


def _network_flags(sizes):
  return ('--min_resize_value={}'.format(sizes.side),
          '--max_resize_value={}'.format(sizes.side), '--resize_factor=16',
          '--output_stride=16', '--decoder_output_stride=4')


def evaluate_tflite(sizes: cases.Sizes, paths: cases.Paths, *,
                    images: str) -> cases.Measured:
  """Measures TFLite evaluation on 'few' or 'many' images of the sizes."""
  count = getattr(sizes, images)
  with tempfile.TemporaryDirectory(dir=paths()) as folder:
    for name in (constants.PREPROCESSED_IMAGES,
                 constants.PREPROCESSED_ANNOTATIONS):
      source = paths('preprocessed', name)
      os.mkdir(os.path.join(folder, name))
      # Pairs repeat if `count` is larger.
      names = itertools.cycle(sorted(os.listdir(source)))
      for number, each in zip(range(count), names):
        os.link(os.path.join(source, each), os.path.join(
            folder, name, constants.preprocessed_name(number)))
    return (_seconds(
        'segmentation_inference_eval_seg_tflite.py',
        '--net_file=' + paths('float.tflite'),
        '--test_dir=' + folder) / count, '{} images'.format(count))


def _seconds(script, *flags):
  """Runs a script; returns its wall-clock seconds."""
  started = time.perf_counter()
  subprocess.check_call(
      [sys.executable, os.path.join(environment.REPOSITORY, script), *flags])
  return time.perf_counter() - started
