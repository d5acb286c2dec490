"""MobileNetV2 as a backbone (Sandler et al. 2018, section 4).

Without the classification layers: the network ends with the 320 channels of the
last inverted residual, `layer_18`.
"""
from typing import Dict, NamedTuple, Optional, Tuple

import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab.distribution import replicas
from deeplab.nets import batch_norm as batch_norm_lib
from deeplab.nets import fake_quant as fake_quant_lib
from deeplab.nets import layers

# From slim's nets/mobilenet/mobilenet.py, training_scope. The layers after the
# backbone may use other values.
_BATCH_NORM_DECAY = 0.997
_BATCH_NORM_EPSILON = 1e-3
_WEIGHTS_STDDEV = 0.09
_STEM_FILTERS = 32


class Block(NamedTuple):
  """One inverted residual block."""
  filters: int
  stride: int = 1
  expansion: int = 6


# The paper's table 2, one row per block.
BLOCKS = (
    Block(16, expansion=1),
    Block(24, stride=2), Block(24),
    Block(32, stride=2), Block(32), Block(32),
    Block(64, stride=2), Block(64), Block(64), Block(64),
    Block(96), Block(96), Block(96),
    Block(160, stride=2), Block(160), Block(160),
    Block(320),
)

# Backbone maps that the decoder can use: stride -> name of the end point.
DECODER_END_POINTS = {
    4: 'layer_4/depthwise_output',
    8: 'layer_7/depthwise_output',
    16: 'layer_14/depthwise_output',
}


def mobilenet_v2(
    images: tf.Tensor, *, output_stride: int, depth_multiplier: float = 1.0,
    divisible_by: Optional[int] = None, weight_decay: float = 0.0,
    is_training: bool = False, fold_batch_norm: bool = False,
    fake_quant: Optional[fake_quant_lib.FakeQuant] = None,
    replica: replicas.Replica = replicas.ONLY
) -> Tuple[tf.Tensor, Dict[str, tf.Tensor]]:
  """Builds the backbone.

  Once the output stride is reached, later strides become atrous rates.

  Args:
    images: [batch, height, width, 3] float32 RGB in [-1, 1].
    output_stride: 8, 16 or 32.
    depth_multiplier: relative width.
    divisible_by: channel counts are multiples of it; None: 8 at multiplier 1,
      else 1.
    weight_decay: factor of the L2 regularization, not of depthwise weights.
    is_training: whether batch norm uses batch statistics.
    fold_batch_norm: whether batch norm without training is folded.
    fake_quant: how layers quantize; None: float.
    replica: the replica that the layers belong to.

  Returns:
    ([batch, height', width', 320 * depth_multiplier] float32, end points by
    names such as 'layer_4/depthwise_output').
  """
  if divisible_by is None:
    divisible_by = 8 if depth_multiplier == 1.0 else 1
  style = layers.Style(
      initializer=tf.truncated_normal_initializer(stddev=_WEIGHTS_STDDEV),
      weight_decay=weight_decay,
      batch_norm=batch_norm_lib.BatchNorm(
          _BATCH_NORM_DECAY, _BATCH_NORM_EPSILON, is_training,
          is_folded=fold_batch_norm and not is_training),
      activation=tf.nn.relu6, fake_quant=fake_quant, replica=replica)
  # Parity: research/deeplab's core/feature_extractor.py, _mobilenet_v2, uses at
  # least 8 channels at full width and at least 1 below it.
  smallest = 8 if depth_multiplier == 1.0 else 1

  def width(filters):
    return make_divisible(filters * depth_multiplier, divisible_by, smallest)

  end_points = {}
  with tf.variable_scope(constants.BACKBONE_SCOPE):
    # A separate node, because users of the frozen graph feed it.
    with tf.name_scope(constants.BACKBONE_SCOPE):
      net = tf.identity(images, 'input')
    net = layers.conv2d(net, width(_STEM_FILTERS), 3, stride=2, scope='Conv',
                        style=style)
    # Parity: slim's nets/mobilenet/mobilenet.py, mobilenet_base: a stride that
    # would exceed the output stride becomes a rate for the blocks after it, not
    # for its own block.
    stride, rate = 2, 1
    for index, block in enumerate(BLOCKS):
      at_limit = stride == output_stride
      scope = 'expanded_conv' + ('_{}'.format(index) if index else '')
      net, depthwise = _inverted_residual(
          net, block._replace(filters=width(block.filters),
                              stride=1 if at_limit else block.stride),
          rate=rate, scope=scope, style=style)
      end_points['layer_{}/depthwise_output'.format(index + 2)] = depthwise
      if at_limit:
        rate *= block.stride
      else:
        stride *= block.stride
  return net, end_points


def _inverted_residual(inputs, block, *, rate, scope, style):
  """Applies expansion, depthwise convolution and projection, with a shortcut.

  The identities give exported graphs slim's node names.
  """
  channels = layers.channels(inputs)
  with tf.variable_scope(scope):
    inputs = tf.identity(inputs, 'input')
    net = inputs
    if block.expansion > 1:
      net = layers.conv2d(net, make_divisible(channels * block.expansion, 8),
                          1, scope='expand', style=style)
      net = tf.identity(net, 'expansion_output')
    net = layers.depthwise_conv2d(net, stride=block.stride, rate=rate,
                                  scope='depthwise', style=style)
    depthwise = net = tf.identity(net, 'depthwise_output')
    net = layers.conv2d(net, block.filters, 1, scope='project',
                        style=style._replace(activation=None))
    net = tf.identity(net, 'projection_output')
    if block.stride == 1 and channels == block.filters:
      net = net + inputs
      if style.fake_quant:
        net = fake_quant_lib.activations(
            net, style.fake_quant, scope='post_activation_bypass_quant',
            initial_min=-6.0)
    return tf.identity(net, 'output'), depthwise


def make_divisible(
    value: float, divisor: int, smallest: Optional[int] = None) -> int:
  """Rounds value to a multiple of divisor, down by at most a tenth."""
  smallest = divisor if smallest is None else smallest
  rounded = max(smallest, int(value + divisor / 2) // divisor * divisor)
  return rounded + divisor if rounded < 0.9 * value else rounded
