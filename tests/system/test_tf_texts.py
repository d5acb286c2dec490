"""Tests how messages of the installed TensorFlow are shortened."""
import pytest
import tensorflow.compat.v1 as tf

from deeplab.cli import runner
from deeplab.errors import InputError
from deeplab.system import tf_errors

pytestmark = [pytest.mark.tf1, pytest.mark.tf2, pytest.mark.modern]


def failure(make):
  """Returns the error of running the tensor that a function makes."""
  with tf.Graph().as_default(), tf.Session() as session:
    fetch = make()
    with pytest.raises(tf.errors.OpError) as caught:
      session.run(fetch)
  return caught.value


def failing(value):
  return tf.debugging.check_numerics(tf.log(value), 'out of range')


def from_network():
  return failing(tf.constant([-1.0]))


def from_input():
  dataset = tf.data.Dataset.from_tensor_slices([-1.0]).map(failing)
  return tf.data.make_one_shot_iterator(dataset).get_next()


def test_a_message_ends_before_the_list_of_nodes():
  error = failure(from_network)
  assert '[[' in str(error)
  assert tf_errors.message(error).startswith('out of range : Tensor had ')
  assert '[[' not in tf_errors.message(error)
  assert 'CheckNumerics' not in tf_errors.message(error)


def test_errors_of_the_input_pipeline_are_recognized():
  assert tf_errors.is_of_input(failure(from_input))
  assert not tf_errors.is_of_input(failure(from_network))


def test_only_tensorflow_messages_are_shortened():
  values = runner.flags.FlagValues()
  assert runner.reason_of(InputError('a [[b]].pb: bad'), values) == (
      'a [[b]].pb: bad')
  assert '[[' not in runner.reason_of(failure(from_network), values)
