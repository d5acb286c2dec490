"""The frozen graph: nodes, sizes, what is written, what is refused."""
import collections
import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from deeplab import checkpoints
from deeplab import contract
from deeplab import errors
from deeplab import export
from deeplab import files
from deeplab import graph_file
from deeplab import options
from deeplab import predictors
from deeplab.errors import InputError
from deeplab.nets import deeplab_v3
from tests import golden_weights
from tests import scripts

pytestmark = [pytest.mark.tf1, pytest.mark.modern, pytest.mark.slow]

MODEL = options.ModelOptions(
    crop_size=(65, 65), decoder_output_stride=(4,))


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
  """The prefix of a checkpoint with golden weights."""
  folder = tmp_path_factory.mktemp('checkpoint')
  with tf.Graph().as_default(), tf.Session() as session:
    deeplab_v3.logits(tf.zeros([1, 65, 65, 3]), MODEL)
    golden_weights.load(session, tf.global_variables())
    return tf.train.Saver().save(
        session, str(folder / 'model.ckpt'), global_step=3)


def run_export(checkpoint, path, model=MODEL, **changes):
  return export.export(model, options.ExportOptions(
      checkpoint_path=checkpoint, export_path=str(path), **changes))


@pytest.fixture(scope='module')
def plain(checkpoint, tmp_path_factory):
  """The ExportResult of that checkpoint, exported without any change."""
  return run_export(checkpoint, tmp_path_factory.mktemp('plain'))


@pytest.fixture(scope='module')
def mirroring(checkpoint, tmp_path_factory):
  """The same, with mirrored images added."""
  return run_export(checkpoint, tmp_path_factory.mktemp('mirroring'),
                    add_flipped_images=True)


def images(size=65, count=1):
  return np.random.RandomState(0).uniform(
      0, 255, [count, size, size, 3]).astype(np.float32)


def predict(predictor, batch):
  labels = predictor.predict(batch)
  predictor.close()
  return labels


def test_the_graph_has_the_published_nodes_and_operations(
    checkpoint, tmp_path):
  result = run_export(os.path.dirname(checkpoint), tmp_path / 'out',
                      MODEL._replace(crop_size=(512, 512)))
  assert result.path == str(tmp_path / 'out' / 'freeze.pb')
  assert result.checkpoint == checkpoint
  assert result.size == os.path.getsize(result.path)
  assert result.nodes == 884
  expected = {'Conv2D': 41, 'DepthwiseConv2dNative': 19,
              'FusedBatchNormV3': 59, 'Relu6': 34, 'Relu': 8, 'AddV2': 10,
              'ResizeBilinear': 3}
  assert {name: result.operations[name] for name in expected} == expected
  graph_def = graph_file.read_graph_def(result.path)
  assert result.operations == collections.Counter(
      node.op for node in graph_def.node)
  with tf.Graph().as_default() as graph:
    tf.import_graph_def(graph_def, name='')
    for name, shape, dtype in (
        (contract.IMAGE_NODE, [1, 512, 512, 3], tf.float32),
        (contract.INPUT_NODE, [1, 512, 512, 3], tf.float32),
        (contract.OUTPUT_NODE, [1, 512, 512], tf.int32)):
      tensor = graph.get_tensor_by_name(name + ':0')
      assert tensor.shape.as_list() == shape and tensor.dtype == dtype
    assert graph.get_operation_by_name(contract.IMAGE_NODE).type == (
        'Placeholder')
    # Names that converters carry into TFLite files.
    for name in ('MobilenetV2/expanded_conv/depthwise/depthwise',
                 'MobilenetV2/expanded_conv_1/project/BatchNorm/'
                 'FusedBatchNormV3', 'MobilenetV2/expanded_conv_2/add',
                 'logits/semantic/BiasAdd'):
      graph.get_operation_by_name(name)
  assert os.listdir(str(tmp_path / 'out')) and set(
      os.listdir(str(tmp_path / 'out'))) == {'freeze.pb', 'freeze.json'}


def test_checkpoint_and_frozen_graph_predict_the_same(checkpoint, plain):
  batch = images(count=3)
  network = predictors.CheckpointPredictor(MODEL)
  network.restore(checkpoint)
  from_checkpoint = predict(network, batch)
  from_graph = predict(predictors.open_frozen_graph(plain.path), batch)
  assert from_checkpoint.shape == (3, 65, 65)
  assert from_graph.dtype == from_checkpoint.dtype == np.int32
  np.testing.assert_array_equal(from_checkpoint, from_graph)
  assert len(np.unique(from_graph)) > 3


