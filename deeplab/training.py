"""Training: the step's graph, and the loop around it."""
import collections
import contextlib
import functools
import json
import logging
import os
import random
import time
from typing import Deque, NamedTuple, Optional

import tensorflow.compat.v1 as tf

from deeplab import checkpoints
from deeplab import cluster as cluster_lib
from deeplab import contract
from deeplab import events
from deeplab import files
from deeplab import label_map
from deeplab import locks
from deeplab import losses
from deeplab import mixed_precision
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
from deeplab.data import splits
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.nets import batch_norm
from deeplab.nets import batch_parts
from deeplab.nets import deeplab_v3
from deeplab.nets import quantize

_LOG = logging.getLogger(__name__)
_NOT_FINITE = 'Loss is inf or nan.'
# Steps to profile. The first ones include set-up time.
_PROFILED_STEPS = (5, 10, 20)
_LARGEST_SUMMARY_IMAGES = 3
# Number of steps whose mean loss is logged: one step's loss varies much.
_RUNNING_STEPS = 100
# Options that may differ between hosts: paths, and settings that only the
# chief uses. They do not decide the steps of a run.
_OF_ONE_TASK = (
    'dataset_dir', 'train_logdir', 'tf_initial_checkpoint', 'profile_logdir',
    'log_steps', 'save_interval_secs', 'save_summaries_secs',
    'save_summaries_images', 'save_predictions_steps',
    'max_checkpoints_to_keep', 'strict_checkpoint', 'verify_records')
# Keys of the exchanges between hosts in a step.
_COUNT_EXCHANGE, _STEP_EXCHANGE = 1, 2
# Smaller batches give poor statistics.
_ADVISED_BATCH_NORM_SIZE = 12


class TrainStep(NamedTuple):
  """The tensors of one training step."""
  # Runs the step; float32 scalar, the total loss before the update.
  train_op: tf.Tensor
  # float32 scalar, the part of the loss that is not regularization.
  cross_entropy: tf.Tensor
  # float32 scalar, that of the optimizer.
  learning_rate: tf.Tensor
  # int64 scalar, the number of steps done.
  global_step: tf.Variable
  # int64 scalar, the number of steps done after this one.
  steps_done: tf.Tensor
  # [batch, height', width', num_classes] float32, of this host.
  logits: tf.Tensor
  # To be fed with a 1 for each of stops.SIGNALS that this host has received;
  # float32.
  signals: Optional[tf.Tensor] = None
  # Of the same shape: above 0 if any host has received it.
  signals_of_all: Optional[tf.Tensor] = None


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
  # Prefix of the checkpoint of that step; None: the chief saved it.
  checkpoint: Optional[str]


# --- The graph -------------------------------------------------------------


