"""Tests inspecting a model's file, and comparing the weights of two."""
import functools
import json
import os

import numpy as np
from PIL import Image
import pytest
import tensorflow.compat.v1 as tf
import tflite

from deeplab.config import label_map as label_maps
from deeplab.config import options as options_lib
from deeplab.errors import InputError
from deeplab.export import freeze
from deeplab.export import tflite_conversion
from deeplab.models import interface
from deeplab.models import open_model
from deeplab.models import tflite as tflite_lib
from deeplab.models import tflite_layers
from deeplab.nets import deeplab_v3
from deeplab.nets import structure
from deeplab.tools.inspection import activations
from deeplab.tools.inspection import contents as contents_lib
from deeplab.tools.inspection import difference as difference_lib
from deeplab.tools.inspection import run
from tests import golden_weights
from tests import small_models

SIZE = (33, 33)
MODEL = options_lib.ModelOptions(
    crop_size=SIZE, num_classes=5, decoder_output_stride=(4,))
LOGITS = 'logits/semantic'
# Classes for MODEL that are not ADE20K's.
OWN = label_maps.LabelMap(
    ('other', 'a', 'b', 'c', 'd'), ((), (1,), (2,), (3,), (4,)))


class Files:
  """A checkpoint, its frozen graph, and the graph's TFLite file."""

  def __init__(self, folder, model_options, mode):
    with tf.Graph().as_default(), tf.Session() as session:
      deeplab_v3.logits(tf.zeros((1,) + SIZE + (3,)), model_options)
      golden_weights.load(session, tf.global_variables())
      self.checkpoint = tf.train.Saver().save(
          session, str(folder / 'model.ckpt-1'))
    self.graph, self.tflite = str(folder / 'x.pb'), str(folder / 'x.tflite')
    freeze.export(model_options, options_lib.ExportOptions(
        checkpoint_path=self.checkpoint, export_path=self.graph))
    tflite_conversion.convert(options_lib.ConversionOptions(
        graph_def=self.graph, out_tflite=self.tflite, mode=mode))

  def read(self):
    """Returns the Contents of all three."""
    return list(map(read, (self.checkpoint, self.graph, self.tflite)))


@pytest.fixture
def small(shallow, monkeypatch):
  """Makes the network small, and the known list of its layers."""
  monkeypatch.setattr(
      tflite_layers, '_LAST_BACKBONE_LAYER',
      'MobilenetV2/expanded_conv_4/project')
  monkeypatch.setattr(
      structure, 'of', functools.lru_cache()(structure.of.__wrapped__))


def read(path):
  return contents_lib.read(open_model.find(path), SIZE)


# --- Contents --------------------------------------------------------------


@pytest.mark.slow
def test_structure_of_the_network():
  network = structure.of(MODEL)
  assert len(network.convolutions) == 60
  assert network.convolutions['MobilenetV2/Conv'] == (
      'CONV_2D', (17, 17, 32), 17 * 17 * 32 * 3 * 3 * 3)
  # Atrous convolutions split the 3x3 map into parts, pad them to one size and
  # merge the results.
  assert network.convolutions['MobilenetV2/expanded_conv_14/depthwise'] == (
      'DEPTHWISE_CONV_2D', (4, 4, 960), 4 * 4 * 960 * 3 * 3)
  assert network.layer_of('aspp0/Relu;x;aspp0/Conv2D1') == 'aspp0'
  assert network.layer_of('concat') is None


def golden_values(model_options=MODEL):
  """Returns values of all variables, including ranges if quantized."""
  network = structure.of(MODEL)
  names = dict(network.variables)
  if model_options.is_quantized:
    for layer in network.convolutions:
      for scope in ('weights_quant', 'act_quant'):
        for end in ('min', 'max'):
          names['{}/{}/{}'.format(layer, scope, end)] = []
  return {name: golden_weights.draw(name, shape)
          for name, shape in names.items()}


