"""Tests mixed precision as far as that is possible without a GPU.

The GPU's own results are not tested.
"""
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
import tf_slim as slim

from deeplab import constants
from deeplab.checkpoints import read
from deeplab.config import label_map
from deeplab.config import options as options_lib
from deeplab.errors import InputError
from deeplab.models import predictors
from deeplab.nets import layers
from deeplab.training import mixed_precision
from deeplab.training import step as step_lib
from deeplab.training import train as train_lib

pytestmark = [pytest.mark.tf1, pytest.mark.modern]
MODEL = options_lib.ModelOptions(crop_size=(33, 33))
STATE = {'current_loss_scale', 'good_steps'}


@pytest.fixture(autouse=True)
def one_layer(monkeypatch):
  """Replaces the network by its first layer."""
  monkeypatch.setattr(
      step_lib.deeplab_v3, 'logits',
      lambda images, *unused, weight_decay, **others: layers.conv2d(
          images, constants.NUM_CLASSES, 3, scope='MobilenetV2/Conv',
          style=layers.Style(weight_decay=weight_decay)))


@pytest.fixture
def gpu(monkeypatch):
  monkeypatch.setattr(predictors, 'gpus', lambda: 1)


def names_in(variables):
  return {variable.op.name for variable in variables}


def built(optimizer, mixed, **changes):
  """Builds a training step on a tiny batch in the default graph."""
  random = np.random.RandomState(3)
  tf.set_random_seed(1)
  return step_lib.build_step(
      tf.constant(random.uniform(0, 255, [2, 33, 33, 3]), tf.float32),
      tf.constant(random.randint(0, 32, [2, 33, 33, 1]), tf.int32), MODEL,
      options_lib.TrainOptions(
          train_logdir='', optimizer=optimizer, fused_step=False,
          mixed_precision=mixed, **changes))


def opened():
  config = tf.ConfigProto()
  mixed_precision.configure(config)
  session = tf.Session(config=config)
  session.run([tf.global_variables_initializer(),
               tf.local_variables_initializer()])
  return session


@pytest.mark.parametrize('optimizer', ['momentum', 'adam'])
@pytest.mark.slow
def test_variables_and_losses_equal_those_of_float32(optimizer):
  runs = []
  for mixed in (False, True):
    with tf.Graph().as_default():
      step = built(optimizer, mixed)
      with opened() as session:
        losses = [session.run(step.train_op) for _ in range(3)]
        runs.append((losses, session.run(step.global_step),
                     names_in(tf.global_variables()),
                     names_in(tf.local_variables())))
  (losses, steps, names, _), (mixed_losses, mixed_steps, mixed_names, state) = (
      runs)
  np.testing.assert_allclose(mixed_losses, losses, rtol=1e-6)
  assert mixed_steps == steps == 3 and losses[2] < losses[0]
  assert mixed_names == names
  assert state == STATE


def test_a_step_that_overflows_is_skipped_and_lowers_the_scale():
  with tf.Graph().as_default():
    step = built('adam', True, label_weights=(1e3,))
    scale, = [variable for variable in tf.local_variables()
              if variable.op.name == 'current_loss_scale']
    weights, = tf.get_collection(tf.GraphKeys.TRAINABLE_VARIABLES, '.*/weights')
    with opened() as session:
      scale.load(3e38, session)
      before = session.run(weights)
      assert np.isfinite(session.run(step.train_op))
      np.testing.assert_array_equal(session.run(weights), before)
      assert session.run([step.global_step, scale]) == [
          1, pytest.approx(1.5e38)]
      scale.load(2.0, session)
      session.run(step.train_op)
      assert session.run(step.global_step) == 2
      assert (session.run(weights) != before).any()


def test_other_sessions_do_not_use_mixed_precision():
  with tf.Graph().as_default():
    mixed_precision.scaling(tf.train.AdamOptimizer())
    with tf.Session() as session:
      rewriting = session._config.graph_options.rewrite_options
      assert rewriting.auto_mixed_precision != rewriting.ON


