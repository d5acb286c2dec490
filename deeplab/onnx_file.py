"""ONNX files: made of frozen graphs, read as data, checked, and run.

Made by tf2onnx, run by onnxruntime, both of which the modern environment has.
A file is refused unless it consists of what graphs like ours are converted to,
all in this one file, with constants and results of bounded size: as a frozen
graph is (see `graph_file`), and by the same limits. Needs no TensorFlow to run
one.
"""
import functools
import importlib
import json
import logging
import operator
from typing import (
  TYPE_CHECKING,
  Any,
  NamedTuple,
  Optional,
  Sequence,
  Tuple,
)

import numpy as np

from deeplab import contract
from deeplab import environment
from deeplab import errors
from deeplab import exported
from deeplab import inputs
from deeplab.errors import InputError
from deeplab.errors import Option

if TYPE_CHECKING:
  import tensorflow.compat.v1 as tf

# What is needed, for messages: package, and the version that was tried.
_CONVERTER = ('tf2onnx', '1.17.0')
_FORMAT = ('onnx', '1.23.2')
_RUNTIME = ('onnxruntime', '1.32.0')
# The first that has all operators in the form in which runtimes are fastest;
# every runtime of the last years takes it.
_OPSET = 17
_KIND = 'an ONNX file, as export_model.py writes it'
_OUR_DOMAINS = ('', 'ai.onnx')
# What tf2onnx makes of the graphs that export_model.py can write, and what
# other versions of it put in their place. None reads a file, or has a graph in
# it.
_OPERATORS = frozenset((
    'Add', 'ArgMax', 'AveragePool', 'BatchNormalization', 'Cast', 'Clip',
    'Concat', 'Constant', 'Conv', 'DepthToSpace', 'DequantizeLinear', 'Div',
    'Expand', 'Flatten', 'Gather', 'GlobalAveragePool', 'Identity', 'Max',
    'Min', 'Mul', 'Pad', 'QuantizeLinear', 'ReduceMean', 'Relu', 'Reshape',
    'Resize', 'ReverseSequence', 'Shape', 'Slice', 'Softmax', 'SpaceToDepth',
    'Squeeze', 'Sub', 'Sum', 'Transpose', 'Unsqueeze'))
_LARGEST_ATTRIBUTE = 2 ** 16
# Fields of an attribute that hold its name and plain values.
_ATTRIBUTE_FIELDS = frozenset((
    'name', 'doc_string', 'type', 'f', 'i', 's', 'floats', 'ints', 'strings'))
# How onnx's own loader finds a file that a tensor is in.
_EXTERNAL = 1


class OnnxFile(NamedTuple):
  """What was read; safe to run."""
  content: bytes
  input_name: str
  # A side of None is open.
  input_shape: Tuple[Optional[int], ...]
  output_name: str


# --- Packages --------------------------------------------------------------