def build_step(
    images: tf.Tensor, labels: tf.Tensor,
    model_options: options_lib.ModelOptions,
    options: options_lib.TrainOptions,
    split: batch_parts.Split = batch_parts.UNSPLIT) -> TrainStep:
  """Builds network, loss and update.

  Args:
    images: [batch, height, width, 3] float32 RGB in [0, 255], of this host.
    labels: [batch, height, width, 1] int32 in [0, num_classes).
    model_options: the network's structure.
    options: loss weights, optimizer, rates.
    split: how the batch is split over hosts and their devices; only batch norm
      in training mode depends on it.

  Returns:
    The step's tensors.
  """
  global_step = tf.train.get_or_create_global_step()
  is_fused = options.fused_step
  if is_fused is None:
    # Sums by matrix products need more than 16 bits.
    is_fused = batch_norm.folds_by_default() and not options.mixed_precision
  dropout_seed = _seed_of_step(options, global_step)
  parts = batch_parts.Parts(split)
  logits, sums = [], []
  for part, part_images, part_labels in zip(
      parts, parts.of(images), parts.of(labels)):
    with part.scope():
      logits.append(deeplab_v3.logits(
          contract.scale_to_model_range(part_images), model_options,
          weight_decay=options.weight_decay, is_training=True,
          train_batch_norm=options.fine_tune_batch_norm,
          fold_batch_norm=is_fused, dropout_seed=dropout_seed, part=part))
      sums.append(losses.sum_over_pixels(
          logits[-1], part_labels, options.label_weights, is_fused=is_fused))
  # With the mean count of all hosts, the mean of the hosts' losses is the loss
  # of the whole batch.
  cross_entropy = losses.mean(
      sums, lambda count: split.over_hosts([count], _COUNT_EXCHANGE)[0])
  total_loss = tf.losses.get_total_loss(name='sum_of_losses')
  learning_rate, optimizer = _optimizer(options, global_step)
  if options.mixed_precision:
    optimizer, loss_scale = mixed_precision.scaling(optimizer)
  computed = optimizer.compute_gradients(
      total_loss, colocate_gradients_with_ops=split.clones > 1)
  variables = [variable for _, variable in computed]
  multipliers = schedules.gradient_multipliers(
      [variable.op.name for variable in tf.model_variables()], options)
  gradients = [
      gradient * multipliers.get(variable.op.name, 1.0)
      for gradient, variable in computed]
  for gradient, variable in zip(gradients, variables):
    gradient.set_shape(variable.shape)
  moves = parts.changes_of_host()
  signals = tf.placeholder_with_default(
      tf.zeros([len(stops.SIGNALS)]), [len(stops.SIGNALS)])
  of_host = [total_loss, cross_entropy, signals, gradients,
             [change for _, change in moves]]
  total_loss, cross_entropy, signals_of_all, gradients, changes = (
      tf.nest.pack_sequence_as(of_host, split.over_hosts(
          tf.nest.flatten(of_host), _STEP_EXCHANGE)))
  total_loss = tf.check_numerics(total_loss, _NOT_FINITE)
  pairs = list(zip(gradients, variables))
  # No weight changes before the loss is known to be finite, and the step is
  # not counted before its learning rate is known.
  with tf.control_dependencies([total_loss, learning_rate]):
    update = (
        mixed_precision.apply_gradients(
            optimizer, loss_scale, pairs, global_step)
        if options.mixed_precision
        else optimizer.apply_gradients(pairs, global_step=global_step))
    updates = [update] + [tf.assign_sub(average, change) for (
        average, _), change in zip(moves, changes)]
  with tf.control_dependencies(
      tf.get_collection(tf.GraphKeys.UPDATE_OPS) + updates):
    train_op = tf.identity(total_loss, name='train_op')
    steps_done = global_step.read_value()
  return TrainStep(
      train_op, cross_entropy, learning_rate, global_step, steps_done,
      tf.concat(logits, 0), signals, signals_of_all)


def _seed_of_step(options, global_step):
  """Returns two integers for the randomness of a step, or None.

  The state of TensorFlow's own generators is not in a checkpoint.
  """
  return None if options.seed is None else tf.stack([
      tf.constant(options.seed, tf.int64), tf.cast(global_step, tf.int64)])


def _optimizer(options, global_step):
  """Returns (its learning rate, optimizer)."""
  if options.optimizer == 'adam':
    # Parity: mobile_open's train.py gives Adam a constant rate of its own.
    # Deviates: it logs the policy's rate all the same, which Adam does not use.
    return tf.constant(options.adam_learning_rate), tf.train.AdamOptimizer(
        options.adam_learning_rate, epsilon=options.adam_epsilon)
  learning_rate = schedules.learning_rate(options, global_step)
  return learning_rate, tf.train.MomentumOptimizer(
      learning_rate, options.momentum)


