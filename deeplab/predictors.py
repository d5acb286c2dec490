"""Predictors (see `counting`) that run a checkpoint or a frozen graph."""
from typing import Optional, Tuple

import numpy as np
import tensorflow.compat.v1 as tf

from deeplab import checkpoints
from deeplab import contract
from deeplab import counting
from deeplab import graph_file
from deeplab import options as options_lib
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.nets import batch_norm
from deeplab.nets import deeplab_v3


def runtime() -> str:
  """Names what runs the network here, such as 'TensorFlow 1.15.5, CPU'."""
  gpus = tf.config.experimental.list_physical_devices('GPU')
  return 'TensorFlow {}, {}'.format(
      tf.__version__, '{} GPU'.format(len(gpus)) if gpus else 'CPU')


class CheckpointPredictor(counting.Predictor):
  """The network with a checkpoint's weights; the graph is built once."""

  def __init__(self, model_options: options_lib.ModelOptions):
    """Builds the graph; `restore` gives it weights.

    Args:
      model_options: its structure.
    """
    self._options = model_options
    self.input_size = model_options.crop_size
    self.runtime = runtime()
    with tf.Graph().as_default() as graph:
      self._images = tf.placeholder(
          tf.float32, [None] + list(model_options.crop_size) + [3])
      logits = deeplab_v3.logits(
          contract.scale_to_model_range(self._images), model_options,
          fold_batch_norm=batch_norm.folds_by_default())
      self._predictions = deeplab_v3.predictions(logits, model_options)
      self._variables = {
          variable.op.name: variable.shape.as_list()
          for variable in tf.global_variables()}
      self._restore = checkpoints.restorer(tf.global_variables())
      self._session = tf.Session(graph=graph)

  def restore(self, prefix: str) -> None:
    """Loads a checkpoint's weights.

    Args:
      prefix: checkpoint prefix.

    Raises:
      InputError: where the checkpoint is not this graph's, cannot be read, or
        has a weight that is inf or NaN.
    """
    checkpoints.check_options(prefix, self._options)
    checkpoints.check_fits(prefix, self._variables)
    self._restore(self._session, prefix)
    self.description = prefix

  def predict(self, images: np.ndarray) -> np.ndarray:
    """Returns int32 labels of images; see counting.Predictor."""
    return self._session.run(self._predictions, {self._images: images})

  def close(self) -> None:
    """Frees the session."""
    self._session.close()


class FrozenGraphPredictor(counting.Predictor):
  """A frozen graph, as export_model.py writes it; its input is in [-1, 1]."""

  def __init__(self, path: str, *, crop_size: Optional[Tuple[int, int]],
               input_node: str = contract.INPUT_NODE,
               output_node: str = contract.OUTPUT_NODE):
    """Loads the graph.

    Args:
      path: the .pb file.
      crop_size: (height, width) of the images it will get; None: whatever it
        takes.
      input_node: name of the node that images are fed to.
      output_node: name of the node that gives labels.

    Raises:
      InputError: where the file is no frozen graph, holds what such a network
        does not, lacks a node, or takes images of another size.
    """
    self.description = path
    graph_def = graph_file.read_graph_def(path)
    graph_file.check_nodes(
        path, graph_def, input_node=input_node, output_node=output_node)
    graph = graph_file.import_graph(path, graph_def)
    self._images = graph.get_tensor_by_name(input_node + ':0')
    self._predictions = graph.get_tensor_by_name(output_node + ':0')
    self._check_input(crop_size)
    # Only the batch can be open; see graph_file.
    self.input_size = tuple(self._images.shape.as_list()[1:3])
    self.runtime = runtime()
    self._session = tf.Session(graph=graph)

  def _check_input(self, crop_size):
    shape = self._images.shape
    wanted = [None] + list(crop_size or (None, None)) + [3]
    if not shape.is_compatible_with(wanted):
      raise InputError(
          '{}: input is {}, {}', self.description,
          'x'.join(str(side) for side in shape.as_list()),
          option('crop_size', crop_size) if crop_size else
          'expected [batch, height, width, 3]')

  def predict(self, images: np.ndarray) -> np.ndarray:
    """Returns int32 labels of images; see counting.Predictor."""
    return self.predict_prepared(self.prepare(images))

  def prepare(self, images: np.ndarray) -> np.ndarray:
    """Returns images in [-1, 1]; see counting.Predictor."""
    return contract.scale_to_model_range(images)

  def predict_prepared(self, inputs: np.ndarray) -> np.ndarray:
    """Returns int32 labels of such images; see counting.Predictor."""
    # An exported graph has a fixed batch, of 1 as a rule.
    size = self._images.shape.as_list()[0] or len(inputs)
    outputs = [
        self._session.run(
            self._predictions, {self._images: inputs[start:start + size]})
        for start in range(0, len(inputs), size)]
    # An ArgMax that another tool exported may give int64.
    return np.concatenate(outputs).astype(np.int32)

  def close(self) -> None:
    """Frees the session."""
    self._session.close()
