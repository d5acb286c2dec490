"""Runs training steps in slim's loop, until the last one or a signal."""
import contextlib
import os
import time
from typing import Callable, NamedTuple, Optional, Sequence

import tensorflow.compat.v1 as tf
import tf_slim as slim

from deeplab import constants
from deeplab.checkpoints import saver
from deeplab.config import options as options_lib
from deeplab.distribution import hosts
from deeplab.errors import InputError
from deeplab.system import signals
from deeplab.training import listeners as listeners_lib
from deeplab.training import mixed_precision
from deeplab.training import step as step_lib

# Names of checked values, and the messages of the operations that check them.
_NOT_FINITE = (('loss', step_lib.LOSS_NOT_FINITE),
               ('gradient', mixed_precision.NOT_FINITE))


class TrainResult(NamedTuple):
  """The result of a training run."""
  # Global step reached.
  step: int
  # Total loss of the last step.
  loss: float
  # Number of steps in this run, and their duration.
  steps_done: int
  seconds: float
  # Name of the signal that ended the run early, or None.
  stopped_by: Optional[str]
  # Prefix of the checkpoint of that step; None: only the chief has it.
  checkpoint: Optional[str]


@contextlib.contextmanager
def _errors_that_slim_shows():
  """Context that turns errors that slim's loop hides into another one.

  After an AbortedError, such as a lost host's, slim begins again; after an
  OutOfRangeError it ends.
  """
  try:
    yield
  except (tf.errors.AbortedError, tf.errors.OutOfRangeError) as error:
    raise tf.errors.UnavailableError(error.node_def, error.op, error.message)


class Loop:
  """Slim's loop, with listeners that are called after each step."""

  def __init__(self, step: step_lib.TrainStep, batch_names: tf.Variable,
               options: options_lib.TrainOptions,
               host: hosts.SingleHost, request: signals.Request,
               keeper: Optional[saver.Keeper]):
    """Stores the arguments.

    Args:
      step: the tensors of a step.
      batch_names: file names of the images of the last batch.
      options: the number of steps, and the folder for profiles.
      host: this host.
      request: the signals received.
      keeper: saves checkpoints; None: this host is not the chief.
    """
    self._step = step
    self._batch_names = batch_names
    self._options = options
    self._host = host
    self._request = request
    self._keeper = keeper
    self._profile = listeners_lib.Profile(
        options.profile_logdir if host.is_chief else None)
    self._listeners: Sequence[listeners_lib.Listener] = ()
    self._done = listeners_lib.Done(0, float('nan'), False, {})
    self._stopped_by: Optional[str] = None

  def run(self, first_step: int, restore: Callable[[tf.Session], None],
          listeners: Sequence[listeners_lib.Listener]) -> TrainResult:
    """Runs steps until the last one or a signal.

    Args:
      first_step: number of steps done before.
      restore: gives initialized variables their values of a checkpoint.
      listeners: called after each step, in this order.

    Raises:
      InputError: a loss or gradient is not finite.
    """
    self._listeners = listeners
    self._done = self._done._replace(step=first_step)
    started = time.time()

    def begin(session):
      with _errors_that_slim_shows():
        restore(session)
      for listener in listeners:
        listener.begin(session, first_step)

    # Deviates: without a folder, slim starts no thread and saves nothing. The
    # reference's supervisor restores on its own, saves in a thread during
    # steps, and ignores errors of the last save. Its summaries describe a
    # separate batch; here they describe a step. Slim's check that variables
    # have values would take seconds, and its own initializers run before it.
    slim.learning.train(
        self._step.train_op, logdir=None, master=self._host.target,
        train_step_fn=self._train_step, train_step_kwargs={}, init_fn=begin,
        ready_op=None, session_config=self._host.config)
    return TrainResult(
        step=self._done.step, loss=self._done.loss,
        steps_done=self._done.step - first_step,
        seconds=time.time() - started,
        # A second signal may have arrived during the last save.
        stopped_by=self._stopped_by and (
            self._request.name or self._stopped_by),
        checkpoint=os.path.join(
            self._options.train_logdir, str(self._keeper.newest))
        if self._keeper else None)

  def _train_step(self, session, *unused):
    """Runs a step and the listeners; returns its loss, and if it is the last.

    Slim calls it.
    """
    with _errors_that_slim_shows():
      results = self._run_step(session)
    self._stopped_by = self._host.stop_signal(
        self._request.name, results['signals'])
    step = int(results['done'])
    self._done = listeners_lib.Done(
        step, float(results['loss']), self._stopped_by is not None or
        step >= self._options.training_number_of_steps, results)
    for listener in self._listeners:
      listener.after_step(session, self._done)
    return self._done.loss, self._done.is_last

  def _run_step(self, session):
    """Runs a step; returns its results, by name."""
    step = self._step
    fetches = {'loss': step.train_op, 'done': step.steps_done,
               'cross_entropy': step.cross_entropy,
               'rate': step.learning_rate, 'signals': step.signals_of_all}
    for listener in self._listeners:
      fetches.update(listener.fetches(self._done.step + 1))
    feeds = {step.signals: [
        number.name == self._request.name for number in signals.SIGNALS]}
    try:
      return self._profile.run(session, fetches, feeds)
    except tf.errors.InvalidArgumentError as error:
      for what, message in _NOT_FINITE:
        if message in error.message:
          raise InputError(self._not_finite(session, what))
      raise

  def _not_finite(self, session, what):
    names, rate = session.run(
        [self._batch_names, self._step.learning_rate])
    return ('{} is inf or NaN at step {} (batch: {}; learning rate {:g}; last '
            'finite loss {:.4f}); {} kept'.format(
                what, self._done.step + 1,
                ', '.join(map(constants.text_of_name, names)), rate,
                self._done.loss,
                self._keeper.newest if self._keeper
                else 'the last checkpoint of task 0'))