def _summary_op(batch, step, model_options, with_images):
  """Histograms of the weights and, if asked, images, in one string."""
  # Deviates: tf.summary.histogram, which the reference calls, appends _1 to the
  # variables' names.
  summaries = [
      tf.raw_ops.HistogramSummary(tag=variable.op.name, values=variable)
      for variable in tf.model_variables()]
  if with_images:
    predictions = deeplab_v3.predictions(step.logits, model_options)
    palette = tf.constant(model_options.classes.palette, tf.uint8)
    for name, images in (
        ('image', tf.cast(batch['image'], tf.uint8)),
        ('label', tf.gather(palette, batch['label'][..., 0])),
        ('prediction', tf.gather(palette, predictions))):
      summaries.append(tf.summary.image(
          'samples/' + name, images, _LARGEST_SUMMARY_IMAGES))
  return tf.summary.merge(summaries)


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
          options: options_lib.TrainOptions,
          distribution_options: Optional[
              options_lib.DistributionOptions] = None) -> TrainResult:
  """Trains until the last step, or until SIGINT, SIGTERM or SIGHUP.

  Checkpoints, summaries and the model's options go to options.train_logdir. If
  that folder has a checkpoint, training resumes from it. With a seed, and on
  one core, batches, losses and weights are then those of a run that was not
  interrupted.

  Args:
    dataset_options: which split, in which batches.
    preprocess_options: how images are prepared; its crop size is the model's.
    model_options: the network's structure.
    options: everything else about the run.
    distribution_options: devices and hosts; None: one device of this host. Each
      host passes its own task, and otherwise the same.

  Returns:
    How it ended.

  Raises:
    InputError: options, records or checkpoints that do not fit; a loss or a
      weight that is not finite; a checkpoint that cannot be saved; another
      process that trains in that folder.
  """
  model_options = model_options.with_classes(
      splits.label_map_of(dataset_options))
  distribution_options = (
      distribution_options or options_lib.DistributionOptions())
  parts = distribution_options.parts
  options.check_with(model_options, batch_size=dataset_options.batch_size,
                     parts=parts)
  if parts > 1 and (
      quantize.implementation(model_options) == options_lib.CONTRIB):
    # It rewrites the graph of one finished network.
    raise InputError(
        '{}: the rewrite of TensorFlow 1.15 knows nothing of parts of a batch, '
        'here {}; add {}', option('quantize_delay_step',
                                  model_options.quantize_delay_step), parts,
        option('fake_quant', options_lib.LAYERS))
  if options.mixed_precision:
    mixed_precision.check(model_options, parts)
  if options.profile_logdir:
    files.check_folder(option('profile_logdir', options.profile_logdir),
                       options.profile_logdir)
  _LOG.info('training with %s', predictors.runtime())
  if model_options.num_classes == 2:
    _LOG.warning('%s: %s', option('num_classes', 2), label_map.ONE_CLASS)
  if (options.fine_tune_batch_norm and not model_options.is_quantized and
      dataset_options.batch_size < _ADVISED_BATCH_NORM_SIZE * parts):
    _LOG.warning('%s with %s: batch statistics want %d or more',
                 option('fine_tune_batch_norm', True),
                 option('batch_size', dataset_options.batch_size),
                 _ADVISED_BATCH_NORM_SIZE * parts)
  with contextlib.ExitStack() as stack:
    if distribution_options.task == 0:
      storage.make_folder(options.train_logdir)
      stack.enter_context(_alone_in(options.train_logdir))
    cluster = stack.enter_context(cluster_lib.joined(distribution_options))
    stack.enter_context(cluster.hearing_signals())
    if options.mixed_precision:
      mixed_precision.configure(cluster.config)
    stack.enter_context(tf.Graph().as_default())
    return _train_alone(cluster, dataset_options, preprocess_options,
                        model_options, options)


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


def _train_alone(cluster, dataset_options, preprocess_options, model_options,
                 options):
  """Trains in the default graph; see train."""
  paths = records.find_shards(
      dataset_options.dataset_dir, dataset_options.split)
  recipe = _recipe(dataset_options, preprocess_options, options, paths)
  resumed, first_step = None, 0
  if cluster.saves:
    resumed, first_step = _resumed(model_options, options, recipe)
  goes_on = dataset_options.seed is not None
  dataset_options, first_step = _agreed(
      cluster, dataset_options, model_options, recipe, first_step)
  if options.seed is not None:
    tf.set_random_seed(options.seed)
  split = cluster.split
  batch = dataset.training_batches(
      dataset_options, preprocess_options, first_step if goes_on else 0,
      (split.host, split.hosts))
  # A variable, so that the names of a failed step's batch can be read.
  names = tf.get_local_variable(
      'batch_filenames', initializer=tf.fill(batch['filename'].shape, ''),
      trainable=False)
  with tf.control_dependencies([tf.assign(names, batch['filename']).op]):
    images = tf.identity(batch['image'])
  if quantize.implementation(model_options) == options_lib.CONTRIB:
    _LOG.info('TensorFlow rewrites the network for quantization, which takes a '
              'minute or more before the first step')
  step = build_step(images, batch['label'], model_options, options, split)
  restore = keeper = summary_op = sample = None
  if cluster.saves:
    summary_op = _summary_op(
        batch, step, model_options, options.save_summaries_images)
    if options.save_predictions_steps:
      sample = _sample(batch, step, model_options)
    if resumed:
      restore = checkpoints.resumer(resumed, tf.global_variables())
    elif options.tf_initial_checkpoint:
      restore = checkpoints.initializer_from(
          options.tf_initial_checkpoint, tf.global_variables(),
          () if options.initialize_last_layer
          else schedules.last_layer_scopes(options),
          strict=options.strict_checkpoint)
    keeper = saving.Keeper(
        options.train_logdir, max_to_keep=options.max_checkpoints_to_keep,
        resumed=resumed)
    write_options = functools.partial(
        checkpoints.write_options, options.train_logdir, model_options,
        optimizer=options.optimizer, recipe=recipe)
    # A resumed run that cannot save leaves what is there as it is.
    if not resumed:
      write_options()
  initializers = [tf.global_variables_initializer(),
                  tf.local_variables_initializer(), tf.tables_initializer()]
  from_task_0 = cluster.start_from_task_0(tf.global_variables())
  # Deviates: in the reference slim's supervisor does what follows. It restores
  # what it finds itself, saves in a thread, in the middle of steps, and ignores
  # errors of the last save. Its summaries are of a batch of their own; here
  # they belong to a step, and a seed decides everything.
  with contextlib.ExitStack() as stack:
    signals = stack.enter_context(stops.Request())
    stack.enter_context(dataset.explaining_read_errors(
        paths, largest_id=splits.label_map_of(dataset_options).largest_id))
    stack.enter_context(cluster.running())
    writer = stack.enter_context(
        events.Writer(options.train_logdir)) if cluster.saves else None
    session = stack.enter_context(
        tf.Session(cluster.target, config=cluster.config))
    if writer:
      writer.add(first_step, graph_def=(
          tf.get_default_graph().as_graph_def().SerializeToString()))
    session.run(initializers)
    if restore:
      restore(session)
    session.run(from_task_0)
    bar = stack.enter_context(progress.Bar(
        options.training_number_of_steps, 'training', unit='step',
        done=first_step, logs=False))
    loop = _Loop(step, options, batch_names=names, summary_op=summary_op,
                 sample=sample, classes=model_options.classes, writer=writer,
                 keeper=keeper, signals=signals, cluster=cluster, bar=bar)
    result = loop.run(session)
    if resumed:
      write_options()
    cluster.finish()
    return result


