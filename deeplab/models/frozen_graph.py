"""Reads frozen graphs as data and checks them before TensorFlow loads them.

A GraphDef is a program: TensorFlow has operators that write files or run
Python. A file is refused unless all its operators are known and its constants
and results have a bounded size. The operators' own code is not checked for how
it handles odd numbers: see docs/security.md.
"""
import contextlib
import re

import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.errors import some_of
from deeplab.storage import checked_read
from deeplab.system import tf_errors

# Operators in export_model.py's graphs, with any options, on TensorFlow 1.15
# and 2.21.
_EXPORTED_OPERATORS = frozenset((
    'Add', 'AddN', 'AddV2', 'ArgMax', 'AvgPool', 'BatchToSpaceND', 'BiasAdd',
    'ConcatV2', 'Const', 'Conv2D', 'DepthwiseConv2dNative',
    'FakeQuantWithMinMaxVars', 'FusedBatchNormV3', 'Identity', 'Mul',
    'Placeholder', 'RealDiv', 'Relu', 'Relu6', 'Reshape', 'ResizeBilinear',
    'ResizeNearestNeighbor', 'ReverseV2', 'Rsqrt', 'Softmax', 'SpaceToBatchND',
    'Squeeze', 'StridedSlice', 'Sub'))
# Operators that other tools and older versions write instead.
_OTHER_OPERATORS = frozenset((
    'Cast', 'ExpandDims', 'FakeQuantWithMinMaxArgs',
    'FakeQuantWithMinMaxVarsPerChannel', 'FusedBatchNorm', 'FusedBatchNormV2',
    'Mean', 'Pad'))
_OPERATORS = _EXPORTED_OPERATORS | _OTHER_OPERATORS
# Positions of inputs that give a size or an axis. TensorFlow computes them
# while it loads a graph, before any size can be checked.
_SIZE_INPUTS = {
    'ArgMax': (1,), 'BatchToSpaceND': (1, 2), 'ConcatV2': (-1,),
    'ExpandDims': (1,), 'Mean': (1,), 'Pad': (1,), 'Reshape': (1,),
    'ResizeBilinear': (1,), 'ResizeNearestNeighbor': (1,), 'ReverseV2': (1,),
    'SpaceToBatchND': (1, 2), 'StridedSlice': (1, 2, 3)}
# Operators above whose inputs are axes. TensorFlow 1.15 allocates memory for as
# many axes as an input claims, and crashed at an attribute of 2 ** 62.
_AXIS_INPUTS = frozenset(('ArgMax', 'ConcatV2', 'ExpandDims', 'Mean',
                          'ReverseV2'))
_MOST_AXES = 8
_LARGEST_ATTRIBUTE = 2 ** 16
# Bytes per value of each type, and the tensor field that lists the values.
_TYPES = {
    dtype.as_datatype_enum: (dtype.size, field) for dtype, field in (
        (tf.float32, 'float_val'), (tf.int32, 'int_val'),
        (tf.int64, 'int64_val'), (tf.uint8, 'int_val'), (tf.bool, 'bool_val'))}
# TensorFlow checks the same pattern later.
_NAME = re.compile(r'[A-Za-z0-9.][A-Za-z0-9_.\-/>]*\Z')
# Prefix of the types of fake quantization nodes.
FAKE_QUANTIZATION = 'FakeQuant'
# The only hidden attribute of frozen graphs: nodes that share a device.
_COLOCATION = '_class'


def read_graph_def(path: str) -> tf.GraphDef:
  """Reads a frozen graph that is safe to load.

  Args:
    path: the .pb file.

  Raises:
    InputError: there is no such file, or `checked` refuses it.
  """
  content = checked_read.read(
      path, path, 'a frozen graph',
      'expected a frozen graph, as export_model.py writes it')
  graph_def = tf.GraphDef()
  try:
    graph_def.ParseFromString(content)
  except Exception:  # protobuf's DecodeError has no stable public name
    raise InputError('{}: not a frozen GraphDef'.format(path))
  return checked(path, graph_def)


