"""Runs training steps until the last one or a signal."""
import os
import time
from typing import NamedTuple, Optional, Sequence

import tensorflow.compat.v1 as tf

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


class Loop:
  """Runs steps and calls listeners after each."""

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

  def run(self, session: tf.Session, first_step: int,
          listeners: Sequence[listeners_lib.Listener]) -> TrainResult:
    """Runs steps until the last one or a signal.

    Args:
      session: session with initialized variables.
      first_step: number of steps done before.
      listeners: called after each step, in this order.

    Raises:
      InputError: a loss or gradient is not finite.
    """
    started = time.time()
    for listener in listeners:
      listener.begin(session, first_step)
    done = listeners_lib.Done(first_step, float('nan'), False, {})
    while not done.is_last:
      results = self._run_step(session, done, listeners)
      stopped_by = self._host.stop_signal(
          self._request.name, results['signals'])
      step = int(results['done'])
      done = listeners_lib.Done(
          step, float(results['loss']), stopped_by is not None or
          step >= self._options.training_number_of_steps, results)
      for listener in listeners:
        listener.after_step(session, done)
    return TrainResult(
        step=done.step, loss=done.loss, steps_done=done.step - first_step,
        seconds=time.time() - started,
        # A second signal may have arrived during the last save.
        stopped_by=stopped_by and (self._request.name or stopped_by),
        checkpoint=os.path.join(
            self._options.train_logdir, str(self._keeper.newest))
        if self._keeper else None)

  def _run_step(self, session, last, listeners):
    """Runs a step; returns its results, by name."""
    step = self._step
    fetches = {'loss': step.train_op, 'done': step.steps_done,
               'cross_entropy': step.cross_entropy,
               'rate': step.learning_rate, 'signals': step.signals_of_all}
    for listener in listeners:
      fetches.update(listener.fetches())
    feeds = {step.signals: [
        number.name == self._request.name for number in signals.SIGNALS]}
    try:
      return self._profile.run(session, fetches, feeds)
    except tf.errors.InvalidArgumentError as error:
      for what, message in _NOT_FINITE:
        if message in error.message:
          raise InputError(self._not_finite(session, what, last))
      raise

  def _not_finite(self, session, what, last):
    names, rate = session.run(
        [self._batch_names, self._step.learning_rate])
    return ('{} is inf or NaN at step {} (batch: {}; learning rate {:g}; last '
            'finite loss {:.4f}); {} kept'.format(
                what, last.step + 1,
                ', '.join(map(constants.text_of_name, names)), rate, last.loss,
                self._keeper.newest if self._keeper
                else 'the last checkpoint of task 0'))
