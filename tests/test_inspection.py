"""What is in a model's file, and whether two files have the same weights."""
import json
import os
import shutil

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from deeplab import any_model
from deeplab import export
from deeplab import label_map as label_maps
from deeplab import options as options_lib
from deeplab import report
from deeplab.errors import InputError
from deeplab.inspection import contents as contents_lib
from deeplab.inspection import debugger
from deeplab.inspection import difference as difference_lib
from deeplab.inspection import run
from deeplab.inspection import text
from deeplab.lite import conversion
from deeplab.nets import deeplab_v3
from deeplab.nets import structure
from tests import golden_weights
from tests import scripts
from tests import small_models
from tests import test_lite_conversion

SIZE = (33, 33)
MODEL = options_lib.ModelOptions(
    crop_size=SIZE, num_classes=5, decoder_output_stride=(4,))
WEIGHTS, BIASES = 2231664, 17669  # of 60 layers
LOGITS = 'logits/semantic'
# Of MODEL, and not of ADE20K.
OWN = label_maps.LabelMap(
    ('other', 'a', 'b', 'c', 'd'), ((), (1,), (2,), (3,), (4,)))


def save_checkpoint(folder, model_options):
  with tf.Graph().as_default(), tf.Session() as session:
    height, width = model_options.crop_size
    deeplab_v3.logits(tf.zeros([1, height, width, 3]), model_options)
    golden_weights.load(session, tf.global_variables())
    return tf.train.Saver().save(session, str(folder / 'model.ckpt-1'))


class Files:
  """A checkpoint, its frozen graph, and the TFLite file of that."""

  def __init__(self, folder, model_options, mode):
    self.checkpoint = save_checkpoint(folder, model_options)
    self.graph = str(folder / 'x.pb')
    export.export(model_options, options_lib.ExportOptions(
        checkpoint_path=self.checkpoint, export_path=self.graph))
    self.tflite = str(folder / 'x.tflite')
    conversion.convert(options_lib.ConversionOptions(
        graph_def=self.graph, out_tflite=self.tflite, mode=mode))


@pytest.fixture(scope='module')
def files(tmp_path_factory):
  return Files(tmp_path_factory.mktemp('float'), MODEL, options_lib.FLOAT)


@pytest.fixture(scope='module')
def quantized_files(tmp_path_factory):
  return Files(
      tmp_path_factory.mktemp('qat'), MODEL._replace(quantize_delay_step=0),
      options_lib.QUANTIZATION_AWARE)


def read(path):
  return contents_lib.read(any_model.find(path), SIZE)


# --- Contents --------------------------------------------------------------


def test_the_structure_of_the_network():
  network = structure.of(MODEL._replace(crop_size=(512, 512), num_classes=32))
  assert len(network.convolutions) == 60
  assert network.convolutions['MobilenetV2/Conv'] == (
      'CONV_2D', (256, 256, 32), 256 * 256 * 32 * 3 * 3 * 3)
  # Atrous: over parts of the map, which are put together again.
  assert network.convolutions['MobilenetV2/expanded_conv_14/depthwise'] == (
      'DEPTHWISE_CONV_2D', (32, 32, 960), 32 * 32 * 960 * 3 * 3)
  assert network.layer_of('aspp0/Relu;x;aspp0/Conv2D1') == 'aspp0'
  assert network.layer_of('concat') is None


def golden_values(model_options=MODEL):
  """Values of all variables, and of ranges of fake quantization if there."""
  network = structure.of(model_options)
  names = dict(network.variables)
  if model_options.is_quantized:
    for layer in network.convolutions:
      for scope in ('weights_quant', 'act_quant'):
        for end in ('min', 'max'):
          names['{}/{}/{}'.format(layer, scope, end)] = []
  return {name: golden_weights.draw(name, shape)
          for name, shape in names.items()}


def test_batch_norm_by_hand():
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


