"""Fake quantization within the layers (Jacob et al. 2018, section 3).

Variables, placement and arithmetic equal tf.contrib.quantize's rewrite, which
later TensorFlow versions lack; `quantize` chooses between the two. Batch norm
is folded into the weights before they are rounded, as in the converted model.
"""
from typing import Callable, Mapping, NamedTuple, Optional

import numpy as np
import tensorflow.compat.v1 as tf

from deeplab.distribution import replicas
from deeplab.nets import batch_norm as batch_norm_lib
from deeplab.nets import gradients

_BITS = 8
# Parity: contrib/quantize/python/quantize.py, ema_decay.
_RANGE_DECAY = 0.999
_STEP = 'fake_quantization_step'
# Activations whose output is never below 0, and the types of their operations.
_KINDS = {tf.nn.relu: 'Relu', tf.nn.relu6: 'Relu6'}


class FakeQuant(NamedTuple):
  """Settings of fake quantization."""
  # Whether ranges follow the values.
  is_training: bool
  # Step from which values are rounded and batch norm is frozen.
  delay_step: int = 0
  # The replica that the layers belong to.
  replica: replicas.Replica = replicas.ONLY

  @property
  def is_delayed(self) -> bool:
    """Whether training starts before the delay step."""
    return self.is_training and self.delay_step > 0


def weights(values: tf.Tensor, fake_quant: FakeQuant) -> tf.Tensor:
  """Rounds weights to 8 bits between their smallest and largest value.

  Args:
    values: float32, batch norm folded in.
    fake_quant: its settings.

  Returns:
    float32 of the same shape.
  """
  with tf.variable_scope('weights_quant'):
    # Parity: initial values of contrib/quantize/python/quant_ops.py,
    # LastValueQuantize.
    low, high = _range_variables(-6.0, 6.0)
    if fake_quant.is_training:
      # All replicas have the same weights.
      smallest, largest = _range_of(values)
      low, high = fake_quant.replica.update_once(
          lambda: (tf.assign(low, smallest), tf.assign(high, largest)))
    # Narrow: without -128, so that two products fit into 16 bits (appendix B).
    return _rounded(values, low, high, fake_quant, is_narrow=True)


def activations(
    values: tf.Tensor, fake_quant: FakeQuant, *, scope: str = 'act_quant',
    initial_min: float = 0.0,
    activation: Optional[Callable[[tf.Tensor], tf.Tensor]] = None
) -> tf.Tensor:
  """Rounds activations to 8 bits between moving averages of their extremes.

  Args:
    values: float32, of any shape.
    fake_quant: its settings.
    scope: variable scope of the range.
    initial_min: initial lower end of the range; the upper end is 6.
    activation: applied first, outside of the scope; None: no activation.

  Returns:
    float32 of the same shape.
  """
  kind = _KINDS.get(activation)
  # If values are rounded in every step, only the rounding reads the activation,
  # so the two gradients can be fused.
  merged = kind if (
      fake_quant.is_training and not fake_quant.is_delayed) else None
  if activation:
    with gradients.instead_of(
        **({merged: gradients.PASSED_ON} if merged else {})):
      values = activation(values)
  with tf.variable_scope(scope):
    low, high = _range_variables(initial_min, 6.0)
    if fake_quant.is_training:
      # The range covers the whole batch.
      smallest, largest = fake_quant.replica.extremes(
          *_range_of(values, is_positive=bool(kind)))
      low, high = fake_quant.replica.update_once(
          lambda: (_follow(low, smallest), _follow(high, largest)))
    return _rounded(
        values, low, high, fake_quant, gradient=(
            gradients.WITHIN_RANGE_OF[merged] if merged
            else gradients.WITHIN_RANGE))


def _rounded(values, low, high, fake_quant, *, is_narrow=False,
             gradient=gradients.WITHIN_RANGE):
  """Rounds values between low and high, from the delay step on.

  Args:
    values: float32, of any shape.
    low: float32 scalar, lower end of the range.
    high: float32 scalar, upper end.
    fake_quant: its settings.
    is_narrow: whether to omit the lowest of the 256 values.
    gradient: name of the rounding's gradient in training.
  """
  with gradients.instead_of(**(
      {'FakeQuantWithMinMaxVars': gradient} if fake_quant.is_training
      else {})):
    rounded = tf.quantization.fake_quant_with_min_max_vars(
        values, low, high, num_bits=_BITS, narrow_range=is_narrow)
  if not fake_quant.is_delayed:
    return rounded
  return tf.cond(_training_step() >= fake_quant.delay_step,
                 lambda: rounded, lambda: values)


def _range_variables(low, high):
  return tuple(
      tf.get_variable(name, [], initializer=tf.constant_initializer(value),
                      trainable=False)
      for name, value in (('min', low), ('max', high)))


def _range_of(values, is_positive=False):
  """Returns a tensor's extremes, widened to include 0, as TFLite requires.

  Args:
    values: float32, of any shape.
    is_positive: whether no value is below 0.
  """
  smallest = tf.constant(0.0) if is_positive else (
      tf.minimum(tf.reduce_min(values, name='BatchMin'), 0.0))
  return smallest, tf.maximum(tf.reduce_max(values, name='BatchMax'), 0.0)


