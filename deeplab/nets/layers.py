"""The layers of the network, on plain tf.nn ops.

Variables and operations have the names that TF-slim's layers give them. So
checkpoints are interchangeable with the published ones, tf.contrib.quantize
finds its patterns, and converted files have the same tensor names.
"""
from typing import Callable, NamedTuple, Optional, Sequence

import numpy as np
import tensorflow.compat.v1 as tf
import tf_slim as slim

from deeplab.distribution import replicas
from deeplab.nets import batch_norm as batch_norm_lib
from deeplab.nets import fake_quant as fake_quant_lib
from deeplab.nets import gradients


class Style(NamedTuple):
  """Settings around a layer's convolution."""
  # Initial values of the weights; None: Glorot uniform.
  initializer: Optional[Callable[..., tf.Tensor]] = None
  # Factor of the L2 regularization; depthwise weights are not regularized.
  weight_decay: float = 0.0
  # None: a bias is added instead.
  batch_norm: Optional[batch_norm_lib.BatchNorm] = None
  # Such as tf.nn.relu; None: linear.
  activation: Optional[Callable[[tf.Tensor], tf.Tensor]] = None
  # Rounds weights and outputs to 8 bits; None: float.
  fake_quant: Optional[fake_quant_lib.FakeQuant] = None
  # Whether another map is added to the output before the activation. If so, its
  # range has another name and another initial value.
  is_addend: bool = False
  # The replica that the layer belongs to.
  replica: replicas.Replica = replicas.ONLY


def conv2d(inputs: tf.Tensor, filters: int, kernel_size: int, *, scope: str,
           style: Style, stride: int = 1, rate: int = 1) -> tf.Tensor:
  """Applies a convolution with SAME padding, then normalization or bias.

  Args:
    inputs: [batch, height, width, channels] float32.
    filters: number of output channels.
    kernel_size: side of the kernel.
    scope: variable scope.
    style: settings of normalization, activation and quantization.
    stride: stride of both axes.
    rate: atrous rate of both axes.

  Returns:
    [batch, ceil(height / stride), ceil(width / stride), filters] float32.
  """
  with tf.variable_scope(scope):
    shape = [kernel_size, kernel_size, channels(inputs), filters]
    weights = slim.model_variable(
        'weights', shape,
        initializer=style.initializer or slim.xavier_initializer(),
        regularizer=slim.l2_regularizer(style.weight_decay))
    return _finish(
        lambda values, name: tf.nn.conv2d(
            inputs, values, strides=[1, stride, stride, 1], padding='SAME',
            dilations=[1, rate, rate, 1], name=name),
        weights, [filters], name='Conv2D', style=style, rate=rate)


def depthwise_conv2d(inputs: tf.Tensor, *, scope: str, style: Style,
                     stride: int = 1, rate: int = 1) -> tf.Tensor:
  """Applies a 3x3 depthwise convolution; arguments as in conv2d.

  Returns:
    [batch, ceil(height / stride), ceil(width / stride), channels] float32.
  """
  with tf.variable_scope(scope):
    weights = slim.model_variable(
        'depthwise_weights', [3, 3, channels(inputs), 1],
        initializer=style.initializer or slim.xavier_initializer())
    return _finish(
        lambda values, name: tf.nn.depthwise_conv2d(
            inputs, values, strides=[1, stride, stride, 1], padding='SAME',
            rate=[rate, rate], name=name),
        weights, [channels(inputs), 1], name='depthwise', style=style,
        rate=rate)


def separable_conv2d(inputs: tf.Tensor, filters: int, *, scope: str,
                     style: Style, rate: int = 1) -> tf.Tensor:
  """Applies 3x3 depthwise and 1x1 convolution, each with norm and activation.

  Initial values are truncated normal, standard deviation 0.33 and 0.06.

  Args:
    inputs: [batch, height, width, channels] float32.
    filters: number of output channels.
    scope: prefix of the two variable scopes, '_depthwise' and '_pointwise'.
    style: style of both; its initializer is not used.
    rate: atrous rate of the depthwise convolution.

  Returns:
    [batch, height, width, filters] float32.
  """
  outputs = depthwise_conv2d(
      inputs, scope=scope + '_depthwise', rate=rate, style=style._replace(
          initializer=tf.truncated_normal_initializer(stddev=0.33)))
  if not style.activation:
    # Deviates: without a node between them, tf.contrib.quantize's rewrite makes
    # the second convolution read the first one's output before it is rounded.
    outputs = tf.identity(outputs)
  return conv2d(
      outputs, filters, 1, scope=scope + '_pointwise', style=style._replace(
          initializer=tf.truncated_normal_initializer(stddev=0.06)))


