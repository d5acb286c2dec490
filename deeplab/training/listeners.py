"""Listeners run after each training step: they log, write events and save."""
import collections
import logging
import os
import time
from typing import Any, Deque, Dict, NamedTuple, Optional

import tensorflow.compat.v1 as tf

from deeplab.checkpoints import saver
from deeplab.config import label_map
from deeplab.config import options as options_lib
from deeplab.distribution import hosts
from deeplab.evaluation import tensorboard
from deeplab.evaluation import visualize
from deeplab.storage import files
from deeplab.system import progress
from deeplab.system import signals

_LOG = logging.getLogger(__name__)
# Steps to profile, counted from the start of this run. The first ones include
# set-up time.
_PROFILED_STEPS = (5, 10, 20)
# Number of steps over which the logged loss is averaged, because it is noisy.
_RUNNING_STEPS = 100
# TensorBoard gets at least this many points of a run, or one of each step.
_LEAST_POINTS = 100


class Done(NamedTuple):
  """Results of a step."""
  # Number of steps done, including this one.
  step: int
  # Total loss before the update.
  loss: float
  # Whether it is the last step of the run.
  is_last: bool
  # All fetched values, by name.
  results: Dict[str, Any]


class Listener:
  """Runs code after each step."""

  def begin(self, session: tf.Session, step: int) -> None:
    """Runs before the first step; `step` steps were done before."""

  def fetches(self, step: int) -> Dict[str, Any]:
    """Returns additional tensors to fetch in a step, by name."""
    return {}

  def after_step(self, session: tf.Session, done: Done) -> None:
    """Runs after a step."""


