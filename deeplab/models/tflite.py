"""Parses TFLite files: tensors, operators, inputs and outputs.

Needs no interpreter, so any TensorFlow version will do.
"""
import collections
import struct
import sys
from typing import Dict, NamedTuple, Optional, Tuple, Union, cast

from flatbuffers import number_types
import numpy as np

from deeplab.errors import InputError
from deeplab.errors import Option
from deeplab.storage import checked_read

try:
  import tflite
except ImportError:
  raise InputError(
      'needs the package tflite (none found for {}); run ./scripts/setup.sh '
      'again, or python -m pip install tflite'.format(sys.executable))

_IDENTIFIER = b'TFL3'  # bytes 4 to 8 of every TFLite file

_DTYPES: Dict[int, np.dtype] = {
    tflite.TensorType.FLOAT32: np.dtype('<f4'),
    tflite.TensorType.FLOAT16: np.dtype('<f2'),
    tflite.TensorType.INT8: np.dtype('i1'),
    tflite.TensorType.UINT8: np.dtype('u1'),
    tflite.TensorType.INT16: np.dtype('<i2'),
    tflite.TensorType.INT32: np.dtype('<i4'),
    tflite.TensorType.INT64: np.dtype('<i8'),
    tflite.TensorType.BOOL: np.dtype('?'),
}


class Tensor(NamedTuple):
  """One tensor; a real value is scale * (stored value - zero point)."""
  name: str
  shape: Tuple[int, ...]
  # None: a type not used by this suite's models.
  dtype: Optional[np.dtype]
  # None, one, or one for each channel.
  scales: Tuple[float, ...] = ()
  zero_points: Tuple[int, ...] = ()
  # Axis of the channels if there are several scales.
  axis: int = 0
  # Stored constants; None: computed when the model runs.
  data: Optional[np.ndarray] = None

  def real_values(self) -> np.ndarray:
    """Returns the constants as float64, in the tensor's shape.

    float64 holds the product of a float32 scale and an 8 bit value exactly.
    """
    # Only called for constants.
    values = cast(np.ndarray, self.data).astype(np.float64)
    if not self.scales:
      return values
    # Several scales broadcast along the axis of the channels.
    along = [1] * values.ndim
    if len(self.scales) > 1:
      along[self.axis] = -1
    scales = np.reshape(np.asarray(self.scales, np.float64), along)
    return scales * (values - np.reshape(self.zero_points, along))

  def describe(self) -> str:
    """Returns 'uint8 1x512x512x3, scale 0.0078125, zero point 128'."""
    text = '{} {}'.format(
        self.dtype, 'x'.join(str(side) for side in self.shape))
    if len(self.scales) == 1:
      text += ', scale {:.7g}, zero point {}'.format(
          self.scales[0], self.zero_points[0])
    return text


class Operator(NamedTuple):
  """One operator."""
  # Such as 'CONV_2D'.
  kind: str
  # Positions in Model.tensors; -1: an omitted optional input.
  inputs: Tuple[int, ...]
  outputs: Tuple[int, ...]


class Model(NamedTuple):
  """A file's only graph; operators in order of execution."""
  tensors: Tuple[Tensor, ...]
  operators: Tuple[Operator, ...]
  # Positions in tensors.
  inputs: Tuple[int, ...]
  outputs: Tuple[int, ...]

  def num_classes(self) -> Optional[int]:
    """Returns the number of classes of the only output; None: unknown."""
    output = self.tensors[self.outputs[0]]
    if len(output.shape) == 4:  # logits
      return output.shape[-1]
    for operator in self.operators:
      if operator.kind == 'ARG_MAX' and self.outputs[0] in operator.outputs:
        return self.tensors[operator.inputs[0]].shape[-1]
    return None

  def precision(self) -> str:
    """Returns the types of most constants and of most computed values."""
    stored: Dict[str, int] = collections.Counter()
    computed: Dict[str, int] = collections.Counter()
    for tensor in self.tensors:
      count = stored if tensor.data is not None else computed
      count[str(tensor.dtype)] += int(np.prod(tensor.shape))
    return '{} weights, {} activations'.format(*(
        max(count, key=count.__getitem__, default='no')
        for count in (stored, computed)))

  def operation_counts(self) -> Dict[str, int]:
    """Counts operators by kind: dict from kind to number."""
    return dict(collections.Counter(
        operator.kind for operator in self.operators))


def read(path: str) -> Model:
  """Reads a TFLite file.

  Raises:
    InputError: there is no such file, or `parse` refuses it.
  """
  return parse(checked_read.read(path, path, 'a TFLite model'), path)


