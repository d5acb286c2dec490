"""Predictors that run a checkpoint or an exported graph."""
from typing import Optional

import numpy as np
import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab.checkpoints import compatibility
from deeplab.checkpoints import restore as restore_lib
from deeplab.config import options as options_lib
from deeplab.models import exported
from deeplab.models import frozen_graph
from deeplab.models import interface
from deeplab.models import saved_model_file
from deeplab.nets import batch_norm
from deeplab.nets import deeplab_v3


def runtime() -> str:
  """Returns the runtime's name, such as 'TensorFlow 1.15.5, CPU'."""
  count = gpus()
  return 'TensorFlow {}, {}'.format(
      tf.__version__, '{} GPU'.format(count) if count else 'CPU')


def gpus() -> int:
  """Returns the number of GPUs that TensorFlow sees."""
  return len(tf.config.experimental.list_physical_devices('GPU'))


class CheckpointPredictor(interface.Predictor):
  """Runs checkpoints of one structure; the graph is built once."""

  def __init__(self, model_options: options_lib.ModelOptions):
    """Stores the options; `restore` builds the graph and loads the weights."""
    self._options = model_options
    self.input_size = model_options.crop_size
    self.runtime = runtime()
    self.num_classes = model_options.num_classes
    if model_options.is_quantized:
      self.precision = interface.FAKE_QUANTIZED
    # None until the first checkpoint: a cached report needs no graph.
    self._session: Optional[tf.Session] = None

  def _build(self):
    with tf.Graph().as_default() as graph:
      self._images = tf.placeholder(
          tf.float32, [None] + list(self.input_size) + [3])
      logits = deeplab_v3.logits(
          constants.scale_to_model_range(self._images), self._options,
          fold_batch_norm=batch_norm.folds_by_default())
      self._predictions = deeplab_v3.predictions(logits, self._options)
      self._variables = {
          variable.op.name: variable.shape.as_list()
          for variable in tf.global_variables()}
      self._restore = restore_lib.restorer(tf.global_variables())
      self._session = tf.Session(graph=graph)

  def restore(self, prefix: str) -> None:
    """Loads a checkpoint's weights.

    Args:
      prefix: checkpoint prefix.

    Raises:
      InputError: the checkpoint does not fit the graph, cannot be read, or has
        a weight that is inf or NaN.
    """
    compatibility.check_options(prefix, self._options)
    if not self._session:
      self._build()
    compatibility.check_fits(prefix, self._variables)
    self._restore(self._session, prefix)
    self.description = prefix

  def predict_prepared(self, inputs: np.ndarray) -> np.ndarray:
    """Returns int32 labels of images; call `restore` first."""
    assert self._session
    return self._session.run(self._predictions, {self._images: inputs})

  def close(self) -> None:
    """Frees the session."""
    if self._session:
      self._session.close()


class GraphPredictor(exported.ExportedPredictor):
  """Runs a frozen graph whose input is in [-1, 1]."""

  def __init__(self, path: str, graph_def: tf.GraphDef, input_node: str,
               output_node: str):
    """Loads a graph.

    Args:
      path: its file, for messages.
      graph_def: a graph that frozen_graph.checked returned.
      input_node: name of the input node.
      output_node: name of the node of the labels.

    Raises:
      InputError: TensorFlow cannot load it, or it takes no images.
    """
    graph = frozen_graph.import_graph(path, graph_def)
    self._images = graph.get_tensor_by_name(input_node + ':0')
    self._predictions = graph.get_tensor_by_name(output_node + ':0')
    shape = self._images.shape
    super().__init__(path, None if shape.rank is None else shape.as_list(),
                     frozen_graph.is_quantized(graph_def))
    self.runtime = runtime()
    self.num_classes = _classes_of(self._predictions.op)
    self._session = tf.Session(graph=graph)

  def _run(self, inputs: np.ndarray) -> np.ndarray:
    return self._session.run(self._predictions, {self._images: inputs})

  def close(self) -> None:
    """Frees the session."""
    self._session.close()


def _classes_of(operation):
  """Returns the number of classes of an ArgMax, or None."""
  while operation.type in ('Identity', 'Cast', 'Reshape', 'Squeeze'):
    operation = operation.inputs[0].op
  if operation.type != 'ArgMax' or operation.inputs[0].shape.rank is None:
    return None
  return operation.inputs[0].shape.as_list()[-1]


def open_frozen_graph(path: str, input_node: str = constants.INPUT_NODE,
                      output_node: str = constants.OUTPUT_NODE
                      ) -> GraphPredictor:
  """Opens a frozen graph; raises InputError if it cannot be used."""
  graph_def = frozen_graph.read_graph_def(path)
  frozen_graph.check_nodes(
      path, graph_def, input_node=input_node, output_node=output_node)
  return GraphPredictor(path, graph_def, input_node, output_node)


def open_saved_model(path: str) -> GraphPredictor:
  """Opens a SavedModel's folder; its signature names the nodes."""
  return GraphPredictor(path, *saved_model_file.read(path))
