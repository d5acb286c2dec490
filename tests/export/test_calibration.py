"""Ranges of the fast calibrator, compared with those of TensorFlow 2.21."""
import numpy as np
from PIL import Image
import pytest
import tensorflow.compat.v1 as tf

from deeplab.config import options
from deeplab.errors import InputError
from deeplab.export import calibration
from deeplab.export import tflite_conversion
from deeplab.models import interpreters
from deeplab.models import tflite
from deeplab.tools.benchmark import cases
from deeplab.tools.benchmark import graphs

NODES = {'input_node': 'in', 'output_node': 'out'}
SIDE = cases.QUICK.side


def quantize(graph, folder, out, calibrator=None, **changes):
  """Returns the interpreted TFLite file of post-training quantization."""
  tflite_conversion.post_training_quantize(options.CalibrationOptions(
      dataset_dir=str(folder), graph_def=str(graph), out_tflite=str(out),
      input_type='uint8', sample_num=3, calibrator=calibrator, **changes))
  return tflite.read(str(out))


def write_images(folder, side):
  random = np.random.RandomState(0)
  for number in range(3):
    # Images differ in contrast, so that each range is one image's.
    pixels = random.randint(0, 256 - 40 * number, [side, side, 3])
    Image.fromarray(pixels.astype(np.uint8)).save(
        str(folder / 'img_{}.png'.format(number)))


@pytest.fixture(scope='module')
def network(shallow_module, tmp_path_factory):
  """A folder with a frozen graph and its calibration images."""
  folder = tmp_path_factory.mktemp('network')
  write_images(folder, SIDE)
  graphs.export(cases.QUICK, lambda *words: str(folder.joinpath(*words)),
                quantized=False)
  return folder


@pytest.mark.modern
def test_ranges_match_tensorflow_except_for_terms_of_sums(network):
  models, labels = [], []
  for calibrator in ('fast', 'tensorflow'):
    out = network / (calibrator + '.tflite')
    models.append(quantize(
        network / 'float' / 'freeze.pb', network, out, calibrator))
    with interpreters.TflitePredictor(str(out)) as predictor, (
        Image.open(str(network / 'img_0.png'))) as image:
      labels.append(predictor.predict(np.array(image)[np.newaxis]))
  ours, theirs = models
  terms = {position for operator in ours.operators if operator.kind == 'ADD'
           for position in operator.inputs}
  different = {
      position for position, (one, other) in enumerate(
          zip(ours.tensors, theirs.tensors)) if one.scales != other.scales}
  assert len(ours.tensors) == len(theirs.tensors)
  assert different <= terms
  assert np.mean(labels[0] == labels[1]) > 0.9
  assert len(np.unique(labels[0])) > 5


def write_sum(path, *, is_used_again=False, size=1.0):
  """Writes a graph whose term is small and whose sum is large."""
  random = np.random.RandomState(0)

  def conv(net, size, name):
    weights = random.uniform(-size, size, [1, 1, net.shape.as_list()[3], 4])
    return tf.nn.bias_add(
        tf.nn.conv2d(net, weights.astype(np.float32), strides=1,
                     padding='SAME'), np.zeros([4], np.float32), name=name)

  with tf.Graph().as_default() as graph:
    images = tf.placeholder(tf.float32, [1, 8, 8, 3], name='in')
    base = tf.nn.relu6(conv(images, 9.0, 'base'))
    term = conv(base, 0.04 * size, 'term')
    net = conv(base + term, 1.0, 'last')
    if is_used_again:
      net = net * term
    tf.argmax(net, 3, output_type=tf.int32, name='out')
  path.write_bytes(graph.as_graph_def().SerializeToString())
  return path


def largest_of_term(model):
  """Returns the largest value of the second convolution, for int8."""
  _, output, _ = [
      model.tensors[operator.outputs[0]] for operator in model.operators
      if operator.kind == 'CONV_2D']
  return output.scales[0] * (127 - output.zero_points[0])


@pytest.mark.modern
@pytest.mark.parametrize('is_used_again', [False, True])
def test_tensorflow_gives_a_term_the_range_of_its_sum(is_used_again, tmp_path):
  """If this fails, docs/quantization.md is out of date.

  Values of the term stay below 1, those of the sum reach 6. TensorFlow 2.21
  computes the sum in place of the term, unless that is used again.
  """
  write_images(tmp_path, 8)
  graph = write_sum(tmp_path / 'x.pb', is_used_again=is_used_again)
  outs = [tmp_path / name for name in ('fast', 'tensorflow')]
  ours, theirs = (
      quantize(graph, tmp_path, out, out.name, **NODES) for out in outs)
  assert 0.2 < largest_of_term(ours) < 1
  if is_used_again:
    assert outs[0].read_bytes() == outs[1].read_bytes()
  else:
    assert largest_of_term(theirs) > 5


@pytest.mark.modern
def test_refuses_activations_that_are_not_finite(tmp_path):
  write_images(tmp_path, 8)
  graph = write_sum(tmp_path / 'x.pb', size=8e39)
  with pytest.raises(InputError, match='x.pb.* activation .* infinite'):
    quantize(graph, tmp_path, tmp_path / 'out', **NODES)
  assert not (tmp_path / 'out').exists()


@pytest.mark.modern
@pytest.mark.tf2
def test_falls_back_to_the_calibrator_of_tensorflow(
    monkeypatch, caplog):
  has_names = tf.__version__.startswith('2.21.')
  assert calibration.is_available == has_names
  assert calibration.converter_class(None)[0] == (
      'fast' if has_names else 'tensorflow')
  assert caplog.messages == []
  monkeypatch.setattr(calibration, 'is_available', False)
  for wanted, is_said in (
      ('fast', True), (None, has_names), ('tensorflow', False)):
    caplog.clear()
    assert calibration.converter_class(wanted) == (
        'tensorflow', tf.lite.TFLiteConverter)
    assert [record.getMessage() for record in caplog.records] == [
        'TensorFlow {} cannot calibrate fast: using its own calibrator, which '
        'takes several times as long'.format(tf.__version__)] * is_said
