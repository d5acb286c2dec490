"""Tests the frozen graph: its nodes, its description, and refusals."""
import collections
import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab import errors
from deeplab.checkpoints import compatibility
from deeplab.config import options
from deeplab.errors import InputError
from deeplab.export import freeze
from deeplab.models import frozen_graph
from deeplab.models import predictors
from deeplab.nets import deeplab_v3
from deeplab.nets import mobilenet_v2
from deeplab.storage import files
from tests import golden_weights
from tests import scripts

pytestmark = [pytest.mark.tf1, pytest.mark.modern]

BACKBONE = mobilenet_v2.BLOCKS, mobilenet_v2.DECODER_END_POINTS
CROP = (33, 33)
MODEL = options.ModelOptions(crop_size=CROP, decoder_output_stride=(4,))


def make_checkpoint(folder, model=MODEL):
  """Writes a checkpoint with golden weights; returns its prefix."""
  with tf.Graph().as_default(), tf.Session() as session:
    deeplab_v3.logits(tf.zeros((1,) + model.crop_size + (3,)), model)
    golden_weights.load(session, tf.global_variables())
    return tf.train.Saver().save(
        session, str(folder / 'model.ckpt'), global_step=3)


@pytest.fixture
def deep(monkeypatch):
  """Restores the whole backbone in a module that makes it shallow."""
  monkeypatch.setattr(mobilenet_v2, 'BLOCKS', BACKBONE[0])
  monkeypatch.setattr(mobilenet_v2, 'DECODER_END_POINTS', BACKBONE[1])


@pytest.fixture(scope='module')
def checkpoint(shallow_module, tmp_path_factory):
  return make_checkpoint(tmp_path_factory.mktemp('checkpoint'))


def run_export(checkpoint, path, model=MODEL, **changes):
  return freeze.export(model, options.ExportOptions(
      checkpoint_path=checkpoint, export_path=str(path), **changes))


@pytest.fixture(scope='module')
def plain(checkpoint, tmp_path_factory):
  """The ExportResult of this checkpoint with default options."""
  return run_export(checkpoint, tmp_path_factory.mktemp('plain'))


def images(size=CROP, count=1):
  return np.random.RandomState(0).uniform(
      0, 255, (count,) + size + (3,)).astype(np.float32)


def predict(path, batch, **nodes):
  with predictors.open_frozen_graph(path, **nodes) as predictor:
    return predictor.predict(batch)


@pytest.mark.slow
def test_the_graph_has_the_published_nodes_and_operations(deep, tmp_path):
  model = MODEL._replace(crop_size=(512, 512))
  checkpoint = make_checkpoint(tmp_path, MODEL)
  result = run_export(str(tmp_path), tmp_path / 'out', model)
  assert result.path == str(tmp_path / 'out' / 'freeze.pb')
  assert result.checkpoint == checkpoint
  assert result.size == os.path.getsize(result.path)
  assert result.nodes == 884
  expected = {'Conv2D': 41, 'DepthwiseConv2dNative': 19,
              'FusedBatchNormV3': 59, 'Relu6': 34, 'Relu': 8, 'AddV2': 10,
              'ResizeBilinear': 3}
  assert {name: result.operations[name] for name in expected} == expected
  graph_def = frozen_graph.read_graph_def(result.path)
  assert result.operations == collections.Counter(
      node.op for node in graph_def.node)
  graph = frozen_graph.import_graph(result.path, graph_def)
  for name, shape, dtype in (
      (constants.IMAGE_NODE, [1, 512, 512, 3], tf.float32),
      (constants.INPUT_NODE, [1, 512, 512, 3], tf.float32),
      (constants.OUTPUT_NODE, [1, 512, 512], tf.int32)):
    tensor = graph.get_tensor_by_name(name + ':0')
    assert tensor.shape.as_list() == shape and tensor.dtype == dtype
  assert graph.get_operation_by_name(constants.IMAGE_NODE).type == 'Placeholder'
  # Converters copy these names into TFLite files.
  for name in ('MobilenetV2/expanded_conv/depthwise/depthwise',
               'MobilenetV2/expanded_conv_1/project/BatchNorm/'
               'FusedBatchNormV3', 'MobilenetV2/expanded_conv_2/add',
               'logits/semantic/BiasAdd'):
    graph.get_operation_by_name(name)
  assert sorted(os.listdir(str(tmp_path / 'out'))) == [
      'freeze.json', 'freeze.pb']


