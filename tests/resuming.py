"""Trains once without a stop and once with several stops, on one core.

test_resume runs `python -m tests.resuming FOLDER float|qat STEPS STOP...` in a
new process, because TensorFlow fixes its number of threads once in a process.
Writes the losses and batches of both runs to FOLDER/KIND.json.
"""
import functools
import json
import logging
import os
import signal
import sys

import numpy as np
import tensorflow.compat.v1 as tf
import tf_slim as slim

from deeplab.config import options
from deeplab.data import records
from deeplab.nets import mobilenet_v2
from deeplab.system import environment
from deeplab.training import loop
from deeplab.training import train as train_lib
from tests import record_sets

IMAGES = 5
CROP = (33, 33)
# Only a few, because the full graph takes long to build.
BLOCKS = (mobilenet_v2.Block(16, expansion=1), mobilenet_v2.Block(16))


class Killed(BaseException):
  """Ends a run like kill -9: nothing is saved."""


class Recording(loop.Loop):
  """A loop that records each step, and can stop early.

  Attributes of the class:
    steps: list of [step, loss, names of the batch].
    stop: step to stop at; None: never.
    is_killed: whether the stop saves nothing.
  """
  steps: list = []
  stop = None
  is_killed = False

  def _run_step(self, session):
    if self.is_killed and self._done.step == self.stop:
      raise Killed
    results = super()._run_step(session)
    names = session.run(self._batch_names)
    self.steps.append([int(results['done']), float(results['loss']).hex(), [
        name.decode() for name in names]])
    if not self.is_killed and self.steps[-1][0] == self.stop:
      os.kill(os.getpid(), signal.SIGTERM)
    return results


def without_rewriting(train_in_loop, *arguments, session_config, **others):
  session_config.graph_options.rewrite_options.disable_meta_optimizer = True
  return train_in_loop(*arguments, session_config=session_config, **others)


def make_records(folder):
  """Writes IMAGES pairs, in shards of 2, 2 and 1."""
  random = np.random.RandomState(4)
  pairs = [records.make_example(
      image_bytes=record_sets.picture(number, (40, 36), 'PNG'),
      label_bytes=record_sets.encode(
          random.randint(0, 32, [40, 36], np.uint8)),
      filename='image_{}.png'.format(number), image_format='png',
      label_format='png', height=40, width=36) for number in range(IMAGES)]
  record_sets.write_shards(output_dir=folder, split='train',
                       shards=[pairs[:2], pairs[2:4], pairs[4:]])


def train(folder, logdir, kind, steps, *, stop=None, is_killed=False,
          **changes):
  """Trains; returns the steps that were done."""
  Recording.steps = []
  Recording.stop, Recording.is_killed = stop, is_killed
  try:
    train_lib.train(
        dataset_options=options.DatasetOptions(
            folder, 'train', batch_size=2, seed=3),
        preprocess_options=options.PreprocessOptions(crop_size=CROP),
        model_options=options.ModelOptions(
            crop_size=CROP, depth_multiplier=0.25, aspp_convs_filters=16,
            quantize_delay_step=2 if kind == 'qat' else -1),
        options=options.TrainOptions(
            os.path.join(folder, logdir), training_number_of_steps=steps,
            base_learning_rate=0.01, seed=3, log_steps=1, **changes))
  except Killed:
    assert is_killed
  return Recording.steps


def main(folder, kind, steps, *stops):
  steps, stops = int(steps), [int(stop) for stop in stops]
  # TensorFlow starts its threads with the first session.
  os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
  logging.basicConfig(level=logging.INFO)
  environment.prepare_tensorflow()
  loop.Loop = Recording
  mobilenet_v2.BLOCKS = BLOCKS
  if kind == 'qat':
    # Rewriting the graph takes longer than all the steps.
    slim.learning.train = functools.partial(
        without_rewriting, slim.learning.train)
  make_records(folder)
  whole = train(folder, kind + '-whole', kind, steps, save_summaries_secs=0,
                save_interval_secs=1000)
  parts = []
  for number, stop in enumerate(stops + [None]):
    is_killed = number % 2 == 1
    parts += train(folder, kind + '-parts', kind, steps, stop=stop,
                   is_killed=is_killed, save_summaries_secs=1000,
                   save_interval_secs=0 if is_killed else 1000)
  checkpoints = []
  for name in ('whole', 'parts'):
    reader = tf.train.NewCheckpointReader(os.path.join(
        folder, '{}-{}'.format(kind, name), 'model.ckpt-{}'.format(steps)))
    checkpoints.append({
        name: reader.get_tensor(name).tobytes().hex()
        for name in reader.get_variable_to_shape_map()})
  with open(os.path.join(folder, kind + '.json'), 'w') as out:
    json.dump({'whole': whole, 'parts': parts, 'variables': len(checkpoints[0]),
               'differing': sorted(
                   name for name in set(checkpoints[0]) | set(checkpoints[1])
                   if checkpoints[0].get(name) != checkpoints[1].get(name))},
              out)


if __name__ == '__main__':
  main(*sys.argv[1:])
