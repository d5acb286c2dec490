"""SavedModels: folders with a frozen graph and a signature.

They are written and read as data and checked like frozen graphs. TensorFlow's
own loader is not used: it restores variables and runs operators from the file.
"""
import os
from typing import NamedTuple

import tensorflow.compat.v1 as tf
from tensorflow.core.protobuf import saved_model_pb2

from deeplab import constants
from deeplab.errors import InputError
from deeplab.errors import some_of
from deeplab.models import frozen_graph
from deeplab.storage import checked_read

# Names by which TensorFlow's tools find the graph and the signature.
_TAG = 'serve'
_SIGNATURE = 'serving_default'
_METHOD = 'tensorflow/serving/predict'
_SCHEMA_VERSION = 1
_KIND = 'a SavedModel, as export_model.py writes it'
# File and folder names inside TensorFlow's own SavedModels.
_ENTRIES = (constants.SAVED_MODEL_FILE, 'variables', 'assets', 'assets.extra',
            'fingerprint.pb', 'keras_metadata.pb')


class SavedModel(NamedTuple):
  """A checked graph and the nodes of its signature."""
  graph_def: tf.GraphDef
  input_node: str
  output_node: str


def content_of(graph_def: tf.GraphDef, input_node: str,
               output_node: str) -> bytes:
  """Builds the content of SAVED_MODEL_FILE from a frozen graph.

  Args:
    graph_def: the graph.
    input_node: placeholder of the images; INPUT_NAME in the signature.
    output_node: node of the labels, OUTPUT_NAME in the signature; or of logits,
      LOGITS_NAME.
  """
  saved = saved_model_pb2.SavedModel(
      saved_model_schema_version=_SCHEMA_VERSION)
  meta_graph = saved.meta_graphs.add()
  meta_graph.meta_info_def.tags.append(_TAG)
  meta_graph.meta_info_def.tensorflow_version = tf.__version__
  meta_graph.graph_def.CopyFrom(graph_def)
  signature = meta_graph.signature_def[_SIGNATURE]
  signature.method_name = _METHOD
  graph = frozen_graph.import_graph(constants.SAVED_MODEL_FILE, graph_def)
  images, labels = (graph.get_tensor_by_name(node + ':0')
                    for node in (input_node, output_node))
  output_name = (constants.OUTPUT_NAME if labels.dtype.is_integer else
                 constants.LOGITS_NAME)
  for entry, tensor in (
      (signature.inputs[constants.INPUT_NAME], images),
      (signature.outputs[output_name], labels)):
    entry.name = tensor.name
    entry.dtype = tensor.dtype.as_datatype_enum
    entry.tensor_shape.CopyFrom(tensor.shape.as_proto())
  # Serialization is made deterministic because maps have no order.
  return saved.SerializeToString(deterministic=True)


def read(folder: str) -> SavedModel:
  """Reads a SavedModel whose graph is safe to load.

  Args:
    folder: the folder with SAVED_MODEL_FILE.

  Raises:
    InputError: it is no SavedModel, has no signature from images to labels, has
      variables, or is not safe to load.
  """
  path = os.path.join(folder, constants.SAVED_MODEL_FILE)
  content = checked_read.read(path, path, _KIND)
  saved = saved_model_pb2.SavedModel()
  try:
    saved.ParseFromString(content)
  except Exception:  # protobuf's DecodeError has no stable public name
    raise InputError('{}: not a SavedModel'.format(path))
  found = [meta_graph for meta_graph in saved.meta_graphs
           if _TAG in meta_graph.meta_info_def.tags]
  if len(found) != 1:
    raise InputError('{}: {} graphs to serve; expected 1, in {}'.format(
        path, len(found), _KIND))
  graph_def = frozen_graph.checked(path, found[0].graph_def)
  signature = found[0].signature_def.get(_SIGNATURE)
  inputs, outputs = ([entry.name for entry in entries.values()] for entries in (
      (signature.inputs, signature.outputs) if signature else ({}, {})))
  tensors = {node.name + ':0' for node in graph_def.node}
  if len(inputs) != 1 or len(outputs) != 1 or not tensors.issuperset(
      inputs + outputs):
    raise InputError(
        '{}: the signature {} has the inputs {} and outputs {}; expected one '
        'of each, NODE:0 of a node in the graph'.format(
            path, _SIGNATURE, *(some_of(list(map(ascii, names))) or 'none'
                                for names in (inputs, outputs))))
  return SavedModel(graph_def, inputs[0][:-2], outputs[0][:-2])


def check_replaceable(folder: str) -> None:
  """Checks that a folder holds nothing but a SavedModel.

  Raises:
    InputError: names the other file.
  """
  if not os.path.lexists(folder):
    return
  if not os.path.isdir(folder):
    raise InputError('{}: is a file; expected a folder for the SavedModel, or '
                     'nothing'.format(folder))
  others = sorted(set(os.listdir(folder)) - set(_ENTRIES))
  if others:
    raise InputError('{} holds {}, which is no part of a SavedModel; expected '
                     'nothing else there'.format(folder, some_of(others)))