def test_folded_batch_norm_matches_a_hand_computation():
  values = golden_values()
  layers = contents_lib._of_values(values, MODEL, 'x')
  assert list(layers)[0] == 'MobilenetV2/Conv' and list(layers)[-1] == LOGITS
  for scope, epsilon, channel in (('MobilenetV2/expanded_conv/depthwise', 1e-3,
                                   5), ('aspp0', 1e-5, 77)):
    gamma, beta, mean, variance = (
        float(values['{}/BatchNorm/{}'.format(scope, name)][channel])
        for name in ('gamma', 'beta', 'moving_mean', 'moving_variance'))
    factor = gamma / (variance + epsilon) ** 0.5
    if scope == 'aspp0':
      weights = values['aspp0/weights'][..., channel]
    else:
      weights = values[scope + '/depthwise_weights'][..., channel, :]
    np.testing.assert_allclose(
        layers[scope].weights.real[..., channel], weights * factor, rtol=1e-6)
    assert layers[scope].biases.real[channel] == pytest.approx(
        beta - mean * factor)
  np.testing.assert_array_equal(
      layers[LOGITS].biases.real, values[LOGITS + '/biases'])


def test_fake_quantization_matches_a_hand_computation():
  """255 values from -1.5 to 1.5: a step is 3 / 254, and 0 is number 128."""
  values = golden_values(MODEL._replace(quantize_delay_step=0))
  layers = contents_lib._of_values(values, MODEL, 'x')
  plain = contents_lib._of_values(golden_values(), MODEL, 'x')
  weights = layers['aspp0'].weights
  step = 3 / 254
  assert weights.dtype == 'uint8'
  assert weights.scales == pytest.approx([step])
  np.testing.assert_array_equal(weights.stored, 128 + np.rint(
      np.clip(plain['aspp0'].weights.real, -1.5, 1.5) / step))
  np.testing.assert_array_equal(np.isnan(contents_lib._fake_quantized(
      np.array([np.nan, 1.0]), values, 'aspp0/weights_quant').real), [1, 0])
  # 256 values from -4 to 6, including 0.
  output = contents_lib._activations_of_variables(values)['aspp0']
  assert output.scale == pytest.approx(10 / 255) and output.zero_point == 102
  assert output.low == pytest.approx(-102 * 10 / 255)


@pytest.mark.slow
def test_all_kinds_of_files_give_the_same_layers(small, tmp_path):
  files = Files(tmp_path, MODEL, options_lib.FLOAT)
  found = files.read()
  assert [one.model.kind for one in found] == [
      interface.CHECKPOINT, interface.FROZEN_GRAPH, interface.TFLITE]
  for one in found:
    assert one.options == MODEL
    assert list(one.layers) == list(found[0].layers)
    content = contents_lib.to_json(one)
    assert content['parameters'] == contents_lib.to_json(
        found[0])['parameters']
    logits = content['layers'][-1]
    assert logits['name'] == LOGITS and logits['output_shape'] == [9, 9, 5]
    assert logits['multiply_adds'] == 9 * 9 * 256 * 5
    assert logits['weights']['type'] == 'float32' and not logits['output']
    json.dumps(content, allow_nan=False)
  assert found[0].counts == {'variables': len(structure.of(MODEL).variables)}
  assert found[1].counts['Conv2D'] == found[2].counts['CONV_2D'] > 10
  assert found[2].size_bytes == os.path.getsize(files.tflite)
  # Batch norm is folded like the converter does, but independently.
  difference = difference_lib.between(found[0], found[2])
  assert difference['verdict'] == difference_lib.ROUNDED
  assert difference['beyond_rounding'] == 0 and not difference['unmatched']
  assert difference['steps'] is None
  assert {layer['biases']['verdict'] for layer in difference['layers'].values(
      )} <= {difference_lib.EQUAL, difference_lib.ROUNDED}
  assert difference_lib.between(found[0], found[1])['verdict'] == (
      difference_lib.EQUAL)

  result = run.inspect(options_lib.InspectionOptions(
      model=files.checkpoint, other=files.tflite, crop_size=SIZE,
      report_json=str(tmp_path / 'made' / 'x.json')))
  assert '  {} layers, {:,} parameters, '.format(
      len(found[0].layers), content['parameters']) in '\n'.join(result.lines)
  assert any(line.startswith('the same weights but for rounding: ')
             for line in result.lines)
  numbers = json.loads((tmp_path / 'made' / 'x.json').read_text())
  assert numbers['difference']['weights'] == difference['weights']
  assert numbers['other']['kind'] == interface.TFLITE
  # The label map is beside the graph.
  small_models.describe(tmp_path / 'x.pb', OWN)
  assert read(files.graph).options.label_map == OWN


