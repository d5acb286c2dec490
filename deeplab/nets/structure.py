"""Lists the network's variables, batch norms and convolutions."""
import functools
import os
from typing import Dict, List, NamedTuple, Optional, Set, Tuple

import tensorflow.compat.v1 as tf

from deeplab.config import options as options_lib
from deeplab.nets import deeplab_v3

_CONVOLUTIONS = {'Conv2D': 'CONV_2D',
                 'DepthwiseConv2dNative': 'DEPTHWISE_CONV_2D'}


class Convolution(NamedTuple):
  """One convolution of the network."""
  # TFLite's name for it.
  kind: str
  # [height, width, channels] of its output.
  output_shape: Tuple[int, int, int]
  # Number for one image.
  multiply_adds: int


class Structure(NamedTuple):
  """A network without quantization."""
  # Shapes of the variables.
  variables: Dict[str, List[int]]
  # Epsilon of each layer's batch norm, if it has one.
  epsilons: Dict[str, float]
  # By the layers' scopes, in execution order.
  convolutions: Dict[str, Convolution]

  def layers(self) -> Set[str]:
    """Returns the scopes of all convolutions."""
    return set(self.convolutions)

  def layer_of(self, name: str) -> Optional[str]:
    """Returns the scope of the layer that computes a tensor, or None.

    Converters name fused tensors 'own/name;name;name'.
    """
    path = name.split(';')[0]
    while path and path not in self.convolutions:
      path = os.path.dirname(path)
    return path or None


@functools.lru_cache(maxsize=8)
def of(model_options: options_lib.ModelOptions) -> Structure:
  """Builds the network without fake quantization and returns its structure."""
  model_options = model_options._replace(quantize_delay_step=-1)
  height, width = model_options.crop_size
  with tf.Graph().as_default() as graph:
    deeplab_v3.logits(
        tf.placeholder(tf.float32, [1, height, width, 3]), model_options)
    variables = {variable.op.name: variable.shape.as_list()
                 for variable in tf.global_variables()}
    epsilons = {
        # Rounded to 1e-5: TensorFlow makes it 1.001e-5 for cuDNN, and float32
        # cannot tell the two apart when added to a variance near 1.
        os.path.dirname(os.path.dirname(operation.name)):
            float('{:.3g}'.format(operation.get_attr('epsilon')))
        for operation in graph.get_operations()
        if operation.type.startswith('FusedBatchNorm')}
    convolutions = {
        os.path.dirname(operation.name): _convolution(operation)
        for operation in graph.get_operations()
        if operation.type in _CONVOLUTIONS}
  return Structure(variables, epsilons, convolutions)


def _convolution(operation):
  output = operation.outputs[0].shape.as_list()
  height, width, inputs, _ = operation.inputs[1].shape.as_list()
  # An atrous convolution runs on tiles of the map, stacked as a batch.
  tiles, columns = output[0], output[2]
  cells = tiles * output[1] * columns
  kind = _CONVOLUTIONS[operation.type]
  from_channels = 1 if kind == 'DEPTHWISE_CONV_2D' else inputs
  side = int(round(tiles ** 0.5))
  return Convolution(
      kind, (output[1] * side, columns * side, output[3]),
      cells * output[3] * height * width * from_channels)
