"""The training loss."""
from typing import Sequence

import tensorflow.compat.v1 as tf

from deeplab import contract
from deeplab.nets import layers

# In place of 0, of a batch in which every pixel is ignored: its loss is then 0.
# A crop may hold nothing but pixels that are ignored.
_SMALLEST_PIXEL_COUNT = 1e-5


def softmax_cross_entropy(
    logits: tf.Tensor, labels: tf.Tensor,
    label_weights: Sequence[float] = ()) -> tf.Tensor:
  """Mean cross-entropy over the pixels that are not ignored.

  Logits are resized to the labels' size. Adds the loss to tf.losses.

  Args:
    logits: [batch, height', width', num_classes] float32.
    labels: [batch, height, width, 1] int32 in [0, num_classes);
      contract.IGNORE_LABEL counts nothing.
    label_weights: loss weight of each class, or one for all; (): 1.

  Returns:
    float32 scalar: the weighted sum over pixels divided by the number of
    pixels that are not ignored (0 where there is none).
  """
  # Parity: research/deeplab's utils/train_utils.py,
  # add_softmax_cross_entropy_loss_for_each_scale, aligns corners, which the
  # prediction of labels does not.
  logits = layers.resize_bilinear(
      logits, labels.shape.as_list()[1:3], align_corners=True)
  num_classes = layers.channels(logits)
  labels = tf.reshape(labels, [-1])
  is_kept = tf.cast(tf.not_equal(labels, contract.IGNORE_LABEL), tf.float32)
  # Deviates: that function makes one-hot labels first; same value, less work.
  pixel_losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
      labels=labels, logits=tf.reshape(logits, [-1, num_classes]))
  weights = is_kept
  if len(label_weights) == 1:
    weights *= label_weights[0]
  elif label_weights:
    weights *= tf.gather(tf.constant(label_weights, tf.float32), labels)
  loss = tf.div(
      tf.reduce_sum(pixel_losses * weights),
      tf.maximum(tf.reduce_sum(is_kept), _SMALLEST_PIXEL_COUNT),
      name='softmax_cross_entropy')
  tf.losses.add_loss(loss)
  return loss
