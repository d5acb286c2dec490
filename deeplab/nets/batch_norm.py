"""Batch norm (Ioffe and Szegedy 2015).

With fixed statistics it is a factor and an offset per channel, and the factor
can be folded into the weights of the convolution before it.
"""
from typing import Mapping, NamedTuple, Tuple

import tensorflow.compat.v1 as tf


class BatchNorm(NamedTuple):
  """Settings of a layer's batch norm."""
  # Decay of the moving averages.
  decay: float
  # Added to the variance.
  epsilon: float
  # True: uses batch statistics and updates the moving averages.
  is_training: bool
  # True: moving averages are constants, and are folded into the weights.
  is_folded: bool = False


def factor_and_offset(
    batch_norm: BatchNorm, variables: Mapping[str, tf.Tensor]
) -> Tuple[tf.Tensor, tf.Tensor]:
  """Returns the factor and the offset of batch norm with moving averages.

  Args:
    batch_norm: its settings.
    variables: gamma, beta, moving_mean and moving_variance.

  Returns:
    Two [channels] float32.
  """
  factor = variables['gamma'] * tf.rsqrt(
      variables['moving_variance'] + batch_norm.epsilon)
  offset = tf.subtract(
      variables['beta'], variables['moving_mean'] * factor, name='bias')
  return factor, offset


def folds_by_default() -> bool:
  """Whether networks fold batch norm by default: with TensorFlow 2.

  With 1.15, the reference's version, the graph stays the reference's.
  """
  return not tf.__version__.startswith('1.')