@pytest.mark.slow
def test_fake_quantization_matches_the_converter(small, tmp_path):
  found = Files(tmp_path, MODEL._replace(quantize_delay_step=0),
                options_lib.QUANTIZATION_AWARE).read()
  assert {layer.weights.dtype for one in found
          for layer in one.layers.values()} == {'uint8'}
  for one in found[:2]:
    difference = difference_lib.between(one, found[2])
    # A last bit may decide how a value between two steps is rounded.
    assert difference['steps'] <= 1
    assert difference['differing'] <= 1e-4 * difference['weights']
    # Outputs of all layers except the last one, and of additions.
    assert difference['activations']['compared'] >= len(found[0].layers)
    assert difference['activations']['differing'] == {}
  assert found[0].options == MODEL._replace(quantize_delay_step=0)


def test_other_models_are_refused(tmp_path):
  lacking = dict.fromkeys(structure.of(MODEL).variables, np.zeros(3))
  shaped = dict(lacking)
  del lacking['aspp0/weights']
  for refused, words in (
      (lambda: contents_lib.read(open_model.ModelFile('ONNX', 'x.onnx')),
       '^x.onnx: is a ONNX; expected a checkpoint, a frozen graph or a TFLite '
       'file$'),
      (lambda: read(small_models.write_graph(tmp_path / 'x.pb')),
       'is not of this network'),
      (lambda: contents_lib._of_values(lacking, MODEL, 'x'),
       r'lacks 1 of 297 variables \(aspp0/w'),
      (lambda: contents_lib._of_values(shaped, MODEL, 'x'),
       r'is \[3\], expected \[')):
    with pytest.raises(InputError, match=words):
      refused()


# --- Differences -----------------------------------------------------------


def values_of(stored, scale, dtype='int8'):
  """Returns 8-bit values of [inputs, channels]."""
  stored = np.asarray(stored, np.int64)
  scales = np.asarray(scale, np.float64)
  return contents_lib.Values(dtype, stored * scales, stored, scales)


def in_float(real):
  return contents_lib.Values('float32', np.asarray(real, np.float64))


def contents_of(ranges=(), **weights):
  """Returns Contents with these weights and activation ranges."""
  layers = {
      name: contents_lib.Layer(
          structure.Convolution('CONV_2D', (1, 1, 2), 4), values,
          in_float([0.0, 0.0]))
      for name, values in weights.items()}
  return contents_lib.Contents(
      open_model.ModelFile(interface.TFLITE, 'x'), 1, MODEL, layers,
      dict(ranges), {})


def between(first, second):
  return difference_lib.between(contents_of(a=first), contents_of(a=second))


STORED = values_of([[1, 2], [3, 4]], [0.5, 0.25])
NEAR = values_of([[100, 2], [3, 4]], [0.5, 0.25])
ROUNDED = ('the same weights but for rounding: {}, none by more than half a '
           'step of each')


