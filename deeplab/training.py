"""Training: the step's graph, and the loop around it."""
import collections
import contextlib
import logging
import os
import signal
import time
from typing import Deque, NamedTuple, Optional

import tensorflow.compat.v1 as tf

from deeplab import checkpoints
from deeplab import contract
from deeplab import events
from deeplab import files
from deeplab import locks
from deeplab import losses
from deeplab import options as options_lib
from deeplab import predictors
from deeplab import progress
from deeplab import saving
from deeplab import schedules
from deeplab import stops
from deeplab import storage
from deeplab import visualize
from deeplab.data import dataset
from deeplab.data import records
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.nets import batch_norm
from deeplab.nets import deeplab_v3

_LOG = logging.getLogger(__name__)
_NOT_FINITE = 'Loss is inf or nan.'
# Steps of a run that are profiled, where any are: past the first ones' set-up.
_PROFILED_STEPS = (5, 10, 20)
_LARGEST_SUMMARY_IMAGES = 3
# Steps whose mean loss is shown: that of one step says little of a run.
_RUNNING_STEPS = 100
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
  # Prefix of the last checkpoint, which is of that step.
  checkpoint: str


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
  is_fused = (batch_norm.folds_by_default() if options.fused_step is None
              else options.fused_step)
  logits = deeplab_v3.logits(
      contract.scale_to_model_range(images), model_options,
      weight_decay=options.weight_decay, is_training=True,
      train_batch_norm=options.fine_tune_batch_norm,
      fold_batch_norm=is_fused,
      dropout_seed=_seed_of_step(options, global_step))
  losses.softmax_cross_entropy(
      logits, labels, options.label_weights, is_fused=is_fused)
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


def _seed_of_step(options, global_step):
  """Returns two integers for the randomness of a step, or None.

  The state of TensorFlow's own generators is not in a checkpoint.
  """
  if options.seed is None:
    return None
  return tf.stack([tf.constant(options.seed, tf.int64),
                   tf.cast(global_step, tf.int64)])


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


def _sample(batch, step, model_options):
  """Returns the tensors of a picture of predictions, by their name there."""
  arrays = {
      'images': batch['image'], 'labels': batch['label'][..., 0],
      'predictions': deeplab_v3.predictions(step.logits, model_options)}
  return {name: array[:_LARGEST_SUMMARY_IMAGES]
          for name, array in arrays.items()}


# --- The loop --------------------------------------------------------------


