"""Tests conversion to TFLite: small graphs, refusals, published files."""
import errno
import json
import logging
import os
import re
import tempfile
import zlib

import numpy as np
from PIL import Image
import pytest
import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab.cli import script_flags
from deeplab.config import options
from deeplab.errors import InputError
from deeplab.evaluation import tflite as lite_evaluation
from deeplab.export import freeze
from deeplab.export import tflite_conversion
from deeplab.models import frozen_graph
from deeplab.models import interpreters
from deeplab.models import metadata
from deeplab.models import tflite
from deeplab.nets import deeplab_v3
from tests import flag_groups
from tests import golden_weights
from tests import scripts

SIDE = 8
NODES = {'input_node': 'in', 'output_node': 'out'}
PUBLISHED = options.ModelOptions(decoder_output_stride=(4,))
WEIGHTS = 2238576


OPTIONS_OF = {
    tflite_conversion.convert: options.ConversionOptions,
    tflite_conversion.post_training_quantize: options.CalibrationOptions}


def in_both(test):
  return pytest.mark.tf1(pytest.mark.tf2(test))


def write_graph(path, *, quantized=False, channels=3, unsupported=False,
                width=6):
  """Writes a small frozen graph from images to labels."""
  random = np.random.RandomState(0)

  def fake_quant(tensor, low, high, name):
    if not quantized:
      return tensor
    return tf.quantization.fake_quant_with_min_max_args(
        tensor, low, high, name=name)

  with tf.Graph().as_default() as graph:
    net = tf.placeholder(tf.float32, [1, SIDE, SIDE, channels], name='in')
    if unsupported:
      net = tf.betainc(net + 2, net + 2, net)
    for layer, (inputs, outputs) in enumerate(
        [(channels, width), (width, 4)]):
      weights = fake_quant(
          tf.constant(random.uniform(-1, 1, [3, 3, inputs, outputs]),
                      tf.float32), -1, 1, 'weights{}'.format(layer))
      net = tf.nn.conv2d(net, weights, strides=1, padding='SAME')
      net = tf.nn.relu6(tf.nn.bias_add(net, tf.zeros([outputs])))
      net = fake_quant(net, 0, 6, 'act{}'.format(layer))
    tf.argmax(net, 3, output_type=tf.int32, name='out')
    path.write_bytes(graph.as_graph_def().SerializeToString())
  return str(path)


@pytest.fixture
def graph(tmp_path):
  return write_graph(tmp_path / 'float.pb')


@pytest.fixture
def quantized_graph(tmp_path):
  return write_graph(tmp_path / 'qat.pb', quantized=True)


def save_image(path, pixels):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.asarray(pixels, np.uint8)).save(str(path))


@pytest.fixture
def images(tmp_path):
  """Writes four calibration images; only the last, img_10, has contrast."""
  random = np.random.RandomState(1)
  folder = tmp_path / 'preprocessed'
  for number in (0, 1, 2):
    save_image(folder / 'images' / 'img_{}.png'.format(number),
               random.randint(120, 136, [SIDE, SIDE, 3]))
  pixels = random.randint(0, 256, [SIDE, SIDE, 3])
  pixels[0, 0], pixels[0, 1] = 0, 255
  save_image(folder / 'images' / 'img_10.png', pixels)
  return folder


def labels_of(path, image):
  """Runs a TFLite file on an input of its own type."""
  interpreter = tf.lite.Interpreter(model_path=path)
  interpreter.allocate_tensors()
  interpreter.set_tensor(
      interpreter.get_input_details()[0]['index'], image[np.newaxis])
  interpreter.invoke()
  return interpreter.get_tensor(interpreter.get_output_details()[0]['index'])


def graph_labels(path, image):
  """Runs a frozen graph on a float32 image in [-1, 1]."""
  graph_def = tf.GraphDef()
  with open(path, 'rb') as content:
    graph_def.ParseFromString(content.read())
  with tf.Graph().as_default(), tf.Session() as session:
    tf.import_graph_def(graph_def, name='')
    return session.run('out:0', {'in:0': image[np.newaxis]})


