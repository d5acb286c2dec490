"""Brings decoded images and labels to the network's input size.

The steps are: resize to a range; in training, scale at random; pad at the
bottom and on the right; in training, crop and flip at random.

By default an image is float32 [height, width, 3], RGB in [0, 255], and a label
is an integer [height, width, 1] or None; results have the types of the
arguments.

Random numbers are arguments in [0, 1). If the caller derives them from a seed,
results do not depend on parallel execution.
"""
from typing import Optional, Tuple

import numpy as np
import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab.config import label_map as label_maps
from deeplab.config import options as options_lib


def for_evaluation(
    image: tf.Tensor, label: Optional[tf.Tensor],
    options: options_lib.PreprocessOptions,
    label_map: label_maps.LabelMap = label_maps.ADE20K
) -> Tuple[tf.Tensor, Optional[tf.Tensor]]:
  """Brings an image and its label to the crop size, without randomness.

  Args:
    image: an image of any numeric type.
    label: ids on disk, of any integer type; or None.
    options: size and resizing.
    label_map: maps ids to classes.

  Returns:
    (image, label): float32 [crop_height, crop_width, 3] and int32 [crop_height,
    crop_width, 1], classes. The graph fails with tf.errors.InvalidArgumentError
    if a resized image is larger than the crop.
  """
  image = _image(image)
  shape = tf.shape(image)
  size = resized_size(shape[0], shape[1], options)
  # Checked before memory is allocated.
  fits = tf.Assert(tf.reduce_all(size <= options.crop_size),
                   ['larger than the crop', size])
  with tf.control_dependencies([fits]):
    image = tf.identity(image)
  image, label = resize_to_range(image, label, options)
  label = _classes(label, label_map)
  image, label = pad_to_crop(image, label, options)
  return _with_crop_shape(image, label, options)


def for_training(
    image: tf.Tensor, label: tf.Tensor, options: options_lib.PreprocessOptions,
    seed: tf.Tensor, label_map: label_maps.LabelMap = label_maps.ADE20K
) -> Tuple[tf.Tensor, tf.Tensor]:
  """Brings an image and its label to the crop size, augmented at random.

  Args:
    image: as in `for_evaluation`.
    label: as in `for_evaluation`, not None.
    options: size and augmentation.
    seed: int64 [2]; equal seeds give equal results.
    label_map: maps ids to classes.

  Returns:
    (image, label) as from `for_evaluation`.
  """
  # The draws are for the scale, the crop's row and column, and the flip.
  draws = tf.random.stateless_uniform([4], seed)
  image = _image(image)
  image, label = resize_to_range(image, label, options)
  label = _classes(label, label_map)
  image, label = random_scale(image, label, options=options, draw=draws[0])
  image, label = pad_to_crop(image, label, options)
  image, label = random_crop(image, label, options=options, draws=draws[1:3])
  image, label = random_flip(image, label, draw=draws[3])
  return _with_crop_shape(image, label, options)


def resized_size(height: tf.Tensor, width: tf.Tensor,
                 options: options_lib.PreprocessOptions) -> tf.Tensor:
  """Computes the size of an image after resizing, before padding.

  Args:
    height: int32 scalar, pixels.
    width: int32 scalar, pixels.
    options: PreprocessOptions.

  Returns:
    int32 [2]: (height, width), in pixels.
  """
  size = tf.stack([height, width])
  if options.min_resize_value is None:
    return size
  sides = tf.cast(size, tf.float32)
  longer = tf.reduce_max(sides)
  scale = float(options.min_resize_value) / tf.reduce_min(sides)
  limit = _longest_side(options)
  if limit is not None:
    scale = tf.where(tf.floor(longer * scale) > limit, limit / longer, scale)
  # Deviates: the reference fails if a side becomes 0.
  size = tf.maximum(tf.cast(tf.floor(sides * scale), tf.int32), 1)
  return _up_to_factor(size, options)


def resize_to_range(
    image: tf.Tensor, label: Optional[tf.Tensor],
    options: options_lib.PreprocessOptions
) -> Tuple[tf.Tensor, Optional[tf.Tensor]]:
  """Resizes to a range of sizes and keeps the aspect ratio.

  The shorter side becomes `min_resize_value`. If the longer side would exceed
  `max_resize_value`, it becomes `max_resize_value` instead. With a
  `resize_factor` both sides are multiples of it, plus one.

  Args:
    image: an image of any numeric type.
    label: a label or None.
    options: the range; without `min_resize_value` nothing is resized.

  Returns:
    (image, label), resized; the image is float32. The graph fails with
    tf.errors.InvalidArgumentError if it would have more than
    constants.MAX_PIXELS, which is possible for a narrow image without a limit.
  """
  if options.min_resize_value is None:
    return tf.cast(image, tf.float32), label
  shape = tf.shape(image)
  size = resized_size(shape[0], shape[1], options)
  pixels = tf.reduce_prod(tf.cast(size, tf.int64))
  few = tf.Assert(pixels <= constants.MAX_PIXELS, [
      'too many pixels after resizing; set a max_resize_value', shape, size])
  with tf.control_dependencies([few]):
    size = tf.identity(size)
  return _resize(image, label, size)