def check_converter(given: Option) -> None:
  """Refuses to convert where the packages for it are missing.

  Args:
    given: the option that asks for it, for the message.
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
  """Returns a frozen graph as the content of an ONNX file.

  The input is called contract.INPUT_NAME, the output contract.OUTPUT_NAME; the
  metadata say what they are.

  Args:
    path: the file that it is for, for messages.
    graph_def: the graph.
    input_node: a placeholder, for images.
    output_node: node that gives labels.
    classes: names of the classes.

  Raises:
    InputError: where it cannot be converted.
  """
  import onnx
  import tf2onnx
  names = {input_node + ':0': contract.INPUT_NAME,
           output_node + ':0': contract.OUTPUT_NAME}
  logging.disable(logging.WARNING)  # of what it could not optimize
  try:
    model, _ = tf2onnx.convert.from_graph_def(
        graph_def, input_names=[input_node + ':0'],
        output_names=[output_node + ':0'], opset=_OPSET,
        tensors_to_rename=names)
    # It has domains of its own in there that no operator is of.
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid('', _OPSET))
    _resize_to_sizes(onnx, model)
    model.doc_string = (
        '{}: RGB in [-1, 1]; {}: classes'.format(*names.values()))
    onnx.helper.set_model_props(model, {
        'input_range': '[-1, 1]', 'classes': json.dumps(list(classes))})
    onnx.checker.check_model(model)
    _check(model)
    _check_results(model)
  except Exception as error:  # both packages raise whatever they like
    raise InputError('{}: tf2onnx {} cannot convert this graph: {}'.format(
        path, environment.installed_version(_CONVERTER[0]),
        errors.one_line(str(error))[:200]))
  finally:
    logging.disable(logging.NOTSET)
  # Deterministic: maps have no order of their own.
  return model.SerializeToString(deterministic=True)


def _resize_to_sizes(onnx, model):
  """Has Resize say how large, not how many times as large, in place.

  The quotient is rounded to a float32: runtimes make 32 of 5 times 6.6.
  """
  for node in model.graph.node:
    if node.op_type != 'Resize' or not node.input[2]:
      continue
    # Again each time: its input may be what another one gives. Those that are
    # still to come contradict the output's shape, so not strictly.
    shapes = _sizes(onnx.shape_inference.infer_shapes(
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
    InputError: where there is no such file, it is another one, or it holds what
      a network like this one does not.
  """
  content = inputs.read(path, path, _KIND)
  _check_packages(path, _FORMAT)
  import onnx
  model = onnx.ModelProto()
  try:
    model.ParseFromString(content)
  except Exception:  # protobuf's DecodeError has no stable public name
    raise InputError('{}: not an ONNX file'.format(path))
  try:
    _check(model)
    _check_results(model)
    return OnnxFile(content, *_interface(model.graph))
  except InputError as error:
    raise InputError('{}: {}'.format(path, error))


def _check(model):
  """Raises InputError, without the file's name, where a model is not safe."""
  graph = model.graph
  if not graph.node:
    raise InputError('not an ONNX file (no nodes)')
  for what in (model.functions, model.training_info, graph.sparse_initializer):
    if what:
      raise InputError('holds {}; expected nodes and constants alone; '
                       'refused'.format(type(what[0]).__name__))
  for tensor in graph.initializer:
    _check_constant(tensor)
  for node in graph.node:
    shown = 'node {}'.format(ascii(node.name)[1:-1])
    if node.domain not in _OUR_DOMAINS:
      raise InputError(
          '{} is of the domain {}; expected operators of ONNX; refused'.format(
              shown, ascii(node.domain)))
    if node.op_type not in _OPERATORS:
      raise InputError(
          '{} is the operator {}, which no network like this one has; '
          'refused'.format(shown, ascii(node.op_type)[1:-1]))
    for attribute in node.attribute:
      _check_attribute(shown, node, attribute)


def _check_attribute(shown, node, attribute):
  """Raises InputError for a graph, a type, a large number, a bad constant."""
  name = '{} ({}) has the attribute {}'.format(
      shown, node.op_type, ascii(attribute.name)[1:-1])
  fields = {field.name for field, _ in attribute.ListFields()}
  is_constant = (node.op_type, attribute.name) == ('Constant', 'value')
  if not fields <= _ATTRIBUTE_FIELDS | ({'t'} if is_constant else set()):
    raise InputError(
        name + ', of a kind that no network like this one has; refused')
  for number in [attribute.i] + list(attribute.ints):
    if abs(number) > _LARGEST_ATTRIBUTE:
      raise InputError('{} of {}; expected at most {}'.format(
          name, number, _LARGEST_ATTRIBUTE))
  if is_constant:
    _check_constant(attribute.t)


def _check_constant(tensor):
  """Raises InputError for one in another file, or not as large as it says."""
  import onnx
  shown = 'constant {}'.format(ascii(tensor.name)[1:-1])
  if tensor.data_location == _EXTERNAL or tensor.external_data:
    raise InputError('{} is in another file; expected all in this one; '
                     'refused'.format(shown))
  types = onnx.TensorProto
  size = {types.FLOAT: 4, types.INT64: 8, types.INT32: 4, types.UINT8: 1,
          types.INT8: 1, types.BOOL: 1}.get(tensor.data_type)
  if size is None:
    raise InputError('{} is of type {}; expected numbers'.format(
        shown, tensor.data_type))
  values = _product(tensor.dims)
  listed = len(tensor.float_data) + len(tensor.int32_data) + len(
      tensor.int64_data)
  if min(tensor.dims, default=0) < 0 or (len(tensor.raw_data), listed) not in (
      (values * size, 0), (0, values)):
    raise InputError('{} holds {} bytes and {} values for the shape {}'.format(
        shown, len(tensor.raw_data), listed, list(tensor.dims)))


