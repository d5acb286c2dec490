"""Reads the network's layers from a model file of any kind.

Weights are as used in inference: batch norm is folded, and they are quantized
if the file is. Layers are named by the scopes of their variables.
"""
import os
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import numpy as np
import tensorflow.compat.v1 as tf

from deeplab.checkpoints import compatibility
from deeplab.checkpoints import find
from deeplab.checkpoints import read as read_lib
from deeplab.config import options as options_lib
from deeplab.errors import InputError
from deeplab.errors import some_of
from deeplab.export import freeze
from deeplab.models import frozen_graph
from deeplab.models import interface
from deeplab.models import open_model
from deeplab.models import predictors
from deeplab.models import tflite
from deeplab.models import tflite_layers as layers_lib
from deeplab.nets import structure
from deeplab.tools.inspection import activations as activations_lib

# Fake quantization of weights never uses the lowest of 256 values.
_LOWEST, _HIGHEST = 1, 255
# Endings of fake quantization scopes, and of the tensors they round.
_ACTIVATIONS = {'/act_quant': '', '/post_activation_bypass_quant': '/add'}


class Values(NamedTuple):
  """Weights or biases of a layer."""
  # Type of the stored values, such as 'float32'.
  dtype: str
  # float64; channels of the output last: [height, width, inputs, channels],
  # depthwise [height, width, 1, channels]; biases [channels].
  real: np.ndarray
  # Quantized values: int64, in the same shape.
  stored: Optional[np.ndarray] = None
  # float64 [channels], or [1] if shared by all channels; None: float.
  scales: Optional[np.ndarray] = None


class Layer(NamedTuple):
  """A convolution with batch norm folded in."""
  convolution: structure.Convolution
  weights: Values
  biases: Values

  @property
  def parameters(self) -> int:
    """Number of weights and biases."""
    return self.weights.real.size + self.biases.real.size


class Contents(NamedTuple):
  """Contents of a model."""
  model: open_model.ModelFile
  # Total of all its files.
  size_bytes: int
  # Structure of the network.
  options: options_lib.ModelOptions
  # Dict by scope, in order of execution.
  layers: Dict[str, Layer]
  # Quantized activations, by the layer's scope or else by the tensor's name.
  activations: Dict[str, activations_lib.Range]
  # Numbers of operators, nodes or variables, by kind.
  counts: Dict[str, int]
  # Operators that clip their inputs; only for TFLite files.
  clipping: Tuple[activations_lib.Clipping, ...] = ()


def read(model: open_model.ModelFile,
         crop_size: Optional[Tuple[int, int]] = None) -> Contents:
  """Reads a model's file.

  Args:
    model: from open_model.find.
    crop_size: (height, width) of a checkpoint's images; see open_model.

  Raises:
    InputError: it cannot be read, or is another network.
  """
  if model.kind == interface.TFLITE:
    return _of_tflite(model)
  if model.kind == interface.FROZEN_GRAPH:
    return _of_frozen_graph(model)
  if model.kind == interface.CHECKPOINT:
    return _of_checkpoint(model, crop_size)
  raise InputError('{}: is a {}; expected a checkpoint, a frozen graph or a '
                   'TFLite file', model.path, model.kind)


# --- Checkpoints and frozen graphs -----------------------------------------


def _of_checkpoint(model, crop_size):
  options = open_model.model_options(model.path, crop_size)
  names = read_lib.variables_in(model.path)
  values = read_lib.values_in(
      model.path, list(filter(read_lib.is_model_variable, names)))
  size = sum(map(os.path.getsize, find.parts_of(model.path)))
  return Contents(
      model, size, options, _of_values(values, options, model.path),
      _activations_of_variables(values), {'variables': len(names)})


def _of_frozen_graph(model):
  graph_def = frozen_graph.read_graph_def(model.path)
  values = {node.name: tf.make_ndarray(node.attr['value'].tensor)
            for node in graph_def.node if node.op == 'Const'}
  options = compatibility.options_by_variables(
      {name: value.shape for name, value in values.items()}, model.path)
  with predictors.open_frozen_graph(model.path) as predictor:
    options = _with_classes(
        options._replace(crop_size=predictor.input_size), model)
  return Contents(
      model, os.path.getsize(model.path), options,
      _of_values(values, options, model.path),
      _activations_of_variables(values), freeze.operation_counts(graph_def))


def _of_values(values: Dict[str, np.ndarray],
               options: options_lib.ModelOptions, path: str
               ) -> Dict[str, Layer]:
  """Builds the layers from variables."""
  network = structure.of(options)
  _check_complete('variables', network.variables, values, path)
  for name, shape in network.variables.items():
    if list(values[name].shape) != shape:
      raise InputError('{}: not of this network: {} is {}, expected {}', path,
                       name, list(values[name].shape), shape)
  return {scope: _folded(scope, values, network)
          for scope in network.convolutions}


def _folded(scope, values, network):
  """Builds a layer from variables, with batch norm folded."""
  convolution = network.convolutions[scope]

  def value(name):
    return values['{}/{}'.format(scope, name)].astype(np.float64)

  if convolution.kind == 'DEPTHWISE_CONV_2D':
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
  return Layer(convolution, quantized or Values('float32', weights),
               Values('float32', biases))


