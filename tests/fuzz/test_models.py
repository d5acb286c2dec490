"""Damaged and hostile models are read, or refused in one line.

Graphs that pass the checks are also loaded by TensorFlow.
"""
import functools
import os
import tracemalloc

from hypothesis import strategies
import pytest
import tensorflow.compat.v1 as tf

from deeplab.errors import InputError
from deeplab.models import frozen_graph
from deeplab.models import tflite
from deeplab.models import tflite_layers
from tests import fuzz
from tests.models.test_lite_model_file import model_bytes
from tests.test_security import make_graph

pytestmark = [
    pytest.mark.tf1, pytest.mark.tf2, pytest.mark.modern, pytest.mark.extended]

# Memory that reading a file of some kilobytes may take.
MOST_BYTES = 2 ** 26


@strategies.composite
def damaged(draw, content):
  """Draws bytes that differ from `content` in a few places."""
  content = bytearray(content)
  place = strategies.integers(0, len(content) - 1)
  for _ in range(draw(strategies.integers(1, 4))):
    start, kind = draw(place), draw(strategies.sampled_from([
        'flip', 'byte', 'number', 'cut', 'insert', 'copy', 'remove']))
    if kind == 'flip':
      content[start % len(content)] ^= 1 << draw(strategies.integers(0, 7))
    elif kind == 'byte':
      content[start % len(content)] = draw(strategies.integers(0, 255))
    elif kind == 'number':
      # Offsets and lengths are at multiples of their size.
      content[start // 4 * 4:start // 4 * 4 + 4] = draw(
          strategies.integers(0, 2 ** 32 - 1) | strategies.sampled_from(
              [0, 1, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1])).to_bytes(4, 'little')
    elif kind == 'cut':
      del content[max(1, start):]
    elif kind == 'insert':
      content[start:start] = draw(strategies.binary(max_size=8))
    else:
      part = content[draw(place):][:draw(strategies.integers(1, 64))]
      if kind == 'copy':
        content[start:start + len(part)] = part
      else:
        del content[start:start + max(1, len(part) // 4)]
    if not content:
      break
  return bytes(content)


def bounded(test):
  """Fails a test whose peak memory is high."""
  @functools.wraps(test)
  def measured(*arguments, **keywords):
    tracemalloc.start()
    try:
      test(*arguments, **keywords)
      assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
      tracemalloc.stop()
  return measured


@fuzz.given(damaged(model_bytes()), examples=150)
@bounded
def test_tflite_models(content):
  try:
    model = tflite.parse(content, 'x')
  except InputError as error:
    assert str(error).startswith('x: ')
    return
  for tensor in model.tensors:
    tensor.describe()
    if tensor.data is not None:
      tensor.real_values()
  model.operation_counts()
  with pytest.raises(InputError, match='^x: not a model of this network: '):
    tflite_layers.model_options(model, 'x')


def changed(net):
  """Adds operators whose attributes and inputs are checked."""
  net = tf.nn.relu6(tf.nn.depthwise_conv2d(
      net, tf.ones([3, 3, 3, 1]), [1, 2, 2, 1], 'SAME'))
  net = tf.image.resize_bilinear(net, [9, 9], align_corners=True)
  net = tf.concat([net, tf.reverse(net, [2])], 1)[:, :5]
  net = tf.space_to_batch_nd(net, [1, 2], [[0, 0], [1, 0]])
  net = tf.batch_to_space_nd(net, [1, 2], [[0, 0], [1, 0]])
  net = tf.pad(net, [[0, 0], [1, 2], [0, 0], [0, 0]])
  net = tf.nn.avg_pool(net, [1, 2, 2, 1], 1, 'VALID')
  return tf.reshape(net, [1, 7, 8, 3])


def load(path, content):
  """Reads a graph and loads it in TensorFlow; InputError names the file."""
  path.write_bytes(content)
  try:
    graph_def = frozen_graph.read_graph_def(str(path))
    frozen_graph.import_graph(str(path), graph_def)
  except InputError as error:
    assert str(error).startswith('{}: '.format(path))


@pytest.fixture(scope='module')
def path(tmp_path_factory):
  return tmp_path_factory.mktemp('fuzz') / 'x.pb'


GRAPH = make_graph(changed)
SERIALIZED = GRAPH.SerializeToString(deterministic=True)
OPERATORS = sorted(frozen_graph._OPERATORS)


@fuzz.given(content=damaged(SERIALIZED))
def test_frozen_graphs_with_damaged_bytes(path, content):
  load(path, content)


@strategies.composite
def rewired(draw):
  """Draws a graph with other operators, inputs and attributes."""
  graph_def = type(GRAPH)()
  graph_def.CopyFrom(GRAPH)
  any_node = strategies.sampled_from(list(graph_def.node))
  numbers = strategies.sampled_from(
      [0, 1, 2, 3, -1, 2 ** 16, 2 ** 31, 2 ** 62, -2 ** 63])
  for _ in range(draw(strategies.integers(1, 3))):
    node, other = draw(any_node), draw(any_node)
    kind = draw(strategies.sampled_from([
        'operator', 'input', 'drop', 'attributes', 'attribute', 'number',
        'constant', 'shape']))
    if kind == 'operator':
      node.op = draw(strategies.sampled_from(OPERATORS))
    elif kind == 'input':
      name = other.name + draw(strategies.sampled_from(['', ':0', ':1', ':9']))
      if node.input and draw(strategies.booleans()):
        node.input[draw(strategies.integers(0, len(node.input) - 1))] = name
      else:
        node.input.append(draw(strategies.sampled_from(['', '^'])) + name)
    elif kind == 'drop' and node.input:
      del node.input[draw(strategies.integers(0, len(node.input) - 1)):]
    elif kind == 'attributes':
      for name in other.attr:
        node.attr[name].CopyFrom(other.attr[name])
    elif kind == 'attribute' and node.attr:
      del node.attr[draw(strategies.sampled_from(sorted(node.attr)))]
    elif kind == 'number':
      for name in sorted(node.attr):
        if node.attr[name].list.i:
          node.attr[name].list.i[0] = draw(numbers)
    elif node.op == 'Const':
      tensor = node.attr['value'].tensor
      if kind == 'constant':
        tensor.tensor_content = b''
        for field in ('int_val', 'float_val'):
          if getattr(tensor, field):
            value = draw(numbers)
            getattr(tensor, field)[0] = max(min(value, 2 ** 31 - 1), -2 ** 31)
      else:
        tensor.tensor_shape.dim.add(size=draw(numbers))
  return graph_def.SerializeToString()


@fuzz.given(content=rewired())
def test_frozen_graphs_with_other_nodes(path, content):
  load(path, content)
  assert os.path.exists(str(path))