@pytest.mark.slow
@pytest.mark.parametrize('crop_size, stride', [
    ((65, 97), 16), ((64, 64), 8), ((65, 65), 32)])
def test_any_size_and_stride_exports(checkpoint, tmp_path, crop_size, stride):
  model = MODEL._replace(crop_size=crop_size, output_stride=stride)
  path = run_export(checkpoint, tmp_path, model).path
  labels = predict(
      predictors.open_frozen_graph(path),
      np.zeros((1,) + crop_size + (3,), np.float32))
  assert labels.shape == (1,) + crop_size


@pytest.mark.slow
def test_scales_and_mirroring_change_the_graph_but_not_its_interface(
    checkpoint, plain, mirroring, tmp_path):
  batch = images()
  expected = predict(predictors.open_frozen_graph(plain.path), batch)
  scaled = run_export(checkpoint, tmp_path, inference_scales=(0.75, 1.0))
  for result in (scaled, mirroring):
    assert result.operations['Conv2D'] == 82
    labels = predict(predictors.open_frozen_graph(result.path), batch)
    assert labels.shape == expected.shape and (labels != expected).any()


def test_mirroring_twice_is_no_mirroring(mirroring):
  batch = images()
  labels, mirrored = [
      predict(predictors.open_frozen_graph(mirroring.path), given)
      for given in (batch, batch[:, :, ::-1])]
  assert (labels == mirrored[:, :, ::-1]).mean() > 0.99


def test_the_description_says_what_the_graph_was_made_of(checkpoint, tmp_path):
  run_export(checkpoint, tmp_path / 'named.pb', save_inference_graph=True,
             preprocessing=options.PreprocessOptions(
                 crop_size=(65, 65), min_resize_value=65, max_resize_value=65,
                 resize_factor=16))
  assert sorted(os.listdir(str(tmp_path))) == [
      'inference_graph.pbtxt', 'named.json', 'named.pb']
  with open(str(tmp_path / 'named.json')) as content:
    description = json.load(content)
  assert description['checkpoint'] == checkpoint
  assert description['model']['crop_size'] == [65, 65]
  assert description['preprocessing'] == {
      'crop_size': [65, 65], 'min_resize_value': 65, 'max_resize_value': 65,
      'resize_factor': 16}
  assert description['geometry'] == (
      'resized to 65..65, factor 16, padded to 65x65')
  assert len(description['output']['classes']) == 32
  text = (tmp_path / 'inference_graph.pbtxt').read_text()
  assert 'Variable' in text and contract.IMAGE_NODE in text


@pytest.mark.slow
@pytest.mark.parametrize('quantized', [False, True])
@pytest.mark.parametrize('changes', [
    {'output_stride': 8, 'atrous_rates': (2,), 'use_bounded_activation': True,
     'aspp_with_separable_conv': False},
    {'decoder_use_sum_merge': True, 'decoder_use_separable_conv': False,
     'decoder_output_is_logits': True, 'aspp_with_concat_projection': False,
     'prediction_with_upsampled_logits': False}])
def test_graphs_of_other_options_are_accepted_too(
    tmp_path, changes, quantized):
  model = MODEL._replace(crop_size=(64, 64), quantize_delay_step=(
      0 if quantized else -1), **changes)
  with tf.Graph().as_default(), tf.Session() as session:
    deeplab_v3.logits(tf.zeros([1, 64, 64, 3]), model)
    session.run(tf.global_variables_initializer())
    prefix = tf.train.Saver().save(session, str(tmp_path / 'model.ckpt'))
  path = run_export(prefix, tmp_path, model).path
  assert predict(predictors.open_frozen_graph(path), images(64)).shape == (
      1, 64, 64)


@pytest.mark.slow
def test_a_checkpoint_of_another_network_is_refused(checkpoint, tmp_path):
  for changes, words in (
      ({'decoder_output_stride': ()}, 'decoder_output_stride=4'),
      ({'num_classes': 151}, 'num_classes=32'),
      ({'depth_multiplier': 0.5}, 'depth_multiplier')):
    with pytest.raises(InputError, match=words):
      run_export(checkpoint, tmp_path / 'out', MODEL._replace(**changes))
  with pytest.raises(InputError, match='drop quantize_delay_step'):
    run_export(checkpoint, tmp_path / 'out',
               MODEL._replace(quantize_delay_step=0))
  assert not os.path.exists(str(tmp_path / 'out' / 'freeze.pb'))


def test_written_options_are_compared(checkpoint, tmp_path):
  checkpoints.write_options(
      os.path.dirname(checkpoint), MODEL._replace(use_bounded_activation=True),
      optimizer='adam')
  try:
    with pytest.raises(InputError, match='use_bounded_activation: '
                       'checkpoint was trained with true, got false'):
      run_export(checkpoint, tmp_path)
  finally:
    os.remove(os.path.join(
        os.path.dirname(checkpoint), contract.MODEL_OPTIONS_FILE))


