"""Tests checkpoints rebuilt from TFLite files, invented and published."""
import contextlib
import functools
import json
import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab.checkpoints import compatibility
from deeplab.checkpoints import find
from deeplab.checkpoints import read
from deeplab.checkpoints import saver
from deeplab.config import label_map
from deeplab.config import options
from deeplab.errors import InputError
from deeplab.export import freeze
from deeplab.export import rebuild_checkpoint
from deeplab.export import tflite_conversion
from deeplab.models import metadata
from deeplab.models import predictors
from deeplab.models import tflite
from deeplab.nets import structure
from tests import faults
from tests import processors
from tests import scripts
from tests.export import test_export

# All tests need the structure of the whole network.
pytestmark = pytest.mark.slow

SIZE = 33
SMALL = options.ModelOptions(
    crop_size=(SIZE, SIZE), num_classes=5, decoder_output_stride=(4,))
CONV = 'MobilenetV2/expanded_conv/project'
WEIGHTS = 2238576


def network_variables():
  """Returns names and shapes of the variables of network SMALL."""
  return structure.of(SMALL).variables


@pytest.fixture(scope='module', autouse=True)
def each_structure_is_built_once():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(structure, 'of', functools.lru_cache(None)(structure.of))
    yield


def read_checkpoint(prefix):
  reader = tf.train.load_checkpoint(prefix)
  return {name: reader.get_tensor(name)
          for name in reader.get_variable_to_shape_map()}


class Models(object):
  """Builds a Model of the network with values drawn from a seed."""

  def __init__(self, kind):
    self.kind = kind
    self.random = np.random.RandomState(0)
    self.tensors, self.operators = [], []
    # By scope: the folded float64 weights and biases.
    self.expected = {}
    images = self.tensor('images', (1, SIZE, SIZE, 3), np.float32)
    for name, shape in sorted(network_variables().items()):
      if name.endswith('weights'):
        self.layer(os.path.dirname(name), shape)
    self.model = tflite.Model(
        tuple(self.tensors), tuple(self.operators), (images,), (1,))

  def tensor(self, name, shape, dtype, **fields):
    self.tensors.append(
        tflite.Tensor(name, shape, np.dtype(dtype), **fields))
    return len(self.tensors) - 1

  def layer(self, scope, shape):
    """Adds a convolution whose variable has this shape."""
    is_depthwise = shape[2] > 1 and shape[3] == 1
    channels = shape[2] if is_depthwise else shape[3]
    stored = [shape[3], shape[0], shape[1], shape[2]]
    # All values differ, so that a wrong transposition is noticed.
    integers = self.random.randint(-127, 128, stored)
    scales, axis, zero = (0.5,), 0, 0
    if self.kind == np.int8:
      axis = 3 if is_depthwise else 0
      scales = tuple((np.arange(channels) % 7 + 1) / 64.0)
    elif self.kind == np.uint8:
      zero = 100
      integers = integers + 128
    along = np.ones(4, int)
    along[axis] = len(scales)
    real = np.reshape(scales, along) * (integers - zero)
    biases = self.random.randint(-999, 999, channels)
    self.expected[scope] = (
        np.moveaxis(real, 0, 3), biases * np.asarray(scales) / 4)
    side = {'logits': 9, 'decoder': 9}.get(scope.split('/')[0], 3)
    outputs = self.tensor(
        scope + '/Relu6;' + CONV + '/Relu6', (1, side, side, channels),
        np.uint8, scales=(0.25,), zero_points=(10,))
    if self.kind == np.float32:
      weights = self.tensor(scope + '/w', real.shape, np.float32,
                            data=real.astype(np.float32))
      offset = self.tensor(scope + '/b', biases.shape, np.float32,
                           data=(biases * 0.125).astype(np.float32))
    else:
      weights = self.tensor(
          scope + '/w', real.shape, self.kind, scales=scales, axis=axis,
          zero_points=(zero,) * len(scales), data=integers.astype(self.kind))
      offset = self.tensor(
          scope + '/b', biases.shape, np.int32, data=biases,
          scales=tuple(np.asarray(scales) / 4),
          zero_points=(0,) * len(scales))
    self.operators.append(tflite.Operator(
        'DEPTHWISE_CONV_2D' if is_depthwise else 'CONV_2D',
        (0, weights, offset), (outputs,)))

  def without(self, scope):
    return self.model._replace(operators=tuple(
        operator for operator in self.operators
        if not self.tensors[operator.outputs[0]].name.startswith(scope + '/')))

  def with_operator(self, kind, name, **constant):
    """Adds an operator with a computed and possibly a constant input."""
    inputs = [0]
    if constant:
      inputs.append(self.tensor(name, constant['data'].shape, np.float32,
                                **constant))
    output = self.tensor(name, (1, 3, 3, 16), np.uint8, scales=(0.5,),
                         zero_points=(100,))
    self.operators.append(
        tflite.Operator(kind, tuple(inputs), (output,)))
    self.model = self.model._replace(
        tensors=tuple(self.tensors), operators=tuple(self.operators))