def input_of(path):
  model = tflite.read(path)
  return model.tensors[model.inputs[0]]


# --- Float and quantization-aware ------------------------------------------


def convert(graph, out, mode='float', **changes):
  return tflite_conversion.convert(options.ConversionOptions(
      graph_def=graph, out_tflite=str(out), mode=mode,
      **dict(NODES, **changes)))


def check_reproducible(graph, out, mode, tmp_path):
  """Converts again and compares the bytes."""
  again = str(tmp_path / 'again' / os.path.basename(out))
  convert(graph, again, mode)
  for ending in ('', '.json'):
    with open(out + ending, 'rb') as one, open(again + ending, 'rb') as other:
      assert one.read() == other.read()


@pytest.mark.slow
@pytest.mark.tf1
@pytest.mark.modern
def test_float_model_predicts_like_the_graph(graph, tmp_path):
  out = str(tmp_path / 'made' / 'float.tflite')
  result = convert(graph, out)
  image = np.random.RandomState(2).uniform(
      -1, 1, [SIDE, SIDE, 3]).astype(np.float32)
  labels = labels_of(out, image)
  assert len(np.unique(labels)) > 2
  np.testing.assert_array_equal(labels, graph_labels(graph, image))
  assert result.operations == {'CONV_2D': 2, 'ARG_MAX': 1}
  assert result.size == os.path.getsize(out)
  assert result.input == 'float32 1x8x8x3'
  assert result.output == 'int32 1x8x8'
  assert sorted(os.listdir(str(tmp_path / 'made'))) == [
      'float.tflite', 'float.tflite.json']
  with open(out + '.json') as content:
    description = json.load(content)
  assert description['mode'] == 'float'
  assert description['tensorflow'] == tf.__version__
  assert description['graph_def'] == graph
  check_reproducible(graph, out, 'float', tmp_path)
  for name in ('input', 'output'):
    assert description[name].pop('tensor') == getattr(result, name)
  assert description['input'] == metadata.input_contract((SIDE, SIDE))
  assert description['output'] == metadata.output_contract([1, SIDE, SIDE])
  # A file that ends in logits gives the same labels.
  logits = str(tmp_path / 'logits.tflite')
  convert(graph, logits, output_node='Relu6_1')
  pixels = np.random.RandomState(2).randint(0, 256, [2, SIDE, SIDE, 3])
  predictions = []
  for path in (out, logits):
    with interpreters.TflitePredictor(path) as predictor:
      assert predictor.num_classes == 4
      predictions.append(predictor.predict(pixels.astype(np.uint8)))
  np.testing.assert_array_equal(*predictions)


@pytest.mark.tf1
@pytest.mark.modern
@pytest.mark.parametrize('mode, precision', [
    ('float16', 'float16 weights'), ('dynamic', 'int8 weights')])
@pytest.mark.slow
def test_smaller_weights_predict_nearly_like_float(tmp_path, mode, precision):
  # Small weights stay in float.
  graph = write_graph(tmp_path / 'wide.pb', width=64)
  out = str(tmp_path / 'small.tflite')
  convert(graph, out, mode)
  random = np.random.RandomState(2)
  pixels = random.randint(0, 256, [SIDE, SIDE, 3])
  labels = graph_labels(graph, np.float32(pixels / 127.5 - 1))[0]
  assert len(np.unique(labels)) > 2
  save_image(tmp_path / 'images' / 'img_0.png', pixels)
  save_image(tmp_path / 'annotations' / 'img_0.png', labels)
  report = lite_evaluation.evaluate(
      options.TfliteEvalOptions(net_file=out, test_dir=str(tmp_path)),
      options.EvalOptions())
  assert report.model['precision'] == precision + ', float32 activations'
  assert report.scores.pixel_accuracy > 0.9