@pytest.mark.slow
def test_equal_inputs_give_equal_bytes(checkpoint, tmp_path):
  written = []
  for seed in '12':
    out = tmp_path / seed
    # In processes of their own: a set has another order in each.
    subprocess.check_call(
        [sys.executable, '-c', """
import sys
sys.path.insert(0, sys.argv.pop(1))
from deeplab import export, options
export.export(
    options.ModelOptions(crop_size=(33, 33), decoder_output_stride=(4,)),
    options.ExportOptions(checkpoint_path=sys.argv[1], export_path=sys.argv[2],
                          save_inference_graph=True))
""", scripts.REPOSITORY, checkpoint, str(out)],
        env=dict(os.environ, PYTHONHASHSEED=seed), stderr=subprocess.DEVNULL)
    written.append({path.name: path.read_bytes() for path in out.iterdir()})
  assert sorted(written[0]) == ['freeze.json', 'freeze.pb',
                                'inference_graph.pbtxt']
  assert written[0] == written[1]


def test_all_of_an_export_appears_or_nothing(checkpoint, tmp_path, monkeypatch):
  def fail(*unused):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  (tmp_path / 'freeze.pb').write_bytes(b'old')
  write = files._write
  monkeypatch.setattr(files, '_write', lambda path, content: (
      fail if len(content) > 10 ** 6 else write)(path, content))
  with pytest.raises(OSError) as error:
    run_export(checkpoint, tmp_path)
  assert errors.of_system(error.value) == (
      '{}: No space left on device'.format(tmp_path / 'freeze.pb'))
  assert (tmp_path / 'freeze.pb').read_bytes() == b'old'
  assert os.listdir(str(tmp_path)) == ['freeze.pb']


@pytest.mark.parametrize('name', ['freeze.pb', 'freeze.json',
                                  'inference_graph.pbtxt'])
def test_outputs_that_are_folders_are_refused_before_the_work(
    checkpoint, tmp_path, monkeypatch, name):
  (tmp_path / name).mkdir()
  monkeypatch.setattr(export, '_build', None)  # not called
  with pytest.raises(InputError, match='export_path={0}: {0}/{1} is a folder, '
                     'expected the name of a file'.format(tmp_path, name)):
    run_export(checkpoint, tmp_path, save_inference_graph=True)


def test_a_description_of_others_is_not_replaced(
    checkpoint, tmp_path, monkeypatch):
  (tmp_path / 'freeze.json').write_text('{"my": "numbers"}')
  monkeypatch.setattr(export, '_build', None)  # not called
  with pytest.raises(InputError, match='freeze.json exists and is no file'):
    run_export(checkpoint, tmp_path)


def test_models_of_an_earlier_export_are_named(checkpoint, tmp_path, caplog):
  (tmp_path / 'freeze.onnx').write_text('')
  run_export(checkpoint, tmp_path)
  assert ('{0}/freeze.onnx: of an earlier export; the new {0}/freeze.json does '
          'not'.format(tmp_path)) in caplog.text


def test_bad_paths_are_named(checkpoint, tmp_path):
  (tmp_path / 'file').write_text('x')
  with pytest.raises(InputError, match='file is a file; expected a folder'):
    run_export(checkpoint, tmp_path / 'file')
  with pytest.raises(InputError, match='checkpoint_path=.*no checkpoint'):
    run_export(str(tmp_path), tmp_path / 'out')


@pytest.mark.parametrize('scales, words', [
    ((0.0,), 'inference_scales=0.0: expected a list, each a number above 0'),
    ((), 'inference_scales=: expected a list'),
    ((1.0, 0.001), 'inference_scales=1.0,0.001: at 0.001 the input has '
                   'crop_size=2,2: expected at least output_stride=16 a side'),
    ((1.0, 16.0), 'at 16.0 the input has crop_size=16369,16369: expected'),
])
def test_scales_without_a_size_for_the_network_are_refused(
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
      graph_file.read_graph_def(str(tmp_path / 'bad.pb'))
  with pytest.raises(InputError, match='no such file'):
    graph_file.read_graph_def(str(tmp_path / 'none.pb'))


def test_the_input_node_can_be_chosen(plain):
  batch = images()
  outputs = [
      predict(predictors.open_frozen_graph(plain.path, input_node=name), batch)
      for name in (contract.INPUT_NODE, contract.IMAGE_NODE)]
  np.testing.assert_array_equal(*outputs)