@pytest.mark.parametrize('first, second, line', [
    (STORED, STORED, 'the same weights: all 4 are equal'),
    # Rounding allows half a step of each, here one step together.
    (STORED, values_of([[2, 2], [3, 4]], [0.5, 0.25]),
     ROUNDED.format('1 of 4 differ as stored, by up to 1 steps')),
    (STORED, values_of([[3, 2], [3, 4]], [0.5, 0.25]),
     'other weights: 1 of 4 differ, 1 of them by more than rounding'),
    # A float weight may differ by half a step.
    (in_float(NEAR.real + [[0.24, -0.12], [0, 0]]), NEAR,
     ROUNDED.format('2 of 4 differ')),
    (in_float(NEAR.real + [[0.24, -0.12], [0, 0.13]]), NEAR,
     'other weights: 3 of 4 differ, 1 of them by more than rounding'),
    # Channel 1 is stored differently, but is practically 0 in both.
    (values_of([[1, 127], [3, -50]], [0.5, 1e-12]),
     values_of([[1, 0], [3, 0]], [0.5, 4e-9]),
     ROUNDED.format('2 of 4 differ as stored, by up to 127 steps'))])
def test_weights_are_equal_rounded_or_different(first, second, line):
  found = between(first, second)
  assert run.of_difference(found, 'x', 'y')[0] == line
  apart = (first.real - second.real).ravel()
  weights = found['layers']['a']['weights']
  assert weights['relative'] == pytest.approx(
      np.linalg.norm(apart) / np.linalg.norm(first.real))


@pytest.mark.parametrize('make', [
    in_float, lambda real: values_of([[1, 2], [3, 4]], real[0])])
def test_nan_weights_are_different(make):
  """They also differ from other NaNs."""
  bad = make([[np.nan, 2.0], [3.0, 4.0]])
  for other in (make([[1.0, 2.0], [3.0, 4.0]]), bad):
    found = between(bad, other)
    assert found['verdict'] == difference_lib.OTHER
    assert found['beyond_rounding'] >= found['not_finite'] >= 1
    lines = run.of_difference(found, 'x', 'y')
    assert lines[0].startswith('other weights: ')
    assert lines[0].endswith(' are NaN or infinite')
    json.dumps(found, allow_nan=False)
  json.dumps(contents_lib.to_json(contents_of(a=bad)), allow_nan=False)


@pytest.mark.parametrize('first, second, differ', [
    ([0.0, 0.0], [0.0, np.nan], True),
    # Biases are differences of larger numbers, at float32's precision.
    ([100.0, 1e-4], [100.0, 2e-4], False),
    ([100.0, 1e-4], [100.0, 3e-3], True)])
def test_biases_are_compared_relative_to_the_largest(
    first, second, differ):
  contents = contents_of(a=in_float(np.ones([2, 2])))
  found = difference_lib.between(*[
      contents._replace(layers={
          'a': contents.layers['a']._replace(biases=in_float(biases))})
      for biases in (first, second)])
  assert run.of_difference(found, 'x', 'y') == [
      'the same weights: all 4 are equal' + (
          '; but other biases in a' if differ else '')]


def test_layers_of_only_one_model_are_named():
  weights = in_float(np.ones([2, 2]))
  found = difference_lib.between(
      contents_of(a=weights, b=weights, c=weights),
      contents_of(a=weights, b=in_float(np.ones([2, 3])), d=weights))
  assert found['verdict'] == difference_lib.OTHER
  assert run.of_difference(found, 'x', 'y')[1] == 'not in both: b, c, d'


@pytest.mark.parametrize('dtype, scale, zero_point, differs', [
    ('int8', 0.02, 0, False), ('uint8', 0.02, 128, False),
    ('int8', 0.0201, 0, True), ('int8', 0.02, 1, True)])
def test_every_activation_is_compared(dtype, scale, zero_point, differs):
  """Not only the outputs of layers with weights are compared."""
  weights = in_float(np.ones([2, 2]))
  one = activations.Range('int8', -2.56, 2.54, 0.02, 0)
  other = activations.Range(dtype, 0, 0, scale, zero_point)
  found = difference_lib.between(
      contents_of({'a': one, 'concat': one}, a=weights),
      contents_of({'a': one, 'concat': other}, a=weights))
  assert found['verdict'] == difference_lib.EQUAL
  assert list(found['activations']['differing']) == (
      ['concat'] if differs else [])
  lines = run.of_difference(found, 'x', 'y')
  if differs:
    assert lines[0].endswith('all 4 are equal; but other activations')
    assert lines[1] == (
        '1 of 2 activations differ in scale or zero point: x, y')
    assert lines[2].startswith('  concat  0.02 (zero point 0, up to 2.54), ')
  else:
    assert lines[1] == 'the same scale and zero point: all 2 activations'
  json.dumps(found)