@pytest.mark.modern
def test_a_float_file_has_a_signature(graph, tmp_path):
  for output, name in (('out', 'labels'), ('Relu6_1', 'logits')):
    out = str(tmp_path / 'x.tflite')
    convert(graph, out, output_node=output)
    assert tf.lite.Interpreter(out).get_signature_list() == {
        'serving_default': {'inputs': ['images'], 'outputs': [name]}}


@pytest.mark.slow
@pytest.mark.tf1
@pytest.mark.modern
def test_quantization_aware_model_takes_pixels(quantized_graph, tmp_path):
  out = str(tmp_path / 'qat.tflite')
  result = convert(quantized_graph, out, 'qat')
  tensor = input_of(out)
  assert (tensor.dtype, tensor.scales, tensor.zero_points) == (
      np.uint8, (1 / 128,), (128,))
  assert result.input == 'uint8 1x8x8x3, scale 0.0078125, zero point 128'
  pixels = np.random.RandomState(2).randint(0, 256, [SIDE, SIDE, 3])
  expected = graph_labels(quantized_graph,
                          ((pixels - 128) / 128).astype(np.float32))
  labels = labels_of(out, pixels.astype(np.uint8))
  assert len(np.unique(labels)) > 2
  assert np.mean(labels == expected) > 0.95
  check_reproducible(quantized_graph, out, 'qat', tmp_path)
  convert(quantized_graph, out, 'qat', quantized_input_stats=(64.0, 32.0))
  assert input_of(out)[3:5] == ((1 / 32,), (64,))


def refusal_of(function, tmp_path, **arguments):
  """Returns the message of an InputError; nothing may have been written."""
  before = sorted(str(path) for path in tmp_path.rglob('*'))
  with pytest.raises(InputError) as error:
    function(OPTIONS_OF[function](
        out_tflite=str(tmp_path / 'out.tflite'), **dict(NODES, **arguments)))
  assert sorted(str(path) for path in tmp_path.rglob('*')) == before
  return str(error.value)


def test_refuses_graphs_that_do_not_fit_the_options(
    graph, quantized_graph, tmp_path):
  gray = write_graph(tmp_path / 'gray.pb', channels=1)
  (tmp_path / 'text.pb').write_text('text')
  for arguments, words in (
      ({'graph_def': graph, 'mode': 'qat'},
       '{}: float graph .* use mode=float, or export with '
       'quantize_delay_step=0'.format(graph)),
      ({'graph_def': quantized_graph, 'mode': 'float'},
       '{}: quantization-aware graph .* use scripts/convert_tflite.py '
       'mode=qat'.format(quantized_graph)),
      ({'input_node': 'ImageTensor'}, '.* has no node ImageTensor; '
       'placeholders: in; outputs: out; give input_node'),
      ({'output_node': 'ArgMax'}, '.* has no node ArgMax; .*give output_node'),
      ({'graph_def': gray}, r'.* input_node=in has shape \(1, 8, 8, 1\), '
       r'expected \[batch, height, width, 3\]'),
      ({'graph_def': str(tmp_path / 'text.pb')}, '.*not a frozen GraphDef')):
    message = refusal_of(tflite_conversion.convert, tmp_path, **dict(
        {'graph_def': graph, 'mode': 'float'}, **arguments))
    assert re.match(words, message), message


@pytest.mark.tf1
@pytest.mark.slow
def test_operators_that_cannot_be_converted_are_named(tmp_path, monkeypatch):
  # 1.15 converts all other operators, or crashes.
  monkeypatch.setattr(
      frozen_graph, '_OPERATORS', frozen_graph._OPERATORS | {'Betainc'})
  path = write_graph(tmp_path / 'beta.pb', unsupported=True)
  message = refusal_of(
      tflite_conversion.convert, tmp_path, graph_def=path, mode='float')
  assert 'cannot convert this graph' in message
  assert 'Betainc' in message
  assert '\n' not in message