@pytest.fixture
def run(monkeypatch, tmp_path):
  """Returns a function from a Model to (RebuildResult, variables)."""
  def run_rebuild(model, **arguments):
    monkeypatch.setattr(tflite, 'read', lambda unused_path: model)
    result = rebuild_checkpoint.rebuild(options.RebuildOptions(**dict({
        'tflite': 'made.tflite', 'output_dir': str(tmp_path / 'out')},
        **arguments)))
    return result, read_checkpoint(result.checkpoint)
  return run_rebuild


@pytest.mark.parametrize('kind', [np.float32, np.int8, np.uint8])
def test_rebuilds_weights_and_options(run, kind, tmp_path):
  made = Models(kind)
  result, variables = run(made.model)
  network = network_variables()
  model_variables = {
      name: value for name, value in variables.items()
      if read.is_model_variable(name) and
      not read.is_quantization_variable(name)}
  assert {name: list(value.shape)
          for name, value in model_variables.items()} == network
  assert variables['global_step'] == 0
  for scope, (weights, biases) in made.expected.items():
    is_depthwise = scope + '/depthwise_weights' in variables
    name = scope + ('/depthwise_weights' if is_depthwise else '/weights')
    np.testing.assert_array_equal(variables[name], weights)
    if scope == 'logits/semantic':
      np.testing.assert_array_equal(variables[scope + '/biases'], biases)
      continue
    np.testing.assert_array_equal(variables[scope + '/BatchNorm/beta'], biases)
    assert set(variables[scope + '/BatchNorm/gamma']) == {1.0}
    assert set(variables[scope + '/BatchNorm/moving_mean']) == {0.0}
    variance = variables[scope + '/BatchNorm/moving_variance']
    epsilon = 1e-3 if scope.startswith('Mobilenet') else 1.001e-5
    assert set(variance + np.float32(epsilon)) == {1.0}
  assert result.layers == len(made.expected) == 60
  assert result.weights == sum(
      weights.size for weights, _ in made.expected.values())
  folder = str(tmp_path / 'out')
  assert find.find_latest(folder) == result.checkpoint

  expected = SMALL._replace(quantize_delay_step=0 if kind == np.uint8 else -1)
  assert result.model_options == expected
  assert expected.is_quantized == any(
      map(read.is_quantization_variable, variables))
  assert compatibility.read_options(folder)[:2] == (expected, None)
  # Training must not resume in its folder, with any optimizer.
  with pytest.raises(InputError, match='use a new train_logdir'):
    compatibility.check_resumable(
        folder, expected, optimizer='momentum', recipe={})


@pytest.mark.parametrize('size', [100, 20000])  # options file, data file
def test_a_full_disk_leaves_nothing(run, tmp_path, monkeypatch, size):
  publishing = saver.publishing

  @contextlib.contextmanager
  def full(*paths):
    with publishing(*paths) as written, faults.largest_file(size):
      yield written

  monkeypatch.setattr(saver, 'publishing', full)
  with pytest.raises((OSError, InputError), match='File too large'):
    run(Models(np.float32).model)
  assert list((tmp_path / 'out').iterdir()) == []
  monkeypatch.setattr(saver, 'publishing', publishing)
  run(Models(np.float32).model)


def test_keeps_the_label_map_beside_the_file(run, monkeypatch):
  count = SMALL.num_classes
  classes = label_map.LabelMap(
      ('other',) + tuple('c{}'.format(index) for index in range(1, count)),
      ((),) + tuple((index,) for index in range(1, count)))
  monkeypatch.setattr(
      metadata, 'label_map_beside', {'made.tflite': classes}.get)
  result, _ = run(Models(np.float32).model)
  assert result.model_options == SMALL.with_classes(classes)
  assert compatibility.label_map_of(result.checkpoint) == classes


def test_ranges_follow_from_scales_and_zero_points(run):
  made = Models(np.uint8)
  made.with_operator('ADD', 'MobilenetV2/expanded_conv_2/add')
  _, variables = run(made.model)
  scope = CONV + '/act_quant'
  # Weights: 0.5 * (1 - 100) and 0.5 * (255 - 100); 0 is not used.
  assert variables[CONV + '/weights_quant/min'] == -49.5
  assert variables[CONV + '/weights_quant/max'] == 77.5
  # Activations: 0.25 * (0 - 10) and 0.25 * (255 - 10).
  assert variables[scope + '/min'] == -2.5
  assert variables[scope + '/max'] == 61.25
  # The moving average starts at this value: 0.999 ** local_step is 0.
  assert variables[scope + '/{}/max/biased'.format(scope)] == 61.25
  assert variables[scope + '/{}/max/local_step'.format(scope)] > 1e5
  scope = 'MobilenetV2/expanded_conv_2/post_activation_bypass_quant'
  assert variables[scope + '/min'] == -50.0
  assert variables[scope + '/max'] == 77.5
  assert variables[scope + '/{}/min/biased'.format(scope)] == -50.0


