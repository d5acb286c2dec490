"""Converts frozen graphs to ONNX; reads, checks and runs ONNX files.

tf2onnx converts, and onnxruntime runs without TensorFlow; the modern
environment has both. Files are checked like frozen graphs: only ONNX's own
operators, and results of bounded size, all in this one file.
"""
import importlib
import json
import logging
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from deeplab import constants as constants_lib
from deeplab import errors
from deeplab.errors import InputError
from deeplab.errors import Option
from deeplab.models import exported
from deeplab.storage import checked_read
from deeplab.system import environment

if TYPE_CHECKING:
  import tensorflow.compat.v1 as tf

# Required packages and tested versions, for messages.
_CONVERTER = ('tf2onnx', '1.17.0')
_FORMAT = ('onnx', '1.23.2')
_RUNTIME = ('onnxruntime', '1.32.0')
# The first opset whose operators all run fast; all recent runtimes read it.
_OPSET = 17
_KIND = 'an ONNX file, as export_model.py writes it'
_OUR_DOMAINS = ('', 'ai.onnx')


class OnnxFile(NamedTuple):
  """An ONNX file that is safe to run."""
  content: bytes
  input_name: str
  # A None side is dynamic.
  input_shape: Tuple[Optional[int], ...]
  output_name: str
  is_quantized: bool


# --- Packages --------------------------------------------------------------


def check_converter(given: Option) -> None:
  """Raises InputError if a package for the conversion is missing.

  Args:
    given: the option that needs it, for the message.
  """
  _check_packages(given, _FORMAT, _CONVERTER)


def _check_packages(name, *packages):
  missing = [package for package in packages
             if not environment.installed_version(package[0])]
  if missing:
    raise InputError(
        '{}: needs {}; use .venvs/modern/bin/python, or, with Python 3.10 or '
        'newer, python -m pip install {}', name,
        ' and '.join(package for package, _ in missing),
        ' '.join('{}=={}'.format(*package) for package in missing))


# --- Conversion ------------------------------------------------------------


def convert(path: str, graph_def: 'tf.GraphDef', *, input_node: str,
            output_node: str, classes: Sequence[str]) -> bytes:
  """Converts a frozen graph to the content of an ONNX file.

  Args:
    path: the file to write, for messages.
    graph_def: the graph.
    input_node: placeholder of the images; becomes constants.INPUT_NAME.
    output_node: node of the labels; becomes constants.OUTPUT_NAME.
    classes: names of the classes.

  Raises:
    InputError: the graph cannot be converted.
  """
  import onnx
  import tf2onnx
  names = {input_node + ':0': constants_lib.INPUT_NAME,
           output_node + ':0': constants_lib.OUTPUT_NAME}
  logging.disable(logging.WARNING)  # tf2onnx logs missed optimizations.
  try:
    model, _ = tf2onnx.convert.from_graph_def(
        graph_def, input_names=[input_node + ':0'],
        output_names=[output_node + ':0'], opset=_OPSET,
        tensors_to_rename=names)
    # tf2onnx lists its own domains, which no operator uses.
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid('', _OPSET))
    _resize_to_sizes(onnx, model)
    model.doc_string = (
        '{}: RGB in [-1, 1]; {}: classes'.format(*names.values()))
    onnx.helper.set_model_props(model, {
        'input_range': '[-1, 1]', 'classes': json.dumps(list(classes))})
    _check(model)
  except Exception as error:  # both packages raise many classes
    raise InputError('{}: tf2onnx {} cannot convert this graph: {}'.format(
        path, environment.installed_version(_CONVERTER[0]),
        errors.one_line(str(error))[:200]))
  finally:
    logging.disable(logging.NOTSET)
  # Serialization is made deterministic because maps have no order.
  return model.SerializeToString(deterministic=True)


def _resize_to_sizes(onnx, model):
  """Replaces the scales of each Resize by sizes, in place.

  A scale is rounded to float32: runtimes compute 5 * 6.6 = 32.
  """
  for node in model.graph.node:
    if node.op_type != 'Resize' or not node.input[2]:
      continue
    # Shapes are inferred each time because a Resize may feed another. Inference
    # is not strict: scales left contradict the output's shape.
    shapes = _shapes(onnx.shape_inference.infer_shapes(
        model, data_prop=True).graph)
    scales = onnx.numpy_helper.to_array(next(
        one for one in model.graph.initializer if one.name == node.input[2]))
    sizes = np.rint(shapes[node.input[0]] * scales).astype(np.int64)
    name = node.name + '_sizes'
    model.graph.initializer.append(onnx.numpy_helper.from_array(sizes, name))
    node.input[1:] = ['', '', name]


# --- Reading ---------------------------------------------------------------


