"""From shards to batches: NumPy batches to evaluate, tensors to train on."""
import collections
import contextlib
import functools
import os
import random
from typing import (
  Any,
  Callable,
  Dict,
  Iterator,
  Optional,
  Sequence,
  Tuple,
  Union,
)

import numpy as np
import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab.config import label_map as label_maps
from deeplab.config import options as options_lib
from deeplab.data import decoding
from deeplab.data import preprocess
from deeplab.data import records
from deeplab.data import splits
from deeplab.errors import InputError
from deeplab.errors import Message
from deeplab.errors import option
from deeplab.errors import some_of
from deeplab.system import hardware
from deeplab.system import memory
from deeplab.system import tf_errors

# Records are shuffled while encoded: at some 50 kB each, about 200 MB. The
# builder has put them into the shards in random order already.
_SHUFFLED_RECORDS = 4096
# Elements that are decoded and preprocessed at a time. TensorFlow 1.15's
# AUTOTUNE lets finished ones pile up: gigabytes after some hundred images.
_PARALLEL_CALLS = hardware.usable_cores()
# Of a batch: three channels of float32, and an int32 for the label.
_BYTES_PER_PIXEL = 16
# Names of images that are read at a time.
_NAMES_AT_A_TIME = 1024
# Batches that wait, ready, while the network works on another one.
_BATCHES_AHEAD = 2


# --- Evaluation ------------------------------------------------------------


def batches(dataset_options: options_lib.DatasetOptions,
            preprocess_options: options_lib.PreprocessOptions, *,
            names: Optional[Sequence[str]] = None,
            model_map: Optional[label_maps.LabelMap] = None) -> 'Batches':
  """Reads a split as NumPy batches, in the order of its records.

  Args:
    dataset_options: DatasetOptions; the seed is not used.
    preprocess_options: PreprocessOptions.
    names: file names of the only images to read, without a folder, in any
      order; None: all.
    model_map: what the classes of the network are that is to be evaluated;
      None: not said.

  Returns:
    Batches, which can be iterated any number of times.

  Raises:
    InputError: see splits.open_split; names that are not in the records once
      each; batches that the memory does not hold.
  """
  return Batches(dataset_options, preprocess_options, names, model_map)


