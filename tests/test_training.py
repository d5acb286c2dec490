"""Loss, schedules and optimizer steps; the loop is tested in tests/smoke."""
import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from tensorflow.python.ops import random_ops

from deeplab import checkpoints
from deeplab import losses
from deeplab import options
from deeplab import schedules
from deeplab import training
from deeplab.errors import InputError
from tests import golden_weights

pytestmark = [pytest.mark.tf1, pytest.mark.modern]

MODEL = options.ModelOptions(crop_size=(65, 65), decoder_output_stride=(4,))
GOLDEN_RUN = options.TrainOptions(
    train_logdir='', training_number_of_steps=10, base_learning_rate=3e-4,
    last_layer_gradient_multiplier=10.0, weight_decay=4e-5)
RUNS = {
    'momentum': {'fine_tune_batch_norm': False},
    'momentum_batch_norm': {},
    'adam': {'optimizer': 'adam', 'adam_learning_rate': 1e-4,
             'fine_tune_batch_norm': False},
    'qat': {'quantize_delay_step': 0},
}
IS_REFERENCE_TENSORFLOW = tf.__version__.startswith('1.15')
# A batch of two, of which image pooling leaves one value each, magnifies the
# last bit that other kernels sum up differently: when batch norm uses its
# statistics, and more so when activations are rounded.
TOLERANCE_ELSEWHERE = {
    'momentum': 0.01, 'adam': 0.01, 'momentum_batch_norm': 0.05, 'qat': 0.1}


def without_grappler():
  """The golden fake-quantized run was made without graph optimization.

  Its roundings amplify the last bit of every sum, which Grappler changes.
  """
  config = tf.ConfigProto()
  config.graph_options.rewrite_options.disable_meta_optimizer = True
  return config


@pytest.mark.slow
@pytest.mark.parametrize('run', sorted(RUNS))
def test_three_steps_match_the_reference(run, golden_dir, monkeypatch):
  golden = np.load(os.path.join(golden_dir, 'train_steps.npz'))
  # Dropout's draws are fixed at 0.5: all are kept, scaled by 1 / 0.9.
  for module in (random_ops, tf):
    monkeypatch.setattr(module, 'random_uniform',
                        lambda shape, *_, **__: tf.fill(shape, 0.5))
  with tf.Graph().as_default():
    step = training.build_step(
        tf.constant(golden['image_in'], tf.float32),
        tf.constant(golden['label_in'][..., np.newaxis], tf.int32),
        MODEL, GOLDEN_RUN._replace(**RUNS[run]))
    monkeypatch.undo()
    variables = {v.op.name: v for v in tf.global_variables()}
    with tf.Session(config=without_grappler()) as session:
      session.run(tf.global_variables_initializer())
      golden_weights.load(session, [
          v for name, v in variables.items()
          if checkpoints.is_model_variable(name)])
      losses_and_rates = []
      for _ in range(3):
        rate = session.run(step.learning_rate)
        losses_and_rates.append([session.run(step.train_op), rate])
      values = session.run(variables)
  tolerance = 1e-3 if IS_REFERENCE_TENSORFLOW else TOLERANCE_ELSEWHERE[run]
  np.testing.assert_allclose(
      losses_and_rates, golden[run + '_loss_and_lr'], rtol=tolerance)
  names = [str(name) for name in golden[run + '_names']]
  steps = {'global_step', 'fake_quantization_step'} & set(values)
  assert set(values) == set(names) | steps
  assert values['global_step'] == 3
  if not IS_REFERENCE_TENSORFLOW:
    return  # how far single gradients go apart, test_network tells
  np.testing.assert_allclose(
      [np.linalg.norm(values[name].astype(np.float64)) for name in names],
      golden[run + '_norms'], rtol=1e-3, atol=1e-7)
  np.testing.assert_allclose(
      [np.ravel(values[name])[0] for name in names],
      golden[run + '_first'], rtol=1e-3, atol=1e-6)


def loss_of(logits, labels, **arguments):
  with tf.Graph().as_default(), tf.Session() as session:
    loss = losses.softmax_cross_entropy(
        tf.constant(logits, tf.float32), tf.constant(labels, tf.int32),
        **arguments)
    assert tf.losses.get_losses() == [loss]
    return session.run(loss)


LOGITS = np.log([[[[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]]]])
LABELS = [[[[0], [2]]]]


def test_ignored_pixels_count_nothing():
  assert loss_of(LOGITS, LABELS) == pytest.approx(-np.log(0.6))
  assert loss_of(LOGITS, [[[[1], [2]]]]) == pytest.approx(
      -(np.log(0.25) + np.log(0.6)) / 2)
  assert loss_of(LOGITS, [[[[0], [0]]]]) == 0


def test_label_weights_scale_the_sum_not_the_count():
  both = [[[[1], [2]]]]
  assert loss_of(LOGITS, both, label_weights=(3.0,)) == pytest.approx(
      3 * loss_of(LOGITS, both))
  # The weight of class 0 changes nothing: it is ignored.
  assert loss_of(LOGITS, both, label_weights=(9.0, 1.0, 5.0)) == pytest.approx(
      -(np.log(0.25) + 5 * np.log(0.6)) / 2)


def test_logits_are_resized_with_aligned_corners():
  coarse = np.zeros([1, 2, 2, 3])
  coarse[0, 1, 1] = [0, 0, 8]
  labels = np.zeros([1, 3, 3, 1], int)
  labels[0, 1, 1] = 2  # the centre, halfway: [0, 0, 2]
  assert loss_of(coarse, labels) == pytest.approx(
      -2 + np.log(2 + np.exp(2)), rel=1e-6)


