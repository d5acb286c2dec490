"""Tests the loss, schedules, optimizer steps and the training loop."""
import contextlib
import errno
import functools
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest
import tensorflow.compat.v1 as tf
from tensorflow.python.ops import random_ops

from deeplab import constants
from deeplab.checkpoints import find
from deeplab.checkpoints import read
from deeplab.checkpoints import saver
from deeplab.config import options
from deeplab.errors import InputError
from deeplab.evaluation import tensorboard
from deeplab.evaluation import visualize
from deeplab.nets import deeplab_v3
from deeplab.nets import layers
from deeplab.system import signals as signals_lib
from deeplab.training import listeners
from deeplab.training import loop
from deeplab.training import losses
from deeplab.training import schedules
from deeplab.training import step as step_lib
from deeplab.training import train as train_lib
from tests import faults
from tests import golden_weights
from tests import processors
from tests.scripts import REPOSITORY

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
    'qat': {},
}


@pytest.fixture(scope='module')
def golden(golden_dir):
  return np.load(os.path.join(golden_dir, 'train_steps.npz'))


@pytest.fixture(scope='module')
def golden_step(golden):
  """Returns a function: the (graph, TrainStep) of one of RUNS, built once.

  Dropout draws 0.5, which keeps all values, scaled by 1 / 0.9.
  """
  @functools.lru_cache(maxsize=None)
  def build(run):
    with pytest.MonkeyPatch.context() as patch, (
        tf.Graph().as_default()) as graph:
      for module in (random_ops, tf):
        patch.setattr(module, 'random_uniform',
                      lambda shape, *_, **__: tf.fill(shape, 0.5))
      return graph, step_lib.build_step(
          tf.constant(golden['image_in'], tf.float32),
          tf.constant(golden['label_in'][..., np.newaxis], tf.int32),
          MODEL._replace(quantize_delay_step=0 if run == 'qat' else -1),
          GOLDEN_RUN._replace(**RUNS[run]))

  return build


def golden_session(session):
  """Gives all variables of the session their golden values."""
  session.run(tf.global_variables_initializer())
  golden_weights.load(session, [
      variable for variable in tf.global_variables()
      if read.is_model_variable(variable.op.name)])


GROUPS = {'Momentum': 'slots', 'Adam': 'slots', 'Adam_1': 'slots',
          'moving_mean': 'averages', 'moving_variance': 'averages',
          'min': 'ranges', 'max': 'ranges', 'biased': 'ranges',
          'local_step': 'ranges'}


@pytest.fixture(scope='module')
def recording(golden_dir, reference_dir_or_none):
  """The recording that float logits equal here bit for bit, or None."""
  if not (processors.IS_REFERENCE_TENSORFLOW and reference_dir_or_none):
    return None
  golden = np.load(os.path.join(golden_dir, 'network65.npz'))
  with tf.Graph().as_default(), (
      tf.Session(config=processors.config())) as session:
    logits = deeplab_v3.logits(constants.scale_to_model_range(tf.constant(
        golden['image_in'][np.newaxis], tf.float32)), MODEL)
    golden_weights.load(session, tf.global_variables())
    return processors.equals_a_recording(
        session.run(logits)[0], 'network65.npz', reference_dir_or_none)


@pytest.mark.parametrize('run', [
    pytest.param(run, marks=pytest.mark.slow if run == 'momentum' else
                 pytest.mark.extended)
    for run in (sorted(RUNS) if processors.IS_REFERENCE_TENSORFLOW
                else ['qat'])])