class Log(Listener):
  """Shows progress and logs losses, learning rate and steps per second."""

  def __init__(self, options: options_lib.TrainOptions, bar: progress.Bar,
               writer: Optional[tensorboard.Writer]):
    """Stores the arguments.

    Args:
      options: the number of steps, and the logging interval.
      bar: progress bar to advance.
      writer: event writer; None: this host writes no events.
    """
    self._options = options
    self._bar = bar
    self._writer = writer
    self._losses: Deque[float] = collections.deque(maxlen=_RUNNING_STEPS)
    self._logged, self._logged_step = 0.0, 0

  def begin(self, session, step):
    """Starts the clock."""
    self._logged, self._logged_step = time.time(), step
    if self._writer:
      # TensorBoard discards events that an interrupted run wrote after it.
      self._writer.add(
          step, session_log=tf.SessionLog(status=tf.SessionLog.START))

  def after_step(self, session, done):
    """Advances the bar, logs at intervals, and writes points."""
    self._losses.append(done.loss)
    mean = sum(self._losses) / len(self._losses)
    self._bar.update(loss='{:.4f}'.format(mean))
    last = self._options.training_number_of_steps
    cross_entropy, rate = done.results['cross_entropy'], done.results['rate']
    # Parity: the tags of mobile_open's train.py and of slim's supervisor.
    point = {'losses/softmax_cross_entropy': cross_entropy,
             'total_loss': done.loss, 'learning_rate': rate}
    is_logged = not done.step % self._options.log_steps or done.step >= last
    if is_logged:
      now = time.time()
      pace = (now - self._logged) / max(done.step - self._logged_step, 1)
      self._logged, self._logged_step = now, done.step
      point['global_step/sec'] = 1 / max(pace, 1e-9)
      _LOG.info('step %d/%d: loss %.4f, cross-entropy %.4f, mean loss of last '
                '%d %.4f, learning rate %.3g, %.3g steps/s, %s left', done.step,
                last, done.loss, cross_entropy, len(self._losses), mean, rate,
                point['global_step/sec'],
                progress.duration(pace * (last - done.step)))
    elif len(self._losses) == 1:
      # The pace of later lines leaves out the set-up in the first step.
      self._logged, self._logged_step = time.time(), done.step
      _LOG.info('step %d/%d: loss %.4f; a line follows every %d steps',
                done.step, last, done.loss, self._options.log_steps)
    if self._writer and (
        is_logged or not done.step % max(1, last // _LEAST_POINTS)):
      self._writer.add(done.step, summary=tf.Summary(value=[
          tf.Summary.Value(tag=tag, simple_value=value)
          for tag, value in point.items()]))


class Summaries(Listener):
  """Writes a summary at intervals in seconds, and of the last step."""

  def __init__(self, summary_op: tf.Tensor, options: options_lib.TrainOptions,
               writer: tensorboard.Writer):
    self._summary_op = summary_op
    self._options = options
    self._writer = writer
    self._fetched = 0.0

  def fetches(self, step):
    """Fetches the summary if it is due."""
    if (time.time() - self._fetched < self._options.save_summaries_secs and
        step < self._options.training_number_of_steps):
      return {}
    self._fetched = time.time()
    return {'summary': self._summary_op}

  def after_step(self, session, done):
    """Writes the summary if it was fetched."""
    if 'summary' in done.results:
      self._writer.add(done.step, summary=tf.Summary.FromString(
          done.results['summary']))


class Samples(Listener):
  """Writes a picture of predictions at intervals in steps."""

  def __init__(self, tensors: Dict[str, tf.Tensor], every_steps: int,
               classes: label_map.LabelMap, writer: tensorboard.Writer):
    """Stores the arguments.

    Args:
      tensors: arguments of visualize.prediction_sheet, by name.
      every_steps: number of steps between two pictures.
      classes: colours and names of the labels.
      writer: event writer.
    """
    self._tensors = tensors
    self._every_steps = every_steps
    self._classes = classes
    self._writer = writer

  def fetches(self, step):
    """Fetches the predictions if a picture is due."""
    return {} if step % self._every_steps else {'sample': self._tensors}

  def after_step(self, session, done):
    """Writes the picture if the predictions were fetched."""
    if 'sample' in done.results:
      self._writer.add(done.step, summary=tf.Summary(value=[tensorboard.picture(
          'samples/predictions', visualize.prediction_sheet(
              label_map=self._classes, **done.results['sample']))]))


class Checkpoints(Listener):
  """Saves between steps, so that all weights belong to one step."""

  def __init__(self, keeper: saver.Keeper, interval_secs: float,
               host: hosts.SingleHost, request: signals.Request):
    """Stores the arguments.

    Args:
      keeper: saves the checkpoints.
      interval_secs: time between two checkpoints.
      host: delays termination during a save.
      request: delays a second signal during a save.
    """
    self._keeper = keeper
    self._interval_secs = interval_secs
    self._host = host
    self._request = request
    self._saved = 0.0

  def begin(self, session, step):
    """Saves if there is no checkpoint yet."""
    self._saved = time.time()
    if not self._keeper.newest:
      self._save(session, step)

  def after_step(self, session, done):
    """Saves if a checkpoint is due."""
    if done.is_last or time.time() - self._saved >= self._interval_secs:
      self._save(session, done.step)

  def _save(self, session, step):
    with self._host.delaying_the_end(), self._request.held():
      self._keeper.save(session, step)
    self._saved = time.time()


class Profile:
  """Runs steps and traces some of them."""

  def __init__(self, folder: Optional[str]):
    """Stores the folder for Chrome timelines; None: no step is traced."""
    self._folder = folder
    self._steps = 0

  def run(self, session: tf.Session, fetches: Any, feeds: Any) -> Any:
    """Runs a step and returns its results."""
    self._steps += 1
    if not self._folder or self._steps not in _PROFILED_STEPS:
      return session.run(fetches, feeds)
    from tensorflow.python.client import timeline  # no public name for it
    metadata = tf.RunMetadata()
    results = session.run(
        fetches, feeds, run_metadata=metadata,
        options=tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE))
    path = os.path.join(
        self._folder, 'timeline-{}.json'.format(results['done']))
    files.write_text(path, timeline.Timeline(
        metadata.step_stats).generate_chrome_trace_format())
    _LOG.info('wrote %s (open in chrome://tracing)', path)
    return results