@in_both
def test_a_full_temporary_folder_is_named(graph, tmp_path, monkeypatch):
  def fail(unused_converter):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(tf.lite.TFLiteConverter, 'convert', fail)
  monkeypatch.setattr(tempfile, 'gettempdir', lambda: '/full')
  message = refusal_of(
      tflite_conversion.convert, tmp_path, graph_def=graph, mode='float',
      **NODES)
  assert message == (
      '{}: TensorFlow {} cannot write temporary files to /full: No space left '
      'on device'.format(graph, tf.__version__))
  assert not (tmp_path / 'out.tflite').exists()


def test_progress_is_logged_but_not_the_converter(caplog):
  caplog.set_level('INFO')
  caplog.set_level('INFO', logger='absl')
  with tflite_conversion._converting('freeze.pb'):
    logging.getLogger('absl').info('use the new converter')
    logging.getLogger('deeplab.system.progress').info('calibrating: 1 of 2')
  assert caplog.messages == ['converting freeze.pb', 'calibrating: 1 of 2']
  logging.getLogger('absl').info('as before')
  assert caplog.messages[-1] == 'as before'


def test_model_and_description_are_written_together(graph, tmp_path):
  with pytest.raises(InputError, match='File name too long'):
    convert(graph, tmp_path / 'out' / ('x' * 251))
  assert not os.listdir(str(tmp_path / 'out'))


def test_inputs_and_foreign_files_are_not_replaced(tmp_path):
  path = tmp_path / 'freeze.pb'
  path.write_bytes(b'graph')
  for function, arguments in ((convert, [str(path), path]),
                              (quantize, [str(path), tmp_path, path])):
    with pytest.raises(InputError, match='is an input of this command'):
      function(*arguments)
  (tmp_path / 'x.tflite.json').write_text('{"my": "numbers"}')
  with pytest.raises(InputError, match='x.tflite.json exists and was not wr'):
    convert(str(path), tmp_path / 'x.tflite')


# --- Post-training quantization --------------------------------------------


def quantize(graph, folder, out, **arguments):
  arguments = dict(dict(input_type='uint8', sample_num=4), **arguments)
  return tflite_conversion.post_training_quantize(options.CalibrationOptions(
      graph_def=graph, dataset_dir=str(folder), out_tflite=str(out), **NODES,
      **arguments))


@pytest.mark.modern
@pytest.mark.tf2
def test_post_training_model_predicts_nearly_like_the_graph(
    graph, images, tmp_path):
  out = str(tmp_path / 'ptq.tflite')
  result = quantize(graph, images, out)
  assert result.operations == {'QUANTIZE': 1, 'CONV_2D': 2, 'ARG_MAX': 1}
  tensor = input_of(out)
  assert tensor.dtype == np.uint8
  model = tflite.read(out)
  convolution = next(op for op in model.operators if op.kind == 'CONV_2D')
  assert model.tensors[convolution.inputs[1]].dtype == np.int8
  assert len(model.tensors[convolution.inputs[1]].scales) == 6
  with Image.open(str(images / 'images' / 'img_10.png')) as image:
    pixels = np.array(image)
  real = (tensor.scales[0] * (pixels.astype(np.float32) -
                              tensor.zero_points[0])).astype(np.float32)
  np.testing.assert_allclose(real, pixels / 127.5 - 1, atol=0.02)
  labels = labels_of(out, pixels)
  assert np.mean(labels == graph_labels(graph, real)) > 0.95
  assert len(np.unique(labels)) > 2

  with open(out + '.json') as content:
    calibration = json.load(content)['calibration']
  assert calibration['images'] == ['img_{}.png'.format(number)
                                   for number in (0, 1, 2, 10)]
  assert len(calibration['sha1']) == 40


@pytest.mark.modern
@pytest.mark.tf2
def test_calibration_uses_only_the_first_images(graph, images, tmp_path):
  quantize(graph, images, tmp_path / 'all.tflite')
  quantize(graph, images / 'images', tmp_path / 'three.tflite', sample_num=3)
  (images / 'images' / 'img_10.png').unlink()
  quantize(graph, images, tmp_path / 'only.tflite', sample_num=3)
  contents = {path.stem: path.read_bytes()
              for path in tmp_path.glob('*.tflite')}
  assert contents['three'] == contents['only']
  assert contents['three'] != contents['all']
  # Pixels of 120 to 135 are about [-0.06, 0.06]; those of 0 to 255 [-1, 1].
  assert input_of(str(tmp_path / 'three.tflite')).scales[0] < 0.001
  assert input_of(str(tmp_path / 'all.tflite')).scales[0] == pytest.approx(
      2 / 255, rel=0.05)