def test_unfolded_batch_norm_is_restored(run):
  made = Models(np.float32)
  weights, biases = made.expected[CONV]
  factor = np.linspace(0.5, 2, 16).astype(np.float32)
  made.with_operator('MUL', CONV + '/BatchNorm/mul', data=factor)
  made.with_operator('ADD', CONV + '/BatchNorm/add', data=factor + 1)
  _, variables = run(made.model)
  np.testing.assert_array_equal(variables[CONV + '/weights'], weights)
  np.testing.assert_array_equal(variables[CONV + '/BatchNorm/gamma'], factor)
  np.testing.assert_allclose(variables[CONV + '/BatchNorm/beta'],
                             biases * factor + factor + 1, rtol=1e-6)


def test_a_seeded_batch_norm_folds_to_the_same_weights(run):
  made = Models(np.int8)
  _, variables = run(made.model, batch_norm_seed=3)
  for scope, (weights, biases) in made.expected.items():
    if scope == 'logits/semantic':
      continue
    gamma, beta, mean, variance = [
        variables['{}/BatchNorm/{}'.format(scope, name)].astype(np.float64)
        for name in ('gamma', 'beta', 'moving_mean', 'moving_variance')]
    assert len(set(gamma)) > 10 and len(set(mean)) > 10
    factor = gamma / np.sqrt(
        variance + (1e-3 if scope.startswith('Mobilenet') else 1e-5))
    np.testing.assert_allclose(beta - mean * factor, biases, atol=1e-5)
    name = scope + '/depthwise_weights'
    if name in variables:
      factor = factor[:, np.newaxis]
    else:
      name = scope + '/weights'
    np.testing.assert_allclose(variables[name] * factor, weights, rtol=1e-6)


@pytest.mark.parametrize('change, words', [
    (lambda made: made.without('logits/semantic'), 'no layer logits/semantic'),
    (lambda made: made.without(CONV), 'lacks 1 of 60 layers ({})'.format(CONV)),
    (lambda made: made.with_operator('CONV_2D', 'aspp1/Relu', data=np.ones(
        [1, 1, 1, 1])) or made.model, 'CONV_2D gives aspp1/Relu'),
    (lambda made: made.model._replace(
        operators=made.model.operators + made.model.operators[-1:]),
     'CONV_2D gives logits/semantic/Relu6'),
])
def test_refuses_other_networks(run, change, words, tmp_path):
  with pytest.raises(InputError) as error:
    run(change(Models(np.uint8)))
  assert str(error.value).startswith('made.tflite: not a model of this network')
  assert words in str(error.value)
  assert not (tmp_path / 'out').exists()


def test_refuses_other_shapes_and_computed_weights(run):
  made = Models(np.int8)
  position = next(operator.inputs[1] for operator in made.operators
                  if made.tensors[operator.outputs[0]].name.startswith(
                      CONV + '/'))
  tensor = made.tensors[position]
  for data, words in (
      (tensor.data[..., :-1], '{}/weights is [1, 1, 31, 16], expected [1, 1, '
       '32, 16]'.format(CONV)), (None, 'is computed, expected constants')):
    made.tensors[position] = tensor._replace(data=data)
    with pytest.raises(InputError) as error:
      run(made.model._replace(tensors=tuple(made.tensors)))
    assert words in str(error.value)


def test_leftovers_of_a_killed_run_do_no_harm(run, tmp_path):
  """The kill came before the index or the state file got its name."""
  model = Models(np.int8).model
  out = tmp_path / 'out'
  out.mkdir()
  (out / 'model.ckpt-0.data-00000-of-00001').write_bytes(b'')
  run(model)
  (out / 'checkpoint').unlink()
  (out / '.deeplab-x.tmp').mkdir()
  with pytest.raises(InputError, match='holds model.ckpt-0 already'):
    run(model)
  assert sorted(path.name for path in out.iterdir()) == [
      'model.ckpt-0.data-00000-of-00001', 'model.ckpt-0.index',
      'model_options.json']


def test_the_script_refuses_a_missing_file(tmp_path):
  line = scripts.refusal(
      'scripts/rebuild_checkpoint.py', '--tflite=none.tflite',
      '--output_dir={}'.format(tmp_path / 'out'))
  assert 'none.tflite: no such file' in line
  assert not (tmp_path / 'out').exists()


# --- Real files ------------------------------------------------------------


