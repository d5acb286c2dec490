"""Checks image headers inside a graph, before decoding.

TensorFlow's decoders of JPEG and PNG also accept GIF, and WebP since 2.21. They
limit the size in a header only to avoid integer overflow.
"""
import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab.data import pairs

# Offset and length of a PNG's width and height, 4 bytes each.
_PNG_SIZE = (16, 8)
# Offset and length of bit depth and colour type; their value in 8-bit gray.
_PNG_TYPE = (24, 2)
_EIGHT_BIT_GRAY = b'\x08\x00'


def checked(encoded: tf.Tensor) -> tf.Tensor:
  """Returns an encoded image; the graph fails if it is not allowed.

  splits.diagnose finds the record.

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
  # Sides of 2 ** 31 and more are negative here.
  small = tf.reduce_all(size > 0) & (pixels <= constants.MAX_PIXELS)
  with tf.control_dependencies([tf.Assert(small, ['too many pixels', size])]):
    return tf.identity(encoded)


def checked_label(encoded: tf.Tensor) -> tf.Tensor:
  """Returns an encoded label; the graph fails if it is no 8-bit gray PNG.

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
