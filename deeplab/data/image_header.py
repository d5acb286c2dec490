"""What may be decoded inside a graph, by the first bytes of an image.

TensorFlow's decoders of JPEG and PNG take GIF too, and WebP since 2.21; a
header's size they only hold against what an integer can count.
"""
import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab.data import pairs

# Where the header of a PNG has width and height, 4 bytes each.
_PNG_SIZE = (16, 8)
# Where it has bit depth and colour type, and what these are in 8-bit gray.
_PNG_TYPE = (24, 2)
_EIGHT_BIT_GRAY = b'\x08\x00'


def checked(encoded: tf.Tensor) -> tf.Tensor:
  """Passes an encoded image on if it is one to decode.

  Else the graph fails; splits.diagnose finds out for which record.

  Args:
    encoded: scalar string tensor, the bytes of a file.

  Returns:
    The same tensor: a JPEG or PNG of at most constants.MAX_PIXELS.
  """
  is_png, is_jpeg = _is(pairs.PNG, encoded), _is(pairs.JPEG, encoded)
  known = tf.Assert(is_png | is_jpeg, ['neither JPEG nor PNG'])
  with tf.control_dependencies([known]):
    size = tf.cond(is_png, lambda: _png_size(encoded),
                   lambda: tf.image.extract_jpeg_shape(encoded)[:2])
  pixels = tf.reduce_prod(tf.cast(size, tf.int64))
  # Sides of 2 ** 31 and more are below 0 here.
  small = tf.reduce_all(size > 0) & (pixels <= constants.MAX_PIXELS)
  with tf.control_dependencies([tf.Assert(small, ['too many pixels', size])]):
    return tf.identity(encoded)


def checked_label(encoded: tf.Tensor) -> tf.Tensor:
  """Passes an encoded label on if it is one to decode: an 8-bit gray PNG.

  Args:
    encoded: scalar string tensor, the bytes of a file.

  Returns:
    The same tensor; see `checked`.
  """
  encoded = checked(encoded)
  is_gray = _is(pairs.PNG, encoded) & tf.equal(
      tf.strings.substr(encoded, *_PNG_TYPE), _EIGHT_BIT_GRAY)
  with tf.control_dependencies([tf.Assert(is_gray, ['no 8-bit gray PNG'])]):
    return tf.identity(encoded)


def _is(image_format, encoded):
  signature = pairs.SIGNATURES[image_format]
  return tf.equal(
      tf.strings.substr(encoded, 0, len(signature)), signature)


def _png_size(encoded):
  """Returns width and height of a PNG file: int32 [2]."""
  return tf.io.decode_raw(tf.strings.substr(encoded, *_PNG_SIZE), tf.int32,
                          little_endian=False)