def test_fake_quantization_by_hand():
  """255 values from -1.5 to 1.5: a step is 3 / 254, and 0 is the 128th."""
  layers = contents_lib._of_values(
      golden_values(MODEL._replace(quantize_delay_step=0)), MODEL, 'x')
  plain = contents_lib._of_values(golden_values(), MODEL, 'x')
  weights = layers['aspp0'].weights
  step = 3 / 254
  assert weights.dtype == 'uint8'
  assert weights.quantized.scales == pytest.approx([step])
  assert weights.quantized.zero_points == [128]
  np.testing.assert_array_equal(weights.quantized.stored, 128 + np.rint(
      np.clip(plain['aspp0'].weights.real, -1.5, 1.5) / step))
  # From -4 to 6, with 0 among 256 values.
  output = layers['aspp0'].output
  assert output.scale == pytest.approx(10 / 255) and output.zero_point == 102
  assert output.low == pytest.approx(-102 * 10 / 255)


@pytest.mark.extended
def test_all_kinds_of_files_have_the_same_layers(files):
  found = [read(path) for path in (
      files.checkpoint, files.graph, files.tflite)]
  assert [one.model.kind for one in found] == [
      report.CHECKPOINT, report.FROZEN_GRAPH, report.TFLITE]
  for one in found:
    assert one.options == MODEL
    assert list(one.layers) == list(found[0].layers)
    content = contents_lib.to_json(one)
    assert content['parameters'] == WEIGHTS + BIASES
    logits = content['layers'][-1]
    assert logits['name'] == LOGITS and logits['output_shape'] == [9, 9, 5]
    assert logits['multiply_adds'] == 9 * 9 * 256 * 5
    assert logits['weights']['type'] == 'float32' and not logits['output']
    json.dumps(content, allow_nan=False)
  assert found[0].counts == {'variables of the network': 297}
  assert found[1].counts['Conv2D'] == 41
  assert found[2].counts['CONV_2D'] == 41
  assert found[2].size_bytes == os.path.getsize(files.tflite)


@pytest.mark.extended
def test_the_classes_of_a_graph_stand_beside_it(files, tmp_path):
  path = tmp_path / 'x.pb'
  shutil.copy(files.graph, str(path))
  assert read(str(path)).options.label_map is None
  small_models.describe(path, OWN)
  assert read(str(path)).options.label_map == OWN


@pytest.mark.extended
def test_batch_norm_is_folded_into_weights(files):
  """As a converter folds it, which knows nothing of this."""
  difference = difference_lib.between(read(files.checkpoint),
                                      read(files.tflite))
  assert difference.verdict == difference_lib.ROUNDED
  assert difference.total('number') == WEIGHTS
  assert difference.total('beyond') == 0 and not difference.unmatched
  assert difference.steps is None
  assert not any(layer.biases.beyond for layer in difference.layers.values())
  assert difference_lib.between(
      read(files.checkpoint), read(files.graph)).verdict == (
          difference_lib.EQUAL)


@pytest.mark.extended
def test_fake_quantization_stores_what_a_converter_stores(quantized_files):
  found = [read(path) for path in (
      quantized_files.checkpoint, quantized_files.graph,
      quantized_files.tflite)]
  assert {layer.weights.dtype for one in found
          for layer in one.layers.values()} == {'uint8'}
  for one in found[:2]:
    difference = difference_lib.between(one, found[2])
    # Which way a value in the middle between two goes hangs on its last bit.
    assert difference.steps <= 1
    assert difference.total('differing') <= 1e-4 * WEIGHTS
    for ours, theirs in (layer.outputs
                         for layer in difference.layers.values()):
      assert ours.zero_point == theirs.zero_point
      assert ours.scale == pytest.approx(theirs.scale, rel=1e-6)
  assert found[0].counts['variables of quantization'] == 260
  assert found[0].options == MODEL._replace(quantize_delay_step=0)


def test_other_kinds_of_models_are_refused():
  with pytest.raises(InputError) as error:
    contents_lib.read(any_model.ModelFile('ONNX', 'x.onnx'))
  assert str(error.value) == (
      'x.onnx: is a ONNX; expected a checkpoint, a frozen graph or a TFLite '
      'file')