def _activations_of_variables(values):
  """Returns the Ranges of fake quantization, named as in a TFLite file."""
  found = {}
  for scope in (name[:-len('/min')] for name in values
                if name.endswith('/min')):
    for ending, tensor in _ACTIVATIONS.items():
      if scope.endswith(ending):
        found[scope[:-len(ending)] + tensor] = _range_of_variables(
            values, scope, lowest=0)
  return {name: to for name, to in found.items() if to}


def _range_of_variables(values, scope, lowest):
  """Returns the Range of fake quantization; None: there is none.

  The range contains 0 exactly, as in TensorFlow's Nudge.
  """
  if scope + '/min' not in values or scope + '/max' not in values:
    return None
  low, high = (float(values['{}/{}'.format(scope, end)])
               for end in ('min', 'max'))
  scale = (high - low) / (_HIGHEST - lowest)
  if not scale > 0:
    return None
  zero_point = int(np.clip(np.floor(lowest - low / scale + 0.5), lowest,
                           _HIGHEST))
  return activations_lib.Range('uint8', scale * (lowest - zero_point),
                               scale * (_HIGHEST - zero_point), scale,
                               zero_point)


def _fake_quantized(weights, values, scope):
  """Returns fake-quantized weights, or None."""
  to = _range_of_variables(values, scope, lowest=_LOWEST)
  if to is None:
    return None
  clipped = np.clip(np.nan_to_num(weights), to.low, to.high)
  stored = np.floor(
      (clipped - to.low) / to.scale + 0.5).astype(np.int64) + _LOWEST
  real = to.scale * (stored - to.zero_point)
  return Values('uint8', np.where(np.isfinite(weights), real, np.nan), stored,
                np.array([to.scale]))


# --- TFLite files ----------------------------------------------------------


def _of_tflite(model):
  content = tflite.read(model.path)
  options = _with_classes(
      layers_lib.model_options(content, model.path), model)
  network = structure.of(options)
  found = layers_lib.read(content, network, model.path)
  _check_complete('layers', network.layers(), found, model.path)
  layers = {
      scope: _of_tensors(found[scope], network.convolutions[scope])
      for scope in network.convolutions}
  scopes = {layer.output.name: scope for scope, layer in found.items()}
  activations = {}
  for operator in content.operators:
    for position in operator.outputs:
      tensor = content.tensors[position]
      to = activations_lib.range_of(tensor)
      if to:
        activations[scopes.get(
            tensor.name, activations_lib.short_name(tensor))] = to
  return Contents(
      model, os.path.getsize(model.path), options, layers, activations,
      content.operation_counts(), tuple(activations_lib.find_clipping(content)))


def _of_tensors(layer, convolution):
  """Converts a layer of a TFLite file."""
  weights = layer.weights * layer.gain
  if convolution.kind == 'DEPTHWISE_CONV_2D':
    # Shape: [height, width, channels, 1]; the gain belongs to the channels.
    weights = np.swapaxes(
        layer.weights * layer.gain[:, np.newaxis], 2, 3)
  return Layer(
      convolution, _stored(layer.stored_weights, weights, convolution.kind),
      _stored(layer.stored_biases, layer.offset, ''))


def _stored(tensor: tflite.Tensor, real: np.ndarray, kind: str) -> Values:
  """Returns Values with a tensor's stored values, channels last."""
  if not tensor.scales or tensor.data is None:
    return Values(str(tensor.dtype), real)
  stored = tensor.data.astype(np.int64)
  if kind:
    stored = np.transpose(
        stored, [1, 2, 3, 0] if kind == 'CONV_2D' else [1, 2, 0, 3])
  return Values(str(tensor.dtype), real, stored,
                np.array(tensor.scales, np.float64))


# --- All -------------------------------------------------------------------


def _check_complete(kind, expected, found, path):
  missing = sorted(set(expected) - set(found))
  if missing:
    raise InputError('{}: not of this network: lacks {} of {} {} ({})', path,
                     len(missing), len(expected), kind, some_of(missing))


def _with_classes(options, model):
  """Returns options with the label map of a file, if known."""
  label_map = open_model.label_map_of(model)
  return options.with_classes(label_map) if label_map else options


def to_json(contents: Contents) -> Dict[str, Any]:
  """Returns everything except the weights as a dict for JSON."""
  layers: List[Dict[str, Any]] = []
  for name, layer in contents.layers.items():
    weights = layer.weights
    output = contents.activations.get(name)
    layers.append({
        'name': name, 'kind': layer.convolution.kind,
        'output_shape': list(layer.convolution.output_shape),
        'parameters': layer.parameters,
        'multiply_adds': layer.convolution.multiply_adds,
        'weights': {
            'type': weights.dtype, 'shape': list(weights.real.shape),
            'low': finite(weights.real.min()),
            'high': finite(weights.real.max()),
            'scales': [] if weights.scales is None else [
                finite(weights.scales.min()), finite(weights.scales.max())]},
        'output': output and output._asdict()})
  return {
      'path': contents.model.path, 'kind': contents.model.kind,
      'bytes': contents.size_bytes,
      'model': options_lib.to_json(contents.options),
      'parameters': sum(layer['parameters'] for layer in layers),
      'multiply_adds': sum(layer['multiply_adds'] for layer in layers),
      'counts': contents.counts, 'layers': layers,
      'activations': {name: one._asdict()
                      for name, one in contents.activations.items()},
      'clipping': [
          dict(one._asdict(), input=one.input._asdict(),
               output=one.output._asdict()) for one in contents.clipping]}


def finite(value: float) -> Optional[float]:
  """Returns a number for JSON: None for NaN and infinity."""
  return float(value) if np.isfinite(value) else None