def _finish(convolve, weights, output_shape, *, name, style, rate):
  """Convolves, normalizes or adds a bias, activates, and fake-quantizes.

  Args:
    convolve: function of weights and an operation name.
    weights: the convolution's weights.
    output_shape: shape in which a vector with an element per output channel
      broadcasts with the weights.
    name: operation name of the convolution.
    style: a Style.
    rate: atrous rate of the convolution.
  """
  filters = int(np.prod(output_shape))
  if style.fake_quant:
    outputs = _fake_quantized(
        convolve, weights, output_shape, name=name, style=style, rate=rate)
  elif style.batch_norm and style.batch_norm.is_folded:
    with tf.variable_scope('BatchNorm'):
      factor, offset = batch_norm_lib.factor_and_offset(
          style.batch_norm, _batch_norm_variables(filters))
    outputs = _offset(convolve(
        weights * tf.reshape(factor, output_shape), name), offset)
  elif style.batch_norm:
    outputs = _batch_norm(
        convolve(weights, name), style.batch_norm, style.replica)
  else:
    outputs = tf.nn.bias_add(
        convolve(weights, name), _biases(filters), name='BiasAdd')
  if style.fake_quant:
    # Parity: contrib/quantize/python/quantize.py, Quantize.
    return fake_quant_lib.activations(
        outputs, style.fake_quant, activation=style.activation,
        scope='conv_quant' if style.is_addend else 'act_quant',
        initial_min=-6.0 if style.is_addend else 0.0)
  return style.activation(outputs) if style.activation else outputs


def _fake_quantized(convolve, weights, output_shape, *, name, style, rate):
  """Convolves with rounded weights, into which batch norm is folded."""
  filters = int(np.prod(output_shape))
  if not style.batch_norm:
    weights = fake_quant_lib.weights(weights, style.fake_quant)
    return tf.nn.bias_add(
        convolve(weights, name), _biases(filters), name='BiasAdd')
  with tf.variable_scope('BatchNorm'):
    variables = _batch_norm_variables(filters, use_resource=True)
  folded = fake_quant_lib.fold(
      style.batch_norm, variables, lambda: convolve(weights, name),
      style.fake_quant, rate)
  scaled = tf.multiply(
      weights, tf.reshape(folded.multiplier, output_shape), name='mul_fold')
  outputs = convolve(
      fake_quant_lib.weights(scaled, style.fake_quant), name + '_Fold')
  if folded.scale is not None:
    outputs *= folded.scale
  if style.fake_quant.is_training:
    return _offset(outputs, folded.bias, 'add_fold')
  # The published graphs have tf.add.
  return tf.add(outputs, folded.bias, name='add_fold')


def _offset(outputs, offset, name=None):
  """Adds a number to each channel, with a faster gradient than bias_add's."""
  with gradients.instead_of(BiasAdd=gradients.SUMMED_BY_PRODUCT):
    return tf.nn.bias_add(outputs, offset, name=name)


def _biases(filters):
  return slim.model_variable(
      'biases', [filters], initializer=tf.zeros_initializer())


def _batch_norm_variables(filters, use_resource=None):
  """Returns a dict with gamma, beta, moving_mean and moving_variance.

  Args:
    filters: number of channels.
    use_resource: True: a value that was read does not change with the variable;
      None: TensorFlow's default.
  """
  ones, zeros = tf.ones_initializer(), tf.zeros_initializer()
  return {
      name: slim.model_variable(
          name, [filters], initializer=initializer,
          trainable=not name.startswith('moving'), use_resource=use_resource)
      for name, initializer in (
          ('gamma', ones), ('beta', zeros), ('moving_mean', zeros),
          ('moving_variance', ones))}