def test_another_networks_files_are_refused(tmp_path):
  graph = small_models.write_graph(tmp_path / 'x.pb')
  with pytest.raises(InputError, match='is not of this network'):
    read(graph)
  lacking = dict.fromkeys(structure.of(MODEL).variables, np.zeros(3))
  del lacking['aspp0/weights']
  with pytest.raises(InputError, match=r'lacks 1 of 297 variables \(aspp0/w'):
    contents_lib._of_values(lacking, MODEL, 'x')
  lacking['aspp0/weights'] = np.zeros(3)
  with pytest.raises(InputError, match=r'is \[3\], expected \['):
    contents_lib._of_values(lacking, MODEL, 'x')


# --- Differences -----------------------------------------------------------


def values_of(stored, scale, dtype='int8'):
  """Values of [inputs, channels] in 8 bits."""
  stored = np.asarray(stored, np.int64)
  scales = np.asarray(scale, np.float64)
  return contents_lib.Values(dtype, stored * scales, contents_lib.Quantized(
      stored, scales, np.zeros(len(scales), np.int64)))


def in_float(real):
  return contents_lib.Values('float32', np.asarray(real, np.float64))


def contents_of(output=None, **weights):
  layers = {
      name: contents_lib.Layer('CONV_2D', (1, 1, 2), 4, values,
                               in_float([0.0, 0.0]), output)
      for name, values in weights.items()}
  return contents_lib.Contents(
      any_model.ModelFile(report.TFLITE, 'x'), 1, MODEL, layers, {}, {})


def between(first, second, **more):
  return difference_lib.between(
      contents_of(a=first, **more), contents_of(a=second, **more))


def test_equal_weights():
  weights = values_of([[1, 2], [3, 4]], [0.5, 0.25])
  difference = between(weights, weights)
  assert difference.verdict == difference_lib.EQUAL
  assert text.of_difference(difference, 'x', 'y') == [
      'the same weights: all 4 are equal']


def test_a_step_is_more_than_rounding_where_steps_are_equal():
  """Half a step of each is one; another one is too far."""
  first = values_of([[1, 2], [3, 4]], [0.5, 0.25])
  near = values_of([[2, 2], [3, 4]], [0.5, 0.25])
  far = values_of([[3, 2], [3, 4]], [0.5, 0.25])
  assert between(first, near).verdict == difference_lib.ROUNDED
  found = between(first, far)
  assert found.verdict == difference_lib.OTHER
  weights = found.layers['a'].weights
  assert (weights.differing, weights.steps, weights.beyond) == (1, 2, 1)
  assert weights.largest == 1.0
  assert weights.relative == pytest.approx(1 / np.sqrt(0.5**2 + 1.5**2 + 1.25))
  assert weights.channels == [(0, 1, 2, 1.5, (0.5, 0.5))]


def test_a_float_weight_is_within_half_a_step():
  quantized = values_of([[100, 2], [3, 4]], [0.5, 0.25])
  real = quantized.real + [[0.24, -0.12], [0, 0]]
  assert between(in_float(real), quantized).verdict == difference_lib.ROUNDED
  real[1, 1] += 0.13
  found = between(in_float(real), quantized)
  assert found.verdict == difference_lib.OTHER and found.total('beyond') == 1
  assert found.steps is None
  assert 'other weights: 3 of 4 differ, 1 of them by more than rounding' in (
      text.of_difference(found, 'x', 'y'))


def test_channels_near_zero_are_told():
  """Channel 1 is stored otherwise, and is as good as 0 either way."""
  first = values_of([[1, 127], [3, -50]], [0.5, 1e-12])
  second = values_of([[1, 0], [3, 0]], [0.5, 4e-9])
  found = between(first, second)
  assert found.verdict == difference_lib.ROUNDED and found.steps == 127
  assert [channel.number for channel in found.layers['a'].weights.channels] == [
      1]
  lines = text.of_difference(found, 'old', 'new')
  assert lines[0] == (
      'the same weights but for rounding: 2 of 4 differ as stored, by up to '
      '127 steps, none by more than half a step of each')
  assert lines[1].startswith(
      'in 1 output channels, of which 1 have no weight above 1e-06')
  assert lines[2].endswith('step in old, new')
  assert lines[3].split() == ['a', '1', '2', '127', '1.27e-10', '1e-12,',
                              '4e-09']


