"""Measured: the same training and evaluation in several processes.

They share this machine's cores: what is seen is what working together costs,
not what more machines give.
"""
import os
import subprocess
import sys
import time
from typing import List

from deeplab.benchmark import cases

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
_TRAINED_SPLIT, _EVALUATED_SPLIT = 'train', 'val'
# Two runs, so that their difference is steps alone.
_FEW_STEPS, _MORE_STEPS = 2, 14


def train(sizes: cases.Sizes, files: cases.Files, *,
          hosts: int) -> cases.Measurement:
  """Steps on one batch, which processes have their parts of.

  Args:
    sizes: cases.Sizes.
    files: as in worker.
    hosts: number of processes.
  """
  runs = 0

  def seconds_of(steps):
    nonlocal runs
    runs += 1
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, os.path.join(_ROOT, 'scripts', 'launch_local.py'),
         '--hosts={}'.format(hosts), '--'] + _training_flags(
             sizes, files, steps, files('{}-{}-{}'.format(
                 hosts, os.getpid(), runs))),
        check=True, stdout=sys.stderr)
    return time.perf_counter() - started

  def measure():
    few, more = seconds_of(_FEW_STEPS), seconds_of(_MORE_STEPS)
    return (more - few) / ((_MORE_STEPS - _FEW_STEPS) * sizes.batch)

  return measure, '{} steps less {} steps'.format(_MORE_STEPS, _FEW_STEPS)


def evaluate(sizes: cases.Sizes, files: cases.Files, *,
             parts: int) -> cases.Measurement:
  """An evaluation in so many processes at once, with all starts and checks."""
  def measure():
    started = time.perf_counter()
    running = [
        subprocess.Popen(
            [sys.executable, os.path.join(_ROOT, 'eval.py')] +
            _evaluation_flags(sizes, files, parts, part), stdout=sys.stderr)
        for part in range(parts)]
    statuses = [process.wait() for process in running]
    if any(statuses):
      raise subprocess.CalledProcessError(1, 'eval.py')
    return (time.perf_counter() - started) / sizes.evaluated

  return measure, '{} images, with start'.format(sizes.evaluated)


def _network_flags(sizes, crop_flag):
  return ['--{}={},{}'.format(crop_flag, sizes.side, sizes.side),
          '--min_resize_value={}'.format(sizes.side),
          '--max_resize_value={}'.format(sizes.side), '--resize_factor=16',
          '--output_stride=16', '--decoder_output_stride=4']


def _training_flags(sizes, files, steps, folder) -> List[str]:
  """The documented flags, but for a start from random weights."""
  return _network_flags(sizes, 'train_crop_size') + [
      '--dataset_dir=' + files('records'), '--train_logdir=' + folder,
      '--train_split=' + _TRAINED_SPLIT, '--fine_tune_batch_norm=False',
      '--train_batch_size={}'.format(sizes.batch), '--optimizer=adam',
      '--adam_learning_rate=.000005',
      '--training_number_of_steps={}'.format(steps)]


def _evaluation_flags(sizes, files, parts, part) -> List[str]:
  return _network_flags(sizes, 'eval_crop_size') + [
      '--dataset_dir=' + files('records'), '--eval_split=' + _EVALUATED_SPLIT,
      '--checkpoint_dir=' + files('float', 'model.ckpt-0'),
      '--report_json=' + files('report-{}-{}.json'.format(parts, part)),
      '--num_shards={}'.format(parts), '--shard_index={}'.format(part)]