@pytest.mark.tf2
def test_post_training_file_matches_the_reference(graph, images, tmp_path):
  """post_training_quant.py divides uint8 in float64, so bytes must be equal."""
  def reference_images():
    for number in range(3):
      with Image.open(str(images / 'images' / 'img_{}.png'.format(number))) as (
          image):
        yield [(np.array(image) / 127.5 - 1)[np.newaxis].astype(np.float32)]

  out = tmp_path / 'ptq.tflite'
  quantize(graph, images, out, sample_num=3)
  converter = tf.lite.TFLiteConverter.from_frozen_graph(graph, ['in'], ['out'])
  converter.optimizations = [tf.lite.Optimize.DEFAULT]
  converter.representative_dataset = reference_images
  converter.inference_input_type = tf.uint8
  converter.inference_output_type = tf.uint8
  assert out.read_bytes() == converter.convert()


def ptq_refusal(tmp_path, graph, images, **arguments):
  return refusal_of(
      tflite_conversion.post_training_quantize, tmp_path, graph_def=graph,
      **dict({'dataset_dir': str(images), 'input_type': 'uint8',
              'sample_num': 4}, **arguments))


def test_refuses_too_few_or_unsuitable_images(
    graph, quantized_graph, images, tmp_path):
  for arguments, words in (
      ({'sample_num': 5}, 'too few images: 4, expected at least sample_num=5'),
      ({'sample_num': 0}, 'sample_num=0: expected a whole number from 1 to'),
      ({'images': images / 'none'}, 'no such folder'),
      ({'graph': quantized_graph}, 'quantization-aware graph')):
    arguments = dict({'graph': graph, 'images': images}, **arguments)
    assert words in ptq_refusal(tmp_path, **arguments)
  for pixels, words in ((np.zeros([SIDE, SIDE + 1, 3]), '8x9 RGB'),
                        (np.zeros([SIDE, SIDE]), '8x8 L')):
    save_image(images / 'images' / 'img_1.png', pixels)
    assert 'img_1.png: {}, expected 8x8 RGB'.format(words) in ptq_refusal(
        tmp_path, graph, images)


@pytest.mark.tf2
@pytest.mark.modern
def test_float_input_stays_float(graph, images, tmp_path):
  result = quantize(graph, images, tmp_path / 'ptq.tflite', input_type='float')
  assert result.input == 'float32 1x8x8x3'


# --- Scripts ---------------------------------------------------------------


def options_of(script, *arguments):
  return script_flags.SCRIPTS[script].arguments(
      flag_groups.parsed(script, *arguments))['options']


QUANTIZE, CONVERT = 'post_training_quant.py', 'scripts/convert_tflite.py'
GRAPH = ['--graph_def=g', '--out_tflite=o']


@pytest.mark.parametrize('script, arguments, words', [
    (QUANTIZE, GRAPH + ['--input_type=uint8'], 'dataset_dir is required'),
    (QUANTIZE, ['--dataset_dir=d', '--out_tflite=o'], 'graph_def is required'),
    (QUANTIZE, GRAPH + ['--dataset_dir=d'], 'input_type is required: float'),
    (QUANTIZE, ['--input_type=int8'], 'input_type'),
    (CONVERT, GRAPH, 'mode is required: float'),
    (CONVERT, GRAPH + ['--mode=float', '--quantized_input_stats=1,1'],
     'has no effect with --mode=float'),
    (CONVERT, GRAPH + ['--mode=qat', '--quantized_input_stats=128'],
     'expected MEAN,DEVIATION'),
    (CONVERT, GRAPH + ['--mode=qat', '--quantized_input_stats=128,0'],
     'a deviation above 0'),
])
def test_bad_flags_are_refused(script, arguments, words):
  with pytest.raises(InputError) as error:
    options_of(script, *arguments)
  assert words in str(error.value)


