"""The network's layers as a file has them, whatever kind of file it is.

Weights are compared as they are used: batch norm folded in, quantized where the
file says so. Layers go by the scopes of their variables.
"""
import os
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import numpy as np
import tensorflow.compat.v1 as tf

from deeplab import any_model
from deeplab import checkpoints
from deeplab import contract
from deeplab import export
from deeplab import graph_file
from deeplab import options as options_lib
from deeplab import report
from deeplab.errors import InputError
from deeplab.errors import some_of
from deeplab.lite import layers as layers_lib
from deeplab.lite import model_file
from deeplab.nets import structure

# Fake quantization of weights never uses the lowest of 256 values.
_LOWEST, _HIGHEST = 1, 255


class Quantized(NamedTuple):
  """Values in 8 (biases: 32) bits; real is scale * (stored - zero point)."""
  # int64, channels last.
  stored: np.ndarray
  # float64 and int64, [channels], or [1] where all have one.
  scales: np.ndarray
  zero_points: np.ndarray


class Values(NamedTuple):
  """Weights or biases of a layer."""
  # Such as 'float32', or the type of what is stored.
  dtype: str
  # float64; channels of the output last: [height, width, inputs, channels],
  # depthwise [height, width, 1, channels]; biases [channels].
  real: np.ndarray
  # None: in float.
  quantized: Optional[Quantized] = None


class Range(NamedTuple):
  """What a layer's output is rounded to."""
  dtype: str
  low: float
  high: float
  scale: float
  zero_point: int


class Layer(NamedTuple):
  """A convolution with batch norm folded in."""
  # 'CONV_2D' or 'DEPTHWISE_CONV_2D'.
  kind: str
  # [height, width, channels].
  output_shape: Tuple[int, ...]
  # For one image.
  multiply_adds: int
  weights: Values
  biases: Values
  # None: in float.
  output: Optional[Range]

  @property
  def parameters(self) -> int:
    """Number of weights and biases."""
    return self.weights.real.size + self.biases.real.size


class Contents(NamedTuple):
  """What a file holds."""
  model: any_model.ModelFile
  # Of all its files.
  size_bytes: int
  # Of the network that it is of.
  options: options_lib.ModelOptions
  # By scope, in the order in which they run.
  layers: Dict[str, Layer]
  # Operators or nodes, or variables by their part, and how many of each.
  counts: Dict[str, int]
  # Tensors by type, and how many of each.
  types: Dict[str, int]


def read(model: any_model.ModelFile,
         crop_size: Optional[Tuple[int, int]] = None) -> Contents:
  """Reads a model's file.

  Args:
    model: from any_model.find.
    crop_size: (height, width) of a checkpoint's images; see any_model.

  Raises:
    InputError: it cannot be read, or is of another network.
  """
  if model.kind == report.TFLITE:
    return _of_tflite(model)
  if model.kind == report.FROZEN_GRAPH:
    return _of_frozen_graph(model)
  if model.kind == report.CHECKPOINT:
    return _of_checkpoint(model, crop_size)
  raise InputError('{}: is a {}; expected a checkpoint, a frozen graph or a '
                   'TFLite file', model.path, model.kind)


# --- Checkpoints and frozen graphs -----------------------------------------


def _of_checkpoint(model, crop_size):
  options = any_model.model_options(model.path, crop_size)
  types = checkpoints.types_in(model.path)
  wanted = [name for name in types if checkpoints.is_model_variable(name)]
  values = checkpoints.values_in(model.path, wanted)
  parts: Dict[str, int] = {}
  for name in types:
    part = ('of training alone' if name not in values else
            'of quantization' if checkpoints.is_quantization_variable(name)
            else 'of the network')
    parts['variables ' + part] = parts.get('variables ' + part, 0) + 1
  size = sum(map(os.path.getsize, checkpoints.parts_of(model.path)))
  return Contents(model, size, options, _of_values(values, options, model.path),
                  parts, _counted(types.values()))


