"""Trains a network: data, graph, restoring, and the loop."""
import contextlib
import functools
import json
import logging
import os
import random
from typing import List, Optional

import tensorflow.compat.v1 as tf

from deeplab.checkpoints import compatibility
from deeplab.checkpoints import find
from deeplab.checkpoints import read
from deeplab.checkpoints import restore as restore_lib
from deeplab.checkpoints import saver
from deeplab.config import label_map
from deeplab.config import options as options_lib
from deeplab.data import dataset
from deeplab.data import records
from deeplab.data import splits
from deeplab.distribution import hosts
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.evaluation import tensorboard
from deeplab.models import predictors
from deeplab.nets import deeplab_v3
from deeplab.nets import quantize
from deeplab.storage import files
from deeplab.storage import locks
from deeplab.storage import remote
from deeplab.system import progress
from deeplab.system import signals
from deeplab.training import listeners as listeners_lib
from deeplab.training import loop as loop_lib
from deeplab.training import mixed_precision
from deeplab.training import schedules
from deeplab.training import step as step_lib

_LOG = logging.getLogger(__name__)
_LARGEST_SUMMARY_IMAGES = 3
# Options that may differ between hosts: paths, and settings that only the chief
# uses. They do not affect the training steps.
_OF_ONE_TASK = (
    'dataset_dir', 'train_logdir', 'tf_initial_checkpoint', 'profile_logdir',
    'log_steps', 'save_interval_secs', 'save_summaries_secs',
    'save_summaries_images', 'save_predictions_steps',
    'max_checkpoints_to_keep', 'strict_checkpoint', 'verify_records')
# Smaller batches give poor statistics.
_ADVISED_BATCH_NORM_SIZE = 12


def train(*, dataset_options: options_lib.DatasetOptions,
          preprocess_options: options_lib.PreprocessOptions,
          model_options: options_lib.ModelOptions,
          options: options_lib.TrainOptions,
          distribution_options: Optional[
              options_lib.DistributionOptions] = None) -> loop_lib.TrainResult:
  """Trains until the last step, or until SIGINT, SIGTERM or SIGHUP.

  Checkpoints, summaries and the model's options go to options.train_logdir. If
  that folder has a checkpoint, training resumes from it. With a seed and on one
  core, batches, losses and weights are then as in an uninterrupted run.

  Args:
    dataset_options: the split and its batches.
    preprocess_options: preprocessing; its crop size is the model's.
    model_options: the network's structure.
    options: all other options of the run.
    distribution_options: devices and hosts; None: one device of this host. Only
      the task differs between hosts.

  Returns:
    The last step and its loss.

  Raises:
    InputError: options, records or checkpoints that do not fit; a loss or a
      weight that is not finite; a checkpoint that cannot be saved; another
      process that trains in that folder.
  """
  model_options = model_options.with_classes(
      splits.label_map_of(dataset_options))
  distribution_options = (
      distribution_options or options_lib.DistributionOptions())
  _check(dataset_options, model_options, options, distribution_options.replicas)
  _LOG.info('training with %s', predictors.runtime())
  with contextlib.ExitStack() as stack:
    if distribution_options.task == 0:
      remote.make_folder(options.train_logdir)
      stack.enter_context(_alone_in(options.train_logdir))
    host = stack.enter_context(hosts.joined(distribution_options))
    if options.mixed_precision:
      mixed_precision.configure(host.config)
    stack.enter_context(tf.Graph().as_default())
    return _train_in_graph(host, dataset_options, preprocess_options,
                           model_options, options)