def _size_problem(shape):
  """Says what is wrong with a shape, sides None if open, or returns None.

  The batch, the first axis, may be open.
  """
  if shape is None or None in shape[1:]:
    return 'a tensor of no fixed size, {}; expected one'.format(shape)
  values = _product(side for side in shape if side is not None)
  if not 1 <= values <= contract.MAX_TENSOR_VALUES:
    return 'a tensor of {} values, {}; expected 1 to {}'.format(
        values, shape, contract.MAX_TENSOR_VALUES)
  return None


def _product(numbers):
  return functools.reduce(operator.mul, numbers, 1)


def _check_results(model):
  """Raises InputError where a result is too large, or of no known size."""
  import onnx
  try:
    graph = onnx.shape_inference.infer_shapes(
        model, check_type=True, strict_mode=True, data_prop=True).graph
  except Exception as error:  # of several kinds
    raise InputError('not a sound model: {}'.format(
        errors.one_line(str(error))[:200]))
  sizes = _sizes(graph)
  for node in graph.node:
    for name in filter(None, node.output):
      problem = _size_problem(sizes.get(name))
      if problem:
        raise InputError('node {} ({}) gives {}'.format(
            ascii(node.name)[1:-1], node.op_type, problem))


def _sizes(graph):
  """Returns the shapes of a graph's values, by name; see _shape_of."""
  return {one.name: _shape_of(one) for one in (
      list(graph.value_info) + list(graph.input) + list(graph.output))}


def _shape_of(value_info):
  """Returns a value's shape, sides None if open; None: not known at all."""
  tensor = value_info.type.tensor_type
  if not tensor.HasField('shape'):
    return None
  return [side.dim_value if side.HasField('dim_value') else None
          for side in tensor.shape.dim]


def _interface(graph):
  """Returns (input's name, its shape, output's name), or raises InputError."""
  import onnx
  constants = {tensor.name for tensor in graph.initializer}
  given = [one for one in graph.input if one.name not in constants]
  for what, found, wanted, described in (
      ('inputs', given, (onnx.TensorProto.FLOAT,), 'one, of float32'),
      ('outputs', list(graph.output),
       (onnx.TensorProto.INT32, onnx.TensorProto.INT64),
       'one, of integers')):
    if len(found) != 1 or found[0].type.tensor_type.elem_type not in wanted:
      raise InputError('{} {}: {}; expected {}'.format(
          len(found), what, errors.some_of(
              [ascii(one.name) for one in found]), described))
  return given[0].name, tuple(_shape_of(given[0]) or ()), graph.output[0].name


# --- Running ---------------------------------------------------------------


class OnnxPredictor(exported.ExportedPredictor):
  """An ONNX file, as export_model.py writes it; its input is in [-1, 1]."""

  def __init__(self, path: str, *, crop_size: Optional[Tuple[int, int]],
               num_threads: int = 0):
    """Loads the file.

    Args:
      path: the file.
      crop_size: (height, width) of the images it will get; None: whatever it
        takes.
      num_threads: of the runtime; 0: as it thinks best.

    Raises:
      InputError: where it is no ONNX file, holds what such a network does not,
        takes images of another size, or onnxruntime is missing.
    """
    _check_packages(path, _FORMAT, _RUNTIME)
    found = read(path)
    super().__init__(path, found.input_shape, crop_size)
    runtime = importlib.import_module(_RUNTIME[0])
    self.runtime = '{} {}, CPU'.format(*map(str, (
        _RUNTIME[0], environment.installed_version(_RUNTIME[0]))))
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
