r"""Trains on this machine with several hosts, each a process with a port.

    python scripts/launch_local.py --hosts=2 -- \
      --dataset_dir=${DATA_DIR} --train_logdir=${OUTPUT_DIR} \
      --train_batch_size=8 --training_number_of_steps=100

Arguments after -- go to train.py. Lines of output begin with the task's number.
If a task fails, all end, with its exit status; after Ctrl-C or SIGTERM, a
checkpoint is saved. Use it to try out docs/scaling.md: one process is faster.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from deeplab.cli import runner  # found through the line above
from deeplab.cli import script_flags
from deeplab.system import environment


def main(options, arguments):
  from deeplab.distribution import launch_local

  failure = launch_local.run(
      os.path.join(sys.path[0], 'train.py'), arguments, options.hosts)
  if failure:
    environment.refuse(str(failure), failure.status)


if __name__ == '__main__':
  words = sys.argv[:]
  if '--' not in words and not any('help' in word for word in words[1:]):
    environment.refuse(
        'expected -- before the flags of train.py; for example: '
        'launch_local.py --hosts=2 -- --dataset_dir=... --train_logdir=...')
  end = (words + ['--']).index('--')
  runner.run(lambda options: main(options, words[end + 1:]),
          script_flags.LAUNCH, argv=words[:end])
