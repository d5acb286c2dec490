"""From shards to batches: NumPy batches to evaluate, tensors to train on."""
import collections
import contextlib
import functools
import os
import random
from typing import (
  Any,
  Callable,
  Counter,
  Dict,
  Iterator,
  Optional,
  Sequence,
  Union,
)

import tensorflow.compat.v1 as tf

from deeplab import options as options_lib
from deeplab import tf_texts
from deeplab.data import image_header
from deeplab.data import preprocess
from deeplab.data import records
from deeplab.errors import InputError
from deeplab.errors import Message
from deeplab.errors import option
from deeplab.errors import some_of

# Records are shuffled while encoded: at some 50 kB each, about 200 MB. The
# builder has put them into the shards in random order already.
_SHUFFLED_RECORDS = 4096
# Elements that are decoded and preprocessed at a time. TensorFlow 1.15's
# AUTOTUNE lets finished ones pile up: gigabytes after some hundred images.
_PARALLEL_CALLS = os.cpu_count() or 1
# Names of images that are looked through in one go.
_NAMES_AT_ONCE = 256
# Batches that wait, ready, while the network works on another one.
_BATCHES_AHEAD = 2


# --- Evaluation ------------------------------------------------------------


def batches(dataset_options: options_lib.DatasetOptions,
            preprocess_options: options_lib.PreprocessOptions, *,
            names: Optional[Sequence[str]] = None) -> 'Batches':
  """Reads a split as NumPy batches, in the order of its records.

  Args:
    dataset_options: DatasetOptions; the seed is not used.
    preprocess_options: PreprocessOptions.
    names: file names of the only images to read, without a folder, in any
      order; None: all.

  Returns:
    Batches, which can be iterated any number of times.

  Raises:
    InputError: shards that are missing, empty or cut short; names
      that are not in the records once each.
  """
  return Batches(dataset_options, preprocess_options, names)


