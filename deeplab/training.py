"""Training: the step's graph, and the loop around it."""
import logging
import os
import signal
import time
from typing import NamedTuple, Optional

import tensorflow.compat.v1 as tf
import tf_slim as slim

from deeplab import checkpoints
from deeplab import contract
from deeplab import files
from deeplab import losses
from deeplab import options as options_lib
from deeplab import predictors
from deeplab import schedules
from deeplab import stops
from deeplab.data import dataset
from deeplab.data import records
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.nets import deeplab_v3

_LOG = logging.getLogger(__name__)
_NOT_FINITE = 'Loss is inf or nan.'
# Steps of a run that are profiled, where any are: past the first ones' set-up.
_PROFILED_STEPS = (5, 10, 20)
_LARGEST_SUMMARY_IMAGES = 3
# Below this, statistics of a batch are a poor estimate.
_ADVISED_BATCH_NORM_SIZE = 12


class TrainStep(NamedTuple):
  """The tensors of one training step."""
  # Runs the step; float32 scalar, the total loss before the update.
  train_op: tf.Tensor
  # float32 scalar, cross-entropy and regularization.
  total_loss: tf.Tensor
  # float32 scalar.
  learning_rate: tf.Tensor
  # int64 scalar, the number of steps done.
  global_step: tf.Variable
  # int64 scalar, the number of steps done once this one is.
  steps_done: tf.Tensor
  # [batch, height', width', num_classes] float32.
  logits: tf.Tensor


class TrainResult(NamedTuple):
  """How a training run ended."""
  # Global step reached.
  step: int
  # Total loss of the last step.
  loss: float
  # Steps done in this run, and the seconds they took.
  steps_done: int
  seconds: float
  # Name of the signal that ended the run early, or None.
  stopped_by: Optional[str]
  # Prefix of the last checkpoint; None: someone has removed them all.
  checkpoint: Optional[str]


# --- The graph -------------------------------------------------------------


def build_step(
    images: tf.Tensor, labels: tf.Tensor,
    model_options: options_lib.ModelOptions,
    options: options_lib.TrainOptions) -> TrainStep:
  """Builds network, loss and update.

  Args:
    images: [batch, height, width, 3] float32 RGB in [0, 255].
    labels: [batch, height, width, 1] int32 in [0, num_classes).
    model_options: the network's structure.
    options: loss weights, optimizer, rates.

  Returns:
    The step's tensors.
  """
  global_step = tf.train.get_or_create_global_step()
  logits = deeplab_v3.logits(
      contract.scale_to_model_range(images), model_options,
      weight_decay=options.weight_decay, is_training=True,
      train_batch_norm=options.fine_tune_batch_norm)
  losses.softmax_cross_entropy(logits, labels, options.label_weights)
  total_loss = tf.check_numerics(
      tf.losses.get_total_loss(name='sum_of_losses'), _NOT_FINITE)
  learning_rate, optimizer = _optimizer(options, global_step)
  gradients = optimizer.compute_gradients(total_loss)
  multipliers = schedules.gradient_multipliers(
      [variable.op.name for variable in tf.model_variables()], options)
  gradients = [
      (gradient * multipliers.get(variable.op.name, 1.0), variable)
      for gradient, variable in gradients]
  # No weight changes before the loss is known to be finite, and the step is
  # not counted before its learning rate is known.
  with tf.control_dependencies([total_loss, learning_rate]):
    update = optimizer.apply_gradients(gradients, global_step=global_step)
  updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS) + [update]
  with tf.control_dependencies(updates):
    train_op = tf.identity(total_loss, name='train_op')
    steps_done = global_step.read_value()
  return TrainStep(train_op, total_loss, learning_rate, global_step,
                   steps_done, logits)


def _optimizer(options, global_step):
  """Returns (learning rate by the policy, optimizer)."""
  learning_rate = schedules.learning_rate(options, global_step)
  if options.optimizer == 'adam':
    # Parity: mobile_open's train.py gives Adam a constant rate of its own; the
    # policy's is only logged.
    return learning_rate, tf.train.AdamOptimizer(
        options.adam_learning_rate, epsilon=options.adam_epsilon)
  return learning_rate, tf.train.MomentumOptimizer(
      learning_rate, options.momentum)


def _summary_op(batch, step, model_options, with_images):
  """Histograms, losses, learning rate and, if asked, images, in one string."""
  for variable in tf.model_variables():
    tf.summary.histogram(variable.op.name, variable)
  for loss in tf.losses.get_losses():
    tf.summary.scalar('losses/' + loss.op.name, loss)
  tf.summary.scalar('learning_rate', step.learning_rate)
  tf.summary.scalar('total_loss', step.total_loss)
  if with_images:
    predictions = deeplab_v3.predictions(step.logits, model_options)
    palette = tf.constant(contract.PALETTE, tf.uint8)
    for name, images in (
        ('image', tf.cast(batch['image'], tf.uint8)),
        ('label', tf.gather(palette, batch['label'][..., 0])),
        ('prediction', tf.gather(palette, predictions))):
      tf.summary.image('samples/' + name, images, _LARGEST_SUMMARY_IMAGES)
  return tf.summary.merge_all()