def _batch_norm(inputs, batch_norm, replica):
  """Applies fused batch norm over all axes except the last."""
  with tf.variable_scope('BatchNorm'):
    variables = _batch_norm_variables(channels(inputs))
    # The name is TensorFlow 1.15's: converters name constants after the node,
    # and the published files have this name.
    mean, variance = variables['moving_mean'], variables['moving_variance']
    if not batch_norm.is_training:
      return tf.nn.fused_batch_norm(
          inputs, variables['gamma'], variables['beta'], mean=mean,
          variance=variance, epsilon=batch_norm.epsilon, is_training=False,
          name='FusedBatchNormV3')[0]
    outputs, batch_mean, batch_variance = tf.nn.fused_batch_norm(
        inputs, variables['gamma'], variables['beta'],
        epsilon=batch_norm.epsilon, is_training=True, name='FusedBatchNormV3')
    for average, value in ((mean, batch_mean), (variance, batch_variance)):
      _update_moving_average(average, value, batch_norm, replica)
    return outputs


def _update_moving_average(average, value, batch_norm, replica):
  """Adds average -= (average - value) * (1 - decay) to the update ops."""
  with tf.name_scope('AssignMovingAvg'):
    # Parity: python/training/moving_averages.py, assign_moving_average,
    # computes 1 - decay in float32, as a constant for each average, which
    # contrib/quantize/python/fold_batch_norms.py replaces to freeze it.
    rate = tf.constant(
        np.float32(1) - np.float32(batch_norm.decay), name='rate')
    replica.subtract(average, (average - value) * rate)


def dropout(
    inputs: tf.Tensor, *, keep_probability: float, is_training: bool,
    scope: str, seed: Optional[tf.Tensor] = None,
    fake_quant: Optional[fake_quant_lib.FakeQuant] = None,
    replica: replicas.Replica = replicas.ONLY) -> tf.Tensor:
  """Zeroes random values in training and scales the others up; else identity.

  Args:
    inputs: float32, of any shape.
    keep_probability: share of the values to keep.
    is_training: whether to drop any.
    scope: variable scope.
    seed: two integers that determine the dropped values; None: different ones
      in every step and run.
    fake_quant: settings to round the products; None: no rounding.
    replica: the replica that the layer belongs to.

  Returns:
    float32 of the same shape.
  """
  with tf.variable_scope(scope):
    if not is_training:
      # The published graphs have this node.
      return tf.identity(inputs)
    draws = None if seed is None else (
        replica.random_uniform(tf.shape(inputs), seed))
    if fake_quant:
      return fake_quant_lib.dropout(
          inputs, keep_probability, fake_quant, draws)
    if draws is None:
      return tf.nn.dropout(inputs, rate=1.0 - keep_probability)
    with tf.name_scope('dropout'):
      # Named as in tf.nn.dropout, because the rewrite derives names of ranges.
      scaled = tf.multiply(inputs, 1.0 / keep_probability, name='mul')
      is_kept = draws >= 1.0 - keep_probability
      return tf.multiply(scaled, tf.cast(is_kept, tf.float32), name='mul_1')


def resize_bilinear(inputs: tf.Tensor, size: Sequence[int],
                    align_corners: bool = False) -> tf.Tensor:
  """Resizes bilinearly; returns an input that already has the size unchanged.

  Args:
    inputs: [batch, height, width, channels] float32, static height and width.
    size: (height, width).
    align_corners: whether the corners' centres coincide.

  Returns:
    [batch, size[0], size[1], channels] float32.
  """
  # A no-op resize would stay in the graph and in all files converted from it.
  if inputs.shape[1:3].as_list() == list(size):
    return inputs
  return tf.image.resize_bilinear(inputs, size, align_corners=align_corners)


def channels(tensor: tf.Tensor) -> int:
  """Returns the length of a 4-D tensor's last axis."""
  return tensor.shape.as_list()[3]


def scale_dimension(side: int, scale: float) -> int:
  """Returns a map's side at a scale: int((side - 1) * scale + 1)."""
  return int((float(side) - 1.0) * scale + 1.0)