def parse(content: bytes, name: Union[str, Option]) -> Model:
  """Parses the bytes of a TFLite file.

  Refuses custom operators, because TensorFlow's interpreter runs any TensorFlow
  operator under the name 'Flex...', including ones that write files.

  Args:
    content: the bytes.
    name: the path, or the option with it, for messages.

  Raises:
    InputError: the bytes are not a whole TFLite file, or it has custom
      operators.
  """
  if content[4:8] != _IDENTIFIER:
    raise InputError(
        '{}: not a TFLite model (bad identifier {}, expected {})', name,
        content[4:8], _IDENTIFIER)
  try:
    model = tflite.Model.GetRootAsModel(content, 0)
    custom = _custom_operator(model)
    if custom is None:
      return _parse_model(model, content)
  except (struct.error, IndexError, TypeError, ValueError, AttributeError):
    # An offset is out of range.
    raise InputError('{}: damaged or cut off TFLite model ({} bytes)', name,
                     len(content))
  raise InputError(
      '{}: has the custom operator {}, which no network like this one has; '
      'refused, as it could run anything', name, custom)


def _custom_operator(model):
  """Returns the name of the first custom operator, or None."""
  for index in range(model.OperatorCodesLength()):
    code = model.OperatorCodes(index)
    # Old interpreters read one field; new ones use the larger of two.
    if tflite.BuiltinOperator.CUSTOM in _builtin_codes(code):
      name = (code.CustomCode() or b'').decode('utf-8', 'replace')
      # ascii() keeps control characters from the terminal.
      return ascii(name)[1:-1] or 'without a name'
  return None


def _builtin_codes(code):
  # Files from before 2020 have only the narrow field; new ones have both.
  # BuiltinCode() of the package tflite returns either.
  return (code.DeprecatedBuiltinCode(),
          _number(code, 10, number_types.Int32Flags))


def _number(table, place, kind):
  """Reads a field that the tflite package changes, or lacks in Python 3.7.

  Args:
    table: one of the package's tables.
    place: position of the field in the table's vtable.
    kind: one of flatbuffers' number types.
  """
  offset = table._tab.Offset(place)
  return table._tab.Get(kind, table._tab.Pos + offset) if offset else 0


def _parse_model(model, content):
  graph = model.Subgraphs(0)
  tensors = tuple(_parse_tensor(model, graph.Tensors(index), content)
                  for index in range(graph.TensorsLength()))
  operators = []
  for index in range(graph.OperatorsLength()):
    operator = graph.Operators(index)
    code = max(_builtin_codes(model.OperatorCodes(operator.OpcodeIndex())))
    operators.append(Operator(
        # The package does not know the operators of newer TensorFlows.
        kind=tflite.BUILTIN_OPCODE2NAME.get(code, str(code)),
        inputs=_positions(operator.InputsAsNumpy()),
        outputs=_positions(operator.OutputsAsNumpy())))
  result = Model(tensors, tuple(operators), _positions(graph.InputsAsNumpy()),
                 _positions(graph.OutputsAsNumpy()))
  _check_positions(result)
  return result


def _check_positions(model):
  """Raises ValueError if a tensor's position is out of range."""
  lists = [(model.inputs, 0), (model.outputs, 0)]
  for operator in model.operators:
    lists += [(operator.inputs, -1), (operator.outputs, 0)]
  for positions, least in lists:
    if not positions or min(positions) < least or (
        max(positions) >= len(model.tensors)):
      raise ValueError


def _positions(array):
  return tuple(int(position) for position in array)


def _parse_tensor(model, tensor, content):
  shape = tuple(tensor.Shape(axis) for axis in range(tensor.ShapeLength()))
  dtype = _DTYPES.get(tensor.Type())
  quantization = tensor.Quantization()
  scales, zero_points, axis = (), (), 0
  if quantization and quantization.ScaleLength():
    scales = tuple(quantization.ScaleAsNumpy().tolist())
    zero_points = tuple(quantization.ZeroPointAsNumpy().tolist())
    axis = quantization.QuantizedDimension()
    if len(zero_points) != len(scales) or len(scales) > 1 and (
        len(scales) != shape[axis]):
      raise ValueError
  data = None
  stored = _bytes_of(model.Buffers(tensor.Buffer()), content)
  if dtype is not None and len(stored):
    data = stored.view(dtype).reshape(shape)
  # Names need not be UTF-8.
  return Tensor(tensor.Name().decode('utf-8', 'backslashreplace'), shape,
                dtype, scales, zero_points, axis, data)


def _bytes_of(buffer, content):
  """Returns the uint8 array that a buffer holds; it may be empty."""
  if buffer.DataLength():
    return buffer.DataAsNumpy()
  # Some writers put buffers after the flatbuffer, at the schema's Buffer.offset
  # (valid if above 1), with Buffer.size bytes.
  offset, size = (_number(buffer, place, number_types.Uint64Flags)
                  for place in (6, 8))
  if offset <= 1:
    size = 0
  elif offset + size > len(content):
    raise ValueError
  return np.frombuffer(content[offset:offset + size], np.uint8)