@pytest.mark.parametrize('changes, parts, words', [
    ({'quantize_delay_step': 0}, 1, 'cannot be combined with '
     'quantize_delay_step=0, whose rounding to 8 bits needs float32'),
    ({}, 2, 'expected one GPU of one host, got 2 replicas')])
def test_unsupported_options_are_refused(gpu, changes, parts, words):
  mixed_precision.check(MODEL, 1)
  with pytest.raises(InputError) as caught:
    mixed_precision.check(MODEL._replace(**changes), parts)
  assert str(caught.value) == 'mixed_precision=true: ' + words


@pytest.fixture
def train(monkeypatch, tmp_path):
  """Returns a function that trains in tmp_path/log up to a step."""
  monkeypatch.setattr(train_lib.records, 'find_shards', lambda *_: [])
  monkeypatch.setattr(
      train_lib.splits, 'label_map_of', lambda *_: label_map.ADE20K)
  monkeypatch.setattr(train_lib.dataset, 'training_batches', lambda *_: {
      'image': tf.random.uniform([2, 33, 33, 3], 0, 255, seed=1),
      'filename': tf.constant(['a', 'b']),
      'label': tf.ones([2, 33, 33, 1], tf.int32)})

  def run(steps, **changes):
    return train_lib.train(
        dataset_options=options_lib.DatasetOptions(
            'none', 'train', batch_size=2),
        preprocess_options=options_lib.PreprocessOptions(crop_size=(33, 33)),
        model_options=MODEL, options=options_lib.TrainOptions(
            str(tmp_path / changes.pop('train_logdir', 'log')), steps,
            **changes))

  return run


def test_a_run_without_a_gpu_is_refused_before_training(train, tmp_path):
  with pytest.raises(InputError) as caught:
    train(1, mixed_precision=True)
  assert str(caught.value) == (
      'mixed_precision=true: TensorFlow {} sees no GPU here, and computes in '
      '16 bits only on GPUs; leave it out'.format(tf.__version__))
  assert not (tmp_path / 'log').exists()


@pytest.mark.slow
def test_a_gradient_that_stays_nan_ends_training(train, gpu, monkeypatch):
  @tf.custom_gradient
  def spoiled(logits):
    return tf.identity(logits), lambda upstream: upstream * np.nan

  logits = step_lib.deeplab_v3.logits
  monkeypatch.setattr(
      step_lib.deeplab_v3, 'logits',
      lambda *arguments, **others: spoiled(logits(*arguments, **others)))
  for mixed, words in (
      (False, 'loss is inf or NaN at step 2 '),
      # The loss scale is halved to 1 first.
      (True, 'gradient is inf or NaN at step 16 ')):
    with pytest.raises(InputError, match=words):
      train(50, mixed_precision=mixed, train_logdir=str(mixed))


@pytest.mark.slow
def test_checkpoints_work_with_and_without_it(train, gpu, monkeypatch):
  configurations = []
  slim_train = slim.learning.train

  def noted(*arguments, session_config, **others):
    configurations.append(
        session_config.graph_options.rewrite_options.auto_mixed_precision)
    return slim_train(*arguments, session_config=session_config, **others)

  monkeypatch.setattr(slim.learning, 'train', noted)
  on = tf.ConfigProto()
  mixed_precision.configure(on)
  on = on.graph_options.rewrite_options.auto_mixed_precision
  shapes = []
  for steps, mixed in ((1, True), (2, False), (3, True)):
    result = train(steps, mixed_precision=mixed)
    assert (result.step, result.steps_done) == (steps, 1)
    assert (on in configurations) == mixed
    configurations.clear()
    shapes.append(read.variables_in(result.checkpoint))
  assert shapes[0] == shapes[1] == shapes[2] and not STATE & set(shapes[0])