def test_different_label_maps_are_reported(tmp_path, monkeypatch):
  other = OWN._replace(ids=OWN.ids[:-1] + ((5,),))
  paths = [tmp_path / '0.pb', tmp_path / '1.pb']
  for path, label_map in zip(paths, (OWN, other)):
    small_models.write_graph(path)
    small_models.describe(path, label_map)
  contents = contents_of(x=in_float([1.0]))
  contents = contents._replace(
      model=open_model.find(str(paths[0])),
      options=contents_lib._with_classes(
          MODEL, open_model.find(str(paths[0]))))
  monkeypatch.setattr(contents_lib, 'read', lambda model, size: contents)
  result = run.inspect(options_lib.InspectionOptions(
      model=str(paths[0]), other=str(paths[1])))
  assert '  classes: a, b, c, d' in result.lines
  assert label_maps.from_json(
      result.numbers['model']['model']['label_map']) == OWN
  # The weights are compared nevertheless.
  line = 'of other classes: id 4 is 4 d in 0.pb, 0 other in 1.pb'
  assert result.lines[result.lines.index(line) + 1].startswith(
      'the same weights: ')


def test_refusals(tmp_path, monkeypatch):
  monkeypatch.chdir(str(tmp_path))
  (tmp_path / 'x.tflite').write_bytes(
      b'\x0c\0\0\0TFL3\x04\0\x04\0\x04\0\0\0')
  for given, problem in (
      ({'model': 'none'}, 'model=none: no such file; expected a checkpoint'),
      ({'other': 'none'}, 'other=none: no such'),
      ({'report_json': 'x.tflite'}, 'is an input of this command')):
    with pytest.raises(InputError, match=problem):
      run.inspect(options_lib.InspectionOptions(
          **dict({'model': 'x.tflite'}, **given)))


# --- Clipping --------------------------------------------------------------


def concat_model():
  """Returns a TFLite file that concatenates values in 0..1 and 0..6."""
  with tf.Graph().as_default(), tf.Session() as session:
    images = tf.placeholder(tf.float32, [1, 8, 8, 3], name='in')
    net = tf.quantization.fake_quant_with_min_max_args(images, -1, 1)
    parts = []
    for name, high in (('narrow', 1.0), ('wide', 6.0)):
      weights = tf.quantization.fake_quant_with_min_max_args(
          tf.constant(high * np.eye(3).reshape([1, 1, 3, 3]), tf.float32),
          -high, high)
      parts.append(tf.quantization.fake_quant_with_min_max_args(tf.nn.relu(
          tf.nn.bias_add(tf.nn.conv2d(net, weights, 1, 'SAME'),
                         tf.constant([2.0, 0.0, 0.0])), name=name), 0, high))
    labels = tf.argmax(tf.concat(parts, 3, name='concat'), 3,
                       output_type=tf.int32, name='out')
    converter = tf.lite.TFLiteConverter.from_session(
        session, [images], [labels])
    converter.inference_type = tf.uint8
    converter.quantized_input_stats = {'in': (128, 128)}
    return converter.convert()


def with_scale_of(content, name, other):
  """Returns a TFLite file in which one tensor gets the scale of another.

  TensorFlow 2.21 writes such files from quantization-aware graphs.
  """
  content = bytearray(content)
  graph = tflite.Model.GetRootAsModel(content, 0).Subgraphs(0)
  scales = {}
  for index in range(graph.TensorsLength()):
    tensor = graph.Tensors(index)
    scales[tensor.Name().decode().split(';')[0]] = (
        tensor.Quantization().ScaleAsNumpy())
  scales[name][:] = scales[other]
  return content