class Batches:
  """A split as NumPy batches; see `batches`.

  Iterating decodes and preprocesses in background threads, ahead of the
  consumer, on the CPU, in a graph and session of its own. Each batch is a dict
  of:
    'image': float32 [batch, crop_height, crop_width, 3], RGB in [0, 255].
    'label': int32 [batch, crop_height, crop_width], classes of the label map.
    'filename': list of str.
    'height', 'width': int32 [batch], pixels, before any resizing.
  The last batch may be smaller. A record that cannot be used raises InputError
  that names it.

  Attributes:
    split: 'train' or 'val'.
    num_images: the number of images to read.
    num_skipped: the number of records of the split that are left out as bad.
    batch_size: images in a batch, but for the last one; never more than there
      are.
    label_map: what the classes are.
  """

  def __init__(self, dataset_options: options_lib.DatasetOptions,
               preprocess_options: options_lib.PreprocessOptions,
               names: Optional[Sequence[str]] = None,
               model_map: Optional[label_maps.LabelMap] = None):
    self._dataset_options = dataset_options
    self._preprocess_options = preprocess_options
    self._names = names
    self._split = splits.open_split(
        dataset_options, ('the network', model_map))
    self.label_map = self._split.label_map
    self.split = dataset_options.split
    self.num_images = self._split.num_records
    self.num_skipped = self._split.skipped
    if names is not None:
      self._check_names(names)
      self.num_images = len(names)
    self.batch_size = min(dataset_options.batch_size, self.num_images)
    _check_memory(self.batch_size, preprocess_options.crop_size,
                  -(-self.num_images // self.batch_size))

  def __iter__(self) -> Iterator[Dict[str, Any]]:
    done = 0
    with contextlib.closing(decoding.elements(self._make_dataset)) as elements:
      while True:
        with explaining_read_errors(
            # What is bad is left out: it would not be found to be the reason.
            () if self.num_skipped else self._split.paths,
            functools.partial(self._too_large_image, done),
            self.label_map.largest_id):
          batch = next(elements, None)
        if batch is None:
          break
        done += len(batch['filename'])
        # The channel is there for the graph's operations on images.
        batch['label'] = batch['label'][:, :, :, 0]
        batch['filename'] = [
            constants.text_of_name(name) for name in batch['filename']]
        yield batch
    if done != self.num_images or (
        splits.state_of(self._split.paths) != self._split.state):
      raise InputError('{}: read {} records of {}, expected {}: have the files '
                       'changed?'.format(
                           self._dataset_options.dataset_dir, done,
                           self._dataset_options.split, self.num_images))

  def _make_dataset(self):
    # It has no Python control flow on tensors; the search for some takes longer
    # than the work.
    @tf.autograph.experimental.do_not_convert
    def read(serialized):
      element = self._decode(serialized)
      element['image'], element['label'] = preprocess.for_evaluation(
          element['image'], element['label'], self._preprocess_options,
          self.label_map)
      if self.batch_size == 1:
        # To batch it would copy it.
        element = {name: value[tf.newaxis] for name, value in element.items()}
      return element

    dataset = self._records()
    dataset = dataset.map(read, _PARALLEL_CALLS)
    if self.batch_size > 1:
      dataset = dataset.batch(self.batch_size)
    return dataset.prefetch(_BATCHES_AHEAD)

  def _decode(self, serialized):
    return decoding.decode(serialized, self.label_map.largest_id)

  def _records(self):
    """Returns the dataset of the wanted records, serialized."""
    dataset = _shards_of(self._split).flat_map(_reader_of(self._split))
    if self._names is not None:
      dataset = dataset.filter(lambda serialized: tf.reduce_any(
          tf.equal([constants.bytes_of_name(name) for name in self._names],
                   _image_name(serialized))))
    return dataset

  def _check_names(self, wanted):
    """Raises InputError unless each wanted name is in the records once."""
    def make_dataset():
      dataset = _shards_of(self._split).flat_map(_reader_of(self._split))
      return dataset.map(_image_name).batch(_NAMES_AT_A_TIME)

    with explaining_read_errors(
        self._split.paths, largest_id=self.label_map.largest_id):
      found = collections.Counter(
          constants.text_of_name(name)
          for some in decoding.elements(make_dataset) for name in some)
    for problem, names in (
        ('not in', [name for name in wanted if not found[name]]),
        ('more than once in', [
            name for name in wanted if found[name] > 1])):
      if names:
        raise InputError(
            '{} of {} listed images are {} the {} {}records of {} in {}: '
            '{}'.format(len(names), len(wanted), problem, self.num_images,
                        'good ' if self.num_skipped else '', self.split,
                        self._dataset_options.dataset_dir, some_of(names)))

  def _too_large_image(self, start):
    """Describes an image of the batch at record `start` that exceeds the crop.

    Returns None where there is none, or where the records cannot be read.
    """
    def make_dataset():
      dataset = self._records().skip(start)
      return dataset.take(self.batch_size).map(self._decode)

    try:
      for element in decoding.elements(make_dataset):
        problem = _excess(element, self._preprocess_options)
        if problem:
          return problem
    except tf.errors.OpError:
      pass  # splits.diagnose, which comes next, says what is wrong
    return None


def _excess(element, options):
  """Says how a decoded element exceeds the crop; None where it does not."""
  height, width = preprocess.resized_size_of(
      element['height'], element['width'], options)
  crop_height, crop_width = options.crop_size
  if height <= crop_height and width <= crop_width:
    return None
  resized = '' if options.min_resize_value is None else ' after resizing'
  limit = min(crop_height, crop_width)
  return Message(
      '{} is {}x{}{} but the crop is {}x{}; set {} {} (or a larger crop)',
      constants.text_of_name(element['filename']), height, width, resized,
      crop_height, crop_width, option('min_resize_value', limit),
      option('max_resize_value', limit))


# --- Training --------------------------------------------------------------


def training_batches(
    dataset_options: options_lib.DatasetOptions,
    preprocess_options: options_lib.PreprocessOptions,
    batches_before: int = 0,
    share: Tuple[int, int] = (0, 1)) -> Dict[str, tf.Tensor]:
  """Adds an endless, shuffled and augmented input to the default graph.

  The iterator's initializer is put among the graph's TABLE_INITIALIZERS, which
  tf.tables_initializer runs. With a seed the batches are the same in every run,
  and go on where an earlier run was stopped; each epoch has an order of its
  own.

  Args:
    dataset_options: DatasetOptions; batch_size may exceed the record count.
    preprocess_options: PreprocessOptions.
    batches_before: number of batches that earlier runs have had; of no effect
      without a seed.
    share: (which, of how many): equal shares into which each batch is cut, of
      which this input has one. Other records are read and not decoded: with
      the same seed, shares together are the batches that one input has.

  Returns:
    Dict of tensors, batch being the number of images of the share:
      'image': float32 [batch, crop_height, crop_width, 3], RGB in [0, 255].
      'label': int32 [batch, crop_height, crop_width, 1], classes of
        splits.label_map_of.
      'filename': string [batch].
      'height', 'width': int32 [batch], pixels, before any resizing.

  Raises:
    InputError: see splits.open_split; batches that the memory does not hold.
  """
  seed = dataset_options.seed
  which, shares = share
  batch_size = dataset_options.batch_size // shares
  first = batches_before * dataset_options.batch_size
  if seed is None:
    # Another order than that of earlier runs: there is no going on in it.
    seed, first = random.SystemRandom().randrange(2 ** 31), 0

  @tf.autograph.experimental.do_not_convert
  def read(index, serialized):
    element = decoding.decode(serialized, split.label_map.largest_id)
    # A seed for each position makes the result independent of thread timing.
    element['image'], element['label'] = preprocess.for_training(
        element['image'], element['label'], preprocess_options,
        tf.stack([tf.constant(seed, tf.int64), index]), split.label_map)
    return element

  @tf.autograph.experimental.do_not_convert
  def is_of_share(index, unused_serialized):
    return tf.equal(index // batch_size % shares, which)

  split = splits.open_split(dataset_options)
  _check_memory(batch_size, preprocess_options.crop_size)
  with tf.device('/cpu:0'):
    dataset = _shuffled_records(split, seed, first).enumerate(first)
    if shares > 1:
      dataset = dataset.filter(is_of_share)
    dataset = dataset.map(read, _PARALLEL_CALLS)
    # An endless dataset has no remainder: this makes the batch size static.
    dataset = dataset.batch(batch_size, drop_remainder=True)
    dataset = dataset.prefetch(_BATCHES_AHEAD)
    iterator = decoding.make_iterator(dataset)
    tf.add_to_collection(
        tf.GraphKeys.TABLE_INITIALIZERS, iterator.initializer)
    return iterator.get_next()


def _shuffled_records(split, seed, first):
  """Repeats serialized records for ever, each once an epoch, shuffled.

  Args:
    split: a splits.Split.
    seed: of the order.
    first: number of records to leave out: whole epochs of them are not read.
  """
  epoch, position = divmod(first, split.num_records)

  @tf.autograph.experimental.do_not_convert
  def one_epoch(number):
    # The order of an epoch follows from its number, whatever came before it.
    seeds = tf.cast(tf.random.stateless_uniform(
        [2], tf.stack([tf.constant(seed, tf.int64), number]), 0, 2 ** 31 - 1,
        tf.int32), tf.int64)
    count = len(split.shards)
    dataset = _shards_of(split).shuffle(count, seed=seeds[0])
    dataset = dataset.interleave(_reader_of(split), cycle_length=count)
    # Within an epoch: a buffer that held several epochs of a small set would
    # show some images often and others never.
    return dataset.shuffle(_SHUFFLED_RECORDS, seed=seeds[1])

  epochs = tf.data.Dataset.range(epoch, 2 ** 62)
  return epochs.flat_map(one_epoch).skip(position)


# --- Reading ---------------------------------------------------------------


def _shards_of(split):
  """Returns the dataset of (path, readable records, which of them to read)."""
  shards = split.shards
  kept = np.ones([len(shards), max(shard.readable for shard in shards)], bool)
  for index, shard in enumerate(shards):
    kept[index, list(shard.bad)] = False
  return tf.data.Dataset.from_tensor_slices((
      [os.fsencode(shard.path) for shard in shards],
      np.array([shard.readable for shard in shards], np.int64), kept))


def _reader_of(split):
  """Returns a function from an element of _shards_of to its records."""
  @tf.autograph.experimental.do_not_convert
  def read(path, readable, kept):
    found = tf.data.TFRecordDataset(path)
    if not split.skipped:
      return found
    both = tf.data.Dataset.zip((
        found.take(readable), tf.data.Dataset.from_tensor_slices(kept)))
    return both.filter(lambda unused_data, is_kept: is_kept).map(
        lambda data, unused_is_kept: data)

  return read


def _check_memory(batch_size, crop_size, batches=_BATCHES_AHEAD + 1):
  """Raises InputError where so many batches, or a few, cannot be held."""
  pixels = batch_size * crop_size[0] * crop_size[1]
  memory.check(
      pixels * _BYTES_PER_PIXEL * min(batches, _BATCHES_AHEAD + 1),
      '{} of {}', option('batch_size', batch_size),
      option('crop_size', crop_size))


def _image_name(serialized):
  """constants.image_name of a serialized tf.Example, inside a graph."""
  filename = records.parse_example(serialized)['filename']
  return tf.strings.regex_replace(filename, '.*/', '')


@contextlib.contextmanager
def explaining_read_errors(
    paths: Sequence[str],
    first_guess: Optional[Callable[[], Union[str, Message, None]]] = None,
    largest_id: int = constants.LARGEST_LABEL_ON_DISK
) -> Iterator[None]:
  """Turns a failure to read records into an InputError that names the record.

  To be wrapped around code that runs a graph with `batches` or
  `training_batches` in it. Errors with another cause pass as they are.

  Args:
    paths: list of shards, as from records.find_shards.
    first_guess: function without arguments that returns a line of explanation
      or None, asked before all shards are searched; or None.
    largest_id: the largest that a label may hold.

  Raises:
    InputError: instead of a tf.errors.OpError raised by the input.
  """
  try:
    yield
  except tf.errors.OpError as error:
    if not tf_errors.is_of_input(error):
      raise
    reason = first_guess() if first_guess else None
    reason = reason or splits.diagnose(paths, largest_id)
    if not reason:
      raise
    raise InputError('{}', reason) from error