def test_three_steps_match_the_reference(
    run, golden, golden_step, reference_dir_or_none, recording):
  graph, step = golden_step(run)
  with graph.as_default(), (
      tf.Session(config=processors.config(grappler=False))) as session:
    policy = schedules.learning_rate(GOLDEN_RUN, step.global_step)
    golden_session(session)
    losses_found, rates = [], []
    for _ in range(3):
      # The reference logs the policy's rate; Adam uses its own.
      rates.append(session.run(policy))
      losses_found.append(session.run(step.train_op))
    values = session.run({v.op.name: v for v in tf.global_variables()})
  if recording:
    golden = np.load(os.path.join(
        reference_dir_or_none, processors.RECORDINGS[recording],
        'train_steps.npz'))
  expected = golden[run + '_loss_and_lr']
  np.testing.assert_allclose(rates, expected[:, 1], rtol=1e-6)
  for loss, expected_loss, bound in zip(
      losses_found, expected[:, 0], processors.BOUNDS[run + '_losses']):
    assert loss == pytest.approx(expected_loss, rel=bound)
  names = [str(name) for name in golden[run + '_names']]
  steps = {'global_step', 'fake_quantization_step'} & set(values)
  assert set(values) == set(names) | steps
  assert values['global_step'] == 3
  norms = np.array([
      np.linalg.norm(values[name].astype(np.float64)) for name in names])
  groups = np.array([
      GROUPS.get(name.split('/')[-1], 'weights') for name in names])
  for group in sorted(set(groups)):
    bound = processors.BOUNDS.get('{}_{}'.format(run, group))
    if bound is not None:
      processors.check_median(norms[groups == group],
                              golden[run + '_norms'][groups == group], bound)
  if recording:
    np.testing.assert_allclose(losses_found, expected[:, 0], rtol=1e-3)
    np.testing.assert_allclose(
        norms, golden[run + '_norms'], rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(
        [np.ravel(values[name])[0] for name in names],
        golden[run + '_first'], rtol=1e-3, atol=1e-6)


# --- One update by hand ----------------------------------------------------

LAST_LAYERS = ('logits', 'image_pooling', 'aspp', 'concat_projection',
               'decoder')


def multiplier(name):
  """Returns the gradient multiplier of a variable in GOLDEN_RUN."""
  return ((2 if 'biases' in name else 1) *
          (10 if name.startswith(LAST_LAYERS) else 1))


def momentum_update(weights, slots, gradient, rate, unused_step):
  slot = 0.9 * slots['Momentum'] + gradient
  return weights - rate * slot, {'Momentum': slot}


def adam_update(weights, slots, gradient, unused_rate, step):
  first = 0.9 * slots['Adam'] + 0.1 * gradient
  second = 0.999 * slots['Adam_1'] + 0.001 * gradient ** 2
  rate = 1e-4 * np.sqrt(1 - 0.999 ** step) / (1 - 0.9 ** step)
  return (weights - rate * first / (np.sqrt(second) + 1e-8),
          {'Adam': first, 'Adam_1': second})


@pytest.mark.parametrize('run, update', [
    pytest.param('momentum', momentum_update, marks=pytest.mark.slow),
    pytest.param('adam', adam_update, marks=pytest.mark.extended)])
def test_each_update_matches_a_hand_computation(
    run, update, golden_dir, golden_step):
  """Computes weights and slots after each step by hand.

  Each step starts from the state before it, so no difference is amplified and
  the bounds are tight on any processor.
  """
  with open(os.path.join(golden_dir, 'network65.npz'), 'rb') as content:
    regularized = {
        str(name).split('/kernel/')[0] + '/weights'
        for name in np.load(content)['regularized']}
  graph, step = golden_step(run)
  with graph.as_default():
    variables = {v.op.name: v for v in tf.global_variables()}
    weights = {v.op.name: v for v in tf.trainable_variables()}
    [data_loss] = tf.losses.get_losses()
    gradients = dict(zip(
        weights, tf.gradients(data_loss, list(weights.values()))))
    with tf.Session(config=processors.config(grappler=False)) as session:
      golden_session(session)
      for number in range(3):
        before, data_gradients = session.run([variables, gradients])
        session.run(step.train_op)
        after = session.run(variables)
        rate = 3e-4 * (1 - number / 10.0) ** 0.9
        for name in weights:
          gradient = data_gradients[name].astype(np.float64)
          if name in regularized:
            gradient += 4e-5 * before[name]
          slots = {slot: before['{}/{}'.format(name, slot)].astype(np.float64)
                   for slot in ('Momentum', 'Adam', 'Adam_1')
                   if '{}/{}'.format(name, slot) in before}
          moved, slots = update(
              before[name].astype(np.float64), slots,
              multiplier(name) * gradient, rate, number + 1)
          for slot, expected in slots.items():
            assert_near(after['{}/{}'.format(name, slot)], expected, 1e-4,
                        (number, name, slot))
          # Compare the change; adding it in float32 loses some bits.
          assert_near(
              after[name] - before[name].astype(np.float64),
              moved - before[name], 1e-3, (number, name),
              1e-7 * np.linalg.norm(before[name]))
  assert len(regularized) == 41 and len(weights) == 179


def assert_near(actual, expected, tolerance, what, absolute=1e-12):
  """Asserts that the norm of the difference is small."""
  distance = np.linalg.norm(actual - expected)
  assert distance <= tolerance * np.linalg.norm(expected) + absolute, (
      what, distance, np.linalg.norm(expected))


@pytest.mark.extended
def test_moving_averages_are_updated_from_the_batch(golden_step):
  decays = {'MobilenetV2/Conv': 0.997, 'concat_projection': 0.9997}
  graph, step = golden_step('momentum_batch_norm')
  with graph.as_default(), (
      tf.Session(config=processors.config(grappler=False))) as session:
    golden_session(session)
    inputs = {scope: graph.get_operation_by_name(
        scope + '/BatchNorm/FusedBatchNormV3').inputs[0] for scope in decays}
    averages = {v.op.name: v for v in tf.global_variables()
                if v.op.name.split('/BatchNorm/moving_')[0] in decays}
    inputs, before = session.run([inputs, averages])
    session.run(step.train_op)
    after = session.run(averages)
  assert len(averages) == 4
  for scope, decay in decays.items():
    values = inputs[scope].reshape(
        [-1, inputs[scope].shape[-1]]).astype(np.float64)
    for kind, statistic in (('mean', values.mean(axis=0)),
                            ('variance', values.var(axis=0, ddof=1))):
      name = '{}/BatchNorm/moving_{}'.format(scope, kind)
      assert_near(after[name] - before[name].astype(np.float64),
                  (1 - decay) * (statistic - before[name]), 1e-3, name)


@pytest.mark.slow
def test_initial_values_have_the_expected_spread():
  expected = {
      'logits/semantic/weights': 0.01,
      'decoder/decoder_conv0_depthwise/depthwise_weights': 0.33,
      'decoder/decoder_conv0_pointwise/weights': 0.06,
      'MobilenetV2/expanded_conv_16/expand/weights': 0.09,
      'MobilenetV2/expanded_conv_16/depthwise/depthwise_weights': 0.09,
      # Glorot uniform: sqrt(2 / (inputs + outputs)).
      'aspp0/weights': np.sqrt(2 / (320.0 + 256)),
      'decoder/feature_projection0/weights': np.sqrt(2 / (144.0 + 48))}
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(5)
    deeplab_v3.logits(tf.zeros([1, 65, 65, 3]), MODEL)
    variables = {variable.op.name: variable
                 for variable in tf.global_variables()
                 if variable.op.name in expected}
    session.run(tf.variables_initializer(list(variables.values())))
    found = session.run(variables)
  for name, stddev in expected.items():
    values = found[name]
    if stddev in (0.01, 0.33, 0.06, 0.09):
      assert np.abs(values).max() <= 2 * stddev  # a truncated normal
      stddev *= 0.8796  # the spread after truncation
    else:
      assert np.abs(values).max() <= np.sqrt(3) * stddev
    # Four standard errors of the estimated spread.
    assert values.std() == pytest.approx(
        stddev, rel=4 / np.sqrt(2.0 * values.size)), name
    assert abs(values.mean()) < 4 * stddev / np.sqrt(values.size)


def loss_of(logits, labels, **arguments):
  with tf.Graph().as_default(), tf.Session() as session:
    loss = losses.mean([losses.sum_over_pixels(
        tf.constant(logits, tf.float32), tf.constant(labels, tf.int32),
        **arguments)])
    assert tf.losses.get_losses() == [loss]
    return session.run(loss)


LOGITS = np.log([[[[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]]]])
LABELS = [[[[0], [2]]]]


def test_ignored_pixels_do_not_count():
  assert loss_of(LOGITS, LABELS) == pytest.approx(-np.log(0.6))
  assert loss_of(LOGITS, [[[[1], [2]]]]) == pytest.approx(
      -(np.log(0.25) + np.log(0.6)) / 2)
  assert loss_of(LOGITS, [[[[0], [0]]]]) == 0


def test_label_weights_scale_the_sum_not_the_count():
  both = [[[[1], [2]]]]
  assert loss_of(LOGITS, both, label_weights=(3.0,)) == pytest.approx(
      3 * loss_of(LOGITS, both))
  # Class 0 is ignored, so its weight has no effect.
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
  """Returns the first layer's weights after two steps on a tiny batch."""
  random = np.random.RandomState(3)
  with tf.Graph().as_default(), tf.Session() as session:
    step = step_lib.build_step(
        tf.constant(random.uniform(0, 255, [2, 33, 33, 3]), tf.float32),
        tf.constant(random.randint(0, 32, [2, 33, 33, 1]), tf.int32),
        MODEL._replace(crop_size=(33, 33)), options.TrainOptions(
            train_logdir='', **dict({'base_learning_rate': 0.01}, **changes)))
    session.run(tf.global_variables_initializer())
    golden_weights.load(session, tf.model_variables())
    session.run(step.train_op)
    session.run(step.train_op)
    return session.run(tf.model_variables()[0])


@pytest.fixture
def one_layer(monkeypatch):
  """Replaces the network by its first layer."""
  monkeypatch.setattr(
      step_lib.deeplab_v3, 'logits',
      lambda images, *unused, weight_decay, **others: layers.conv2d(
          images, constants.NUM_CLASSES, 3, scope='MobilenetV2/Conv',
          style=layers.Style(weight_decay=weight_decay)))


@pytest.mark.slow
def test_optimizer_options_change_the_weights(one_layer):
  for given, *others in (
      ({}, {'momentum': 0.5}, {'weight_decay': 0.1}, {'label_weights': (3.0,)}),
      ({'optimizer': 'adam'}, {}, {'adam_learning_rate': 2e-3},
       {'adam_epsilon': 1.0})):
    baseline = updated_weights(**given)
    for changes in others:
      weights = updated_weights(**dict(given, **changes) if changes else {})
      assert np.abs(weights - baseline).max() > 1e-6, changes


@pytest.mark.parametrize('changes, batch_size, replicas, words', [
    ({}, 1, 1, 'batch_size=1: expected at least 2 with '
     'fine_tune_batch_norm=true'),
    ({}, 2, 2, 'batch_size=2: expected at least 4 with '
     'fine_tune_batch_norm=true (24 or more is advised)'),
    ({'fine_tune_batch_norm': False}, 5, 2,
     'batch_size=5: expected a multiple of 2'),
    ({'log_steps': 0}, 8, 1, 'log_steps=0'),
    ({'label_weights': (1.0, 2.0)}, 8, 1, 'label_weights=1.0,2.0: 2 weights, '
     'expected one, or one for each of the 32')], ids=str)
def test_training_options_that_do_not_fit_are_refused(
    changes, batch_size, replicas, words):
  with pytest.raises(InputError, match=re.escape(words)):
    options.TrainOptions(train_logdir='', **changes).check_with(
        MODEL, batch_size=batch_size, replicas=replicas)


def test_frozen_batch_norm_allows_one_image_per_replica():
  given = options.TrainOptions(train_logdir='')
  given.check_with(
      MODEL._replace(quantize_delay_step=0), batch_size=4, replicas=4)
  with pytest.raises(InputError, match='expected at least'):
    given.check_with(
        MODEL._replace(quantize_delay_step=5), batch_size=4, replicas=4)


# --- The loop with a trivial step ------------------------------------------


def trivial_step(*unused):
  """Returns a TrainStep of one weight: the number of steps + 1."""
  global_step = tf.train.get_or_create_global_step()
  weight = tf.get_variable('weight', initializer=1.0)
  with tf.control_dependencies([weight.assign_add(1.0)]):
    with tf.control_dependencies([global_step.assign_add(1)]):
      steps_done = global_step.read_value()
      train_op = tf.identity(weight)
  signals = tf.placeholder(tf.float32, [len(signals_lib.SIGNALS)])
  return step_lib.TrainStep(
      train_op, train_op - 2.0, tf.constant(0.1), global_step, steps_done,
      train_op, signals, tf.identity(signals))


@pytest.fixture
def run(monkeypatch, tmp_path):
  """Returns a function that trains this step in tmp_path."""
  monkeypatch.setattr(step_lib, 'build_step', trivial_step)
  monkeypatch.setattr(
      train_lib, '_summary_op', lambda *_: tf.raw_ops.HistogramSummary(
          tag='one', values=tf.ones([2])))
  monkeypatch.setattr(train_lib.records, 'find_shards', lambda *_: [])
  monkeypatch.setattr(train_lib.dataset, 'training_batches', lambda *_: {
      'image': tf.zeros([2, 33, 33, 3]), 'filename': tf.constant(['a', 'b']),
      'label': tf.zeros([2, 33, 33, 1], tf.int32)})

  def train(steps, **changes):
    return train_lib.train(
        dataset_options=options.DatasetOptions('none', 'train', batch_size=2),
        preprocess_options=options.PreprocessOptions(crop_size=(33, 33)),
        model_options=MODEL._replace(crop_size=(33, 33)),
        options=options.TrainOptions(**dict({
            'train_logdir': str(tmp_path), 'training_number_of_steps': steps,
            'save_interval_secs': 0}, **changes)))

  return train


def test_log_and_tensorboard_show_loss_learning_rate_and_speed(
    tmp_path, run, caplog, monkeypatch):
  caplog.set_level('INFO')
  monkeypatch.setattr(listeners, '_RUNNING_STEPS', 4)
  run(5, log_steps=2)
  first, *lines = [line for line in caplog.messages if line.startswith('step ')]
  # The loss is the number of steps + 1.
  assert first == 'step 1/5: loss 2.0000; a line follows every 2 steps'
  assert [line[:line.index(', learning')] for line in lines] == [
      'step 2/5: loss 3.0000, cross-entropy 1.0000, mean loss of last 2 2.5000',
      'step 4/5: loss 5.0000, cross-entropy 3.0000, mean loss of last 4 3.5000',
      'step 5/5: loss 6.0000, cross-entropy 4.0000, mean loss of last 4 4.5000']
  for line in lines:
    assert re.search(r', learning rate 0\.1, [\d.e+]+ steps/s, \d\d:\d\d:\d\d '
                     'left$', line)
  points = {}
  for path in tmp_path.glob('*tfevents*'):
    for event in tf.train.summary_iterator(str(path)):
      for value in event.summary.value:
        if value.HasField('simple_value'):
          points.setdefault(value.tag, []).append(
              (event.step, round(value.simple_value, 6)))
  assert [step for step, _ in points.pop('global_step/sec')] == [2, 4, 5]
  # A run of a few steps has a point of each.
  assert points == {
      'total_loss': [(1, 2), (2, 3), (3, 4), (4, 5), (5, 6)],
      'losses/softmax_cross_entropy': [(1, 0), (2, 1), (3, 2), (4, 3), (5, 4)],
      'learning_rate': [(step, 0.1) for step in range(1, 6)]}


@pytest.mark.parametrize('error', [
    tf.errors.AbortedError, tf.errors.OutOfRangeError])
def test_errors_that_slim_hides_end_the_run(run, monkeypatch, error):
  """slim restarts after an AbortedError, and ends normally after the other."""
  calls = []

  def fail(*unused):
    calls.append(1)
    raise error(None, None, 'a host is lost')

  monkeypatch.setattr(loop.Loop, '_run_step', fail)
  with pytest.raises(tf.errors.UnavailableError, match='a host is lost'):
    run(2)
  assert len(calls) == 1


def test_a_terminal_shows_a_progress_bar(run, monkeypatch):
  class Terminal(io.StringIO):

    def isatty(self):
      return True

  run(2)
  terminal = Terminal()
  monkeypatch.setattr(sys, 'stderr', terminal)
  run(5)
  first, *_, last = re.findall('[^\\r\\n]*training: [^\\r\\n]*',
                               terminal.getvalue())
  assert ' 2/5 [' in first  # the resumed run starts here
  assert re.search(r' 5/5 \[\d\d:\d\d<\d\d:\d\d, .*loss=5\.0000\]', last)


@pytest.mark.parametrize('secs, saved, summarized', [
    (1000, [0, 5], [1, 5]), (0, [0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5])])
def test_intervals_of_checkpoints_and_summaries(
    tmp_path, run, secs, saved, summarized):
  run(5, save_interval_secs=secs, save_summaries_secs=secs,
      max_checkpoints_to_keep=9)
  assert steps_in(tmp_path) == saved
  assert [event.step for path in tmp_path.glob('*tfevents*')
          for event in tf.train.summary_iterator(str(path))
          for value in event.summary.value
          if value.HasField('histo')] == summarized


def test_a_profile_is_written(tmp_path, run):
  run(6, profile_logdir=str(tmp_path / 'profile'))
  path, = (tmp_path / 'profile').iterdir()
  assert path.name == 'timeline-5.json'
  assert json.loads(path.read_text())['traceEvents']


def predicting_sky(*arguments):
  """Returns the same step with logits of class 3 for all pixels."""
  step = trivial_step(*arguments)
  return step._replace(logits=tf.one_hot(tf.fill([2, 33, 33], 3), 32))


def pictures_in(folder):
  """Returns [(step, tag, [height, width, 3] uint8)] of a folder's events."""
  return [(event.step, value.tag, np.array(Image.open(io.BytesIO(
      value.image.encoded_image_string))))
          for path in sorted(folder.glob('*tfevents*'))
          for event in tf.train.summary_iterator(str(path))
          for value in event.summary.value if value.HasField('image')]


def test_save_predictions_steps(
    tmp_path, run, monkeypatch):
  monkeypatch.setattr(step_lib, 'build_step', predicting_sky)
  run(1)
  assert pictures_in(tmp_path) == []  # off by default
  run(5, save_predictions_steps=2)
  found = pictures_in(tmp_path)
  assert [picture[:2] for picture in found] == [
      (step, 'samples/predictions') for step in (2, 4)]
  expected = visualize.prediction_sheet(
      np.zeros([2, 33, 33, 3]), np.zeros([2, 33, 33], int),
      np.full([2, 33, 33], 3))
  np.testing.assert_array_equal(found[0][2], expected)
  # Image, label and prediction; only the prediction has sky's colour.
  middles = found[0][2][18 + 16, 8 + 16::60 + 8][:3]
  assert middles[:2].max() == 0 and middles[2].max() > 100


def steps_in(folder):
  return sorted(read.step_of(path.name[:-len('.index')])
                for path in folder.glob('model.ckpt-*.index'))


def value_in(folder, step, name='weight'):
  return tf.train.NewCheckpointReader(
      str(folder / 'model.ckpt-{}'.format(step))).get_tensor(name)


def contents(folder):
  """Returns content and modification time of all checkpoint files."""
  return {path.name: (path.read_bytes(), path.stat().st_mtime_ns)
          for path in folder.glob('model.ckpt-*')}


def cut(path):
  content = path.read_bytes()
  path.write_bytes(content[:len(content) // 2])


@pytest.mark.parametrize('kept', [1, 3])
def test_max_checkpoints_to_keep(tmp_path, run, kept):
  for steps in (3, 5):  # the second run keeps counting
    result = run(steps, max_checkpoints_to_keep=kept)
    assert steps_in(tmp_path) == list(range(steps + 1 - kept, steps + 1))
    assert result.checkpoint == str(tmp_path / 'model.ckpt-{}'.format(steps))
  listed = tf.train.get_checkpoint_state(str(tmp_path))
  assert listed.model_checkpoint_path == result.checkpoint
  assert [os.path.basename(path) for path in
          listed.all_model_checkpoint_paths] == [
              'model.ckpt-{}'.format(step) for step in steps_in(tmp_path)]


def test_checkpoints_with_other_names_are_never_removed(tmp_path, run):
  run(2)
  for path in list(tmp_path.glob('model.ckpt-0.*')):
    path.rename(str(path).replace('model.ckpt-0', 'best.ckpt-1'))
  state = tmp_path / 'checkpoint'
  state.write_text(state.read_text().replace('model.ckpt-0', 'best.ckpt-1'))
  run(3, max_checkpoints_to_keep=1)
  assert steps_in(tmp_path) == [3]
  assert len(list(tmp_path.glob('best.ckpt-1.*'))) == 3


def test_a_second_signal_does_not_interrupt_a_save(tmp_path, run, monkeypatch):
  def write(self, *arguments, write=saver.Keeper._write):
    if self.newest == 'model.ckpt-0':
      os.kill(os.getpid(), signal.SIGTERM)
      os.kill(os.getpid(), signal.SIGHUP)
    write(self, *arguments)

  monkeypatch.setattr(saver.Keeper, '_write', write)
  result = run(9)
  assert result.stopped_by == 'SIGHUP'
  assert find.find(str(tmp_path), 'x') == result.checkpoint


def test_a_damaged_checkpoint_does_not_count_as_kept(tmp_path, run):
  run(3, max_checkpoints_to_keep=3)
  cut(tmp_path / 'model.ckpt-2.index')
  run(4, max_checkpoints_to_keep=3)
  assert steps_in(tmp_path) == [1, 2, 3, 4]  # 1, 3 and 4 are intact


@pytest.mark.parametrize('state', [
    None, b'model_checkpoint_path: "model.ckpt-9"'])
def test_the_log_names_the_resumed_checkpoint(tmp_path, run, caplog, state):
  caplog.set_level('INFO')
  run(3)
  if state is None:
    (tmp_path / 'checkpoint').unlink()
  else:
    (tmp_path / 'checkpoint').write_bytes(state)
  before = contents(tmp_path)
  caplog.clear()
  result = run(5)
  assert 'RESUMING from step 3 of {}'.format(
      tmp_path / 'model.ckpt-3') in caplog.text
  assert (result.steps_done, result.loss, value_in(tmp_path, 5)) == (2, 6, 6)
  # No intact checkpoint is written again; the oldest one is removed.
  after = contents(tmp_path)
  for name in before:
    if 'ckpt-0' not in name:
      assert after[name] == before[name], name


def test_a_run_resumes_before_a_damaged_checkpoint(tmp_path, run, caplog):
  run(3)
  cut(tmp_path / 'model.ckpt-3.data-00000-of-00001')
  with pytest.raises(InputError, match='model.ckpt-3 cannot be read .*strict'):
    run(5, strict_checkpoint=True)
  caplog.set_level('INFO')
  caplog.clear()
  result = run(5)
  assert result.steps_done == 3 and value_in(tmp_path, 5) == 6
  lines = [record.getMessage() for record in caplog.records]
  [line] = [line for line in lines if 'model.ckpt-3 cannot be read' in line]
  assert line.endswith('; taking model.ckpt-2')
  assert 'RESUMING from step 2 of {}'.format(
      tmp_path / 'model.ckpt-2') in lines


def test_training_is_refused_if_no_checkpoint_can_be_read(tmp_path, run):
  run(1)
  for name in ('model.ckpt-0.index', 'model.ckpt-1.index'):
    cut(tmp_path / name)
  before = contents(tmp_path)
  with pytest.raises(InputError, match='model.ckpt-1 cannot be read .*'
                     'model.ckpt-0 cannot be read .* new train_logdir'):
    run(5)
  assert contents(tmp_path) == before


def test_the_step_comes_from_the_checkpoint_not_its_name(tmp_path, run):
  run(2)
  for path in list(tmp_path.glob('model.ckpt-2*')):
    path.rename(str(path).replace('ckpt-2', 'ckpt-7'))
  assert run(3).steps_done == 1


def test_a_resume_from_step_0_does_not_save_step_0_again(tmp_path, run):
  run(1)
  for path in list(tmp_path.glob('model.ckpt-1.*')):
    path.unlink()
  before = contents(tmp_path)
  run(2)
  after = contents(tmp_path)
  assert before and all(after[name] == before[name] for name in before)


# --- Faults ----------------------------------------------------------------


def failing_at(monkeypatch, step, fail):
  """Calls `fail` with the session before the save of a step."""
  save = saver.Keeper.save

  def fails(self, session, number):
    if number == step:
      fail(session)
    save(self, session, number)

  monkeypatch.setattr(saver.Keeper, 'save', fails)


@pytest.mark.parametrize('size', [4, 1000])  # data file, meta file
def test_a_full_disk_ends_a_run_and_keeps_older_checkpoints(
    tmp_path, run, monkeypatch, size):
  write = saver.Keeper._write

  def fails(self, session, prefix, meta):
    if prefix.endswith('-2'):
      with faults.largest_file(size):
        return write(self, session, prefix, meta)
    return write(self, session, prefix, meta)

  monkeypatch.setattr(saver.Keeper, '_write', fails)
  # The last save must fail the run too, because its result is lost.
  with pytest.raises(InputError) as error:
    run(2)
  assert str(error.value).startswith('{}: cannot be saved ('.format(
      tmp_path / 'model.ckpt-2'))
  assert str(error.value).endswith(
      'File too large); model.ckpt-1 is kept, the steps after it are lost')
  assert '\n' not in str(error.value) and '.deeplab-' not in str(error.value)
  assert steps_in(tmp_path) == [0, 1]
  assert not [path for path in tmp_path.iterdir() if 'tmp' in path.name or
              'ckpt-2' in path.name or 'tempstate' in path.name]
  monkeypatch.setattr(saver.Keeper, '_write', write)
  assert run(3).steps_done == 2 and value_in(tmp_path, 3) == 4


@pytest.mark.parametrize('is_made_again', [False, True])
def test_a_run_ends_if_its_folder_is_removed(
    tmp_path, run, monkeypatch, is_made_again):
  folder = tmp_path / 'log'

  def remove(unused_session):
    shutil.rmtree(str(folder))
    if is_made_again:
      # Avoids a new folder with the same inode.
      (tmp_path / 'other').mkdir()
      (tmp_path / 'other').rename(folder)

  failing_at(monkeypatch, 1, remove)
  with pytest.raises(InputError, match='model.ckpt-1: cannot be saved .*; no '
                     'checkpoint is kept, all steps are lost'):
    run(2, train_logdir=str(folder))


def test_weights_that_are_not_finite_are_not_saved(tmp_path, run, monkeypatch):
  failing_at(monkeypatch, 2, lambda session: session.run(
      session.graph.get_collection('spoil')[0]))
  plain = step_lib.build_step

  def build(*arguments):
    step = plain(*arguments)
    [weight] = tf.trainable_variables()
    tf.add_to_collection('spoil', weight.assign(np.nan).op)
    return step

  monkeypatch.setattr(step_lib, 'build_step', build)
  with pytest.raises(InputError, match=r'model.ckpt-2: cannot be saved \(1 of '
                     '1 values of weight are inf or NaN.*model.ckpt-1 is kept'):
    run(3)
  assert steps_in(tmp_path) == [0, 1]
  assert value_in(tmp_path, 1) == 2


def test_files_of_interrupted_saves_are_removed(tmp_path, run):
  run(1)
  left = ['model.ckpt-8.data-00000-of-00001', 'model.ckpt-8.meta']
  others = ['model.ckpt-7.index.mine', 'mine.tempstate1', 'notes.tmp',
            'best.ckpt-8.data-00000-of-00001']
  for name in left + others:
    (tmp_path / name).write_text('')
  run(2)
  there = {path.name for path in tmp_path.iterdir()}
  assert not there & set(left) and set(others) <= there


def test_a_full_disk_stops_events_but_not_training(tmp_path, run, caplog):
  class Full:
    def write(self, unused_event):
      raise OSError('File too large')
    flush = close = write

  writer = tensorboard.Writer(str(tmp_path))
  writer._writer = Full()
  with writer:
    writer.add(1, graph_def=b'')
    writer.add(2, graph_def=b'')
  [record] = caplog.records
  assert 'no more events are written (File too large)' in record.getMessage()


_HOLD = """
import sys
sys.path.insert(0, {!r})
from deeplab.storage import locks
with locks.exclusive(sys.argv[1]):
  print('held', flush=True)
  sys.stdin.read()
""".format(REPOSITORY)


def test_only_one_process_trains_in_a_folder(tmp_path, run):
  run(1)
  before = contents(tmp_path)
  holder = subprocess.Popen(
      [sys.executable, '-c', _HOLD, str(tmp_path)], stdin=subprocess.PIPE,
      stdout=subprocess.PIPE)
  try:
    assert holder.stdout.readline() == b'held\n'
    with pytest.raises(InputError, match='train_logdir=.*: another process is '
                       'training there'):
      run(2)
    assert contents(tmp_path) == before
  finally:
    holder.kill()
    holder.communicate()
  assert run(2).steps_done == 1


def test_a_run_without_locks_warns_and_continues(
    tmp_path, run, monkeypatch, caplog):
  @contextlib.contextmanager
  def none(unused_path):
    raise OSError(errno.ENOLCK, 'No locks available')
    yield

  monkeypatch.setattr(train_lib.locks, 'exclusive', none)
  # Temporary files may belong to a live run, so they are kept.
  monkeypatch.setattr(train_lib.saver, 'remove_leftovers', None)
  assert run(1).step == 1
  assert [record.levelname for record in caplog.records if 'no lock (No locks '
          'available)' in record.getMessage()] == ['WARNING']
