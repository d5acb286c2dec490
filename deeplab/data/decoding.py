"""From a serialized tf.Example to tensors, inside a graph."""
import contextlib
from typing import Dict

import tensorflow.compat.v1 as tf

from deeplab import contract
from deeplab import tf_texts
from deeplab.data import examples
from deeplab.data import image_header
from deeplab.data import records
from deeplab.errors import InputError


def decode(serialized: tf.Tensor,
           largest_id: int = contract.LARGEST_LABEL_ON_DISK
           ) -> Dict[str, tf.Tensor]:
  """Decodes a serialized tf.Example.

  The graph fails on what the builder refuses; examples.check_content says in
  words what is wrong.

  Args:
    serialized: scalar string tensor, of which examples.check_form was asked.
    largest_id: the largest that a label may hold.

  Returns:
    Dict: 'image' uint8 [height, width, 3], RGB; 'label' uint8 [height, width,
    1], classes as on disk; 'filename' string; 'height' and 'width' int32,
    pixels.
  """
  example = records.parse_example(serialized)
  # The operation recognizes JPEG and PNG by content, and unlike
  # tf.image.decode_image it sets the rank.
  image = tf.image.decode_jpeg(
      image_header.checked(example['image_encoded']), channels=3)
  # It would make one channel of others, and 8 bits of 16.
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
  """Finds out whether TensorFlow decodes a record, until it is closed.

  Threads can share one.
  """

  def __init__(self, largest_id: int = contract.LARGEST_LABEL_ON_DISK):
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
    """Raises InputError where `decode` fails, in words after 'record N'."""
    form = examples.check_form(data)
    try:
      self._session.run(self._done, {self._serialized: data})
    except tf.errors.OpError as error:
      # It tells more than TensorFlow, where it finds something.
      examples.check_content(data, self._largest_id)
      raise InputError('({}): {}'.format(
          form.filename, tf_texts.message(error).split('\n')[0]))

  def __exit__(self, *unused_exception):
    self._session.close()


def cpu_only() -> tf.ConfigProto:
  """Returns a session's configuration that leaves a GPU's memory alone."""
  return tf.ConfigProto(device_count={'GPU': 0})