class Batches:
  """A split as NumPy batches; see `batches`.

  Iterating decodes and preprocesses in background threads, ahead of the
  consumer, on the CPU, in a graph and session of its own. Each batch is a dict
  of:
    'image': float32 [batch, crop_height, crop_width, 3], RGB in [0, 255].
    'label': int32 [batch, crop_height, crop_width], in [0, NUM_CLASSES).
    'filename': list of str.
    'height', 'width': int32 [batch], pixels, before any resizing.
  The last batch may be smaller. A record that cannot be used raises InputError
  that names it.

  Attributes:
    num_images: int, the number of images to read.
  """

  def __init__(self, dataset_options: options_lib.DatasetOptions,
               preprocess_options: options_lib.PreprocessOptions,
               names: Optional[Sequence[str]] = None):
    self._dataset_options = dataset_options
    self._preprocess_options = preprocess_options
    self._names = names
    self._paths = records.find_shards(
        dataset_options.dataset_dir, dataset_options.split)
    self.num_images = sum(records.count_records(path) for path in self._paths)
    if names is not None:
      self._check_names(names)
      self.num_images = len(names)

  def __iter__(self) -> Iterator[Dict[str, Any]]:
    done = 0
    with contextlib.closing(_elements(self._make_dataset)) as elements:
      while True:
        with explaining_read_errors(
            self._paths, functools.partial(self._too_large_image, done)):
          batch = next(elements, None)
        if batch is None:
          break
        done += len(batch['filename'])
        # The channel is there for the graph's operations on images.
        batch['label'] = batch['label'][:, :, :, 0]
        batch['filename'] = [
            name.decode('utf-8') for name in batch['filename']]
        yield batch
    if done != self.num_images:
      raise InputError('{}: read {} records of {}, expected {}: have the files '
                       'changed?'.format(
                           self._dataset_options.dataset_dir, done,
                           self._dataset_options.split, self.num_images))

  def _make_dataset(self):
    # It has no Python control flow on tensors; the search for some takes longer
    # than the work.
    @tf.autograph.experimental.do_not_convert
    def read(serialized):
      element = _decode(serialized)
      element['image'], element['label'] = preprocess.for_evaluation(
          element['image'], element['label'], self._preprocess_options)
      return element

    dataset = self._records()
    dataset = dataset.map(read, _PARALLEL_CALLS)
    dataset = dataset.batch(self._dataset_options.batch_size)
    return dataset.prefetch(_BATCHES_AHEAD)

  def _records(self):
    """Returns the dataset of the wanted records, serialized."""
    dataset = tf.data.TFRecordDataset(self._paths)
    if self._names is None:
      return dataset
    return dataset.filter(lambda serialized: tf.reduce_any(
        tf.equal(self._names, _image_name(serialized))))

  def _check_names(self, wanted):
    """Raises InputError unless each wanted name is in the records once."""
    def make_dataset():
      dataset = tf.data.TFRecordDataset(self._paths)
      dataset = dataset.map(lambda serialized: {
          'names': _image_name(serialized)}, _PARALLEL_CALLS)
      return dataset.batch(_NAMES_AT_ONCE)

    found: Counter[str] = collections.Counter()
    with explaining_read_errors(self._paths), (
        contextlib.closing(_elements(make_dataset))) as elements:
      for element in elements:
        found.update(name.decode('utf-8') for name in element['names'])
    for problem, names in (
        ('not in', [name for name in wanted if not found[name]]),
        ('more than once in', [
            name for name in wanted if found[name] > 1])):
      if names:
        raise InputError(
            '{} of {} listed images are {} the {} records of {} in {}: '
            '{}'.format(len(names), len(wanted), problem, self.num_images,
                        self._dataset_options.split,
                        self._dataset_options.dataset_dir, some_of(names)))

  def _too_large_image(self, start):
    """Describes an image of the batch at record `start` that exceeds the crop.

    Returns None where there is none, or where the records cannot be read.
    """
    def make_dataset():
      dataset = self._records().skip(start)
      return dataset.take(self._dataset_options.batch_size).map(_decode)

    try:
      for element in _elements(make_dataset):
        problem = _excess(element, self._preprocess_options)
        if problem:
          return problem
    except tf.errors.OpError:
      pass  # records.diagnose, which comes next, says what is wrong
    return None


def _elements(make_dataset):
  """Yields a dataset's elements as dicts of NumPy arrays.

  Nothing is left on the caller's stack of default graphs between elements.

  Args:
    make_dataset: function that builds the dataset in the default graph.
  """
  graph = tf.Graph()
  with graph.as_default():
    iterator = tf.data.make_initializable_iterator(make_dataset())
    element = iterator.get_next()
  # Without this the session would take all memory of a GPU it does not use.
  config = tf.ConfigProto(device_count={'GPU': 0})
  session = tf.Session(graph=graph, config=config)
  try:
    session.run(iterator.initializer)
    while True:
      try:
        value = session.run(element)
      except tf.errors.OutOfRangeError:
        return
      yield value
  finally:
    session.close()


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
      element['filename'].decode('utf-8'), height, width, resized,
      crop_height, crop_width, option('min_resize_value', limit),
      option('max_resize_value', limit))


# --- Training --------------------------------------------------------------