def checked(path: str, graph_def: tf.GraphDef) -> tf.GraphDef:
  """Checks that a graph is safe to load, and removes its nodes' devices.

  Args:
    path: its file, for messages.
    graph_def: the graph; changed in place.

  Raises:
    InputError: the graph is not frozen, or is not safe to load.
  """
  if not graph_def.node:
    raise InputError('{}: not a frozen GraphDef (no nodes)'.format(path))
  try:
    _check(graph_def)
  except InputError as error:
    raise InputError('{}: {}'.format(path, error))
  for node in graph_def.node:
    # Devices name the training machine, and 1.15 compiles for some of them.
    node.ClearField('device')
  return graph_def


def import_graph(path: str, graph_def: tf.GraphDef) -> tf.Graph:
  """Loads a checked graph into a new tf.Graph.

  Args:
    path: its file, for messages.
    graph_def: returned by `checked`.

  Raises:
    InputError: this TensorFlow cannot load it, or a result is too large.
  """
  with tf.Graph().as_default() as graph:
    try:
      tf.import_graph_def(graph_def, name='')
    except (ValueError, TypeError, KeyError, tf.errors.OpError) as error:
      raise InputError('{}: TensorFlow {} cannot load this graph: {}'.format(
          path, tf.__version__, tf_errors.why_not_imported(error)))
  for operation in graph.get_operations():
    for index, output in enumerate(operation.outputs):
      # Other outputs are working memory, some of unknown size.
      problem = (index == 0 or output.consumers()) and _size_problem(
          output.shape)
      if problem:
        raise InputError('{}: node {} ({}) gives {}'.format(
            path, operation.name, operation.type, problem))
  return graph


def check_nodes(path: str, graph_def: tf.GraphDef, **wanted: str) -> None:
  """Checks that a graph has the named nodes.

  Args:
    path: the graph's file, for the message.
    graph_def: the graph.
    **wanted: options, such as input_node, and the nodes that they name.

  Raises:
    InputError: names the first missing node, and suggests others.
  """
  read = {name.split(':')[0].lstrip('^')
          for node in graph_def.node for name in node.input}
  candidates = [some_of(names, limit=5) or 'none' for names in (
      [node.name for node in graph_def.node if node.op == 'Placeholder'],
      [node.name for node in graph_def.node if node.name not in read])]
  names = {node.name for node in graph_def.node}
  for wanted_as, name in wanted.items():
    if name not in names:
      raise InputError(
          '{} has no node {}; placeholders: {}; outputs: {}; give {}', path,
          name, *candidates, option(wanted_as))


def is_quantized(graph_def: tf.GraphDef) -> bool:
  """Returns whether a graph has fake quantization."""
  return any(node.op.startswith(FAKE_QUANTIZATION) for node in graph_def.node)


# --- Checks ----------------------------------------------------------------


def _check(graph_def):
  """Raises InputError, without the file's name, if a graph is not safe."""
  if graph_def.library.function or graph_def.library.gradient:
    raise InputError('holds functions; a frozen graph has none; refused')
  for node in graph_def.node:
    if not _NAME.match(node.name):
      raise InputError('a node is called {}; expected letters, digits and '
                       '_.-/'.format(ascii(node.name)))
    if node.op not in _OPERATORS:
      raise InputError(
          'node {} is the operator {}, which no network like this one has; '
          'refused, as operators can write files and run programs'.format(
              node.name, ascii(node.op)[1:-1]))
  stored = 0
  for node in graph_def.node:
    with _naming(node):
      for name, value in sorted(node.attr.items()):
        _check_attribute(node, name, value)
      if node.op == 'Const':
        stored += _constant_bytes(node)
        if stored > constants.MAX_FILE_BYTES:
          raise InputError(
              'brings the constants to {} bytes; expected at most {}'.format(
                  stored, constants.MAX_FILE_BYTES))
  nodes = {node.name: node for node in graph_def.node}
  for node in graph_def.node:
    with _naming(node):
      _check_size_inputs(node, nodes)