# --- The loop --------------------------------------------------------------


def train(*, dataset_options: options_lib.DatasetOptions,
          preprocess_options: options_lib.PreprocessOptions,
          model_options: options_lib.ModelOptions,
          options: options_lib.TrainOptions) -> TrainResult:
  """Trains until the last step, or until SIGINT, SIGTERM or SIGHUP.

  Checkpoints, summaries and the model's options go to options.train_logdir;
  where that folder has a checkpoint already, training resumes from it.

  Args:
    dataset_options: which split, in which batches.
    preprocess_options: what the images become first; its crop size is the
      model's.
    model_options: the network's structure.
    options: all else about the run.

  Returns:
    How it ended.

  Raises:
    InputError: options, records or checkpoints that do not fit; a loss that is
      not finite.
  """
  options.check_with(batch_size=dataset_options.batch_size,
                     num_classes=model_options.num_classes)
  if options.profile_logdir:
    files.check_folder(option('profile_logdir', options.profile_logdir),
                       options.profile_logdir)
  _LOG.info('training with %s', predictors.runtime())
  if (options.fine_tune_batch_norm and not model_options.is_quantized and
      dataset_options.batch_size < _ADVISED_BATCH_NORM_SIZE):
    _LOG.warning('%s with %s: batch statistics want %d or more',
                 option('fine_tune_batch_norm', True),
                 option('batch_size', dataset_options.batch_size),
                 _ADVISED_BATCH_NORM_SIZE)
  resumes = _prepare_logdir(model_options, options)
  with tf.Graph().as_default():
    if options.seed is not None:
      tf.set_random_seed(options.seed)
    batch = dataset.training_batches(dataset_options, preprocess_options)
    remembered, names = _remember_names(batch['filename'])
    with tf.control_dependencies([remembered]):
      images = tf.identity(batch['image'])
    step = build_step(images, batch['label'], model_options, options)
    summary_op = _summary_op(
        batch, step, model_options, options.save_summaries_images)
    initialize = None
    if options.tf_initial_checkpoint and not resumes:
      initialize = checkpoints.initializer_from(
          options.tf_initial_checkpoint, tf.global_variables(),
          () if options.initialize_last_layer
          else schedules.last_layer_scopes(options))
    checkpoints.write_options(
        options.train_logdir, model_options, optimizer=options.optimizer)
    paths = records.find_shards(
        dataset_options.dataset_dir, dataset_options.split)
    with _StopSignals() as signals, dataset.explaining_read_errors(paths):
      # Deviates: the reference computes summaries in a thread, on a batch of
      # their own; here they belong to a step, and a seed decides everything.
      writer = tf.summary.FileWriter(options.train_logdir)
      saver = tf.train.Saver(max_to_keep=options.max_checkpoints_to_keep)
      loop = _Loop(step, options, batch_names=names, summary_op=summary_op,
                   writer=writer, saver=saver, signals=signals)
      # Deviates: the reference saves in a thread, in the middle of steps. Such
      # a save may end after the last one, and name an older step the newest.
      # Nor does a thread count steps here: TensorFlow 2 has it start out eager.
      slim.learning.train(
          step.train_op, options.train_logdir, train_step_fn=loop.run_step,
          global_step=step.global_step, number_of_steps=None,
          init_fn=initialize, summary_op=None, summary_writer=writer,
          saver=saver, save_interval_secs=0, save_summaries_secs=0,
          session_config=tf.ConfigProto(allow_soft_placement=True))
  return loop.result(signals.received)


def _prepare_logdir(model_options, options):
  """Checks the folder; returns whether it has a checkpoint to resume from."""
  folder = options.train_logdir
  os.makedirs(folder, exist_ok=True)
  latest = checkpoints.find_latest(folder)
  if not latest:
    return False
  step = checkpoints.step_of(latest)
  if step >= options.training_number_of_steps:
    raise InputError(
        '{}: already at step {}; raise {} or use a new {}',
        option('train_logdir', folder), step,
        option('training_number_of_steps', options.training_number_of_steps),
        option('train_logdir'))
  checkpoints.check_resumable(
      folder, model_options, optimizer=options.optimizer)
  _LOG.info('RESUMING from step %d of %s', step, folder)
  if options.tf_initial_checkpoint:
    _LOG.info('%s ignored: the run had started already',
              option('tf_initial_checkpoint'))
  return True


def _remember_names(filenames):
  """Keeps the current batch's file names where a failed step can't lose them.

  Returns:
    (operation that stores the names, variable that holds them).
  """
  names = tf.get_local_variable(
      'batch_filenames', initializer=tf.fill(filenames.shape, ''),
      trainable=False)
  return tf.assign(names, filenames).op, names


