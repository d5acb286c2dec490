"""Reads shards as batches: NumPy arrays to evaluate, tensors to train on."""
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
from deeplab.data import splits
from deeplab.errors import InputError
from deeplab.errors import Message
from deeplab.errors import option
from deeplab.errors import some_of
from deeplab.system import hardware
from deeplab.system import memory
from deeplab.system import tf_errors

# Size of the shuffle buffer, of encoded records: at some 50 kB each, about 200
# MB. The shards are in random order already.
_SHUFFLED_RECORDS = 4096
# Elements decoded and preprocessed in parallel. TensorFlow 1.15's AUTOTUNE lets
# finished ones pile up: gigabytes after some hundred images.
_PARALLEL_CALLS = hardware.usable_cores()
# A batch has three channels of float32, and an int32 for the label.
_BYTES_PER_PIXEL = 16
# Number of image names that are read at a time.
_NAMES_AT_A_TIME = 1024
# Batches prefetched while the network works on another one.
_BATCHES_AHEAD = 2


# --- Evaluation ------------------------------------------------------------


class Batches:
  """A split as NumPy batches, in the order of its records.

  Iterating decodes and preprocesses ahead in background threads on the CPU, in
  its own graph and session. Each batch is a dict of:
    'image': float32 [batch, crop_height, crop_width, 3], RGB in [0, 255].
    'label': int32 [batch, crop_height, crop_width], classes of the label map.
    'filename': list of str.
    'height', 'width': int32 [batch], pixels, before any resizing.
    'size': int32 [batch, 2], height and width after it, before padding.
  The last batch may be smaller. An InputError names a record that cannot be
  used.

  Attributes:
    split: 'train' or 'val'.
    num_images: the number of images to read.
    num_skipped: the number of bad records that are skipped.
    batch_size: images in a batch except the last; at most num_images.
    label_map: the label map of the classes.
  """

  def __init__(self, dataset_options: options_lib.DatasetOptions,
               preprocess_options: options_lib.PreprocessOptions,
               *, names: Optional[Sequence[str]] = None,
               model_map: Optional[label_maps.LabelMap] = None):
    """Opens the split.

    Args:
      dataset_options: the split; the seed is not used.
      preprocess_options: size of the images.
      names: file names of the images to read, without a folder, in any order;
        None: all.
      model_map: label map of the network to evaluate; None: unknown.

    Raises:
      InputError: see splits.open_split; or a name is not in the records exactly
        once, or the batches do not fit into memory.
    """
    self._dataset_options = dataset_options
    self._preprocess_options = preprocess_options
    self._names: Optional[Sequence[str]] = None
    self._split = splits.open_split(
        dataset_options, ('the network', model_map))
    self.label_map = self._split.label_map
    self.split = dataset_options.split
    self.num_images = self._split.num_records
    self.num_skipped = self._split.skipped
    if names is not None:
      self._check_names(names)
      self._names = names
      self.num_images = len(names)
    self.batch_size = min(dataset_options.batch_size, self.num_images)
    _check_memory(self.batch_size, preprocess_options.crop_size,
                  -(-self.num_images // self.batch_size))

  def __iter__(self) -> Iterator[Dict[str, Any]]:
    done = 0
    with contextlib.closing(decoding.elements(self._make_dataset)) as elements:
      while True:
        with explaining_read_errors(
            # If bad records are skipped, they cannot be the reason.
            () if self.num_skipped else self._split.paths,
            functools.partial(self._too_large_image, done),
            self.label_map.largest_id):
          batch = next(elements, None)
        if batch is None:
          break
        done += len(batch['filename'])
        # The graph's image operations need the channel; consumers do not.
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
    # AutoGraph's search for control flow takes longer than the function.
    @tf.autograph.experimental.do_not_convert
    def read(serialized):
      element = self._decode(serialized)
      element['image'], element['label'] = preprocess.for_evaluation(
          element['image'], element['label'], self._preprocess_options,
          self.label_map)
      if self.batch_size == 1:
        # This avoids the copy that batching makes.
        element = {name: value[tf.newaxis] for name, value in element.items()}
      return element

    dataset = self._records()
    dataset = dataset.map(read, _PARALLEL_CALLS)
    if self.batch_size > 1:
      dataset = dataset.batch(self.batch_size)
    return dataset.prefetch(_BATCHES_AHEAD)

  def _decode(self, serialized):
    element = decoding.decode(serialized, self.label_map.largest_id)
    return dict(element, size=preprocess.resized_size(
        element['height'], element['width'], self._preprocess_options))

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
    with explaining_read_errors(
        self._split.paths, largest_id=self.label_map.largest_id):
      found = collections.Counter(
          constants.text_of_name(name)
          for some in decoding.elements(lambda: self._records().map(
              _image_name).batch(_NAMES_AT_A_TIME)) for name in some)
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
    """Describes an image larger than the crop in the batch at record `start`.

    Returns None if there is none, or if the records cannot be read.
    """
    options = self._preprocess_options
    crop_height, crop_width = options.crop_size
    limit = min(crop_height, crop_width)
    try:
      for element in decoding.elements(lambda: self._records().skip(start).take(
          self.batch_size).map(self._decode)):
        height, width = element['size']
        if height > crop_height or width > crop_width:
          return Message(
              '{} is {}x{}{} but the crop is {}x{}; set {} {} (or a larger '
              'crop)', constants.text_of_name(element['filename']), height,
              width, '' if options.min_resize_value is None else
              ' after resizing', crop_height, crop_width,
              option('min_resize_value', limit),
              option('max_resize_value', limit))
    except tf.errors.OpError:
      pass  # splits.diagnose, which comes next, finds the problem
    return None


# --- Training --------------------------------------------------------------


def training_batches(
    dataset_options: options_lib.DatasetOptions,
    preprocess_options: options_lib.PreprocessOptions,
    batches_before: int = 0,
    share: Tuple[int, int] = (0, 1)) -> Dict[str, tf.Tensor]:
  """Adds an endless, shuffled and augmented input to the default graph.

  The iterator's initializer is added to the graph's TABLE_INITIALIZERS, which
  tf.tables_initializer runs. With a seed, the batches are the same in every run
  and continue after an earlier run's; each epoch has its own order.

  Args:
    dataset_options: the split; batch_size may exceed the record count.
    preprocess_options: size and augmentation of the images.
    batches_before: number of batches that earlier runs consumed; ignored
      without a seed.
    share: (index, count): each batch is divided into `count` equal shares, and
      this input yields one of them. Other records are read but not decoded.
      With the same seed, all shares together equal a single input's batches.

  Returns:
    Dict of tensors; `batch` is the number of images in the share:
      'image': float32 [batch, crop_height, crop_width, 3], RGB in [0, 255].
      'label': int32 [batch, crop_height, crop_width, 1], classes of
        splits.label_map_of.
      'filename': string [batch].
      'height', 'width': int32 [batch], pixels, before any resizing.

  Raises:
    InputError: see splits.open_split; or batches do not fit into memory.
  """
  seed = dataset_options.seed
  which, shares = share
  batch_size = dataset_options.batch_size // shares
  first = batches_before * dataset_options.batch_size
  if seed is None:
    # Without a seed the order is new, so nothing can be continued.
    seed, first = random.SystemRandom().randrange(2 ** 31), 0

  @tf.autograph.experimental.do_not_convert
  def read(index, serialized):
    element = decoding.decode(serialized, split.label_map.largest_id)
    # One seed for each position makes results independent of thread timing.
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
    # An endless dataset has no remainder; this makes the batch size static.
    dataset = dataset.batch(batch_size, drop_remainder=True)
    dataset = dataset.prefetch(_BATCHES_AHEAD)
    iterator = decoding.make_iterator(dataset)
    tf.add_to_collection(
        tf.GraphKeys.TABLE_INITIALIZERS, iterator.initializer)
    return iterator.get_next()


def _shuffled_records(split, seed, first):
  """Repeats serialized records endlessly; shuffles each epoch.

  Args:
    split: a splits.Split.
    seed: seed of the order.
    first: number of records to skip; whole epochs are not read.
  """
  epoch, position = divmod(first, split.num_records)

  @tf.autograph.experimental.do_not_convert
  def one_epoch(number):
    # The order of an epoch depends only on the seed and its number.
    seeds = tf.cast(tf.random.stateless_uniform(
        [2], tf.stack([tf.constant(seed, tf.int64), number]), 0, 2 ** 31 - 1,
        tf.int32), tf.int64)
    count = len(split.shards)
    dataset = _shards_of(split).shuffle(count, seed=seeds[0])
    dataset = dataset.interleave(_reader_of(split), cycle_length=count)
    # Shuffled within an epoch: a buffer with several epochs of a small set
    # would repeat some images and drop others.
    return dataset.shuffle(_SHUFFLED_RECORDS, seed=seeds[1])

  epochs = tf.data.Dataset.range(epoch, 2 ** 62)
  return epochs.flat_map(one_epoch).skip(position)


# --- Reading ---------------------------------------------------------------


def _shards_of(split):
  """Returns the dataset of (path, number of records, mask of those to read)."""
  counts = np.array([len(shard.kept) for shard in split.shards], np.int64)
  kept = np.zeros([len(counts), max(counts)], bool)
  for row, shard in zip(kept, split.shards):
    row[:len(shard.kept)] = shard.kept
  return tf.data.Dataset.from_tensor_slices(
      ([os.fsencode(path) for path in split.paths], counts, kept))


def _reader_of(split):
  """Returns a function from an element of _shards_of to its records."""
  @tf.autograph.experimental.do_not_convert
  def read(path, count, kept):
    found = tf.data.TFRecordDataset(path)
    if not split.skipped:
      return found
    both = tf.data.Dataset.zip((
        found.take(count), tf.data.Dataset.from_tensor_slices(kept)))
    return both.filter(lambda unused_data, is_kept: is_kept).map(
        lambda data, unused_is_kept: data)

  return read


def _check_memory(batch_size, crop_size, batches=_BATCHES_AHEAD + 1):
  """Raises InputError if the batches do not fit into memory."""
  pixels = batch_size * crop_size[0] * crop_size[1]
  memory.check(
      pixels * _BYTES_PER_PIXEL * min(batches, _BATCHES_AHEAD + 1),
      '{} of {}', option('batch_size', batch_size),
      option('crop_size', crop_size))


def _image_name(serialized):
  """Returns constants.image_name of a serialized tf.Example, as a tensor."""
  filename = decoding.parse_example(serialized)['filename']
  return tf.strings.regex_replace(filename, '.*/', '')


@contextlib.contextmanager
def explaining_read_errors(
    paths: Sequence[str],
    first_guess: Optional[Callable[[], Union[str, Message, None]]] = None,
    largest_id: int = constants.LARGEST_LABEL_ON_DISK
) -> Iterator[None]:
  """Turns a failure to read records into an InputError that names the record.

  Wrap it around code that runs a graph with `training_batches`.
  Other errors pass unchanged.

  Args:
    paths: shards from records.find_shards.
    first_guess: returns a line of explanation or None; called before all shards
      are searched.
    largest_id: largest id that a label may hold.

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
