"""Rebuilds a checkpoint from a TFLite file, to train and evaluate.

A file holds the weights and biases of every layer with batch norm folded in
and, if it is quantized, scales and zero points. Three kinds are read:

  weights   made from                   result
  float32   a float graph               a float checkpoint
  int8      post-training quantization  a float checkpoint, of rounded weights
  uint8     a quantization-aware graph  a quantization-aware checkpoint, with
                                        the ranges of weights and activations

Batch norm cannot be unfolded, because its statistics are not in the file. It
becomes the identity plus the bias. Its mean is 0 and its variance 1 - epsilon,
so that the factor gamma / sqrt(variance + epsilon) is exactly 1 in float32, and
weights that were on a quantization grid stay on it. Training must freeze these
moving averages, because batch statistics would differ from them.
"""
import logging
import os
from typing import Any, Dict, NamedTuple

import numpy as np
import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab.checkpoints import compatibility
from deeplab.checkpoints import find
from deeplab.checkpoints import saver
from deeplab.config import options as options_lib
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.errors import some_of
from deeplab.models import metadata
from deeplab.models import tflite
from deeplab.models import tflite_layers as layers_lib
from deeplab.nets import structure
from deeplab.storage import locks
from deeplab.system import tf_errors

_CHECKPOINT = 'model.ckpt-0'
_LOG = logging.getLogger(__name__)
# Update count stored with the moving average of a range. With 0, the first
# batch's range would replace the range from the file.
_RANGE_UPDATES = 1e6


class RebuildResult(NamedTuple):
  """The checkpoint written."""
  # Checkpoint prefix.
  checkpoint: str
  # Number of layers, and of all values in their weights.
  layers: int
  weights: int
  model_options: options_lib.ModelOptions


def rebuild(options: options_lib.RebuildOptions) -> RebuildResult:
  """Writes a checkpoint with the weights of a TFLite file.

  Args:
    options: input and output; without a seed, batch norm is the identity plus
      the bias.

  Raises:
    InputError: the file is not a model of this network, or the folder already
      holds a checkpoint.
  """
  path, folder = options.tflite, options.output_dir
  present = os.path.isdir(folder) and find.find_latest(folder)
  if present and not _is_cut_off(present):
    # A run may have been killed after it wrote the checkpoint.
    locks.remove_leftovers(folder)
    raise InputError('{}: holds {} already; give another folder',
                     option('output_dir', folder), os.path.basename(present))
  _LOG.info('rebuilding from %s', path)
  model = tflite.read(path)
  model_options = layers_lib.model_options(model, path)
  classes = metadata.label_map_beside(path)
  if classes and classes.num_classes == model_options.num_classes:
    model_options = model_options.with_classes(classes)
  network = structure.of(model_options)
  layers = layers_lib.read(model, network, path)
  random = (None if options.batch_norm_seed is None
            else np.random.RandomState(options.batch_norm_seed))
  values = _variables(network, layers, path, random)
  # Only quantization-aware weights are uint8.
  if any(layer.stored_weights.dtype == np.uint8 for layer in layers.values()):
    values.update(_ranges(model, network))
    model_options = model_options._replace(quantize_delay_step=0)
  return RebuildResult(
      checkpoint=_write(values, folder, model_options), layers=len(layers),
      weights=sum(layer.weights.size for layer in layers.values()),
      model_options=model_options)


def _is_cut_off(prefix):
  """Returns whether a run was killed before it wrote the index."""
  state = os.path.join(os.path.dirname(prefix), find.STATE)
  return os.path.basename(prefix) == _CHECKPOINT and not (
      os.path.exists(prefix + '.index') or os.path.exists(state))


