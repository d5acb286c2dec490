"""DeepLabv3 with MobileNetV2: backbone, ASPP, decoder, logits, predictions."""
from typing import Iterable, Optional

import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab.config import options as options_lib
from deeplab.distribution import replicas
from deeplab.nets import aspp
from deeplab.nets import batch_norm as batch_norm_lib
from deeplab.nets import decoder
from deeplab.nets import layers
from deeplab.nets import mobilenet_v2
from deeplab.nets import quantize

# From research/deeplab's model.py, _get_logits and get_branch_logits.
_BATCH_NORM_EPSILON = 1e-5
_LOGITS_STDDEV = 0.01


def logits(images: tf.Tensor, options: options_lib.ModelOptions, *,
           weight_decay: float = 0.0, is_training: bool = False,
           train_batch_norm: bool = False,
           fold_batch_norm: bool = False,
           dropout_seed: Optional[tf.Tensor] = None,
           replica: replicas.Replica = replicas.ONLY) -> tf.Tensor:
  """Builds the network up to its logits, fake-quantized if options say so.

  Args:
    images: [batch, height, width, 3] float32 RGB in [-1, 1], of
      options.crop_size.
    options: the network's structure.
    weight_decay: factor of the L2 regularization, not of depthwise weights.
    is_training: whether dropout is active and ranges of fake quantization
      follow the values.
    train_batch_norm: whether batch norm uses batch statistics and updates its
      moving averages.
    fold_batch_norm: whether batch norm that is not trained is folded into the
      weights: the same values except for rounding, in less time. Frozen graphs
      and conversions need it unfolded. Fake quantization ignores this and folds
      in its own way.
    dropout_seed: two integers, the seed of dropout; None: no seed.
    replica: the replica that this network is.

  Returns:
    [batch, height', width', num_classes] float32 at the decoder's output
    stride, or at the output stride without a decoder.
  """
  fake_quant = quantize.for_layers(options, is_training, replica)
  fold_batch_norm = fold_batch_norm and not options.is_quantized
  features, end_points = mobilenet_v2.mobilenet_v2(
      images, output_stride=options.output_stride,
      depth_multiplier=options.depth_multiplier,
      divisible_by=options.divisible_by, weight_decay=weight_decay,
      is_training=train_batch_norm, fold_batch_norm=fold_batch_norm,
      fake_quant=fake_quant, replica=replica)
  style = layers.Style(
      weight_decay=weight_decay,
      batch_norm=batch_norm_lib.BatchNorm(
          options.batch_norm_decay, _BATCH_NORM_EPSILON, train_batch_norm,
          is_folded=fold_batch_norm and not train_batch_norm),
      activation=(tf.nn.relu6 if options.use_bounded_activation
                  else tf.nn.relu),
      fake_quant=fake_quant, replica=replica)
  features = aspp.aspp(
      features, options, style=style, is_training=is_training,
      dropout_seed=dropout_seed)
  if options.decoder_output_stride:
    features = decoder.refine(features, end_points, options, style)
  if not options.decoder_output_is_logits:
    with tf.variable_scope(constants.LOGITS_SCOPE):
      features = layers.conv2d(
          features, options.num_classes, 1, scope=constants.SEMANTIC_SCOPE,
          style=layers.Style(
              initializer=tf.truncated_normal_initializer(
                  stddev=_LOGITS_STDDEV),
              weight_decay=weight_decay, fake_quant=fake_quant))
  return quantize.rewritten(features, options, is_training)


def predictions(class_logits: tf.Tensor,
                options: options_lib.ModelOptions) -> tf.Tensor:
  """Converts logits to labels of the input's size.

  Args:
    class_logits: [batch, height', width', num_classes] float32.
    options: the network's structure.

  Returns:
    [batch, height, width] int32 in [0, num_classes), of options.crop_size.
    With options.prediction_with_upsampled_logits, the logits are resized
    bilinearly before the arg max; otherwise the labels are, to the nearest.
  """
  name = constants.OUTPUT_NODE
  if options.prediction_with_upsampled_logits:
    # Parity: mobile_open's model.py, predict_labels, does not align corners,
    # because of converters; research/deeplab and the loss do.
    resized = layers.resize_bilinear(class_logits, options.crop_size)
    return tf.argmax(resized, 3, output_type=tf.int32, name=name)
  labels = tf.argmax(
      class_logits, 3, output_type=tf.int32, name='small_labels')
  labels = tf.image.resize_nearest_neighbor(
      labels[..., tf.newaxis], options.crop_size, align_corners=True)
  return tf.squeeze(labels, 3, name=name)


def at_scale(options: options_lib.ModelOptions,
             scale: float) -> options_lib.ModelOptions:
  """Returns the options of a network for scaled inputs."""
  height, width = options.crop_size
  return options._replace(crop_size=(
      layers.scale_dimension(height, scale),
      layers.scale_dimension(width, scale)))


def least_memory(options: options_lib.ModelOptions, batch_size: int = 1,
                 scale: float = 1.0) -> float:
  """Returns a lower bound on the memory the network needs, in bytes.

  Args:
    options: the network's structure.
    batch_size: number of images.
    scale: scale of the input before it is fed.
  """
  channels = 3 + (options.num_classes
                  if options.prediction_with_upsampled_logits else 0)
  pixels = options.crop_size[0] * options.crop_size[1] * max(1.0, scale) ** 2
  return tf.float32.size * batch_size * pixels * channels


def multi_scale_predictions(
    images: tf.Tensor, options: options_lib.ModelOptions, *,
    scales: Iterable[float], flip: bool) -> tf.Tensor:
  """Returns labels from probabilities averaged over scales and mirroring.

  Args:
    images: [batch, height, width, 3] float32 RGB in [-1, 1], of
      options.crop_size.
    options: the network's structure.
    scales: factors of the input's size.
    flip: whether to average mirrored images, too.

  Returns:
    [batch, height, width] int32 in [0, num_classes).
  """
  # The rewrite of a whole graph does not support networks that share weights.
  options = options._replace(fake_quant=options_lib.LAYERS)
  probabilities = []
  for scale in scales:
    scaled_options = at_scale(options, scale)
    scaled = layers.resize_bilinear(images, scaled_options.crop_size)
    for mirrored in ([False, True] if flip else [False]):
      with tf.variable_scope(tf.get_variable_scope(), reuse=tf.AUTO_REUSE):
        inputs = tf.reverse(scaled, [2]) if mirrored else scaled
        outputs = logits(inputs, scaled_options)
      outputs = layers.resize_bilinear(outputs, options.crop_size)
      if mirrored:  # after the resize, which is not symmetric
        outputs = tf.reverse(outputs, [2])
      probabilities.append(tf.nn.softmax(outputs))
  average = tf.add_n(probabilities) / float(len(probabilities))
  return tf.argmax(average, 3, output_type=tf.int32,
                   name=constants.OUTPUT_NODE)