def read(path: str) -> OnnxFile:
  """Reads an ONNX file that is safe to run.

  Args:
    path: the file.

  Raises:
    InputError: there is no such file, it is no ONNX file, or it is not safe to
      run.
  """
  content = checked_read.read(path, path, _KIND)
  _check_packages(path, _FORMAT)
  import onnx
  model = onnx.ModelProto()
  try:
    model.ParseFromString(content)
  except Exception:  # protobuf's DecodeError has no stable public name
    raise InputError('{}: not an ONNX file'.format(path))
  try:
    _check(model)
    source, shape, labels = _interface(model.graph)
    return OnnxFile(content, source, shape, labels, any(
        node.op_type == 'QuantizeLinear' for node in model.graph.node))
  except InputError as error:
    raise InputError('{}: {}'.format(path, error))


def _check(model):
  """Raises InputError, without the file's name, if a model is not safe.

  onnx's checker compares operators and constants with their schemas.
  """
  import onnx
  attributes = [attribute for node in model.graph.node
                for attribute in node.attribute]
  tensors = list(model.graph.initializer) + [each.t for each in attributes]
  for what, found in (
      ('operators of another domain', [
          opset for opset in model.opset_import
          if opset.domain not in _OUR_DOMAINS]),
      ('functions', model.functions), ('training graphs', model.training_info),
      ('a graph in a node', [
          each for each in attributes if each.HasField('g') or each.graphs]),
      ('constants in another file', [
          tensor for tensor in tensors if tensor.external_data or
          tensor.data_location == onnx.TensorProto.EXTERNAL])):
    if found:
      raise InputError('holds {}; expected nodes and constants in this file, '
                       'of operators of ONNX; refused'.format(what))
  try:
    onnx.checker.check_model(model)
    graph = onnx.shape_inference.infer_shapes(
        model, check_type=True, strict_mode=True, data_prop=True).graph
  except Exception as error:  # onnx raises several classes
    raise InputError('not a valid model: {}'.format(
        errors.one_line(str(error))[:200]))
  shapes = _shapes(graph)
  for node in graph.node:
    for name in filter(None, node.output):
      problem = constants_lib.size_problem(shapes.get(name), shapes.get(name))
      if problem:
        raise InputError('node {} ({}) gives {}'.format(
            ascii(node.name)[1:-1], node.op_type, problem))


def _shapes(graph):
  """Returns the shapes of a graph's values: dict by name.

  None is a dynamic side, or a shape of unknown rank.
  """
  shapes = {}
  for value in list(graph.value_info) + list(graph.input) + list(graph.output):
    tensor = value.type.tensor_type
    shapes[value.name] = [
        side.dim_value if side.HasField('dim_value') else None
        for side in tensor.shape.dim] if tensor.HasField('shape') else None
  return shapes


def _interface(graph):
  """Returns (input's name, its shape, output's name), or raises InputError."""
  import onnx
  constants = {tensor.name for tensor in graph.initializer}
  given = [value for value in graph.input if value.name not in constants]
  for what, found, wanted, described in (
      ('inputs', given, (onnx.TensorProto.FLOAT,), 'one, of float32'),
      ('outputs', list(graph.output),
       (onnx.TensorProto.INT32, onnx.TensorProto.INT64),
       'one, of integers')):
    if len(found) != 1 or found[0].type.tensor_type.elem_type not in wanted:
      raise InputError('{} {}: {}; expected {}'.format(
          len(found), what, errors.some_of(
              [ascii(value.name) for value in found]), described))
  name = given[0].name
  return name, tuple(_shapes(graph)[name] or ()), graph.output[0].name


# --- Running ---------------------------------------------------------------


class OnnxPredictor(exported.ExportedPredictor):
  """Runs an ONNX file, whose input is in [-1, 1]."""

  def __init__(self, path: str, num_threads: int = 0):
    """Loads the file.

    Args:
      path: the file.
      num_threads: threads of the runtime; 0: it chooses.

    Raises:
      InputError: the file is no ONNX file, is not safe to run or takes no
        images; or onnxruntime is missing.
    """
    _check_packages(path, _FORMAT, _RUNTIME)
    found = read(path)
    super().__init__(path, found.input_shape, found.is_quantized)
    runtime = importlib.import_module(_RUNTIME[0])
    self.runtime = '{} {}, CPU'.format(
        _RUNTIME[0], environment.installed_version(_RUNTIME[0]))
    settings = runtime.SessionOptions()
    settings.log_severity_level = 3  # errors
    settings.intra_op_num_threads = num_threads
    try:
      self._session: Any = runtime.InferenceSession(
          found.content, settings, providers=['CPUExecutionProvider'])
    except Exception as error:  # its classes have no stable public name
      raise InputError('{}: {} cannot load this model: {}'.format(
          path, self.runtime, errors.one_line(str(error))[:200]))
    self._names = (found.input_name, found.output_name)

  def _run(self, inputs: np.ndarray) -> np.ndarray:
    return self._session.run([self._names[1]], {self._names[0]: inputs})[0]

  def close(self) -> None:
    """Frees the session."""
    self._session = None