def _variables(network, layers, path, random):
  """Computes the values of the network's variables from layers.

  Args:
    network: a structure.Structure.
    layers: dict from scope to tflite_layers.Layer, in the file's order.
    path: the file, for messages.
    random: RandomState that draws batch norm; None: the identity.

  Returns:
    Dict from variable to float64 array.

  Raises:
    InputError: a layer is missing, or has another shape.
  """
  missing = sorted(network.layers() - set(layers))
  if missing:
    raise InputError('{}: not a model of this network: lacks {} of {} layers '
                     '({})'.format(path, len(missing), len(network.layers()),
                                   some_of(missing)))
  values: Dict[str, np.ndarray] = {}
  for scope, layer in layers.items():
    if scope in network.epsilons:
      arrays = _unfolded(layer, network.epsilons[scope], random)
    else:
      arrays = {'weights': layer.weights * layer.gain, 'biases': layer.offset}
    if scope + '/depthwise_weights' in network.variables:
      arrays['depthwise_weights'] = arrays.pop('weights')
    values.update(('{}/{}'.format(scope, ending), value)
                  for ending, value in arrays.items())
  for name, value in values.items():
    if list(value.shape) != network.variables[name]:
      raise InputError('{}: not a model of this network: {} is {}, expected '
                       '{}'.format(path, name, list(value.shape),
                                   network.variables[name]))
  return values


def _unfolded(layer, epsilon, random):
  """Splits a layer into weights and batch norm: dict from name to array."""
  mean = np.zeros_like(layer.gain)
  gamma, variance = layer.gain, np.ones_like(layer.gain) - epsilon
  weights = layer.weights
  if random:
    gamma = random.uniform(0.5, 1.5, gamma.shape)
    variance = random.uniform(0.5, 2.0, gamma.shape)
    mean = random.normal(0, 0.3, gamma.shape)
    factor = layer.gain / (gamma / np.sqrt(variance + epsilon))
    is_depthwise = weights.shape[3] == 1 and weights.shape[2] > 1
    weights = weights * (factor[:, np.newaxis] if is_depthwise else factor)
  return {'weights': weights, 'BatchNorm/gamma': gamma,
          'BatchNorm/beta': layer.offset + mean * gamma / np.sqrt(
              variance + epsilon),
          'BatchNorm/moving_mean': mean, 'BatchNorm/moving_variance': variance}


def _ranges(model, network):
  """Returns the ranges of fake quantization: dict from variable to float."""
  values: Dict[str, float] = {}
  for operator in model.operators:
    output = model.tensors[operator.outputs[0]]
    if operator.kind in layers_lib.CONVOLUTIONS:
      scope = network.layer_of(output.name)
      weights = model.tensors[operator.inputs[1]]
      # Weights use 255 of 256 values, for symmetry around 0.
      values.update(_range(scope + '/weights_quant', weights, lowest=1))
      values.update(_averaged_range(scope + '/act_quant', output))
    elif operator.kind == 'ADD':
      scope = os.path.dirname(output.name)
      values.update(_averaged_range(
          scope + '/post_activation_bypass_quant', output))
  return values


def _range(scope, tensor, lowest=0):
  """Returns the real values of the least and largest stored values."""
  scale, zero_point = tensor.scales[0], tensor.zero_points[0]
  return {scope + '/min': scale * (lowest - zero_point),
          scope + '/max': scale * (255 - zero_point)}


def _averaged_range(scope, tensor):
  """Returns a range with the state of its moving averages, for training."""
  values = _range(scope, tensor)
  for name, value in sorted(values.items()):
    state = '{}/{}/'.format(scope, name)
    values[state + 'biased'] = value
    values[state + 'local_step'] = _RANGE_UPDATES
  return values


def _write(values, output_dir, model_options):
  """Writes variables as float32, global_step and options; returns a prefix."""
  tensors: Dict[str, Any] = {
      name: np.asarray(value, np.float32) for name, value in values.items()}
  tensors['global_step'] = np.int64(0)
  names = sorted(tensors)
  prefix = os.path.join(output_dir, _CHECKPOINT)
  options_path = os.path.join(output_dir, constants.MODEL_OPTIONS_FILE)
  with saver.publishing(prefix, options_path) as (written, written_options):
    compatibility.write_options(
        os.path.dirname(written_options), model_options, optimizer=None)
    with tf.Graph().as_default(), tf.Session() as session:
      save = tf.raw_ops.SaveV2(
          prefix=written, tensor_names=names,
          shape_and_slices=[''] * len(names),
          tensors=[tensors[name] for name in names])
      try:
        session.run(save)
      except tf.errors.OpError as error:
        # TensorFlow's message has the temporary name of the file.
        raise InputError('{}: cannot be saved ({})', prefix,
                         tf_errors.why_not_written(error))
  return prefix