def test_layers_that_are_not_in_both():
  weights = in_float(np.ones([2, 2]))
  found = difference_lib.between(
      contents_of(a=weights, b=weights, c=weights),
      contents_of(a=weights, b=in_float(np.ones([2, 3])), d=weights))
  assert found.unmatched == ['c', 'd', 'b']
  assert found.verdict == difference_lib.OTHER
  assert 'not in both: c, d, b' in text.of_difference(found, 'x', 'y')


def test_outputs_that_are_rounded_otherwise():
  weights = in_float(np.ones([2, 2]))
  found = difference_lib.between(*[
      contents_of(contents_lib.Range('int8', 0, 6, scale, 0), a=weights)
      for scale in (0.02, 0.04)])
  assert found.verdict == difference_lib.EQUAL
  assert text.of_difference(found, 'x', 'y')[1:] == [
      'outputs of 1 layers are rounded otherwise: step in x, y',
      '  a  0.02, 0.04']
  json.dumps(difference_lib.to_json(found))


def test_biases_are_compared_with_the_largest_of_their_layer():
  """They are differences of larger numbers, to float32's precision."""
  first = contents_lib.Values('float32', np.array([100.0, 1e-4]))
  second = contents_lib.Values('float32', np.array([100.0, 2e-4]))
  assert not difference_lib._of_values(first, second).beyond
  third = contents_lib.Values('float32', np.array([100.0, 3e-3]))
  assert difference_lib._of_values(first, third).beyond == 1


def test_classes_of_ones_own_are_told(tmp_path, monkeypatch):
  other = OWN._replace(ids=OWN.ids[:-1] + ((5,),))
  paths = [tmp_path / '0.pb', tmp_path / '1.pb']
  for path, label_map in zip(paths, (OWN, other)):
    small_models.write_graph(path)
    small_models.describe(path, label_map)
  contents = contents_of(x=in_float([1.0]))
  contents = contents._replace(
      model=any_model.find(str(paths[0])),
      options=contents_lib._with_classes(
          MODEL, any_model.find(str(paths[0]))))
  monkeypatch.setattr(contents_lib, 'read', lambda model, size: contents)
  result = run.inspect(options_lib.InspectionOptions(
      model=str(paths[0]), other=str(paths[1])))
  assert '  classes: a, b, c, d' in result.lines
  assert label_maps.from_json(
      result.numbers['model']['model']['label_map']) == OWN
  # The weights are compared all the same.
  line = 'of other classes: id 4 is 4 d in 0.pb, 0 other in 1.pb'
  assert result.lines[result.lines.index(line) + 1].startswith(
      'the same weights: ')
  assert not text.of_classes(OWN, None, 'x', 'y')


# --- The script ------------------------------------------------------------


@pytest.mark.extended
def test_the_script(files, tmp_path):
  done = scripts.run(
      'scripts/inspect_model.py', '--model=' + files.checkpoint,
      '--other_model=' + files.tflite, '--eval_crop_size=33,33',
      '--report_json={}'.format(tmp_path / 'made' / 'x.json'))
  assert 'logits/semantic' in done.stdout
  assert '  60 layers, 2,249,333 parameters, ' in done.stdout
  assert 'the same weights but for rounding: ' in done.stdout
  with open(str(tmp_path / 'made' / 'x.json')) as content:
    numbers = json.load(content)
  assert numbers['difference']['weights'] == WEIGHTS
  assert numbers['other']['kind'] == report.TFLITE