def _of_frozen_graph(model):
  graph_def = graph_file.read_graph_def(model.path)
  values = {node.name: tf.make_ndarray(node.attr['value'].tensor)
            for node in graph_def.node if node.op == 'Const'}
  options = checkpoints.options_by_variables(
      {name: value.shape for name, value in values.items()}, model.path)
  graph_file.check_nodes(
      model.path, graph_def, input_node=contract.INPUT_NODE)
  graph = graph_file.import_graph(model.path, graph_def)
  shape = graph.get_tensor_by_name(contract.INPUT_NODE + ':0').shape
  if shape.rank != 4:
    raise InputError('{}: input is {}, expected [batch, height, width, 3]',
                     model.path, shape)
  options = _with_classes(
      options._replace(crop_size=tuple(shape.as_list()[1:3])), model)
  return Contents(
      model, os.path.getsize(model.path), options,
      _of_values(values, options, model.path),
      export.operation_counts(graph_def),
      _counted(value.dtype.name for value in values.values()))


def _of_values(values: Dict[str, np.ndarray],
               options: options_lib.ModelOptions, path: str
               ) -> Dict[str, Layer]:
  """Returns the layers that variables make."""
  network = structure.of(options)
  missing = sorted(set(network.variables) - set(values))
  if missing:
    raise InputError('{}: not of this network: lacks {} of {} variables ({})',
                     path, len(missing), len(network.variables),
                     some_of(missing))
  for name, shape in network.variables.items():
    if list(values[name].shape) != shape:
      raise InputError('{}: not of this network: {} is {}, expected {}', path,
                       name, list(values[name].shape), shape)
  return {scope: _folded(scope, values, network)
          for scope in network.convolutions}


def _folded(scope, values, network):
  """Returns a layer of variables, with batch norm in weights and biases."""
  facts = network.convolutions[scope]

  def value(name):
    return values['{}/{}'.format(scope, name)].astype(np.float64)

  if facts.kind == 'DEPTHWISE_CONV_2D':
    weights = np.swapaxes(value('depthwise_weights'), 2, 3)
  else:
    weights = value('weights')
  if scope in network.epsilons:
    factor = value('BatchNorm/gamma') / np.sqrt(
        value('BatchNorm/moving_variance') + network.epsilons[scope])
    weights = weights * factor
    biases = (value('BatchNorm/beta') -
              value('BatchNorm/moving_mean') * factor)
  else:
    biases = value('biases')
  quantized = _fake_quantized(weights, values, scope + '/weights_quant')
  output = _range_of_variables(values, scope + '/act_quant', lowest=0)
  return Layer(
      facts.kind, facts.output_shape, facts.multiply_adds,
      quantized or Values('float32', weights), Values('float32', biases),
      output)


def _range_of_variables(values, scope, lowest):
  """Returns the Range that fake quantization rounds to; None: there is none.

  As TensorFlow's Nudge: 0 is among the values.
  """
  if scope + '/min' not in values:
    return None
  low, high = (float(values['{}/{}'.format(scope, end)])
               for end in ('min', 'max'))
  scale = (high - low) / (_HIGHEST - lowest)
  if not scale > 0:
    return None
  zero_point = int(np.clip(np.floor(lowest - low / scale + 0.5), lowest,
                           _HIGHEST))
  return Range('uint8', scale * (lowest - zero_point),
               scale * (_HIGHEST - zero_point), scale, zero_point)


def _fake_quantized(weights, values, scope):
  """Returns weights as fake quantization rounds them, or None."""
  to = _range_of_variables(values, scope, lowest=_LOWEST)
  if to is None:
    return None
  stored = np.floor(
      (np.clip(weights, to.low, to.high) - to.low) / to.scale + 0.5
  ).astype(np.int64) + _LOWEST
  return Values('uint8', to.scale * (stored - to.zero_point), Quantized(
      stored, np.array([to.scale]), np.array([to.zero_point])))


# --- TFLite files ----------------------------------------------------------