def _recipe(dataset_options, preprocess_options, options, paths):
  """Returns what decides the steps, by name, as JSON reads it back."""
  recipe = {name: value
            for given in (dataset_options, preprocess_options, options)
            for name, value in given._asdict().items()
            if name not in _OF_ONE_TASK}
  recipe['records'] = [(os.path.basename(path), storage.size(path))
                       for path in paths]
  return json.loads(json.dumps(recipe))


def _agreed(cluster, dataset_options, model_options, recipe, first_step):
  """Makes sure that all tasks train the same.

  Returns:
    DatasetOptions with a seed that all tasks have, the first step of task 0.

  Raises:
    InputError: what decides the steps is not the same in all tasks.
  """
  cluster.check_equal(option('num_clones'), cluster.split.clones)
  if cluster.split.hosts > 1:
    recipe = dict(recipe)
    shards = recipe.pop('records')
    cluster.check_equal('options', [
        recipe, options_lib.to_json(model_options)])
    cluster.check_equal('versions of TensorFlow', tf.__version__)
    cluster.check_equal('records', shards)
    seed = cluster.agreed(
        random.SystemRandom().randrange(2 ** 31)
        if dataset_options.seed is None else dataset_options.seed)
    dataset_options = dataset_options._replace(seed=seed)
  return dataset_options, cluster.agreed(first_step)


def _resumed(model_options, options, recipe):
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
      folder, model_options, optimizer=options.optimizer, recipe=recipe)
  _LOG.info('RESUMING from step %d of %s', step, prefix)
  if options.tf_initial_checkpoint:
    _LOG.info('%s ignored: the run had started already',
              option('tf_initial_checkpoint'))
  return prefix, step


