"""Tests gradients in fewer passes against TensorFlow's own."""
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from deeplab.nets import gradients

pytestmark = [pytest.mark.tf1, pytest.mark.modern]

# Ranges from 0, around 0, narrower and wider than the values, and empty.
RANGES = [(0.0, 5.0), (-1.3, 2.2), (0.0, 6.0), (-7.5, 9.0), (-0.001, 4.0),
          (0.0, 0.0)]
ACTIVATIONS = {'Relu': tf.nn.relu, 'Relu6': tf.nn.relu6}


def gradients_of(build, values):
  """Returns the gradient of a sum of squares with respect to its input."""
  inputs = tf.constant(values)
  return tf.gradients(tf.reduce_sum(tf.square(build(inputs) + 1.0)), inputs)[0]


def values_around(low, high):
  """Returns values within a range, beyond it, and next to its bounds."""
  random = np.random.RandomState(6)
  ends = np.array([0, 6, low, high], np.float32)
  return np.concatenate([
      random.uniform(-8, 10, 300).astype(np.float32), ends,
      np.nextafter(ends, np.float32(-9)), np.nextafter(ends, np.float32(9)),
      random.uniform(-0.02, 0.02, 50).astype(np.float32)])


@pytest.fixture
def session():
  config = tf.ConfigProto()
  # Rewriting would turn division into multiplication and change last bits.
  config.graph_options.rewrite_options.disable_meta_optimizer = True
  with tf.Graph().as_default(), tf.Session(config=config) as opened:
    yield opened


def both(session, own, build, values):
  """Returns gradients computed by this library and by TensorFlow."""
  with gradients.instead_of(**own):
    ours = gradients_of(build, values)
  return session.run([ours, gradients_of(build, values)])


@pytest.mark.parametrize('low, high', RANGES)
@pytest.mark.parametrize('is_narrow', [False, True])
def test_gradient_of_a_range(session, low, high, is_narrow):
  def build(inputs):
    return tf.quantization.fake_quant_with_min_max_vars(
        inputs, low, high, narrow_range=is_narrow)
  ours, expected = both(
      session, {'FakeQuantWithMinMaxVars': gradients.WITHIN_RANGE}, build,
      values_around(low, high))
  np.testing.assert_array_equal(ours, expected)
  assert (expected == 0).any() == (low != high)


@pytest.mark.parametrize('low, high', RANGES)
@pytest.mark.parametrize('kind', sorted(ACTIVATIONS))
def test_gradient_of_a_range_after_an_activation(session, low, high, kind):
  def build(inputs):
    return tf.quantization.fake_quant_with_min_max_vars(
        ACTIVATIONS[kind](inputs), low, high)
  ours, expected = both(
      session, {kind: gradients.PASSED_ON,
                'FakeQuantWithMinMaxVars': gradients.WITHIN_RANGE_OF[kind]},
      build, values_around(low, high))
  np.testing.assert_array_equal(ours, expected)
  assert (expected == 0).any() and (expected != 0).any()


def test_gradient_of_a_bias_as_a_product(session):
  random = np.random.RandomState(7)
  inputs, offset = (tf.constant(random.normal(0, 1, shape), tf.float32)
                    for shape in ([3, 5, 7, 4], [4]))
  results = []
  for own in ({'BiasAdd': gradients.SUMMED_BY_PRODUCT}, {}):
    with gradients.instead_of(**own):
      outputs = tf.nn.bias_add(inputs, offset)
    results.append(session.run(
        tf.gradients(tf.square(outputs), [inputs, offset])))
  for ours, expected in zip(*results):
    np.testing.assert_allclose(ours, expected, rtol=2e-6, atol=2e-5)