def _of_tflite(model):
  content = model_file.read(model.path)
  options = _with_classes(
      layers_lib.model_options(content, model.path), model)
  network = structure.of(options)
  found = layers_lib.read(content, network, model.path)
  missing = sorted(network.layers() - set(found))
  if missing:
    raise InputError('{}: not of this network: lacks {} of {} layers ({})',
                     model.path, len(missing), len(network.layers()),
                     some_of(missing))
  layers = {
      scope: _of_tensors(found[scope], network.convolutions[scope])
      for scope in network.convolutions}
  return Contents(
      model, os.path.getsize(model.path), options, layers,
      content.operation_counts(),
      _counted(str(tensor.dtype) for tensor in content.tensors))


def _of_tensors(layer: layers_lib.Layer, facts: structure.Convolution) -> Layer:
  """Returns a layer of a TFLite file."""
  weights = layer.weights * layer.gain
  if facts.kind == 'DEPTHWISE_CONV_2D':
    # [height, width, channels, 1]; the gain is of the channels.
    weights = np.swapaxes(
        layer.weights * layer.gain[:, np.newaxis], 2, 3)
  return Layer(
      facts.kind, layer.output.shape[1:], facts.multiply_adds,
      Values(str(layer.stored_weights.dtype), weights,
             _quantized(layer.stored_weights, facts.kind)),
      Values(str(layer.stored_biases.dtype), layer.offset,
             _quantized(layer.stored_biases, '')),
      _range_of_tensor(layer.output))


def _quantized(tensor: model_file.Tensor, kind: str) -> Optional[Quantized]:
  """Returns what a tensor stores, channels last; None: in float."""
  if not tensor.scales or tensor.data is None:
    return None
  stored = tensor.data.astype(np.int64)
  if kind == 'CONV_2D':
    stored = np.transpose(stored, [1, 2, 3, 0])
  elif kind:
    stored = np.transpose(stored, [1, 2, 0, 3])
  return Quantized(stored, np.array(tensor.scales, np.float64),
                   np.array(tensor.zero_points, np.int64))


def _range_of_tensor(tensor: model_file.Tensor) -> Optional[Range]:
  if len(tensor.scales) != 1 or tensor.dtype is None:
    return None
  kind = np.iinfo(tensor.dtype)
  scale, zero_point = tensor.scales[0], tensor.zero_points[0]
  return Range(str(tensor.dtype), scale * (kind.min - zero_point),
               scale * (kind.max - zero_point), scale, zero_point)


# --- All -------------------------------------------------------------------


def _with_classes(options, model):
  """Returns options with what the classes of a file are, if that is known."""
  label_map = any_model.label_map_of(model)
  return options.with_classes(label_map) if label_map else options


def _counted(names) -> Dict[str, int]:
  counts: Dict[str, int] = {}
  for name in names:
    counts[name] = counts.get(name, 0) + 1
  return counts


def to_json(contents: Contents) -> Dict[str, Any]:
  """Returns all but the weights themselves as a dict that json can write."""
  layers: List[Dict[str, Any]] = []
  for name, layer in contents.layers.items():
    weights = layer.weights
    quantized = weights.quantized
    layers.append({
        'name': name, 'kind': layer.kind,
        'output_shape': list(layer.output_shape),
        'parameters': layer.parameters, 'multiply_adds': layer.multiply_adds,
        'weights': {
            'type': weights.dtype, 'shape': list(weights.real.shape),
            'low': float(weights.real.min()),
            'high': float(weights.real.max()),
            'scales': [] if quantized is None else [
                float(quantized.scales.min()), float(quantized.scales.max())]},
        'output': layer.output and dict(layer.output._asdict())})
  return {
      'path': contents.model.path, 'kind': contents.model.kind,
      'bytes': contents.size_bytes,
      'model': options_lib.to_json(contents.options),
      'parameters': sum(layer.parameters for layer in contents.layers.values()),
      'multiply_adds': sum(
          layer.multiply_adds for layer in contents.layers.values()),
      'counts': contents.counts, 'types': contents.types, 'layers': layers}