def test_flags_have_the_published_defaults():
  nodes = {
      'input_node': constants.INPUT_NODE, 'output_node': constants.OUTPUT_NODE}
  given = options_of(QUANTIZE, '--dataset_dir=d', '--input_type=uint8', *GRAPH)
  assert given._asdict() == dict(
      nodes, dataset_dir='d', graph_def='g', out_tflite='o',
      input_type='uint8', sample_num=500, calibrator=None)
  given = options_of(CONVERT, '--mode=qat', *GRAPH)
  assert given._asdict() == dict(
      nodes, graph_def='g', out_tflite='o', mode='qat',
      quantized_input_stats=(128.0, 128.0))


@pytest.mark.tf1
@pytest.mark.modern
@pytest.mark.slow
def test_script_runs_without_an_activated_environment(
    quantized_graph, tmp_path):
  """TensorFlow only looks for its converter on PATH."""
  out = str(tmp_path / 'qat.tflite')
  done = scripts.run(
      'scripts/convert_tflite.py', '--graph_def=' + quantized_graph,
      '--out_tflite=' + out, '--mode=qat', '--input_node=in',
      '--output_node=out', env={'PATH': '/usr/bin:/bin'})
  assert done.stdout.startswith('{}: {} bytes, 3 operators'.format(
      out, os.path.getsize(out)))
  assert '2 CONV_2D' in done.stdout


@pytest.mark.modern
@pytest.mark.tf2
def test_post_training_script_runs_without_an_activated_environment(
    graph, images, tmp_path):
  out = str(tmp_path / 'ptq.tflite')
  done = scripts.run(
      'post_training_quant.py', '--graph_def=' + graph, '--out_tflite=' + out,
      '--dataset_dir={}'.format(images), '--input_type=uint8',
      '--sample_num=2', '--input_node=in', '--output_node=out',
      env={'PATH': '/usr/bin:/bin'})
  assert done.stdout.startswith('{}: {} bytes, 4 operators'.format(
      out, os.path.getsize(out)))
  assert 'INFO' not in done.stderr


@pytest.mark.tf1
def test_post_training_script_needs_another_environment():
  line = scripts.refusal('post_training_quant.py')
  assert 'needs TensorFlow 2.2 or 2.21 (found 1.15' in line


# --- The published files ---------------------------------------------------


def export_reference(reference_dir, kind, folder):
  """Freezes the reference's checkpoint; returns the path of the graph."""
  return freeze.export(
      PUBLISHED._replace(quantize_delay_step=0 if kind == 'qat' else -1),
      options.ExportOptions(
          checkpoint_path=os.path.join(reference_dir, 'checkpoint_' + kind),
          export_path=str(folder))).path


def kinds(model):
  return [operator.kind for operator in model.operators]


def convolution_weights(model):
  """Returns the weights of all convolutions, in the order of the file."""
  return [model.tensors[operator.inputs[1]].data for operator in model.operators
          if operator.kind in ('CONV_2D', 'DEPTHWISE_CONV_2D')]


def different_weights(ours, published):
  """Returns (number of different weights, number of weights)."""
  pairs = list(zip(convolution_weights(ours), convolution_weights(published)))
  return (sum(np.count_nonzero(mine != theirs) for mine, theirs in pairs),
          sum(mine.size for mine, unused_theirs in pairs))


def quantization(model):
  """Returns scales and zero points of all tensors, by operator and position.

  Operators are named by their first output: 1.15 and 2.21 agree on it, except
  for a suffix after a semicolon. Other names and the order differ.
  """
  return {
      (operator.kind, model.tensors[operator.outputs[0]].name.split(';')[0],
       number): (list(model.tensors[position].scales),
                 list(model.tensors[position].zero_points))
      for operator in model.operators
      for number, position in enumerate(operator.inputs + operator.outputs)}