def training_batches(
    dataset_options: options_lib.DatasetOptions,
    preprocess_options: options_lib.PreprocessOptions) -> Dict[str, tf.Tensor]:
  """Adds an endless, shuffled and augmented input to the default graph.

  The iterator's initializer is put among the graph's TABLE_INITIALIZERS, which
  slim.learning.train and tf.train.Scaffold run. With a seed the batches are
  the same in every run; each epoch has an order of its own.

  Args:
    dataset_options: DatasetOptions; batch_size may exceed the record count.
    preprocess_options: PreprocessOptions.

  Returns:
    Dict of tensors:
      'image': float32 [batch, crop_height, crop_width, 3], RGB in [0, 255].
      'label': int32 [batch, crop_height, crop_width, 1], in [0, NUM_CLASSES).
      'filename': string [batch].
      'height', 'width': int32 [batch], pixels, before any resizing.

  Raises:
    InputError: shards that are missing or empty.
  """
  seed = dataset_options.seed
  if seed is None:
    seed = random.SystemRandom().randrange(2 ** 31)

  @tf.autograph.experimental.do_not_convert
  def read(index, serialized):
    element = _decode(serialized)
    # A seed for each position makes the result independent of thread timing.
    element['image'], element['label'] = preprocess.for_training(
        element['image'], element['label'], preprocess_options,
        tf.stack([tf.constant(seed, tf.int64), index]))
    return element

  paths = records.find_shards(
      dataset_options.dataset_dir, dataset_options.split)
  with tf.device('/cpu:0'):
    dataset = _shuffled_records(paths, seed).enumerate()
    dataset = dataset.map(read, _PARALLEL_CALLS)
    # An endless dataset has no remainder: this makes the batch size static.
    dataset = dataset.batch(dataset_options.batch_size, drop_remainder=True)
    dataset = dataset.prefetch(_BATCHES_AHEAD)
    iterator = tf.data.make_initializable_iterator(dataset)
    tf.add_to_collection(
        tf.GraphKeys.TABLE_INITIALIZERS, iterator.initializer)
    return iterator.get_next()


def _shuffled_records(paths, seed):
  """Repeats serialized records for ever, each once an epoch, shuffled."""
  dataset = tf.data.Dataset.from_tensor_slices(paths)
  dataset = dataset.shuffle(len(paths), seed=seed)
  dataset = dataset.interleave(tf.data.TFRecordDataset, cycle_length=len(paths))
  # Repeated after shuffling: the other way round, a buffer that holds several
  # epochs of a small set would show some images often and others never.
  return dataset.shuffle(_SHUFFLED_RECORDS, seed=seed).repeat()


# --- Reading ---------------------------------------------------------------


def _decode(serialized):
  """Decodes a serialized tf.Example inside a graph.

  Args:
    serialized: scalar string tensor.

  Returns:
    Dict: 'image' uint8 [height, width, 3], RGB; 'label' uint8 [height, width,
    1]; 'filename' string; 'height' and 'width' int32, pixels.
  """
  example = records.parse_example(serialized)
  # Both operations recognize JPEG and PNG by content, and unlike
  # tf.image.decode_image they set the rank.
  image = tf.image.decode_jpeg(
      image_header.checked(example['image_encoded']), channels=3)
  label = tf.image.decode_png(
      image_header.checked(example['label_encoded']), channels=1)
  shape = tf.shape(image)
  same_size = tf.debugging.assert_equal(tf.shape(label)[:2], shape[:2])
  with tf.control_dependencies([same_size]):
    label = tf.identity(label)
  return {
      'image': image,
      'label': label,
      'filename': example['filename'],
      'height': shape[0],
      'width': shape[1],
  }


def _image_name(serialized):
  """contract.image_name of a serialized tf.Example, inside a graph."""
  filename = records.parse_example(serialized)['filename']
  return tf.strings.regex_replace(filename, '.*/', '')


@contextlib.contextmanager
def explaining_read_errors(
    paths: Sequence[str],
    first_guess: Optional[Callable[[], Union[str, Message, None]]] = None
) -> Iterator[None]:
  """Turns a failure to read records into an InputError that names the record.

  To be wrapped around code that runs a graph with `batches` or
  `training_batches` in it. Errors with another cause pass as they are.

  Args:
    paths: list of shards, as from records.find_shards.
    first_guess: function without arguments that returns a line of explanation
      or None, asked before all shards are searched; or None.

  Raises:
    InputError: instead of a tf.errors.OpError raised by the input.
  """
  try:
    yield
  except tf.errors.OpError as error:
    if not tf_texts.is_of_input(error):
      raise
    reason = first_guess() if first_guess else None
    reason = reason or records.diagnose(paths)
    if not reason:
      raise
    raise InputError('{}', reason) from error