def random_scale(
    image: tf.Tensor, label: Optional[tf.Tensor], *,
    options: options_lib.PreprocessOptions, draw: tf.Tensor
) -> Tuple[tf.Tensor, Optional[tf.Tensor]]:
  """Scales by a random factor from the options' range.

  The factors are `scale_factor_step_size` apart, both ends included. With a
  step of 0 the distribution is uniform. Sides are rounded down.
  """
  low, high = options.min_scale_factor, options.max_scale_factor
  if low == high == 1.0:
    return image, label
  if options.scale_factor_step_size == 0 or low == high:
    factor = low + draw * (high - low)
  else:
    factors = tf.constant(_scale_factors(options), tf.float32)
    index = tf.cast(draw * tf.cast(tf.size(factors), tf.float32), tf.int32)
    factor = tf.gather(factors, index)
  size = tf.cast(tf.cast(tf.shape(image)[:2], tf.float32) * factor, tf.int32)
  return _resize(image, label, tf.maximum(size, 1))


def pad_to_crop(
    image: tf.Tensor, label: Optional[tf.Tensor],
    options: options_lib.PreprocessOptions
) -> Tuple[tf.Tensor, Optional[tf.Tensor]]:
  """Pads at the bottom and on the right, to at least the crop size.

  The image is padded with mid-grey, the label with the ignored class.
  """
  missing = tf.maximum(options.crop_size - tf.shape(image)[:2], 0)
  paddings = [[0, missing[0]], [0, missing[1]], [0, 0]]
  # Parity: research/deeplab's core/preprocess_utils.py, pad_to_bounding_box,
  # pads the difference from mid-grey with 0. This rounds the image's last bit,
  # which affects the scores of quantized models.
  image = (tf.pad(image - constants.PADDING_VALUE, paddings) +
           constants.PADDING_VALUE)
  if label is not None:
    label = tf.pad(label, paddings, constant_values=constants.IGNORE_LABEL)
  return image, label


def random_crop(
    image: tf.Tensor, label: tf.Tensor, *,
    options: options_lib.PreprocessOptions, draws: tf.Tensor
) -> Tuple[tf.Tensor, tf.Tensor]:
  """Crops an image and its label to the same random window.

  Args:
    image: no side is shorter than the crop.
    label: a label of the same size.
    options: the crop size.
    draws: float32 [2], for the row and the column.
  """
  # A draw is at most 1 - 2**-23, so its product with n is below n.
  positions = tf.shape(image)[:2] - options.crop_size + 1
  top_left = tf.cast(draws * tf.cast(positions, tf.float32), tf.int32)
  begin = tf.concat([top_left, [0]], axis=0)
  size = list(options.crop_size) + [-1]
  return tf.slice(image, begin, size), tf.slice(label, begin, size)


def random_flip(image: tf.Tensor, label: tf.Tensor, *,
                draw: tf.Tensor) -> Tuple[tf.Tensor, tf.Tensor]:
  """Flips horizontally if the draw is below 0.5."""
  return tf.cond(
      draw < 0.5,
      lambda: (tf.reverse(image, [1]), tf.reverse(label, [1])),
      lambda: (tf.identity(image), tf.identity(label)))


def _image(image):
  """Returns an image as a tensor, with its rank checked."""
  image = tf.convert_to_tensor(image)
  image.shape.assert_is_compatible_with([None, None, 3])
  return image


def _classes(label, label_map):
  """Maps ids on disk to int32 classes of the same shape; None to None."""
  if label is None:
    return None
  label = tf.cast(label, tf.int32)
  label.shape.assert_is_compatible_with([None, None, 1])
  if label_map == label_maps.ADE20K:
    ignored = tf.fill(tf.shape(label), constants.IGNORE_LABEL)
    return tf.where(label < constants.NUM_CLASSES, label, ignored)
  return tf.gather(tf.constant(label_map.table, tf.int32), label)


def _longest_side(options):
  """Returns the limit of the longer side as a whole float, or None."""
  limit, factor = options.max_resize_value, options.resize_factor
  if limit is None:
    return None
  if factor is not None:
    # Rounding up to the factor must not exceed the limit.
    limit -= (limit - 1) % factor
  return float(limit)


def _up_to_factor(size, options):
  """Rounds a tensor up to a multiple of the factor, plus 1."""
  factor = options.resize_factor
  if factor is None:
    return size
  return size + (factor - (size - 1) % factor) % factor


def _scale_factors(options):
  """Returns an array of the evenly spaced scale factors."""
  low, high = options.min_scale_factor, options.max_scale_factor
  # The margin keeps the last factor: (1.9 - 0.5) / 0.1 is just below 14.
  steps = int((high - low) / options.scale_factor_step_size + 1e-6)
  return np.linspace(low, high, steps + 1)


def _resize(image, label, size):
  """Resizes, bilinear for the image and nearest neighbour for the label.

  The image becomes float32; a cast before would be slower and change no bit.
  """
  image = tf.squeeze(tf.image.resize_bilinear(
      tf.expand_dims(image, 0), size, align_corners=True), [0])
  if label is not None:
    label = tf.squeeze(tf.image.resize_nearest_neighbor(
        tf.expand_dims(label, 0), size, align_corners=True), [0])
  return image, label


def _with_crop_shape(image, label, options):
  """Sets static shapes; the graph checks them."""
  height, width = options.crop_size
  image = tf.ensure_shape(image, [height, width, 3])
  if label is not None:
    label = tf.ensure_shape(label, [height, width, 1])
  return image, label