def check_quantization(found, expected):
  assert set(found) == set(expected)
  for place, (scales, zero_points) in found.items():
    assert zero_points == expected[place][1], place
    np.testing.assert_allclose(
        scales, expected[place][0], rtol=2e-7, err_msg=str(place))


@pytest.fixture(scope='module')
def quantization_aware_file(reference_dir, tmp_path_factory):
  """The TFLite file of the published quantization-aware checkpoint."""
  folder = tmp_path_factory.mktemp('qat')
  return tflite_conversion.convert(options.ConversionOptions(
      graph_def=export_reference(reference_dir, 'qat', folder),
      out_tflite=str(folder / 'freeze_qat.tflite'), mode='qat')).path


@pytest.mark.tf1
@pytest.mark.modern
@pytest.mark.extended
def test_reproduces_the_published_quantization_aware_file(
    quantization_aware_file, reference_dir, ade20k_sample_dir):
  """1.15 made the published file; 2.21 must not clip concatenations."""
  published_path = os.path.join(reference_dir, 'freeze_qat.tflite')
  ours, published = map(
      tflite.read, (quantization_aware_file, published_path))
  assert ours.operation_counts() == published.operation_counts()
  assert len(ours.tensors) == len(published.tensors)
  check_quantization(quantization(ours), quantization(published))
  if tf.__version__.startswith('1.'):
    assert os.path.getsize(quantization_aware_file) == 2348952
    assert kinds(ours) == kinds(published)
    assert different_weights(ours, published) == (0, WEIGHTS)
    assert [tensor[:3] for tensor in ours.tensors] == [
        tensor[:3] for tensor in published.tensors]  # name, shape and dtype
  check_labels(quantization_aware_file, published_path,
               os.path.join(ade20k_sample_dir, 'images', 'validation'))


@pytest.mark.modern
@pytest.mark.extended
def test_labels_of_real_images_match_the_published_file(
    quantization_aware_file, reference_dir, ade20k_real_dir):
  check_labels(quantization_aware_file,
               os.path.join(reference_dir, 'freeze_qat.tflite'),
               os.path.join(ade20k_real_dir, 'images', 'validation'))


def check_labels(path, published_path, folder):
  """Checks that two TFLite files give equal labels for all images."""
  for name in sorted(os.listdir(folder)):
    with Image.open(os.path.join(folder, name)) as image:
      pixels = np.array(image.convert('RGB').resize((512, 512)))
    labels = labels_of(path, pixels)
    np.testing.assert_array_equal(labels, labels_of(published_path, pixels))
    assert len(np.unique(labels)) > 1


def test_concatenations_use_the_union_of_their_ranges():
  with tf.Graph().as_default() as graph:
    net = tf.placeholder(tf.float32, [1, 4, 4, 3])
    parts = [tf.quantization.fake_quant_with_min_max_args(
        net, low, high, name=name) for low, high, name in (
            (-1, 6, 'first'), (-3, 2, 'second'), (-3, 6, 'third'))]
    tf.concat(parts, 3, name='concat')
  nodes = {node.name: node for node
           in tflite_conversion.with_quantized_concatenations(graph).node}
  found = []
  for name in list(nodes['concat'].input)[:-1]:
    ranges = []
    while nodes[name].op == 'FakeQuantWithMinMaxArgs':
      ranges.insert(0, (nodes[name].attr['min'].f, nodes[name].attr['max'].f))
      name = nodes[name].input[0]
    found.append(ranges)
  # Each input keeps its own range before the union; the third is the union.
  assert found == [[(-1, 6), (-1, 6), (-3, 6)], [(-3, 2), (-3, 2), (-3, 6)],
                   [(-3, 6)]]


# Several branches meet in each concatenation, and one concatenation is an input
# of another. The files hold the results of 1.15's converter.
SEVERAL_CONCATENATIONS = {
    'qat_stages.json': {'decoder_output_stride': (8, 4),
                        'atrous_rates': (2, 3)},
    'qat_unprojected.json': {'decoder_output_stride': (4,),
                             'atrous_rates': (2,),
                             'aspp_with_concat_projection': False}}


