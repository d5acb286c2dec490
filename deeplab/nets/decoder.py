"""The decoder (Chen et al. 2018, DeepLabv3+, section 3.1)."""
from typing import Mapping

import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab.config import options as options_lib
from deeplab.nets import fake_quant as fake_quant_lib
from deeplab.nets import layers
from deeplab.nets import mobilenet_v2

# Section 4.1 of the paper: more channels would outweigh the ASPP features.
_PROJECTED_LOW_LEVEL_FILTERS = 48


def refine(features: tf.Tensor, end_points: Mapping[str, tf.Tensor],
           options: options_lib.ModelOptions,
           style: layers.Style) -> tf.Tensor:
  """Refines features with backbone maps at the decoder's output strides.

  Args:
    features: [batch, height, width, channels] float32.
    end_points: the backbone's end points by name.
    options: the network's structure; its decoder_output_stride is not empty.
    style: style of every convolution.

  Returns:
    [batch, height', width', decoder_filters] float32 at the smallest of the
    decoder's output strides. If the decoder's output is the logits, it has
    num_classes channels, without batch norm and activation.
  """
  # From coarse to fine: each stage refines the output of the previous stage.
  strides = sorted(options.decoder_output_stride, reverse=True)
  with tf.variable_scope(constants.DECODER_SCOPE):
    for stage, stride in enumerate(strides):
      # Parity: research/deeplab's model.py, refine_by_decoder, does not number
      # the first stage.
      suffix = '0' + ('_{}'.format(stage) if stage else '')
      low_level = end_points[mobilenet_v2.DECODER_END_POINTS[stride]]
      size = [layers.scale_dimension(side, 1.0 / stride)
              for side in options.crop_size]
      merge = _merge_by_sum if options.decoder_use_sum_merge else _merge
      is_last = stride == strides[-1]
      features = merge(
          features, low_level, size=size, suffix=suffix, style=style,
          options=options,
          as_logits=options.decoder_output_is_logits and is_last)
  return features


def _merge(features, low_level, *, size, suffix, style, options, as_logits):
  """Concatenates the maps and applies two 3x3 convolutions."""
  # Parity: research/deeplab's model.py, refine_by_decoder, resizes the features
  # before it projects the map; converters keep this order in published files.
  features = layers.resize_bilinear(features, size)
  low_level = layers.conv2d(
      low_level, _PROJECTED_LOW_LEVEL_FILTERS, 1,
      scope='feature_projection' + suffix, style=style)
  net = tf.concat([features, low_level], 3)
  for index in range(2):
    linear = as_logits and index == 1
    net = _conv3x3(
        net, options.num_classes if linear else options.decoder_filters,
        scope='decoder_conv{}{}'.format(index, _stage_suffix(suffix)),
        style=style, options=options, linear=linear)
  return net


def _merge_by_sum(features, low_level, *, size, suffix, style, options,
                  as_logits):
  """Applies a 3x3 convolution to the features and adds the projected map."""
  filters = options.num_classes if as_logits else options.decoder_filters
  stage = _stage_suffix(suffix)
  # The sum is activated, unless it is the logits.
  linear = style._replace(activation=None)
  low_level = layers.conv2d(
      low_level, filters, 1, scope='feature_projection' + suffix,
      style=linear._replace(batch_norm=None) if as_logits
      else linear._replace(is_addend=True))
  net = _conv3x3(
      features, filters, scope='decoder_conv0' + stage, style=linear,
      options=options, linear=as_logits)
  net = layers.resize_bilinear(net, size) + low_level
  activation = None if as_logits else style.activation
  if style.fake_quant:
    # Parity: contrib/quantize/python/quantize.py uses these names for ranges.
    return fake_quant_lib.activations(
        net, style.fake_quant, activation=activation,
        **(dict(scope='add{}/activation_AddV2_quant'.format(stage),
                initial_min=-6.0) if as_logits
           else dict(scope='act_quant' + stage)))
  return activation(net) if activation else net


def _conv3x3(net, filters, *, scope, style, options, linear):
  """Applies a 3x3 convolution, separable or not; linear: only with a bias."""
  if options.decoder_use_separable_conv and not linear:
    return layers.separable_conv2d(net, filters, scope=scope, style=style)
  if linear:
    style = style._replace(batch_norm=None, activation=None)
  return layers.conv2d(net, filters, 3, scope=scope, style=style)


def _stage_suffix(suffix):
  """Returns '_1' for '0_1': convolutions are numbered within their stage."""
  return suffix[1:]