@contextlib.contextmanager
def _naming(node):
  """Adds the node's name to an InputError."""
  try:
    yield
  except InputError as error:
    raise InputError('node {} ({}) {}'.format(node.name, node.op, error))


def _check_attribute(node, name, value):
  """Raises InputError if an attribute is not allowed."""
  kind = value.WhichOneof('value')
  shown = 'has the attribute {}'.format(ascii(name)[1:-1])
  for number in [value.i] if kind == 'i' else value.list.i:
    if abs(number) > _LARGEST_ATTRIBUTE:
      raise InputError('{} of {}; expected at most {}'.format(
          shown, number, _LARGEST_ATTRIBUTE))
  if (kind in ('func', 'placeholder') or value.list.func or
      value.list.tensor or name.startswith('_') and name != _COLOCATION or
      kind == 'tensor' and (node.op, name) != ('Const', 'value')):
    raise InputError(
        shown + ', of a kind that no network like this one has; refused')
  for number in [value.type] if kind == 'type' else value.list.type:
    if number not in _TYPES:
      raise InputError('{} of type {}; expected numbers: {}'.format(
          shown, number, ', '.join(sorted(
              tf.as_dtype(known).name for known in _TYPES))))


def _constant_bytes(node):
  """Returns the size of a Const in memory, in bytes.

  A shape of any size may come with a single value or none.

  Raises:
    InputError: its value does not match its shape or type.
  """
  tensor = node.attr['value'].tensor
  shape = tf.TensorShape(None) if tensor.tensor_shape.unknown_rank else (
      tf.TensorShape([None if dim.size < 0 else dim.size
                      for dim in tensor.tensor_shape.dim]))
  if tensor.dtype not in _TYPES or tensor.dtype != node.attr['dtype'].type:
    raise InputError('holds type {}, its dtype is {}'.format(
        tensor.dtype, node.attr['dtype'].type))
  if not shape.is_fully_defined():
    raise InputError('has the shape {}'.format(shape))
  problem = _size_problem(shape)
  if problem:
    raise InputError('has ' + problem)
  size, field = _TYPES[tensor.dtype]
  values = shape.num_elements()
  listed = len(getattr(tensor, field))
  content = len(tensor.tensor_content)
  if (content and (listed or content != values * size)) or listed > values:
    raise InputError('holds {} bytes and {} values for the shape {}'.format(
        content, listed, shape))
  return values * size


def _size_problem(shape):
  return constants.size_problem(
      None if shape.rank is None else shape.as_list(), shape)


def _check_size_inputs(node, nodes):
  """Raises InputError if a size or an axis is not a constant, or too large."""
  given = [name for name in node.input if not name.startswith('^')]
  for position in _SIZE_INPUTS.get(node.op, ()):
    source = _node_of(given[position:][:1], nodes)
    # Freezing a variable leaves an Identity.
    if source and source.op == 'Identity':
      source = _node_of(source.input[:1], nodes)
    if not source or source.op != 'Const':
      raise InputError(
          'takes a size or an axis that is not a constant; refused')
    tensor = source.attr['value'].tensor
    if node.op in _AXIS_INPUTS and (
        len(tensor.tensor_shape.dim) > 1 or
        any(dim.size > _MOST_AXES for dim in tensor.tensor_shape.dim) or
        any(abs(int(axis)) > _MOST_AXES
            for axis in tf.make_ndarray(tensor).flat)):
      raise InputError('takes {} as its axis; expected at most {}'.format(
          source.name, _MOST_AXES))


def _node_of(given, nodes):
  """Returns the node of the only input, or None."""
  return nodes.get(given[0].split(':')[0]) if given else None
