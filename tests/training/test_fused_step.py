"""The fused training step gives the same numbers as the plain one.

Other tests compare the plain step with the reference.
"""
from unittest import mock

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from deeplab.config import options as options_lib
from deeplab.nets import deeplab_v3
from deeplab.nets import layers
from deeplab.training import losses
from deeplab.training import step as step_lib

pytestmark = [pytest.mark.tf1, pytest.mark.modern]

CROP = 33
CLASSES = 32
MODEL = options_lib.ModelOptions(
    crop_size=(CROP, CROP), decoder_output_stride=(4,), depth_multiplier=0.25)


def gradients_of(logits, labels, weights, is_fused):
  """Returns (loss, gradient with respect to the logits)."""
  with tf.Graph().as_default(), tf.Session() as session:
    tensor = tf.constant(logits)
    # A factor other than 1, because the upstream gradient must be used.
    loss = 3.0 * losses.mean([losses.sum_over_pixels(
        tensor, tf.constant(labels), weights, is_fused=is_fused)])
    return session.run([loss, tf.gradients(loss, tensor)[0]])


@pytest.mark.parametrize('batch, size, weights', [
    (3, 9, ()), (9, 9, (0.5,)), (4, 33, tuple(np.linspace(0, 2, 32)))])
def test_fused_loss_and_gradient_equal_the_plain_ones(batch, size, weights):
  random = np.random.RandomState(7)
  logits = random.normal(0, 5, [batch, size, size, CLASSES]).astype(np.float32)
  labels = random.randint(0, CLASSES, [batch, CROP, CROP, 1], np.int32)
  plain, fused = [
      gradients_of(logits, labels, weights, is_fused)
      for is_fused in (False, True)]
  np.testing.assert_allclose(fused[0], plain[0], rtol=1e-6)
  np.testing.assert_allclose(
      fused[1], plain[1], rtol=0, atol=1e-6 * np.abs(plain[1]).max())


def test_a_label_with_probability_zero_has_the_same_loss():
  logits = np.zeros([2, 5, 5, CLASSES], np.float32)
  logits[..., 3] = 500
  labels = np.full([2, 5, 5, 1], 4, np.int32)
  # An ignored pixel with a probability of 0 must not make the sum NaN either.
  labels[0, 0, 0] = 0
  plain, fused = [
      gradients_of(logits, labels, (), is_fused) for is_fused in (False, True)]
  assert plain[0] == pytest.approx(3 * 500)
  np.testing.assert_allclose(fused[0], plain[0], rtol=1e-6)
  np.testing.assert_allclose(fused[1], plain[1], atol=1e-8)


def test_a_batch_of_ignored_pixels_has_a_loss_of_0():
  logits = np.ones([1, 5, 5, CLASSES], np.float32)
  loss, gradient = gradients_of(
      logits, np.zeros([1, 5, 5, 1], np.int32), (), True)
  assert loss == 0
  assert not gradient.any()


def initialize(session):
  """Gives every variable a value, as after training."""
  random = np.random.RandomState(3)
  values = {}
  for variable in tf.model_variables():
    shape = variable.shape.as_list()
    if variable.op.name.endswith(('gamma', 'moving_variance')):
      value = random.uniform(0.5, 1.5, shape)
    elif variable.op.name.endswith('weights'):
      value = random.normal(0, 1 / np.sqrt(np.prod(shape[:-1])), shape)
    else:
      value = random.normal(0, 0.1, shape)
    values[variable.initial_value] = value
  session.run(tf.global_variables_initializer(), values)


@pytest.mark.slow
def test_folded_batch_norm_gives_the_same_logits_and_gradients(shallow):
  images = np.random.RandomState(5).uniform(
      -1, 1, [2, CROP, CROP, 3]).astype(np.float32)

  def outputs_of(fold_batch_norm):
    with tf.Graph().as_default() as graph, tf.Session() as session:
      logits = deeplab_v3.logits(
          tf.constant(images), MODEL, fold_batch_norm=fold_batch_norm)
      variables = tf.trainable_variables()
      gradients = tf.gradients(tf.nn.l2_loss(logits), variables)
      initialize(session)
      assert has_batch_norm(graph) == (not fold_batch_norm)
      return (session.run([logits] + gradients),
              [variable.op.name for variable in tf.global_variables()])

  plain, plain_names = outputs_of(False)
  folded, folded_names = outputs_of(True)
  assert folded_names == plain_names
  for before, after in zip(plain, folded):
    np.testing.assert_allclose(
        after, before, rtol=0, atol=1e-4 * np.abs(before).max())


@pytest.mark.slow
def test_three_fused_steps_have_the_same_losses(shallow):
  random = np.random.RandomState(11)
  images = random.uniform(0, 255, [2, CROP, CROP, 3]).astype(np.float32)
  labels = random.randint(0, CLASSES, [2, CROP, CROP, 1], np.int32)

  def losses_of(fused_step):
    # Without dropout, whose draws depend on the number of operations.
    with tf.Graph().as_default() as graph, tf.Session() as session, (
        mock.patch.object(layers, 'dropout', lambda inputs, **_: inputs)):
      step = step_lib.build_step(
          tf.constant(images), tf.constant(labels), MODEL,
          options_lib.TrainOptions(
              train_logdir='', fused_step=fused_step, optimizer='adam',
              fine_tune_batch_norm=False, label_weights=(2.0,)))
      initialize(session)
      assert has_batch_norm(graph) == (not fused_step)
      return [session.run(step.train_op) for _ in range(3)]

  plain = losses_of(False)
  assert len(set(plain)) == 3
  np.testing.assert_allclose(losses_of(True), plain, rtol=1e-5)


def has_batch_norm(graph):
  return any(operation.type.startswith('FusedBatchNorm')
             for operation in graph.get_operations())


@pytest.mark.slow
def test_fused_step_is_the_default_on_tensorflow_2_only(shallow):
  with tf.Graph().as_default() as graph:
    step_lib.build_step(
        tf.zeros([1, CROP, CROP, 3]), tf.zeros([1, CROP, CROP, 1], tf.int32),
        MODEL, options_lib.TrainOptions(
            train_logdir='', fine_tune_batch_norm=False))
  assert has_batch_norm(graph) == tf.__version__.startswith('1.')