def rate_at(step, **changes):
  with tf.Graph().as_default(), tf.Session() as session:
    return session.run(schedules.learning_rate(
        options.TrainOptions(train_logdir='', **changes),
        tf.constant(step, tf.int64)))


@pytest.mark.parametrize('step, changes, expected', [
    (0, {}, 1e-4),
    (15000, {}, 1e-4 * 0.5 ** 0.9),
    (30000, {}, 0.0),
    (50, {'training_number_of_steps': 100, 'learning_power': 2.0}, 2.5e-5),
    (50, {'decay_steps': 200.0, 'learning_power': 1.0}, 7.5e-5),
    (99, {'decay_steps': 10.0, 'end_learning_rate': 3e-6}, 3e-6),
    (50, {'base_learning_rate': 0.5, 'decay_steps': 100.0,
          'learning_power': 1.0}, 0.25),
    (1999, {'learning_policy': 'step'}, 1e-4),
    (2000, {'learning_policy': 'step'}, 1e-5),
    (20, {'learning_policy': 'step', 'learning_rate_decay_step': 10,
          'learning_rate_decay_factor': 0.5}, 2.5e-5),
    (9, {'slow_start_step': 10, 'slow_start_learning_rate': 7e-6}, 7e-6),
    (10, {'slow_start_step': 10, 'slow_start_learning_rate': 7e-6}, 1e-4),
    (20, {'slow_start_step': 10, 'decay_steps': 20.0, 'learning_power': 1.0},
     5e-5),
], ids=str)
def test_learning_rates(step, changes, expected):
  assert rate_at(step, **changes) == pytest.approx(expected, rel=1e-5)


def test_gradient_multipliers():
  names = ['MobilenetV2/Conv/weights', 'some/biases', 'logits/semantic/weights',
           'logits/semantic/biases', 'decoder/feature_projection0/weights',
           'aspp0/BatchNorm/gamma', 'image_pooling/weights',
           'concat_projection/weights']
  ten = options.TrainOptions(
      train_logdir='', last_layer_gradient_multiplier=10.0)
  assert schedules.gradient_multipliers(names, ten) == {
      'some/biases': 2, 'logits/semantic/weights': 10,
      'logits/semantic/biases': 20, 'decoder/feature_projection0/weights': 10,
      'aspp0/BatchNorm/gamma': 10, 'image_pooling/weights': 10,
      'concat_projection/weights': 10}
  logits_only = ten._replace(last_layers_contain_logits_only=True)
  assert schedules.gradient_multipliers(names, logits_only) == {
      'some/biases': 2, 'logits/semantic/weights': 10,
      'logits/semantic/biases': 20}
  assert schedules.gradient_multipliers(
      names, options.TrainOptions(train_logdir='')) == {
          'some/biases': 2, 'logits/semantic/biases': 2}


def updated_weights(**changes):
  """Returns weights after a step on a tiny batch, by variable name."""
  random = np.random.RandomState(3)
  model = MODEL._replace(crop_size=(33, 33))
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(1)
    step = training.build_step(
        tf.constant(random.uniform(0, 255, [2, 33, 33, 3]), tf.float32),
        tf.constant(random.randint(0, 32, [2, 33, 33, 1]), tf.int32), model,
        options.TrainOptions(
            train_logdir='', **dict({'base_learning_rate': 0.01}, **changes)))
    session.run(tf.global_variables_initializer())
    golden_weights.load(session, tf.model_variables())
    session.run(step.train_op)
    session.run(step.train_op)
    return session.run({v.op.name: v for v in tf.model_variables()})


@pytest.fixture(scope='module')
def baseline():
  return updated_weights()


@pytest.mark.parametrize('change', [
    {'momentum': 0.5}, {'weight_decay': 0.1}, {'label_weights': (3.0,)},
    {'optimizer': 'adam'}, {'base_learning_rate': 0.02},
], ids=str)
def test_options_of_the_optimizer_change_the_weights(change, baseline):
  name = 'MobilenetV2/Conv/weights'
  assert np.abs(updated_weights(**change)[name] - baseline[name]).max() > 1e-6


@pytest.mark.parametrize('first, second', [
    ({'adam_learning_rate': 1e-3}, {'adam_learning_rate': 2e-3}),
    ({'adam_epsilon': 1e-8}, {'adam_epsilon': 1.0}),
], ids=str)
def test_options_of_adam_change_the_weights(first, second):
  name = 'MobilenetV2/Conv/weights'
  one = updated_weights(optimizer='adam', **first)[name]
  other = updated_weights(optimizer='adam', **second)[name]
  assert np.abs(one - other).max() > 1e-6


def test_frozen_batch_norm_keeps_its_statistics(baseline):
  frozen = updated_weights(fine_tune_batch_norm=False)
  name = 'MobilenetV2/Conv/BatchNorm/moving_mean'
  initial = golden_weights.draw(name, [32])
  np.testing.assert_array_equal(frozen[name], initial)
  assert (baseline[name] != initial).all()


@pytest.mark.parametrize('changes, batch_size, words', [
    ({}, 1, '--fine_tune_batch_norm=true: expected --train_batch_size of at '
            'least 2'),
    ({'training_number_of_steps': 0}, 8, '--training_number_of_steps=0'),
    ({'log_steps': 0}, 8, '--log_steps=0'),
    ({'label_weights': (1.0, 2.0)}, 8, '--label_weights given 2 times'),
], ids=str)
def test_options_that_cannot_train_are_refused(changes, batch_size, words):
  with pytest.raises(InputError, match=words):
    options.TrainOptions(train_logdir='', **changes).validate(
        batch_size=batch_size, num_classes=32)