def _follow(average, value):
  """Updates a moving average, corrected for the bias of its start at 0.

  Kingma and Ba 2015 (Adam), section 3. Parity: names, initial values and order
  of the arithmetic are as in python/training/moving_averages.py, _zero_debias,
  which contrib/quantize/python/quant_ops.py calls.

  Returns:
    float32 scalar, the new average.
  """
  rate = tf.constant(1.0 - _RANGE_DECAY, tf.float32)
  with tf.variable_scope(average.op.name):
    zeros = tf.zeros_initializer()
    biased = tf.get_variable('biased', [], initializer=zeros, trainable=False)
    steps = tf.get_variable(
        'local_step', [], initializer=zeros, trainable=False)
    biased = tf.assign_sub(biased, (biased - value) * rate)
    steps = tf.assign_add(steps, 1.0)
    return tf.assign(average, biased / (1 - tf.pow(1.0 - rate, steps)))


def count_steps() -> None:
  """Adds the counter of training steps; must be called in the root scope."""
  step = tf.get_variable(
      _STEP, [], tf.int64, initializer=tf.zeros_initializer(), trainable=False)
  counted = tf.identity(tf.assign_add(step, 1), _STEP + '/count')
  tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, counted.op)


def _training_step():
  """Returns the number of training steps, including this one."""
  return tf.get_default_graph().get_tensor_by_name(_STEP + '/count:0')


def dropout(inputs: tf.Tensor, keep_probability: float, fake_quant: FakeQuant,
            draws: Optional[tf.Tensor] = None) -> tf.Tensor:
  """Applies dropout in training, rounding after scaling and after masking.

  Parity: contrib/quantize/python/quantize.py treats dropout's two products as
  activations and gives each a range; the ranges are used only in training.

  Args:
    inputs: float32, of any shape.
    keep_probability: share of the values to keep.
    fake_quant: its settings.
    draws: random number in [0, 1) for each value; None: drawn here.

  Returns:
    float32 of the same shape.
  """
  with tf.variable_scope('dropout'):
    scaled = activations(
        inputs * (1.0 / keep_probability), fake_quant,
        scope='mul/activation_Mul_quant', initial_min=-6.0)
    if draws is None:
      draws = tf.random_uniform(tf.shape(inputs))
    is_kept = draws >= 1.0 - keep_probability
    return activations(
        scaled * tf.cast(is_kept, tf.float32), fake_quant,
        scope='mul_1/activation_Mul_quant', initial_min=-6.0)


class Folded(NamedTuple):
  """Batch norm as it acts on a convolution: (inputs * weights) * scale + bias.

  Each has one element per channel; scale is None if it is 1.
  """
  # Multiplies the weights before they are rounded.
  multiplier: tf.Tensor
  # Multiplies the convolution's output.
  scale: Optional[tf.Tensor]
  # Added to that product.
  bias: tf.Tensor


def fold(batch_norm: batch_norm_lib.BatchNorm,
         variables: Mapping[str, tf.Variable],
         convolve: Callable[[], tf.Tensor], fake_quant: FakeQuant,
         rate: int = 1) -> Folded:
  """Folds batch norm into the weights (section 3.2 and its figure C.8).

  Weights are always scaled by the moving variance, so that the rounded weights
  change slowly. Until the delay step, batch statistics correct the output; from
  then on, only the moving averages are used.

  Args:
    batch_norm: its settings.
    variables: gamma, beta, moving_mean and moving_variance.
    convolve: the convolution with unscaled weights.
    fake_quant: its settings.
    rate: atrous rate of the convolution.

  Returns:
    Factors and bias that replace batch norm.
  """
  averages = [variables['moving_mean'], variables['moving_variance']]
  with tf.name_scope('BatchNorm_Fold'):
    gamma, beta = variables['gamma'], variables['beta']
    # Read once, before they are updated, so that a step uses one value.
    mean, variance = [tf.identity(average) for average in averages]
    multiplier, bias = batch_norm_lib.factor_and_offset(batch_norm, dict(
        variables, moving_mean=mean, moving_variance=variance))
    # A delay of 0 freezes batch norm at once: no batch statistics are needed.
    if not batch_norm.is_training or fake_quant.delay_step <= 0:
      return Folded(multiplier, None, bias)

    def with_batch_statistics():
      outputs = convolve()
      batch_mean, biased = tf.nn.moments(outputs, [0, 1, 2])
      # Parity: the moving variance uses the unbiased estimate.
      # contrib/quantize/python/fold_batch_norms.py, _GetLayerMatch, converts it
      # back to the biased one, but by the number of values that the convolution
      # processes, which includes an atrous layer's padding.
      unbiased = biased * _bessel(outputs, 1)
      reciprocal = tf.rsqrt(
          unbiased / _bessel(outputs, rate) + batch_norm.epsilon)
      return (reciprocal * tf.sqrt(variance + batch_norm.epsilon),
              beta - batch_mean * gamma * reciprocal, batch_mean, unbiased)

    scale, bias, new_mean, new_variance = tf.cond(
        _training_step() >= fake_quant.delay_step,
        lambda: (tf.ones_like(multiplier), tf.identity(bias),
                 tf.identity(mean), tf.identity(variance)),
        with_batch_statistics)
    rate = tf.constant(np.float32(1) - np.float32(batch_norm.decay))
    for average, read, value in zip(
        averages, (mean, variance), (new_mean, new_variance)):
      fake_quant.replica.subtract(average, (read - value) * rate)
    return Folded(multiplier, scale, bias)


def _bessel(values, rate):
  """Returns Bessel's correction n / (n - 1) for the values of a channel.

  Args:
    values: [batch, height, width, channels], a convolution's output.
    rate: height and width are padded to a multiple of it.

  Returns:
    float32 scalar.
  """
  batch, height, width, unused_channels = tf.unstack(tf.shape(values))
  sides = [(side + rate - 1) // rate * rate for side in (height, width)]
  count = tf.cast(batch * sides[0] * sides[1], tf.float32)
  return count / (count - 1)