@pytest.mark.slow
def test_checkpoint_and_frozen_graph_predict_the_same(checkpoint, plain):
  batch = images(count=3)
  with predictors.CheckpointPredictor(MODEL) as network:
    network.restore(checkpoint)
    expected = network.predict(batch)
  for name in (constants.INPUT_NODE, constants.IMAGE_NODE):
    labels = predict(plain.path, batch, input_node=name)
    assert labels.dtype == expected.dtype == np.int32
    np.testing.assert_array_equal(labels, expected)
  assert len(np.unique(expected)) > 3


@pytest.mark.parametrize('crop_size, stride', [
    ((65, 97), 16), ((64, 64), 8), ((65, 65), 32)])
@pytest.mark.extended
def test_exports_any_size_and_stride(checkpoint, tmp_path, crop_size, stride):
  model = MODEL._replace(crop_size=crop_size, output_stride=stride)
  path = run_export(checkpoint, tmp_path, model).path
  assert predict(path, images(crop_size)).shape == (1,) + crop_size


@pytest.mark.slow
def test_scales_and_flipping_keep_the_interface_of_the_graph(
    checkpoint, plain, tmp_path):
  batch = images()
  scaled = run_export(
      checkpoint, tmp_path / 'scaled.pb', inference_scales=(0.75, 1.0))
  mirroring = run_export(
      checkpoint, tmp_path / 'mirroring.pb', add_flipped_images=True)
  expected = predict(plain.path, batch)
  for result in (scaled, mirroring):
    assert result.operations['Conv2D'] == 2 * plain.operations['Conv2D']
    labels = predict(result.path, batch)
    assert labels.shape == expected.shape and (labels != expected).any()
  # Labels of a mirrored image are mirrored labels.
  mirrored = predict(mirroring.path, batch[:, :, ::-1])
  assert (labels == mirrored[:, :, ::-1]).mean() > 0.99


@pytest.mark.slow
def test_the_description_names_checkpoint_and_options(checkpoint, tmp_path):
  run_export(checkpoint, tmp_path / 'named.pb', save_inference_graph=True,
             preprocessing=options.PreprocessOptions(
                 crop_size=CROP, min_resize_value=33, max_resize_value=33,
                 resize_factor=16))
  assert sorted(os.listdir(str(tmp_path))) == [
      'inference_graph.pbtxt', 'named.json', 'named.pb']
  with open(str(tmp_path / 'named.json')) as content:
    description = json.load(content)
  assert description['checkpoint'] == checkpoint
  assert description['model']['crop_size'] == [33, 33]
  assert description['preprocessing'] == {
      'crop_size': [33, 33], 'min_resize_value': 33, 'max_resize_value': 33,
      'resize_factor': 16}
  assert description['geometry'] == (
      'resized to 33..33, factor 16, padded to 33x33')
  assert len(description['output']['classes']) == 32
  text = (tmp_path / 'inference_graph.pbtxt').read_text()
  assert 'Variable' in text and constants.IMAGE_NODE in text


@pytest.mark.extended
@pytest.mark.parametrize('changes', [
    {'output_stride': 8, 'atrous_rates': (2,), 'use_bounded_activation': True,
     'aspp_with_separable_conv': False, 'quantize_delay_step': 0},
    {'decoder_use_sum_merge': True, 'decoder_use_separable_conv': False,
     'decoder_output_is_logits': True, 'aspp_with_concat_projection': False,
     'prediction_with_upsampled_logits': False}])
def test_graphs_of_other_structures_are_accepted(
    shallow_module, tmp_path, changes):
  model = MODEL._replace(crop_size=(64, 64), **changes)
  path = run_export(make_checkpoint(tmp_path, model), tmp_path, model).path
  assert predict(path, images((64, 64))).shape == (1, 64, 64)


@pytest.mark.slow
def test_a_checkpoint_of_another_network_is_refused(checkpoint, tmp_path):
  for changes, words in (
      ({'decoder_output_stride': ()}, 'decoder_output_stride=4'),
      ({'num_classes': 151}, 'num_classes=32'),
      ({'depth_multiplier': 0.5}, 'depth_multiplier'),
      ({'quantize_delay_step': 0}, 'drop quantize_delay_step')):
    with pytest.raises(InputError, match=words):
      run_export(checkpoint, tmp_path, MODEL._replace(**changes))
  assert not os.listdir(str(tmp_path))


def test_options_beside_the_checkpoint_are_compared(checkpoint, tmp_path):
  compatibility.write_options(
      os.path.dirname(checkpoint), MODEL._replace(use_bounded_activation=True),
      optimizer='adam')
  try:
    with pytest.raises(InputError, match='use_bounded_activation: '
                       'checkpoint was trained with true, got false'):
      run_export(checkpoint, tmp_path)
  finally:
    os.remove(os.path.join(
        os.path.dirname(checkpoint), constants.MODEL_OPTIONS_FILE))


