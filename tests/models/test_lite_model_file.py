"""Tests reading TFLite files that are written by hand."""
import flatbuffers
import numpy as np
import pytest
import tflite

from deeplab import constants
from deeplab.errors import InputError
from deeplab.models import interpreters
from deeplab.models import tflite as tflite_lib

pytestmark = [pytest.mark.tf1, pytest.mark.modern]


def vector(builder, start, values, prepend):
  start(builder, len(values))
  for value in reversed(values):
    prepend(value)
  return builder.EndVector()


def quantization(builder, scales, zero_points, axis):
  scale = vector(builder, tflite.QuantizationParametersStartScaleVector,
                 scales, builder.PrependFloat32)
  zero_point = vector(
      builder, tflite.QuantizationParametersStartZeroPointVector, zero_points,
      builder.PrependInt64)
  tflite.QuantizationParametersStart(builder)
  tflite.QuantizationParametersAddScale(builder, scale)
  tflite.QuantizationParametersAddZeroPoint(builder, zero_point)
  tflite.QuantizationParametersAddQuantizedDimension(builder, axis)
  return tflite.QuantizationParametersEnd(builder)


def tensor(builder, *, name, shape, kind, buffer, scales=(), zero_points=(),
           axis=0):
  name = builder.CreateString(name)
  shape = vector(builder, tflite.TensorStartShapeVector, shape,
                 builder.PrependInt32)
  parameters = scales and quantization(builder, scales, zero_points, axis)
  tflite.TensorStart(builder)
  tflite.TensorAddName(builder, name)
  tflite.TensorAddShape(builder, shape)
  tflite.TensorAddType(builder, kind)
  tflite.TensorAddBuffer(builder, buffer)
  if scales:
    tflite.TensorAddQuantization(builder, parameters)
  return tflite.TensorEnd(builder)


def table(builder, name, **fields):
  getattr(tflite, name + 'Start')(builder)
  for field, value in fields.items():
    getattr(tflite, name + 'Add' + field)(builder, value)
  return getattr(tflite, name + 'End')(builder)


def model_bytes(*, name='images', outside=None, **code_fields):
  """Returns a depthwise convolution of int8 with weights of two channels.

  Args:
    name: name of its input.
    outside: (offset, size) of weights that are not in the flatbuffer.
    **code_fields: fields of the only operator code; CustomCode is a string.
  """
  builder = flatbuffers.Builder(1024)
  integers, offsets = builder.PrependInt32, builder.PrependUOffsetTRelative
  int8 = tflite.TensorType.INT8
  tensors = [
      tensor(builder, name=name, shape=[1, 4, 4, 2], kind=int8, buffer=0,
             scales=[0.5], zero_points=[-3]),
      tensor(builder, name='weights;other', shape=[1, 1, 2, 2], kind=int8,
             buffer=1, scales=[0.5, 2.0], zero_points=[0, 1], axis=3),
      tensor(builder, name='out', shape=[1, 4, 4, 2], kind=int8, buffer=0)]
  tensors = vector(builder, tflite.SubGraphStartTensorsVector, tensors, offsets)
  inputs, outputs = [
      vector(builder, tflite.OperatorStartInputsVector, values, integers)
      for values in ([0, 1, -1], [2])]
  operator = table(builder, 'Operator', OpcodeIndex=0, Inputs=inputs,
                   Outputs=outputs)
  operators = vector(builder, tflite.SubGraphStartOperatorsVector, [operator],
                     offsets)
  inputs, outputs = [
      vector(builder, tflite.SubGraphStartInputsVector, values, integers)
      for values in ([0], [2])]
  graph = table(builder, 'SubGraph', Tensors=tensors, Operators=operators,
                Inputs=inputs, Outputs=outputs)
  graphs = vector(builder, tflite.ModelStartSubgraphsVector, [graph], offsets)
  data = vector(builder, tflite.BufferStartDataVector,
                np.array([1, -2, 3, -4], np.int8).view(np.uint8).tolist(),
                builder.PrependUint8)
  weights = table(builder, 'Buffer', Data=data)
  if outside:
    builder.StartObject(3)
    for field, value in enumerate(outside, 1):
      builder.PrependUint64Slot(field, value, 0)
    weights = builder.EndObject()
  buffers = [table(builder, 'Buffer'), weights]
  buffers = vector(builder, tflite.ModelStartBuffersVector, buffers, offsets)
  if 'CustomCode' in code_fields:
    code_fields['CustomCode'] = builder.CreateString(code_fields['CustomCode'])
  code = table(builder, 'OperatorCode', **dict({
      'DeprecatedBuiltinCode': tflite.BuiltinOperator.DEPTHWISE_CONV_2D},
                                               **code_fields))
  codes = vector(builder, tflite.ModelStartOperatorCodesVector, [code], offsets)
  builder.Finish(
      table(builder, 'Model', Version=3, OperatorCodes=codes,
            Subgraphs=graphs, Buffers=buffers), file_identifier=b'TFL3')
  return bytes(builder.Output())


