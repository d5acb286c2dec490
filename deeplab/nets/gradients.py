"""Gradients that read wide tensors fewer times than TensorFlow's own.

The values are the same, except for the order in which sums are rounded. An
operation gets its gradient where it is built:

    with gradients.instead_of(Relu6=gradients.PASSED_ON):
      outputs = tf.nn.relu6(inputs)
"""
import contextlib
import functools
from typing import Dict, Iterator, List, Optional, Tuple

import numpy as np
import tensorflow.compat.v1 as tf

# For BiasAdd: sums by a matrix product.
SUMMED_BY_PRODUCT = 'DeeplabSummedByProduct'
# For any operation: passes on the gradient of its output.
PASSED_ON = 'DeeplabPassedOn'
# For FakeQuantWithMinMaxVars: no gradient for the range, which is not trained.
WITHIN_RANGE = 'DeeplabWithinRange'
# The same after an activation whose own gradient is PASSED_ON: both gradients
# in one pass.
WITHIN_RANGE_OF = {'Relu': 'DeeplabWithinRangeOfRelu',
                   'Relu6': 'DeeplabWithinRangeOfRelu6'}

# Range of an activation's output in which its gradient is not 0: from the least
# positive normal number (processors may flush smaller ones to 0) to below 6.
_LEAST = float(np.finfo(np.float32).tiny)
_OF_ACTIVATION: Dict[str, Tuple[float, float]] = {
    'Relu': (_LEAST, np.inf),
    'Relu6': (_LEAST, float(np.nextafter(np.float32(6), np.float32(0))))}


@contextlib.contextmanager
def instead_of(**names: str) -> Iterator[None]:
  """Context in which operations get other gradients than TensorFlow's.

  Args:
    **names: name of a gradient in this module, by type of operation.
  """
  with tf.get_default_graph().gradient_override_map(names):
    yield


@tf.RegisterGradient(PASSED_ON)
def _passed_on(unused_operation: tf.Operation, gradient: tf.Tensor
               ) -> tf.Tensor:
  return gradient


@tf.RegisterGradient(SUMMED_BY_PRODUCT)
def _summed_by_product(operation: tf.Operation, gradient: tf.Tensor
                       ) -> Tuple[tf.Tensor, tf.Tensor]:
  channels = operation.inputs[1].shape.as_list()[0]
  rows = tf.reshape(gradient, [-1, channels])
  # A matrix product sums long columns faster than a reduction does.
  sums = tf.matmul(tf.ones([1, tf.shape(rows)[0]]), rows)
  return gradient, tf.reshape(sums, [channels])


def _within_range(operation: tf.Operation, gradient: tf.Tensor, *,
                  least: float = -np.inf, most: float = np.inf
                  ) -> List[Optional[tf.Tensor]]:
  values, low, high = operation.inputs
  low, high = nudged(low, high, bits=operation.get_attr('num_bits'),
                     is_narrow=operation.get_attr('narrow_range'))
  return [masked(gradient, values, tf.maximum(low, least),
                 tf.minimum(high, most)), None, None]


tf.RegisterGradient(WITHIN_RANGE)(_within_range)
for _kind, _name in WITHIN_RANGE_OF.items():
  tf.RegisterGradient(_name)(functools.partial(
      _within_range, least=_OF_ACTIVATION[_kind][0],
      most=_OF_ACTIVATION[_kind][1]))


def nudged(low: tf.Tensor, high: tf.Tensor, *, bits: int, is_narrow: bool
           ) -> Tuple[tf.Tensor, tf.Tensor]:
  """Returns a range as FakeQuantWithMinMaxVars adjusts it.

  It is shifted so that 0 is one of the rounded values. Parity: the arithmetic
  is that of core/kernels/fake_quant_ops_functor.h, Nudge, and of the gradient
  there, which is unbounded if the range is empty.

  Args:
    low: float32 scalar, at most 0.
    high: float32 scalar, at least 0.
    bits: number of bits.
    is_narrow: whether to omit the lowest value.

  Returns:
    Two float32 scalars.
  """
  smallest, largest = float(is_narrow), float(2 ** bits - 1)
  is_empty = tf.equal(high - low, 0.0)
  scale = tf.where(is_empty, tf.ones_like(low), high - low) / (
      largest - smallest)
  zero = tf.clip_by_value(smallest - low / scale, smallest, largest)
  whole = tf.floor(zero)
  zero = whole + tf.cast(zero - whole >= 0.5, tf.float32)
  infinite = tf.fill(tf.shape(low), np.float32(np.inf))
  return (tf.where(is_empty, -infinite, (smallest - zero) * scale),
          tf.where(is_empty, infinite, (largest - zero) * scale))


def masked(gradient: tf.Tensor, values: tf.Tensor, low: tf.Tensor,
           high: tf.Tensor) -> tf.Tensor:
  """Returns the gradient if low <= value <= high, and 0 elsewhere.

  Args:
    gradient: float32, of any shape.
    values: float32 of the same shape.
    low: float32 scalar.
    high: float32 scalar.

  Returns:
    float32 of that shape.
  """
  # In later versions, an operation for another kind of rounding computes this
  # in one pass.
  in_one_pass = getattr(tf.raw_ops, 'QuantizeAndDequantizeV4Grad', None)
  if in_one_pass:
    return in_one_pass(gradients=gradient, input=values, input_min=low,
                       input_max=high, axis=-1)[0]
  return tf.where(tf.logical_and(values >= low, values <= high), gradient,
                  tf.zeros_like(gradient))
