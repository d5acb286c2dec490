"""Finds the network's layers, and their weights, in a TFLite file."""
import os
from typing import Any, Dict, NamedTuple

import numpy as np

from deeplab import constants as constants_lib
from deeplab.config import options as options_lib
from deeplab.errors import InputError
from deeplab.errors import some_of
from deeplab.models import tflite
from deeplab.nets import layers as layers_lib
from deeplab.nets import structure

CONVOLUTIONS = ('CONV_2D', 'DEPTHWISE_CONV_2D')
_LOGITS = constants_lib.LOGITS_SCOPE + '/' + constants_lib.SEMANTIC_SCOPE
_LAST_BACKBONE_LAYER = (
    constants_lib.BACKBONE_SCOPE + '/expanded_conv_16/project')
_LAST_DECODER_LAYER = constants_lib.DECODER_SCOPE + '/decoder_conv1_pointwise'


class Layer(NamedTuple):
  """A convolution: gain * (input * weights) + offset."""
  # float64, in the variable's shape.
  weights: np.ndarray
  # float64 [channels].
  gain: np.ndarray
  offset: np.ndarray
  # Tensors of the file.
  stored_weights: tflite.Tensor
  stored_biases: tflite.Tensor
  output: tflite.Tensor


def read(model: tflite.Model, network: structure.Structure,
         path: str) -> Dict[str, Layer]:
  """Collects the layers of a model.

  Args:
    model: the parsed file.
    network: its structure.
    path: the file, for messages.

  Returns:
    Dict from scope to Layer, in the file's order.

  Raises:
    InputError: it is another network, or its weights are not constants.
  """
  layers: Dict[str, Layer] = {}
  # Tensor to constant: float16 weights are cast to float32 in the file.
  sources: Dict[int, int] = {}
  for operator in model.operators:
    if operator.kind == 'DEQUANTIZE':
      sources[operator.outputs[0]] = operator.inputs[0]
    output = model.tensors[operator.outputs[0]]
    scope = network.layer_of(output.name)
    if operator.kind in CONVOLUTIONS:
      if scope is None or scope in layers:
        raise InputError('{}: not a model of this network: {} gives {}'.format(
            path, operator.kind, output.name.split(';')[0]))
      layers[scope] = _convolution(model, operator, scope, sources, path)
    elif scope in layers and operator.kind in ('MUL', 'ADD'):
      layers[scope] = _affine(layers[scope], model, operator)
  return layers


def model_options(
    model: tflite.Model, path: str) -> options_lib.ModelOptions:
  """Infers the ModelOptions of a model.

  Raises:
    InputError: it is another network.
  """
  outputs = {}
  for operator in model.operators:
    if operator.kind in CONVOLUTIONS:
      tensor = model.tensors[operator.outputs[0]]
      outputs[os.path.dirname(tensor.name.split(';')[0])] = tensor.shape

  def shape_of(layer):
    return next((shape for name, shape in outputs.items()
                 if (name + '/').startswith(layer + '/')), None)

  logits, backbone = shape_of(_LOGITS), shape_of(_LAST_BACKBONE_LAYER)
  if not logits or not backbone:
    raise InputError(
        '{}: not a model of this network: no layer {}; its layers are '
        '{}'.format(path, _LAST_BACKBONE_LAYER if logits else _LOGITS,
                    some_of(sorted(outputs)) or 'without names'))
  # Its type is Any because a shape may have any length; options check it.
  crop_size: Any = model.tensors[model.inputs[0]].shape[1:3]
  decoder = shape_of(_LAST_DECODER_LAYER)
  try:
    return options_lib.ModelOptions(
        num_classes=logits[3], crop_size=crop_size,
        output_stride=_stride(crop_size, backbone, options_lib.OUTPUT_STRIDES),
        decoder_output_stride=decoder and (_stride(
            crop_size, decoder, options_lib.DECODER_OUTPUT_STRIDES),) or ())
  except InputError as error:
    raise InputError('{}: not a model of this network: {}'.format(path, error))


def _stride(crop_size, shape, strides):
  """Returns the stride that reduces a crop to this shape."""
  return min(strides, key=lambda stride: abs(
      shape[1] - layers_lib.scale_dimension(crop_size[0], 1.0 / stride)))


def _convolution(model, operator, scope, sources, path):
  """Returns the Layer of a convolution."""
  weights, biases = [model.tensors[sources.get(position, position)]
                     for position in operator.inputs[1:3]]
  for tensor in (weights, biases):
    if tensor.data is None:
      raise InputError('{}: {} of {} is computed, expected constants'.format(
          path, tensor.name.split(';')[0], scope))
  # Stored as [output, height, width, input], or [1, height, width, channel].
  values = np.transpose(weights.real_values(), [1, 2, 3, 0])
  offset = biases.real_values()
  return Layer(values, np.ones_like(offset), offset, weights, biases,
               model.tensors[operator.outputs[0]])


def _affine(layer, model, operator):
  """Applies a MUL or ADD that 1.15 leaves unfolded after atrous layers."""
  constants = [model.tensors[position].real_values()
               for position in operator.inputs
               if model.tensors[position].data is not None]
  for constant in constants:
    if operator.kind == 'MUL':
      layer = layer._replace(gain=layer.gain * constant,
                             offset=layer.offset * constant)
    else:
      layer = layer._replace(offset=layer.offset + constant)
  return layer._replace(output=model.tensors[operator.outputs[0]])