@pytest.mark.extended
def test_equal_inputs_give_equal_bytes(checkpoint, tmp_path):
  changes = {'save_inference_graph': True}
  run_export(checkpoint, tmp_path / 'here', **changes)
  # Sets have another order in another process.
  subprocess.check_call(
      [sys.executable, '-c', """
import sys
sys.path.insert(0, sys.argv.pop(1))
from tests import shallow
from tests.export import test_export
shallow.make(setattr)
test_export.run_export(*sys.argv[1:], save_inference_graph=True)
""", scripts.REPOSITORY, checkpoint, str(tmp_path / 'there')],
      env=dict(os.environ, PYTHONHASHSEED='1'), stderr=subprocess.DEVNULL)
  here, there = ({path.name: path.read_bytes()
                  for path in (tmp_path / name).iterdir()}
                 for name in ('here', 'there'))
  assert sorted(here) == ['freeze.json', 'freeze.pb', 'inference_graph.pbtxt']
  assert here == there


@pytest.mark.slow
def test_an_export_is_atomic(checkpoint, tmp_path, monkeypatch):
  def fail(path, unused_content):
    open(path, 'wb').close()
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  (tmp_path / 'freeze.pb').write_bytes(b'old')
  write = files._write
  monkeypatch.setattr(files, '_write', lambda path, content: (
      fail if len(content) > 10 ** 5 else write)(path, content))
  with pytest.raises(OSError) as error:
    run_export(checkpoint, tmp_path)
  assert errors.of_system(error.value) == (
      '{}: No space left on device'.format(tmp_path / 'freeze.pb'))
  assert (tmp_path / 'freeze.pb').read_bytes() == b'old'
  assert os.listdir(str(tmp_path)) == ['freeze.pb']


def test_outputs_are_checked_before_the_work(checkpoint, tmp_path, monkeypatch):
  monkeypatch.setattr(freeze, '_build', None)  # not called
  for name in ('freeze.pb', 'freeze.json', 'inference_graph.pbtxt'):
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match='export_path={0}: {0}/{1} is a '
                       'folder, expected the name of a file'.format(
                           tmp_path, name)):
      run_export(checkpoint, tmp_path, save_inference_graph=True)
    (tmp_path / name).rmdir()
  (tmp_path / 'freeze.json').write_text('{"my": "numbers"}')
  with pytest.raises(InputError, match='freeze.json exists and was not wr'):
    run_export(checkpoint, tmp_path)
  with pytest.raises(InputError, match='freeze.json is a file; expected a fol'):
    run_export(checkpoint, tmp_path / 'freeze.json')
  with pytest.raises(InputError, match='checkpoint_path=.*no checkpoint'):
    run_export(str(tmp_path), tmp_path / 'out')


@pytest.mark.slow
def test_files_of_an_earlier_export_are_named(checkpoint, tmp_path, caplog):
  (tmp_path / 'freeze.onnx').write_text('')
  run_export(checkpoint, tmp_path)
  assert ('{0}/freeze.onnx: from an earlier export; the new {0}/freeze.json '
          'does not'.format(tmp_path)) in caplog.text


@pytest.mark.parametrize('scales, words', [
    ((0.0,), 'inference_scales=0.0: expected a list, each a number above 0'),
    ((), 'inference_scales=: expected a list'),
    ((1.0, 0.001), 'inference_scales=1.0,0.001: at 0.001 the input has '
                   'crop_size=2,2: expected at least output_stride=16 a side'),
    ((1.0, 16.0), 'at 16.0 the input has crop_size=16369,16369: expected'),
])
def test_scales_that_give_a_bad_size_are_refused(
    checkpoint, tmp_path, scales, words):
  model = MODEL._replace(crop_size=(1024, 1024))
  with pytest.raises(InputError, match=words):
    run_export(checkpoint, tmp_path / 'out', model, inference_scales=scales)
  assert not os.path.exists(str(tmp_path / 'out'))


def test_graphs_that_cannot_be_evaluated_are_refused(plain, tmp_path):
  with pytest.raises(InputError, match='has no node Input; placeholders: '
                     'ImageTensor; outputs: ArgMax; give input_node'):
    predictors.open_frozen_graph(plain.path, input_node='Input')
  with pytest.raises(InputError, match='give output_node'):
    predictors.open_frozen_graph(
        plain.path, output_node='SemanticPredictions')
  for content in (b'', b'no graph'):
    (tmp_path / 'bad.pb').write_bytes(content)
    with pytest.raises(InputError, match='not a frozen GraphDef'):
      frozen_graph.read_graph_def(str(tmp_path / 'bad.pb'))
  with pytest.raises(InputError, match='no such file'):
    frozen_graph.read_graph_def(str(tmp_path / 'none.pb'))