@pytest.mark.parametrize('arguments, problem', [
    (['--model=none'], '--model=none: no such file; expected a checkpoint, a '),
    (['--sample_num=3', '--model=x'], '--sample_num=3: has no effect without '),
    (['--model={tflite}', '--calibration_dir=x'], 'expected a frozen graph in '
     'float, with --calibration_dir'),
    (['--model={tflite}', '--other_model=none'], '--other_model=none: no such'),
])
def test_refusals(tmp_path, arguments, problem):
  tflite = tmp_path / 'x.tflite'
  tflite.write_bytes(b'\x0c\0\0\0TFL3\x04\0\x04\0\x04\0\0\0')
  line = scripts.refusal('scripts/inspect_model.py', *[
      argument.format(tflite=tflite) for argument in arguments])
  assert problem in line


# --- What quantization costs -----------------------------------------------


@pytest.mark.tf1
@pytest.mark.tf2
def test_other_tensorflows_have_no_debugger():
  with pytest.raises(InputError, match='QuantizationDebugger needs TensorFlow'):
    debugger.measure(options_lib.QuantizationCostOptions(
        graph_def='g', dataset_dir='d'))


@pytest.mark.modern
def test_costs_are_of_each_operator(tmp_path):
  graph = test_lite_conversion.write_graph(tmp_path / 'x.pb')
  side = test_lite_conversion.SIDE
  for number in range(2):
    test_lite_conversion.save_image(
        tmp_path / 'images' / 'img_{}.png'.format(number),
        np.random.RandomState(number).randint(0, 256, [side, side, 3]))
  costs = debugger.measure(options_lib.QuantizationCostOptions(
      graph_def=graph, dataset_dir=str(tmp_path), sample_num=2,
      **test_lite_conversion.NODES))
  assert [cost.kind for cost in costs] == ['CONV_2D', 'CONV_2D']
  for cost in costs:
    assert cost.values == side * side * (6 if cost is costs[0] else 4)
    # Of a perfect rounding, and where ReLU cuts off, nothing.
    assert 0.02 < cost.error < 0.6 and 0.3 < cost.largest < 3
    assert abs(cost.bias) < 0.2
  lines = text.of_costs(costs)
  assert len(lines) == 5 and lines[-1].startswith('0.29 is a perfect rounding')


@pytest.mark.modern
def test_images_that_do_not_fit_are_named_by_their_flags(tmp_path):
  graph = test_lite_conversion.write_graph(tmp_path / 'x.pb')
  with pytest.raises(InputError, match='0 other files|no images'):
    (tmp_path / 'images').mkdir()
    debugger.measure(options_lib.QuantizationCostOptions(
        graph_def=graph, dataset_dir=str(tmp_path),
        **test_lite_conversion.NODES))


def test_costs_get_the_names_of_layers():
  network = structure.of(MODEL)
  costs = [debugger.Cost(name, kind, 1, 1.0, 0.3, 0.0, 0.5) for name, kind in (
      ('aspp0/Relu;b;c1', 'CONV_2D'), ('concat', 'CONCATENATION'),
      ('MobilenetV2/expanded_conv_2/add;x', 'ADD'))]
  assert [cost.name for cost in debugger.by_layer(costs, network)] == [
      'aspp0', 'concat', 'MobilenetV2/expanded_conv_2/add']
  assert debugger.to_json(costs)[0]['error'] == 0.3


# --- The published models --------------------------------------------------


@pytest.mark.extended
@pytest.mark.parametrize('checkpoint, tflite, verdict', [
    ('checkpoint_float', 'freeze_ptq.tflite', difference_lib.ROUNDED),
    ('checkpoint_qat', 'freeze_qat.tflite', difference_lib.EQUAL),
    ('freeze_ptq.tflite', 'freeze_qat.tflite', difference_lib.OTHER)])
def test_published_files(reference_dir, checkpoint, tflite, verdict):
  first, second = (
      contents_lib.read(any_model.find(os.path.join(reference_dir, name)))
      for name in (checkpoint, tflite))
  difference = difference_lib.between(first, second)
  assert difference.verdict == verdict
  assert difference.total('number') == 2238576
