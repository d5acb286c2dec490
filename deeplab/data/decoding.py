"""Decodes a serialized tf.Example to tensors, inside a graph."""
import contextlib
from typing import Any, Callable, Dict, Generator

from google.protobuf import message as protobuf_message
import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab.data import pairs
from deeplab.errors import InputError
from deeplab.system import tf_errors

# Offset and length in a PNG: width and height, 4 bytes each; bit depth and
# colour type.
_PNG_SIZE = (16, 8)
_PNG_TYPE = (24, 2)
_EIGHT_BIT_GRAY = b'\x08\x00'


def parse_example(serialized: tf.Tensor) -> Dict[str, tf.Tensor]:
  """Parses one serialized tf.Example inside a graph.

  Args:
    serialized: scalar string tensor.

  Returns:
    Dict of scalar string tensors: 'image_encoded', 'label_encoded', and
    'filename', which is empty if there is none. The graph fails if the example
    is malformed.
  """
  # Not tf.io.parse_single_example: its error text contains the data, which
  # crashes TensorFlow 1.15 with a segmentation fault.
  features, = _decode_proto(serialized, 'Example', 'features').values
  entries, = _decode_proto(features[0], 'Features', 'feature').values
  keys, found = _decode_proto(
      entries, 'Features.FeatureEntry', 'key', 'value').values
  wanted = tf.stack([
      tf.strings.reduce_join(tf.boolean_mask(found, tf.equal(keys, key)))
      for key in (
          constants.KEY_IMAGE, constants.KEY_LABEL, constants.KEY_FILENAME)])
  lists, = _decode_proto(wanted, 'Feature', 'bytes_list').values
  contents = _decode_proto(lists[:, 0], 'BytesList', 'value')
  one_of_each = tf.reduce_all(tf.equal(contents.sizes[:2], 1))
  with tf.control_dependencies([tf.Assert(
      one_of_each, ['no image and label', contents.sizes])]):
    values = contents.values[0][:, 0]
  return {'image_encoded': values[0], 'label_encoded': values[1],
          'filename': values[2]}


def _decode_proto(serialized, message, *fields):
  return tf.io.decode_proto(
      serialized, 'tensorflow.' + message, fields, [tf.string] * len(fields))


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
  example = parse_example(serialized)
  # decode_jpeg also recognizes PNG and, unlike tf.image.decode_image, sets the
  # rank.
  image = tf.image.decode_jpeg(_checked(example['image_encoded']), channels=3)
  label = tf.image.decode_png(
      _checked(example['label_encoded'], is_label=True), channels=1)
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


def _checked(encoded, is_label=False):
  """Returns the bytes of a file; the graph fails if they are not allowed.

  TensorFlow's decoders of JPEG and PNG also accept GIF, and WebP since 2.21.
  They limit the size in a header only to avoid integer overflow, and convert
  any PNG to one channel of 8 bits.
  """
  is_png, is_jpeg = (
      tf.equal(tf.strings.substr(encoded, 0, len(signature)), signature)
      for signature in (pairs.SIGNATURES[pairs.PNG],
                        pairs.SIGNATURES[pairs.JPEG]))
  known = is_png | is_jpeg
  if is_label:
    known = is_png & tf.equal(
        tf.strings.substr(encoded, *_PNG_TYPE), _EIGHT_BIT_GRAY)
  with tf.control_dependencies([tf.Assert(known, ['another kind of image'])]):
    size = tf.cond(
        is_png, lambda: tf.io.decode_raw(
            tf.strings.substr(encoded, *_PNG_SIZE), tf.int32,
            little_endian=False),
        lambda: tf.image.extract_jpeg_shape(encoded)[:2])
  pixels = tf.reduce_prod(tf.cast(size, tf.int64))
  # Sides of 2 ** 31 and more are negative here.
  small = tf.reduce_all(size > 0) & (pixels <= constants.MAX_PIXELS)
  with tf.control_dependencies([tf.Assert(small, ['too many pixels', size])]):
    return tf.identity(encoded)


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
  try:
    features = tf.train.Example.FromString(data).features.feature
  except protobuf_message.DecodeError:
    raise InputError('is not a tf.Example')
  filename = b''.join(features[constants.KEY_FILENAME].bytes_list.value[:1])
  name = '({})'.format(constants.text_of_name(filename) or 'no name')
  sizes = []
  for key, decode_one in (
      (constants.KEY_IMAGE, pairs.image_facts),
      (constants.KEY_LABEL, lambda encoded, title: pairs.decode_label(
          encoded, title, largest_id=largest_id))):
    values = features[key].bytes_list.value
    if len(values) != 1:
      raise InputError('{}: {} holds {} values of bytes, expected 1'.format(
          name, key, len(values)))
    sizes.append(decode_one(values[0], '{}: {}'.format(name, key)).size)
  if sizes[0] != sizes[1]:
    raise InputError('{}: image {}x{}, label {}x{}'.format(
        name, *sizes[0], *sizes[1]))
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