def test_reads_a_file(tmp_path):
  path = tmp_path / 'model.tflite'
  path.write_bytes(model_bytes())
  model = tflite_lib.read(str(path))
  assert model.inputs == (0,)
  assert model.outputs == (2,)
  assert model.operators == (tflite_lib.Operator(
      kind='DEPTHWISE_CONV_2D', inputs=(0, 1, -1), outputs=(2,)),)
  assert model.operation_counts() == {'DEPTHWISE_CONV_2D': 1}
  images, weights, out = model.tensors
  assert images == ('images', (1, 4, 4, 2), np.int8, (0.5,), (-3,), 0, None)
  assert out[:6] == ('out', (1, 4, 4, 2), np.int8, (), (), 0)
  assert weights.name == 'weights;other'
  assert weights.data.tolist() == [[[[1, -2], [3, -4]]]]
  # 0.5 * (q - 0) in channel 0, 2 * (q - 1) in channel 1.
  real = weights.real_values()
  assert real.dtype == np.float64
  assert real.tolist() == [[[[0.5, -6.0], [1.5, -10.0]]]]
  # The text for reports.
  assert images.describe() == 'int8 1x4x4x2, scale 0.5, zero point -3'
  assert weights.describe() == 'int8 1x1x2x2'


def test_reads_weights_after_the_flatbuffer():
  written = model_bytes()
  start = len(model_bytes(outside=(2, 4)))
  content = model_bytes(outside=(start, 4)) + bytes([1, 254, 3, 252])
  for inside, outside in zip(tflite_lib.parse(written, 'x').tensors,
                             tflite_lib.parse(content, 'x').tensors):
    assert inside[:6] == outside[:6]
    np.testing.assert_array_equal(inside.data, outside.data)
  for place in ((start + 1, 4), (start, 2 ** 63), (2 ** 63, 4), (start, 3)):
    with pytest.raises(InputError, match='^x: damaged or cut off'):
      tflite_lib.parse(
          model_bytes(outside=place) + bytes([1, 254, 3, 252]), 'x')


def test_names_need_not_be_utf8():
  content = model_bytes(name='imagXs').replace(b'imagX', b'imag\xff')
  assert tflite_lib.parse(content, 'x').tensors[0].name == 'imag\\xffs'


def test_refuses_other_files(tmp_path):
  with pytest.raises(InputError, match='none.tflite: no such file'):
    tflite_lib.read(str(tmp_path / 'none.tflite'))
  (tmp_path / 'text').write_text('not a model')
  with pytest.raises(InputError, match='text: not a TFLite model'):
    tflite_lib.read(str(tmp_path / 'text'))


@pytest.mark.parametrize('content', [
    model_bytes()[:size] for size in (100, 300, 500)] + [
        # Offsets before the beginning and after the end.
        b'\x08\0\0\0TFL3\xff\0\0\0' + bytes(8),
        b'\xff\xff\0\0TFL3' + bytes(8)])
def test_refuses_damaged_files(content):
  with pytest.raises(InputError, match='model: damaged or cut off'):
    tflite_lib.parse(content, 'model')


def test_refuses_operators_on_missing_tensors():
  content = model_bytes()
  inputs = np.array([3, 0, 1, -1], '<i4').tobytes()  # preceded by their number
  assert content.count(inputs) == 1
  for third in (3, -2):
    with pytest.raises(InputError, match='model: damaged or cut off'):
      tflite_lib.parse(content.replace(inputs, np.array(
          [3, 0, 1, third], '<i4').tobytes()), 'model')


CUSTOM = tflite.BuiltinOperator.CUSTOM


@pytest.mark.parametrize('fields, shown', [
    # Old files and interpreters know only the first field, new ones know both.
    ({'DeprecatedBuiltinCode': CUSTOM, 'CustomCode': 'FlexWriteFile'},
     'FlexWriteFile'),
    ({'DeprecatedBuiltinCode': CUSTOM, 'BuiltinCode': CUSTOM,
      'CustomCode': 'FlexWriteFile'}, 'FlexWriteFile'),
    ({'DeprecatedBuiltinCode': CUSTOM, 'BuiltinCode': 127,
      'CustomCode': 'FlexReadFile'}, 'FlexReadFile'),
    ({'BuiltinCode': CUSTOM, 'CustomCode': 'Mine\x1b[2J'}, 'Mine\\x1b[2J'),
    ({'DeprecatedBuiltinCode': CUSTOM}, 'without a name'),
])
def test_custom_operators_are_refused(tmp_path, fields, shown):
  path = tmp_path / 'x.tflite'
  path.write_bytes(model_bytes(**fields))
  with pytest.raises(InputError) as caught:
    interpreters.read(str(path))
  assert str(caught.value) == (
      'net_file={}: has the custom operator {}, which no network like this one '
      'has; refused, as it could run anything'.format(path, shown))


def test_builtin_operators_with_a_custom_name_are_accepted():
  tflite_lib.parse(model_bytes(BuiltinCode=4, CustomCode='FlexUnused'), 'x')


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
  path = tmp_path / 'x.tflite'
  path.write_bytes(model_bytes())
  monkeypatch.setattr(constants, 'MAX_FILE_BYTES', 10)
  with pytest.raises(InputError, match='x.tflite: [0-9]+ bytes; expected a '
                     'TFLite model of at most 10'):
    tflite_lib.read(str(path))