class _StopSignals:
  """Context in which a signal asks for a stop at the next step."""

  def __init__(self):
    self.received = None
    self._previous = {}

  def __enter__(self):
    for number in stops.SIGNALS:
      if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
        self._previous[number] = signal.signal(number, self._receive)
    return self

  def __exit__(self, *unused_exception):
    for number, handler in self._previous.items():
      signal.signal(number, handler)

  def _receive(self, number, unused_frame):
    name = signal.Signals(number).name
    if self.received:
      raise KeyboardInterrupt  # the second time, at once
    self.received = name
    _LOG.info('%s received: saving a checkpoint after this step', name)


class _Loop:
  """Around steps: checkpoints, log, summaries, profile, stop, diagnosis."""

  def __init__(self, step, options, *, batch_names, summary_op, writer, saver,
               signals):
    self._step = step
    self._options = options
    self._names = batch_names
    self._summary_op = summary_op
    self._writer = writer
    self._saver = saver
    self._signals = signals
    # Times; 0: not yet.
    self._summarized = self._saved = self._started = self._logged = 0.0
    self._first_step = self._logged_step = 0
    self._last = (0, float('nan'))

  def run_step(self, session, train_op, unused_global_step, unused_kwargs):
    """Runs one step; the signature slim.learning.train asks for.

    Returns:
      (total loss, whether to stop).
    """
    if not self._started:
      self._start(session)
    profiled = (self._options.profile_logdir and
                self._last[0] - self._first_step + 1 in _PROFILED_STEPS)
    run = self._run_profiled if profiled else type(session).run
    fetches = [train_op, self._step.steps_done, self._step.learning_rate]
    if time.time() - self._summarized >= self._options.save_summaries_secs:
      self._summarized = time.time()
      fetches.append(self._summary_op)
    try:
      loss, done, rate, *summary = run(session, fetches)
    except tf.errors.InvalidArgumentError as error:
      if _NOT_FINITE in error.message:
        raise InputError(self._not_finite(session))
      raise
    self._last = (done, float(loss))
    for serialized in summary:
      self._writer.add_summary(serialized, done)
    is_last = done >= self._options.training_number_of_steps
    if done % self._options.log_steps == 0 or is_last:
      self._log(done, loss, rate)
    ends = is_last or bool(self._signals.received)
    # The last step is saved by slim, once the loop is left.
    if not ends and (
        time.time() - self._saved >= self._options.save_interval_secs):
      self._save(session)
    return loss, ends

  def _start(self, session):
    self._first_step = self._logged_step = int(
        session.run(self._step.global_step))
    self._last = (self._first_step, float('nan'))
    self._started = self._logged = self._saved = time.time()
    if not self._first_step:
      self._save(session)

  def _save(self, session):
    self._saver.save(
        session, os.path.join(self._options.train_logdir, 'model.ckpt'),
        global_step=self._step.global_step)
    self._saved = time.time()

  def _log(self, done, loss, rate):
    now = time.time()
    pace = (now - self._logged) / max(done - self._logged_step, 1)
    remaining = pace * (self._options.training_number_of_steps - done)
    _LOG.info('step %d/%d: loss %.4f, learning rate %.3g, %.3f s/step, '
              '%s left', done, self._options.training_number_of_steps, loss,
              # A day later %H begins again at 0.
              rate, pace, time.strftime('%H:%M:%S', time.gmtime(remaining))
              if remaining < 86400 else '{:.1f} days'.format(remaining / 86400))
    # Parity: mobile_open's train.py has a thread of slim's supervisor write it.
    self._writer.add_summary(tf.Summary(value=[tf.Summary.Value(
        tag='global_step/sec', simple_value=1 / max(pace, 1e-9))]), done)
    self._logged, self._logged_step = now, done

  def _run_profiled(self, session, fetches):
    """Runs a step with a full trace; writes a Chrome timeline of it."""
    from tensorflow.python.client import timeline  # no public name for it
    metadata = tf.RunMetadata()
    results = session.run(
        fetches, run_metadata=metadata,
        options=tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE))
    path = os.path.join(self._options.profile_logdir,
                        'timeline-{}.json'.format(results[1]))
    files.write_text(path, timeline.Timeline(
        metadata.step_stats).generate_chrome_trace_format())
    _LOG.info('wrote %s (open in chrome://tracing)', path)
    return results

  def _not_finite(self, session):
    done, loss = self._last
    names, rate = session.run([self._names, self._step.learning_rate])
    latest = checkpoints.find_latest(self._options.train_logdir)
    return ('loss is inf or NaN at step {} (batch: {}; learning rate {:g}; '
            'last finite loss {:.4f}); {} kept'.format(
                done + 1, ', '.join(map(contract.text_of_name, names)), rate,
                loss, os.path.basename(latest) if latest else 'no checkpoint'))

  def result(self, stopped_by):
    """Returns the TrainResult of the run."""
    done, loss = self._last
    return TrainResult(
        step=done, loss=loss, steps_done=done - self._first_step,
        seconds=time.time() - self._started, stopped_by=stopped_by,
        checkpoint=checkpoints.find_latest(self._options.train_logdir))
