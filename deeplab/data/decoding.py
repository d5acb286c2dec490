"""Decodes a serialized tf.Example to tensors, inside a graph."""
import contextlib
from typing import Any, Callable, Dict, Generator

import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab.data import image_header
from deeplab.data import pairs
from deeplab.data import records
from deeplab.errors import InputError
from deeplab.system import tf_errors


def decode(serialized: tf.Tensor,
           largest_id: int = constants.LARGEST_LABEL_ON_DISK
           ) -> Dict[str, tf.Tensor]:
  """Decodes a serialized tf.Example.

  The graph fails on examples that the builder refuses; check_content describes
  the problem.

  Args:
    serialized: scalar string tensor.
    largest_id: the largest that a label may hold.

  Returns:
    Dict: 'image' uint8 [height, width, 3], RGB; 'label' uint8 [height, width,
    1], ids on disk; 'filename' string; 'height' and 'width' int32, pixels.
  """
  example = records.parse_example(serialized)
  # decode_jpeg also recognizes PNG and, unlike tf.image.decode_image, sets the
  # rank.
  image = tf.image.decode_jpeg(
      image_header.checked(example['image_encoded']), channels=3)
  # checked_label comes first because decode_png converts to one channel and 8
  # bits.
  label = tf.image.decode_png(
      image_header.checked_label(example['label_encoded']), channels=1)
  shape = tf.shape(image)
  known = tf.reduce_max(label) <= largest_id
  with tf.control_dependencies([
      tf.debugging.assert_equal(tf.shape(label)[:2], shape[:2]),
      tf.Assert(known, ['a label that is no class'])]):
    label = tf.identity(label)
  return {
      'image': image,
      'label': label,
      'filename': example['filename'],
      'height': shape[0],
      'width': shape[1],
  }


class Decoder(contextlib.AbstractContextManager):
  """Checks whether TensorFlow can decode records.

  It is thread-safe.
  """

  def __init__(self, largest_id: int = constants.LARGEST_LABEL_ON_DISK):
    """Builds the graph.

    Args:
      largest_id: the largest that a label may hold.
    """
    self._largest_id = largest_id
    with tf.Graph().as_default() as graph:
      self._serialized = tf.placeholder(tf.string, [])
      decoded = decode(self._serialized, largest_id)
      with tf.control_dependencies([decoded['image'], decoded['label']]):
        self._done = tf.no_op()
    self._session = tf.Session(graph=graph, config=cpu_only())

  def check(self, data: bytes) -> None:
    """Raises InputError if `decode` fails; its text follows 'record N'."""
    try:
      self._session.run(self._done, {self._serialized: data})
    except tf.errors.OpError as error:
      # It explains more than TensorFlow if it finds a problem.
      name = check_content(data, self._largest_id)
      raise InputError('{}: {}'.format(
          name, tf_errors.message(error).split('\n')[0]))

  def __exit__(self, *unused_exception):
    self._session.close()


def check_content(
    data: bytes, largest_id: int = constants.LARGEST_LABEL_ON_DISK) -> str:
  """Decodes an example like the builder, to explain problems.

  Args:
    data: the bytes of a record.
    largest_id: the largest that a label may hold.

  Returns:
    The name of its image, for messages.

  Raises:
    InputError: a problem; its text follows 'record N'.
  """
  example = records.parse(data)
  name = records.name_in_messages(example.filename)
  image = pairs.image_facts(
      example.image_encoded, '{}: {}'.format(name, constants.KEY_IMAGE))
  label = pairs.decode_label(
      example.label_encoded, '{}: {}'.format(name, constants.KEY_LABEL),
      largest_id=largest_id)
  if image.size != label.size:
    raise InputError('{}: image {}x{}, label {}x{}'.format(
        name, *image.size, *label.size))
  return name


def elements(make_dataset: Callable[[], tf.data.Dataset]
             ) -> Generator[Any, None, None]:
  """Yields a dataset's elements as NumPy arrays.

  The caller's stack of default graphs is unchanged between elements.

  Args:
    make_dataset: function that builds the dataset in the default graph.
  """
  graph = tf.Graph()
  with graph.as_default():
    iterator = make_iterator(make_dataset())
    element = iterator.get_next()
  # A default session would allocate all memory of a GPU without using it.
  session = tf.Session(graph=graph, config=cpu_only())
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


def make_iterator(dataset: tf.data.Dataset) -> tf.data.Iterator:
  """Returns an initializable iterator over a dataset without autotuning.

  With TensorFlow 2.21's tuner, every third iterator runs a fixed number of
  parallel calls one after the other.
  """
  options = tf.data.Options()
  if hasattr(options, 'autotune'):
    options.autotune.enabled = False
    dataset = dataset.with_options(options)
  return tf.data.make_initializable_iterator(dataset)


def cpu_only() -> tf.ConfigProto:
  """Returns a session configuration that does not use GPUs."""
  return tf.ConfigProto(device_count={'GPU': 0})
