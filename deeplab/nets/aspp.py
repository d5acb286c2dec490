"""Atrous spatial pyramid pooling (Chen et al. 2017, DeepLabv3, section 3.3)."""
from typing import Optional

import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab.config import options as options_lib
from deeplab.nets import layers

_DROPOUT_KEEP_PROBABILITY = 0.9


def aspp(features: tf.Tensor, options: options_lib.ModelOptions, *,
         style: layers.Style, is_training: bool,
         dropout_seed: Optional[tf.Tensor] = None) -> tf.Tensor:
  """Joins the outputs of image pooling, a 1x1 and the atrous branches.

  Args:
    features: [batch, height, width, channels] float32, the backbone's output.
    options: the network's structure.
    style: style of every convolution.
    is_training: whether dropout is active.
    dropout_seed: two integers, the seed of dropout; None: no seed.

  Returns:
    [batch, height, width, aspp_convs_filters] float32; without the concat
    projection, the last axis is as many times longer as there are branches.
  """
  depth = options.aspp_convs_filters
  # The trained projection expects the branches' channels in this order.
  branches = [
      _image_pooling(features, options, style),
      layers.conv2d(features, depth, 1, scope=constants.ASPP_SCOPE + '0',
                    style=style)]
  for index, rate in enumerate(options.atrous_rates, 1):
    scope = constants.ASPP_SCOPE + str(index)
    if options.aspp_with_separable_conv:
      branch = layers.separable_conv2d(
          features, depth, rate=rate, scope=scope, style=style)
    else:
      branch = layers.conv2d(
          features, depth, 3, rate=rate, scope=scope, style=style)
    branches.append(branch)
  outputs = tf.concat(branches, 3)
  if not options.aspp_with_concat_projection:
    return outputs
  scope = constants.CONCAT_PROJECTION_SCOPE
  outputs = layers.conv2d(outputs, depth, 1, scope=scope, style=style)
  return layers.dropout(
      outputs, keep_probability=_DROPOUT_KEEP_PROBABILITY,
      is_training=is_training, scope=constants.DROPOUT_SCOPE, seed=dropout_seed,
      fake_quant=style.fake_quant, replica=style.replica)


def _image_pooling(features, options, style):
  """Computes the image-level branch: pooling, 1x1 convolution, resize."""
  scale = 1.0 / options.output_stride
  pooled_size = options.image_pooling_crop_size or options.crop_size
  # A fixed window, not a global mean, as in the published graphs: inputs
  # larger than in training are pooled over windows of the training size.
  window = [layers.scale_dimension(side, scale) for side in pooled_size]
  with tf.name_scope('AvgPool2D'):
    pooled = tf.nn.avg_pool(
        features, ksize=[1] + window + [1],
        strides=[1] + list(options.image_pooling_stride) + [1],
        padding='VALID', name='AvgPool')
  pooled = layers.conv2d(
      pooled, options.aspp_convs_filters, 1,
      scope=constants.IMAGE_POOLING_SCOPE, style=style)
  return layers.resize_bilinear(pooled, features.shape[1:3].as_list())