def write_network(path, **changes):
  """Freezes a narrow network in which all ranges differ."""
  model = options.ModelOptions(**dict(
      changes, crop_size=(65, 65), num_classes=5, depth_multiplier=0.25,
      aspp_convs_filters=8, decoder_filters=8, quantize_delay_step=0))

  def value(variable):
    name = variable.op.name
    drawn = golden_weights.draw(name, variable.shape.as_list())
    if name.endswith(('_quant/min', '_quant/max')) and '/weights_' not in name:
      random = np.random.RandomState(zlib.crc32(name.encode()))
      drawn *= random.uniform(0.2, 3)
    return drawn

  with tf.Graph().as_default() as graph, tf.Session() as session:
    images = tf.placeholder(
        tf.float32, (1,) + model.crop_size + (3,), constants.IMAGE_NODE)
    deeplab_v3.predictions(deeplab_v3.logits(images, model), model)
    variables = tf.global_variables()
    session.run([variable.initializer for variable in variables], {
        variable.initializer.inputs[1]: value(variable)
        for variable in variables})
    frozen = tf.graph_util.convert_variables_to_constants(
        session, graph.as_graph_def(), [constants.OUTPUT_NODE])
  path.write_bytes(frozen.SerializeToString())
  return str(path)


@pytest.mark.tf1
@pytest.mark.modern
@pytest.mark.extended
@pytest.mark.parametrize('name', sorted(SEVERAL_CONCATENATIONS))
def test_nested_concatenations_are_quantized_as_in_1_15(
    name, golden_dir, tmp_path):
  out = str(tmp_path / 'out.tflite')
  tflite_conversion.convert(options.ConversionOptions(
      graph_def=write_network(tmp_path / 'x.pb',
                              **SEVERAL_CONCATENATIONS[name]),
      out_tflite=out, mode='qat'))
  found = quantization(tflite.read(out))
  # The result of 1.15, one line per operator.
  with open(os.path.join(golden_dir, name)) as content:
    expected = {(kind, output, number): tensor
                for kind, output, tensors in json.load(content)
                for number, tensor in enumerate(tensors)}
  check_quantization(found, expected)


@pytest.mark.tf2
@pytest.mark.modern
@pytest.mark.extended
def test_reproduces_the_published_post_training_file(
    reference_dir, ade20k_sample_dir, tmp_path):
  folder = os.path.join(ade20k_sample_dir, 'images', 'training')
  for number, name in enumerate(sorted(os.listdir(folder))):
    with Image.open(os.path.join(folder, name)) as image:
      save_image(tmp_path / 'images' / 'img_{}.png'.format(number),
                 image.resize((512, 512)))
  out = str(tmp_path / 'freeze_ptq.tflite')
  result = tflite_conversion.post_training_quantize(options.CalibrationOptions(
      dataset_dir=str(tmp_path), out_tflite=out, input_type='uint8',
      graph_def=export_reference(reference_dir, 'float', tmp_path),
      sample_num=number + 1))
  published_path = os.path.join(reference_dir, 'freeze_ptq.tflite')
  ours, published = tflite.read(out), tflite.read(published_path)
  if not tf.__version__.startswith('2.2.'):
    # A newer converter gives two operators less and some other weights.
    assert ours.operation_counts() == dict(
        published.operation_counts(), QUANTIZE=1)
    different, total = different_weights(ours, published)
    assert total == WEIGHTS
    assert different <= 5000
    return
  assert result.size == os.path.getsize(published_path) == 2937616
  assert kinds(ours) == kinds(published)
  # Activation ranges and bias scales depend on the images.
  assert [tensor[:3] for tensor in ours.tensors] == [
      tensor[:3] for tensor in published.tensors]
  different, total = different_weights(ours, published)
  assert total == WEIGHTS
  assert different <= 100
