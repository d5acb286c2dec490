"""Batch norm (Ioffe and Szegedy 2015): how layers normalize.

With statistics that do not change it is a factor and an offset for each
channel: the factor can be put into the weights of the convolution before it.
"""
from typing import Mapping, NamedTuple, Tuple

import tensorflow.compat.v1 as tf


class BatchNorm(NamedTuple):
  """How a layer normalizes its output."""
  # Decay of the moving averages.
  decay: float
  # Added to the variance.
  epsilon: float
  # True: batch statistics, and moving averages are updated.
  is_training: bool
  # True: moving averages are constants, and are folded into the weights.
  is_folded: bool = False


def factor_and_offset(
    batch_norm: BatchNorm, variables: Mapping[str, tf.Tensor]
) -> Tuple[tf.Tensor, tf.Tensor]:
  """Returns what batch norm by the moving averages multiplies by, and adds.

  Args:
    batch_norm: how it normalizes.
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
  """Whether networks fold where no one says so: with TensorFlow 2.

  The reference has TensorFlow 1.15, where the graph stays the reference's.
  """
  return not tf.__version__.startswith('1.')