@pytest.mark.extended
def test_a_float_file_gives_its_checkpoint_back(tmp_path):
  """Rebuilds a checkpoint from its own TFLite file and compares labels."""
  prefix = test_export.make_checkpoint(tmp_path, SMALL)
  graph = freeze.export(SMALL, options.ExportOptions(
      checkpoint_path=prefix, export_path=str(tmp_path / 'graph'))).path
  converted = str(tmp_path / 'float.tflite')
  made = tflite_conversion.convert(options.ConversionOptions(
      graph_def=graph, out_tflite=converted, mode='float'))
  assert made.operations['CONV_2D'] == 41
  assert made.operations['DEPTHWISE_CONV_2D'] == 19
  result = rebuild_checkpoint.rebuild(options.RebuildOptions(
      tflite=converted, output_dir=str(tmp_path / 'out')))
  assert result.model_options == SMALL
  # Only 1.15 leaves batch norm after the three atrous layers unfolded.
  unfolded = ['expanded_conv_14', 'expanded_conv_15', 'expanded_conv_16']
  gammas = {name.split('/')[1]: value
            for name, value in read_checkpoint(result.checkpoint).items()
            if name.endswith('depthwise/BatchNorm/gamma')}
  assert sorted(name for name, value in gammas.items()
                if set(value) != {1.0}) == (
                    unfolded if processors.IS_REFERENCE_TENSORFLOW else [])
  images = np.random.RandomState(0).uniform(
      0, 255, [1, SIZE, SIZE, 3]).astype(np.float32)
  predictor = predictors.CheckpointPredictor(SMALL)
  labels = []
  for checkpoint in (prefix, result.checkpoint):
    predictor.restore(checkpoint)
    labels.append(predictor.predict(images))
  predictor.close()
  assert len(np.unique(labels[0])) > 2
  assert np.mean(labels[0] == labels[1]) > 0.99


@pytest.mark.tf1
@pytest.mark.tf2
@pytest.mark.parametrize('file, kind', [
    ('freeze_ptq.tflite', 'float'), ('freeze_qat.tflite', 'qat')])
def test_published_files_give_the_reference_checkpoints(
    file, kind, reference_dir, tmp_path):
  """The reference drew batch norm with seed 7."""
  result = rebuild_checkpoint.rebuild(options.RebuildOptions(
      tflite=os.path.join(reference_dir, file), output_dir=str(tmp_path),
      batch_norm_seed=7))
  assert result.weights == WEIGHTS
  assert result.model_options.is_quantized == (kind == 'qat')
  ours = read_checkpoint(result.checkpoint)
  theirs = read_checkpoint(tf.train.latest_checkpoint(
      os.path.join(reference_dir, 'checkpoint_' + kind)))
  assert len(theirs) > 297
  for name, value in theirs.items():
    if name != 'global_step':
      np.testing.assert_array_equal(ours[name], value, err_msg=name)
  assert set(ours) - set(theirs) == {
      name for name in ours if name.endswith(('/biased', '/local_step'))}
  # The published checkpoints have the same variables, with equal names and
  # shapes, and variables of training.
  with open(os.path.join(
      reference_dir, 'variables_{}.json'.format(kind))) as content:
    published = {entry['name']: entry['shape'] for entry in json.load(content)}
  training = ('/Momentum', '/Adam', '/Adam_1', 'beta1_power', 'beta2_power',
              'fake_quantization_step')
  assert read.variables_in(result.checkpoint) == {
      name: shape for name, shape in published.items()
      # Dropout is not part of inference, so the file lacks it.
      if not name.endswith(training) and not name.startswith(
          constants.DROPOUT_SCOPE)}


@pytest.mark.extended
def test_score_of_a_rebuilt_checkpoint_matches_the_reference(
    reference_dir, sample_records, tmp_path):
  """For the quantization-aware file, see the test above."""
  with open(os.path.join(reference_dir, 'numbers.json')) as content:
    expected = json.load(content)['eval_ckpt_float_rebuilt']['overall']
  out = str(tmp_path / 'rebuilt')
  done = scripts.run(
      'scripts/rebuild_checkpoint.py', '--output_dir=' + out,
      '--tflite=' + os.path.join(reference_dir, 'freeze_ptq.tflite'))
  # The script prints the flags for the checkpoint.
  flags = done.stdout.split('use it with ')[1].split()
  report = str(tmp_path / 'report.json')
  scripts.run(
      'eval.py', '--checkpoint_dir=' + out, '--dataset_dir=' + sample_records,
      '--min_resize_value=512', '--max_resize_value=512', '--resize_factor=16',
      '--max_number_of_evaluations=1', '--report_json=' + report, *flags)
  with open(report) as content:
    assert json.load(content)['miou'] == pytest.approx(expected, abs=1e-4)