def train(*, dataset_options: options_lib.DatasetOptions,
          preprocess_options: options_lib.PreprocessOptions,
          model_options: options_lib.ModelOptions,
          options: options_lib.TrainOptions) -> TrainResult:
  """Trains until the last step, or until SIGINT, SIGTERM or SIGHUP.

  Checkpoints, summaries and the model's options go to options.train_logdir;
  where that folder has a checkpoint already, training resumes from it. With a
  seed, and on one core, the batches, losses and weights are then those of a run
  that was not interrupted.

  Args:
    dataset_options: which split, in which batches.
    preprocess_options: what the images become first; its crop size is the
      model's.
    model_options: the network's structure.
    options: all else about the run.

  Returns:
    How it ended.

  Raises:
    InputError: options, records or checkpoints that do not fit; a loss or a
      weight that is not finite; a checkpoint that cannot be saved; another
      process that trains in that folder.
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
  storage.make_folder(options.train_logdir)
  with _alone_in(options.train_logdir), tf.Graph().as_default():
    return _train_alone(
        dataset_options, preprocess_options, model_options, options)


@contextlib.contextmanager
def _alone_in(folder):
  """Context in which no other process trains in a folder."""
  with contextlib.ExitStack() as stack:
    try:
      stack.enter_context(locks.exclusive(folder))
    except BlockingIOError:
      raise InputError('{}: another process is training there; wait for its '
                       'end, or use a new {}', option('train_logdir', folder),
                       option('train_logdir'))
    except OSError as error:
      _LOG.warning('%s: no lock (%s): take care that no other process trains '
                   'there', option('train_logdir', folder), error.strerror)
    else:
      saving.remove_leftovers(folder)
    yield


def _train_alone(dataset_options, preprocess_options, model_options, options):
  """Trains in the default graph; see train."""
  resumed, first_step = _resumed(model_options, options)
  if options.seed is not None:
    tf.set_random_seed(options.seed)
  batch = dataset.training_batches(
      dataset_options, preprocess_options, first_step)
  remembered, names = _remember_names(batch['filename'])
  with tf.control_dependencies([remembered]):
    images = tf.identity(batch['image'])
  step = build_step(images, batch['label'], model_options, options)
  summary_op = _summary_op(
      batch, step, model_options, options.save_summaries_images)
  sample = (_sample(batch, step, model_options)
            if options.save_predictions_steps else None)
  initialize = None
  if resumed:
    initialize = checkpoints.resumer_from(resumed, tf.global_variables())
  elif options.tf_initial_checkpoint:
    initialize = checkpoints.initializer_from(
        options.tf_initial_checkpoint, tf.global_variables(),
        () if options.initialize_last_layer
        else schedules.last_layer_scopes(options),
        strict=options.strict_checkpoint)
  keeper = saving.Keeper(
      options.train_logdir, max_to_keep=options.max_checkpoints_to_keep,
      resumed=resumed)
  checkpoints.write_options(
      options.train_logdir, model_options, optimizer=options.optimizer)
  initializers = [tf.global_variables_initializer(),
                  tf.local_variables_initializer(), tf.tables_initializer()]
  paths = records.find_shards(
      dataset_options.dataset_dir, dataset_options.split)
  # Deviates: the reference has slim's supervisor do what follows. It restores
  # what it finds itself, saves in a thread, in the middle of steps, and passes
  # over errors of the last save. Summaries are on a batch of their own there;
  # here they belong to a step, and a seed decides everything.
  with _StopSignals() as signals, dataset.explaining_read_errors(paths), (
      events.Writer(options.train_logdir)) as writer, (
      tf.Session(config=tf.ConfigProto(allow_soft_placement=True))) as session:
    writer.add(first_step, graph_def=(
        tf.get_default_graph().as_graph_def().SerializeToString()))
    session.run(initializers)
    if initialize:
      initialize(session)
    with progress.Bar(options.training_number_of_steps, 'training', unit='step',
                      done=first_step, logs=False) as bar:
      loop = _Loop(step, options, batch_names=names, summary_op=summary_op,
                   sample=sample, writer=writer, keeper=keeper, signals=signals,
                   bar=bar)
      return loop.run(session)


def _resumed(model_options, options):
  """Returns (prefix to resume from or None, its step)."""
  folder = options.train_logdir
  newest = checkpoints.Newest(folder, strict=options.strict_checkpoint)
  prefix = newest.find()
  if not prefix:
    if newest.problems:
      raise InputError('{}: {}; no checkpoint to resume from: use a new {}',
                       option('train_logdir', folder),
                       '; '.join(newest.problems), option('train_logdir'))
    return None, 0
  step = checkpoints.global_step_in(prefix)
  if step >= options.training_number_of_steps:
    raise InputError(
        '{}: already at step {}; raise {} or use a new {}',
        option('train_logdir', folder), step,
        option('training_number_of_steps', options.training_number_of_steps),
        option('train_logdir'))
  checkpoints.check_resumable(
      folder, model_options, optimizer=options.optimizer)
  _LOG.info('RESUMING from step %d of %s', step, prefix)
  if options.tf_initial_checkpoint:
    _LOG.info('%s ignored: the run had started already',
              option('tf_initial_checkpoint'))
  return prefix, step


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
  """Steps, and around them checkpoints, log, summaries, profile, diagnosis."""

  def __init__(self, step, options, *, batch_names, summary_op, sample, writer,
               keeper, signals, bar):
    self._step = step
    self._options = options
    self._names = batch_names
    self._summary_op = summary_op
    self._sample = sample
    self._writer = writer
    self._keeper = keeper
    self._signals = signals
    self._bar = bar
    self._losses: Deque[float] = collections.deque(maxlen=_RUNNING_STEPS)
    # Times; 0: not yet.
    self._summarized = self._saved = self._logged = 0.0
    self._first_step = self._logged_step = 0
    # Step reached, and its loss.
    self._last = (0, float('nan'))

  def run(self, session):
    """Runs steps until the last one or a signal; returns a TrainResult."""
    self._first_step = self._logged_step = int(
        session.run(self._step.global_step))
    self._last = (self._first_step, float('nan'))
    started = self._logged = self._saved = time.time()
    # TensorBoard drops what a run that was cut off had written after it.
    self._writer.add(self._first_step, session_log=tf.SessionLog(
        status=tf.SessionLog.START))
    if not self._keeper.newest:
      self._save(session)
    ends = False
    while not ends:
      self._run_step(session)
      ends = bool(self._signals.received) or (
          self._last[0] >= self._options.training_number_of_steps)
      # Between steps: in the middle of one, weights would be of two.
      if ends or (
          time.time() - self._saved >= self._options.save_interval_secs):
        self._save(session)
    done, loss = self._last
    return TrainResult(
        step=done, loss=loss, steps_done=done - self._first_step,
        seconds=time.time() - started, stopped_by=self._signals.received,
        checkpoint=os.path.join(
            self._options.train_logdir, self._keeper.newest))

  def _run_step(self, session):
    profiled = (self._options.profile_logdir and
                self._last[0] - self._first_step + 1 in _PROFILED_STEPS)
    run = self._run_profiled if profiled else type(session).run
    fetches = [self._step.train_op, self._step.steps_done,
               self._step.learning_rate]
    more = {}
    if time.time() - self._summarized >= self._options.save_summaries_secs:
      self._summarized = time.time()
      more['summary'] = self._summary_op
    if self._sample and (
        (self._last[0] + 1) % self._options.save_predictions_steps == 0):
      more['sample'] = self._sample
    try:
      loss, done, rate, more = run(session, fetches + [more])
    except tf.errors.InvalidArgumentError as error:
      if _NOT_FINITE in error.message:
        raise InputError(self._not_finite(session))
      raise
    self._last = (int(done), float(loss))
    self._losses.append(float(loss))
    self._bar.update(loss='{:.4f}'.format(self._running_loss()))
    if 'summary' in more:
      self._writer.add(
          int(done), summary=tf.Summary.FromString(more['summary']))
    if 'sample' in more:
      self._writer.add(int(done), summary=tf.Summary(value=[events.picture(
          'samples/predictions', visualize.prediction_sheet(
              **more['sample']))]))
    if done % self._options.log_steps == 0 or (
        done >= self._options.training_number_of_steps):
      self._log(done, loss, rate)

  def _running_loss(self):
    return sum(self._losses) / len(self._losses)

  def _save(self, session):
    self._keeper.save(session, self._last[0])
    self._saved = time.time()

  def _log(self, done, loss, rate):
    now = time.time()
    pace = (now - self._logged) / max(done - self._logged_step, 1)
    remaining = pace * (self._options.training_number_of_steps - done)
    _LOG.info('step %d/%d: loss %.4f, mean of last %d %.4f, learning rate '
              '%.3g, %.3g steps/s, %s left', done,
              self._options.training_number_of_steps, loss, len(self._losses),
              self._running_loss(), rate, 1 / max(pace, 1e-9),
              progress.duration(remaining))
    # Parity: mobile_open's train.py has a thread of slim's supervisor write it.
    self._writer.add(int(done), summary=tf.Summary(value=[tf.Summary.Value(
        tag='global_step/sec', simple_value=1 / max(pace, 1e-9))]))
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
    return ('loss is inf or NaN at step {} (batch: {}; learning rate {:g}; '
            'last finite loss {:.4f}); {} kept'.format(
                done + 1, ', '.join(map(contract.text_of_name, names)), rate,
                loss, self._keeper.newest))