class _Loop:
  """Runs steps; saves, logs, writes summaries and profiles between them."""

  def __init__(self, step, options, *, batch_names, summary_op, sample, classes,
               writer, keeper, signals, cluster, bar):
    self._step = step
    self._options = options
    self._names = batch_names
    self._summary_op = summary_op
    self._sample = sample
    self._classes = classes
    self._writer = writer
    self._keeper = keeper
    self._signals = signals
    self._bar = bar
    self._losses: Deque[float] = collections.deque(maxlen=_RUNNING_STEPS)
    self._cluster = cluster
    # Name of the signal for which the run ends, or None.
    self._stopped_by = None
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
    self._write(self._first_step, session_log=tf.SessionLog(
        status=tf.SessionLog.START))
    if self._keeper and not self._keeper.newest:
      self._save(session)
    ends = False
    while not ends:
      self._run_step(session)
      if self._cluster.split.hosts == 1:
        self._stopped_by = self._signals.name
      ends = self._stopped_by is not None or (
          self._last[0] >= self._options.training_number_of_steps)
      # Between steps: in the middle of one, weights would be of two.
      if ends or (
          time.time() - self._saved >= self._options.save_interval_secs):
        self._save(session)
    done, loss = self._last
    return TrainResult(
        step=done, loss=loss, steps_done=done - self._first_step,
        seconds=time.time() - started,
        # A second signal may have come during the last save.
        stopped_by=self._stopped_by and (
            self._signals.name or self._stopped_by),
        checkpoint=self._keeper and os.path.join(
            self._options.train_logdir, self._keeper.newest))

  def _run_step(self, session):
    profiled = (self._options.profile_logdir and self._cluster.saves and
                self._last[0] - self._first_step + 1 in _PROFILED_STEPS)
    run = self._run_profiled if profiled else type(session).run
    fetches = {'loss': self._step.train_op, 'done': self._step.steps_done,
               'cross_entropy': self._step.cross_entropy,
               'rate': self._step.learning_rate}
    feeds = {}
    if self._cluster.split.hosts > 1:
      fetches['signals'] = self._step.signals_of_all
      feeds[self._step.signals] = [
          number.name == self._signals.name for number in stops.SIGNALS]
    if self._summary_op is not None and (
        time.time() - self._summarized >= self._options.save_summaries_secs):
      self._summarized = time.time()
      fetches['summary'] = self._summary_op
    if self._sample is not None and (
        (self._last[0] + 1) % self._options.save_predictions_steps == 0):
      fetches['sample'] = self._sample
    try:
      results = run(session, fetches, feeds)
    except tf.errors.InvalidArgumentError as error:
      for what, message in (
          ('loss', _NOT_FINITE), ('gradient', mixed_precision.NOT_FINITE)):
        if message in error.message:
          raise InputError(self._not_finite(session, what))
      raise
    done, loss = int(results['done']), float(results['loss'])
    self._last = (done, loss)
    self._losses.append(loss)
    self._bar.update(loss='{:.4f}'.format(self._running_loss()))
    if 'signals' in results:
      # All tasks end at the same step: one that received a signal during this
      # step tells the others with the next one.
      counts = results['signals']
      self._stopped_by = (
          stops.SIGNALS[counts.argmax()].name if counts.any() else None)
    if 'summary' in results:
      self._write(done, summary=tf.Summary.FromString(results['summary']))
    if 'sample' in results:
      self._write(done, summary=tf.Summary(value=[events.picture(
          'samples/predictions', visualize.prediction_sheet(
              label_map=self._classes, **results['sample']))]))
    if done % self._options.log_steps == 0 or (
        done >= self._options.training_number_of_steps):
      self._log(done, loss, results['cross_entropy'], results['rate'])

  def _running_loss(self):
    return sum(self._losses) / len(self._losses)

  def _save(self, session):
    if self._keeper:
      with self._cluster.saving(), self._signals.held():
        self._keeper.save(session, self._last[0])
    self._saved = time.time()

  def _write(self, step, **what):
    if self._writer:
      self._writer.add(step, **what)

  def _log(self, done, loss, cross_entropy, rate):
    now = time.time()
    pace = (now - self._logged) / max(done - self._logged_step, 1)
    remaining = pace * (self._options.training_number_of_steps - done)
    steps_a_second = 1 / max(pace, 1e-9)
    _LOG.info('step %d/%d: loss %.4f, cross-entropy %.4f, mean loss of last %d '
              '%.4f, learning rate %.3g, %.3g steps/s, %s left', done,
              self._options.training_number_of_steps, loss, cross_entropy,
              len(self._losses), self._running_loss(), rate, steps_a_second,
              progress.duration(remaining))
    # Parity: the tags of mobile_open's train.py and of slim's supervisor.
    self._write(done, summary=tf.Summary(value=[
        tf.Summary.Value(tag=tag, simple_value=value) for tag, value in (
            ('losses/softmax_cross_entropy', cross_entropy),
            ('total_loss', loss), ('learning_rate', rate),
            ('global_step/sec', steps_a_second))]))
    self._logged, self._logged_step = now, done

  def _run_profiled(self, session, fetches, feeds):
    """Runs a step with a full trace; writes a Chrome timeline of it."""
    from tensorflow.python.client import timeline  # no public name for it
    metadata = tf.RunMetadata()
    results = session.run(
        fetches, feeds, run_metadata=metadata,
        options=tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE))
    path = os.path.join(self._options.profile_logdir,
                        'timeline-{}.json'.format(results['done']))
    files.write_text(path, timeline.Timeline(
        metadata.step_stats).generate_chrome_trace_format())
    _LOG.info('wrote %s (open in chrome://tracing)', path)
    return results

  def _not_finite(self, session, what):
    done, loss = self._last
    names, rate = session.run([self._names, self._step.learning_rate])
    return ('{} is inf or NaN at step {} (batch: {}; learning rate {:g}; last '
            'finite loss {:.4f}); {} kept'.format(
                what, done + 1,
                ', '.join(map(contract.text_of_name, names)), rate, loss,
                self._keeper.newest if self._keeper
                else 'the last checkpoint of task 0'))