def _check(dataset_options, model_options, options, replicas):
  """Refuses options that do not fit, and warns about unwise ones."""
  options.check_with(model_options, batch_size=dataset_options.batch_size,
                     replicas=replicas)
  if replicas > 1 and (
      quantize.implementation(model_options) == options_lib.CONTRIB):
    # The rewrite supports a graph with only one network.
    raise InputError(
        '{}: the rewrite of TensorFlow 1.15 cannot handle replicas, '
        'here {}; add {}', option('quantize_delay_step',
                                  model_options.quantize_delay_step), replicas,
        option('fake_quant', options_lib.LAYERS))
  if quantize.implementation(model_options) == options_lib.CONTRIB:
    _LOG.info('TensorFlow rewrites the network for quantization, which takes a '
              'minute or more before the first step')
  if options.mixed_precision:
    mixed_precision.check(model_options, replicas)
  if options.profile_logdir:
    files.check_folder(option('profile_logdir', options.profile_logdir),
                       options.profile_logdir)
  if model_options.num_classes == 2:
    _LOG.warning('%s: %s', option('num_classes', 2), label_map.ONE_CLASS)
  if (options.fine_tune_batch_norm and not model_options.is_quantized and
      dataset_options.batch_size < _ADVISED_BATCH_NORM_SIZE * replicas):
    _LOG.warning('%s with %s: batch statistics want %d or more',
                 option('fine_tune_batch_norm', True),
                 option('batch_size', dataset_options.batch_size),
                 _ADVISED_BATCH_NORM_SIZE * replicas)


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
      saver.remove_leftovers(folder)
    yield


def _train_in_graph(host, dataset_options, preprocess_options, model_options,
                    options):
  paths = records.find_shards(
      dataset_options.dataset_dir, dataset_options.split)
  recipe = _recipe(dataset_options, preprocess_options, options, paths)
  resumed, first_step = (
      _resumed(model_options, options, recipe) if host.is_chief else (None, 0))
  first_step = host.broadcast_from_chief(first_step)
  _check_all_hosts(host, model_options, recipe)
  if options.seed is not None:
    tf.set_random_seed(options.seed)
  batch, names = _batch(host, dataset_options, preprocess_options, first_step)
  step = step_lib.build_step(
      batch['image'], batch['label'], model_options, options, host)
  keeper = written = None
  if host.is_chief:
    written = _tensors_to_write(batch, step, model_options, options)
    keeper = saver.Keeper(
        options.train_logdir, max_to_keep=options.max_checkpoints_to_keep,
        resumed=resumed)
    write_options = functools.partial(
        compatibility.write_options, options.train_logdir, model_options,
        optimizer=options.optimizer, recipe=recipe)
    # If a resumed run cannot save, the old options stay.
    if not resumed:
      write_options()
  restore = _restorer(host, resumed, options)
  with contextlib.ExitStack() as stack:
    request = stack.enter_context(signals.Request(orderly=True))
    stack.enter_context(dataset.explaining_read_errors(
        paths, largest_id=splits.label_map_of(dataset_options).largest_id))
    writer = stack.enter_context(
        tensorboard.Writer(options.train_logdir)) if host.is_chief else None
    if writer:
      writer.add(first_step, graph_def=(
          tf.get_default_graph().as_graph_def().SerializeToString()))
    bar = stack.enter_context(progress.Bar(
        options.training_number_of_steps, 'training', unit='step',
        done=first_step, logs=False))
    listeners: List[listeners_lib.Listener] = [
        listeners_lib.Log(options, bar, writer)]
    if keeper and writer:
      listeners += _writing_listeners(
          written, options, model_options.classes, writer)
      listeners.append(listeners_lib.Checkpoints(
          keeper, options.save_interval_secs, host, request))
    _LOG.info('built the network; the first step takes longer than others')
    loop = loop_lib.Loop(step, names, options, host, request, keeper)
    result = loop.run(first_step, restore, listeners)
    if resumed:
      write_options()
    host.barrier()
    return result


def _restorer(host, resumed, options):
  """Returns a function that gives a session's variables their first values.

  The chief restores a checkpoint, if there is one; all others get its values.
  """
  variables = tf.global_variables()
  from_checkpoint = initialize = None
  if resumed:
    from_checkpoint = restore_lib.restorer(variables)
  elif host.is_chief and options.tf_initial_checkpoint:
    initialize = restore_lib.initializer_from(
        options.tf_initial_checkpoint, variables,
        () if options.initialize_last_layer
        else schedules.last_layer_scopes(options),
        strict=options.strict_checkpoint)
  from_chief = host.broadcast_variables(variables)

  def restore(session):
    if from_checkpoint:
      from_checkpoint(session, resumed)
    if initialize:
      initialize(session)
    session.run(from_chief)

  return restore


