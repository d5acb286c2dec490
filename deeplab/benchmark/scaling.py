"""Measured: the same training in several processes.

They share this machine's cores: this shows what working together costs, not
what more machines give.
"""
import os
import subprocess
import sys
import time

from deeplab.benchmark import cases

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
# Two runs, so that their difference is steps alone.
_FEW_STEPS, _MORE_STEPS = 2, 14


def train(sizes: cases.Sizes, files: cases.Files, *,
          hosts: int) -> cases.Measurement:
  """Steps on one batch, of which each process has its part.

  Args:
    sizes: cases.Sizes.
    files: as in worker.
    hosts: number of processes.
  """
  runs = 0
  side = sizes.side
  # The documented flags, but for a start from random weights.
  command = [
      sys.executable, os.path.join(_ROOT, 'scripts', 'launch_local.py'),
      '--hosts={}'.format(hosts), '--', '--dataset_dir=' + files('records'),
      '--train_crop_size={0},{0}'.format(side),
      '--min_resize_value={}'.format(side),
      '--max_resize_value={}'.format(side), '--resize_factor=16',
      '--output_stride=16', '--decoder_output_stride=4',
      '--fine_tune_batch_norm=False', '--optimizer=adam',
      '--adam_learning_rate=.000005',
      '--train_batch_size={}'.format(sizes.batch)]

  def seconds_of(steps):
    nonlocal runs
    runs += 1
    started = time.perf_counter()
    subprocess.run(
        command + ['--training_number_of_steps={}'.format(steps),
                   '--train_logdir=' + files('{}-{}-{}'.format(
                       hosts, os.getpid(), runs))],
        check=True, stdout=sys.stderr)
    return time.perf_counter() - started

  def measure():
    few, more = seconds_of(_FEW_STEPS), seconds_of(_MORE_STEPS)
    return (more - few) / ((_MORE_STEPS - _FEW_STEPS) * sizes.batch)

  return measure, '{} steps less {} steps'.format(_MORE_STEPS, _FEW_STEPS)