@pytest.mark.modern
def test_outputs_narrower_than_their_inputs_are_named(tmp_path):
  path = tmp_path / 'x.tflite'
  path.write_bytes(concat_model())
  assert activations.find_clipping(tflite_lib.read(str(path))) == []
  path.write_bytes(with_scale_of(concat_model(), 'concat', 'narrow'))
  clipping = activations.find_clipping(tflite_lib.read(str(path)))
  assert [(one.name, one.kind, one.input_name) for one in clipping] == [
      ('concat', 'CONCATENATION', 'wide')]
  # One of three channels is 2 in a gray image, and 0 in a black one.
  (tmp_path / 'images').mkdir()
  for number, pixels in enumerate((128, 0)):
    Image.new('RGB', (8, 8), (pixels,) * 3).save(
        str(tmp_path / 'images' / 'img_{}.png'.format(number)))
  found = activations.measure(clipping, str(path), str(tmp_path), 8)
  one = contents_of(a=in_float([[1.0]]))._replace(clipping=tuple(found))
  assert run.of_clipping(one) == [
      'CLIPPED in x: concat (CONCATENATION) holds 0..1, but its input wide has '
      '0..6: 16.667 % of the values are clipped']
  json.dumps(contents_lib.to_json(one), allow_nan=False)


def test_a_wider_output_or_a_sum_does_not_clip():
  def tensor(name, scale):
    return tflite_lib.Tensor(name, (1, 2), np.dtype('u1'), (scale,), (0,))

  model = tflite_lib.Model(
      (tensor('a', 0.1), tensor('b', 0.2), tensor('c', 0.2), tensor('d', 0.1)),
      (tflite_lib.Operator('CONCATENATION', (0, 1), (2,)),
       tflite_lib.Operator('ADD', (0, 2), (3,))), (0, 1), (3,))
  assert activations.find_clipping(model) == []
  model = model._replace(operators=model.operators + (
      tflite_lib.Operator('RESIZE_BILINEAR', (2, -1), (3,)),))
  assert [one.name for one in activations.find_clipping(model)] == ['d']


@pytest.mark.slow
def test_a_changed_scale_of_a_concatenation_is_reported(
    reference_dir, tmp_path):
  published = os.path.join(reference_dir, 'freeze_qat.tflite')
  damaged = tmp_path / 'damaged.tflite'
  with open(published, 'rb') as source:
    damaged.write_bytes(with_scale_of(
        source.read(), 'decoder/concat', 'decoder/feature_projection0/Relu'))
  result = run.inspect(options_lib.InspectionOptions(
      model=published, other=str(damaged)))
  assert not result.numbers['model']['clipping']
  assert list(result.numbers['difference']['activations']['differing']) == [
      'decoder/concat']
  assert result.lines[-4].startswith('the same weights: all 2,238,576 are equal'
                                     '; but other activations')
  assert result.lines[-1].endswith(
      'decoder/concat (CONCATENATION) holds 0..12.56, but its input '
      'decoder/ResizeBilinear has 0..162.6')


# --- The published models --------------------------------------------------


@pytest.mark.extended
@pytest.mark.parametrize('checkpoint, tflite, verdict', [
    ('checkpoint_float', 'freeze_ptq.tflite', difference_lib.ROUNDED),
    ('checkpoint_qat', 'freeze_qat.tflite', difference_lib.EQUAL),
    ('freeze_ptq.tflite', 'freeze_qat.tflite', difference_lib.OTHER)])
def test_published_files(reference_dir, checkpoint, tflite, verdict):
  first, second = (
      contents_lib.read(open_model.find(os.path.join(reference_dir, name)))
      for name in (checkpoint, tflite))
  difference = difference_lib.between(first, second)
  assert difference['verdict'] == verdict
  assert difference['weights'] == 2238576