def _recipe(dataset_options, preprocess_options, options, paths):
  """Returns the options that affect the steps, as they are read from JSON."""
  recipe = {name: value
            for given in (dataset_options, preprocess_options, options)
            for name, value in given._asdict().items()
            if name not in _OF_ONE_TASK}
  recipe['records'] = [(os.path.basename(path), remote.size(path))
                       for path in paths]
  return json.loads(json.dumps(recipe))


def _check_all_hosts(host, model_options, recipe):
  """Checks that options that affect the steps are equal on all hosts."""
  host.check_same_on_all_hosts(option('num_clones'), host.clones)
  host.check_same_on_all_hosts('options', [
      {name: value for name, value in recipe.items() if name != 'records'},
      options_lib.to_json(model_options)])
  host.check_same_on_all_hosts('versions of TensorFlow', tf.__version__)
  host.check_same_on_all_hosts('records', recipe['records'])


def _batch(host, dataset_options, preprocess_options, first_step):
  """Returns (this host's shard of a batch, file names of the last batch).

  The names are in a variable, so that they can be read after a failed step.
  """
  if dataset_options.seed is None:
    # Any order is fine if all hosts use the same.
    first_step = 0
    dataset_options = dataset_options._replace(seed=host.broadcast_from_chief(
        random.SystemRandom().randrange(2 ** 31)))
  batch = dataset.training_batches(
      dataset_options, preprocess_options, first_step, (host.task, host.hosts))
  names = tf.get_local_variable(
      'batch_filenames', initializer=tf.fill(batch['filename'].shape, ''),
      trainable=False)
  with tf.control_dependencies([tf.assign(names, batch['filename']).op]):
    return dict(batch, image=tf.identity(batch['image'])), names


def _resumed(model_options, options, recipe):
  """Returns (prefix to resume from or None, its step)."""
  folder = options.train_logdir
  newest = find.Newest(folder, strict=options.strict_checkpoint)
  prefix = newest.find()
  if not prefix:
    if newest.problems:
      raise InputError('{}: {}; no checkpoint to resume from: use a new {}',
                       option('train_logdir', folder),
                       '; '.join(newest.problems), option('train_logdir'))
    return None, 0
  step = read.global_step_in(prefix)
  if step >= options.training_number_of_steps:
    raise InputError(
        '{}: already at step {}; raise {} or use a new {}',
        option('train_logdir', folder), step,
        option('training_number_of_steps', options.training_number_of_steps),
        option('train_logdir'))
  compatibility.check_resumable(
      folder, model_options, optimizer=options.optimizer, recipe=recipe)
  _LOG.info('RESUMING from step %d of %s', step, prefix)
  if options.tf_initial_checkpoint:
    _LOG.info('%s ignored: the run had started already',
              option('tf_initial_checkpoint'))
  return prefix, step


def _tensors_to_write(batch, step, model_options, options):
  """Builds the tensors to write as events; returns a dict by name."""
  tensors = {'summary': _summary_op(
      batch, step, model_options, options.save_summaries_images)}
  if options.save_predictions_steps:
    tensors['sample'] = {
        name: array[:_LARGEST_SUMMARY_IMAGES] for name, array in (
            ('images', batch['image']), ('labels', batch['label'][..., 0]),
            ('predictions', deeplab_v3.predictions(
                step.logits, model_options)))}
  return tensors


def _summary_op(batch, step, model_options, with_images):
  """Builds a summary with histograms of weights and, if asked, images."""
  # Deviates: the reference uses tf.summary.histogram, which appends _1 to the
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


def _writing_listeners(tensors, options, classes, writer):
  """Returns the listeners that write summaries and pictures."""
  found: List[listeners_lib.Listener] = [listeners_lib.Summaries(
      tensors['summary'], options, writer)]
  if 'sample' in tensors:
    found.append(listeners_lib.Samples(
        tensors['sample'], options.save_predictions_steps, classes, writer))
  return found
