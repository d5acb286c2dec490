"""The training loss."""
from typing import Callable, NamedTuple, Optional, Sequence

import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab.nets import layers

# Avoids division by zero if every pixel is ignored, as in some crops.
_SMALLEST_PIXEL_COUNT = 1e-5
# Largest number of chunks of a batch in the fused loss. They run in parallel,
# because some operations on upsampled logits use one core only.
_MOST_CHUNKS = 8
# For smaller probabilities, the logarithm is computed from the logits.
_SMALLEST_PROBABILITY = 1e-30


class Sum(NamedTuple):
  """The loss of some images, before division by the number of pixels."""
  # float32 scalar, the weighted sum over pixels.
  total: tf.Tensor
  # float32 scalar, the number of pixels that are not ignored.
  count: tf.Tensor


def sum_over_pixels(
    logits: tf.Tensor, labels: tf.Tensor,
    label_weights: Sequence[float] = (), *, is_fused: bool = False) -> Sum:
  """Sums cross-entropy over the pixels that are not ignored.

  Logits are resized to the labels' size.

  Args:
    logits: [batch, height', width', num_classes] float32.
    labels: [batch, height, width, 1] int32 in [0, num_classes); pixels with
      constants.IGNORE_LABEL are ignored.
    label_weights: loss weight of each class, or one for all; (): 1.
    is_fused: compute loss and gradient together, in fewer passes over the
      resized logits, the largest tensor of a training step. Values differ only
      by rounding.
  """
  sum_over = _fused_sum if is_fused else _sum
  batch = labels.shape.as_list()[0] or 1
  chunks = max(count for count in range(1, _MOST_CHUNKS + 1)
               if batch % count == 0) if is_fused else 1
  sums, counts = [], []
  for chunk_logits, chunk_labels in zip(
      tf.split(logits, chunks), tf.split(labels, chunks)):
    chunk_labels = tf.reshape(chunk_labels, [-1])
    is_kept = tf.cast(
        tf.not_equal(chunk_labels, constants.IGNORE_LABEL), tf.float32)
    weights = is_kept
    if len(label_weights) == 1:
      weights *= label_weights[0]
    elif label_weights:
      weights *= tf.gather(
          tf.constant(label_weights, tf.float32), chunk_labels)
    sums.append(sum_over(chunk_logits, chunk_labels, weights,
                         labels.shape.as_list()[1:3]))
    counts.append(tf.reduce_sum(is_kept))
  return Sum(tf.add_n(sums), tf.add_n(counts))


def mean(sums: Sequence[Sum],
         shared_count: Optional[Callable[[tf.Tensor], tf.Tensor]] = None
         ) -> tf.Tensor:
  """Divides the replicas' sums by their pixels and adds the mean to tf.losses.

  Every pixel has the same weight, in whichever replica it is.

  Args:
    sums: the replicas' sums.
    shared_count: function from the number of pixels on this host to the
      divisor; None: the number on this host.

  Returns:
    float32 scalar; 0 if all pixels are ignored.
  """
  count = tf.add_n([one.count for one in sums])
  if shared_count:
    count = shared_count(count)
  loss = tf.div(
      tf.add_n([one.total for one in sums]),
      tf.maximum(count, _SMALLEST_PIXEL_COUNT), name='softmax_cross_entropy')
  tf.losses.add_loss(loss)
  return loss


def _sum(logits, labels, weights, size):
  """Returns the weighted sum of the cross-entropy over pixels.

  Args:
    logits: [batch, height', width', num_classes] float32.
    labels: [batch * height * width] int32.
    weights: float32 of the same shape.
    size: (height, width).

  Returns:
    float32 scalar.
  """
  # Deviates: research/deeplab's utils/train_utils.py makes one-hot labels
  # first, which takes longer and gives the same value.
  return tf.reduce_sum(weights * _of_pixels(_resized(logits, size), labels))


def _resized(logits, size):
  # Parity: research/deeplab's utils/train_utils.py,
  # add_softmax_cross_entropy_loss_for_each_scale, aligns corners; the
  # prediction of labels does not.
  return layers.resize_bilinear(logits, size, align_corners=True)


def _of_pixels(logits, labels):
  """Returns the cross-entropy of each pixel; logits have the labels' size."""
  return tf.nn.sparse_softmax_cross_entropy_with_logits(
      labels=labels, logits=tf.reshape(logits, [-1, layers.channels(logits)]))


def _fused_sum(logits, labels, weights, size):
  """Returns the same as _sum, with a custom gradient.

  TensorFlow's kernel for sparse cross-entropy takes several times as long as
  the softmax. The gradient is the softmax minus the one-hot label. The upstream
  gradient is a scalar, which can be multiplied after the resizing.
  """
  @tf.custom_gradient
  def weighted_sum(logits):
    resized = _resized(logits, size)
    channels = layers.channels(logits)
    probabilities = tf.nn.softmax(tf.reshape(resized, [-1, channels]))
    of_label = tf.squeeze(tf.gather(
        probabilities, labels[:, tf.newaxis], axis=1, batch_dims=1), 1)
    of_pixels = tf.cond(
        tf.reduce_min(of_label) > _SMALLEST_PROBABILITY,
        lambda: -tf.log(of_label), lambda: _of_pixels(resized, labels))

    def gradient(upstream):
      one_hot = tf.one_hot(labels, channels)
      resized_gradient = tf.reshape(
          (probabilities - one_hot) * weights[:, tf.newaxis],
          tf.shape(resized))
      if resized is logits:  # they already had the labels' size
        return resized_gradient * upstream
      return upstream * tf.raw_ops.ResizeBilinearGrad(
          grads=resized_gradient, original_image=logits, align_corners=True)

    return tf.reduce_sum(of_pixels * weights), gradient

  return weighted_sum(logits)
