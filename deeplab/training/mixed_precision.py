"""Mixed-precision training with TensorFlow's rewrite of graphs.

On a GPU, convolutions and the operations between them are computed in 16 bits;
variables keep 32 bits. The loss is scaled up, so that small gradients do not
underflow. If gradients become inf or NaN, the step is counted but changes no
weight, and the scale is halved. At a scale of 1 this is an error, as in 32
bits.
"""
from typing import Any, Iterable, Tuple

import tensorflow.compat.v1 as tf

from deeplab.config import options as options_lib
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.models import predictors

NOT_FINITE = 'Gradient is inf or nan.'


def check(model_options: options_lib.ModelOptions, replicas: int) -> None:
  """Raises InputError if training in 16 bits is impossible or useless.

  Args:
    model_options: the network's structure.
    replicas: number of replicas of all hosts.
  """
  given = option('mixed_precision', True)
  if model_options.is_quantized:
    raise InputError(
        '{}: cannot be combined with {}, whose rounding to 8 bits needs '
        'float32', given, option('quantize_delay_step',
                                 model_options.quantize_delay_step))
  if replicas > 1:
    raise InputError('{}: expected one GPU of one host, got {} replicas',
                     given, replicas)
  if not predictors.gpus():
    raise InputError(
        '{}: TensorFlow {} sees no GPU here, and computes in 16 bits only on '
        'GPUs; leave it out', given, tf.__version__)


def scaling(
    optimizer: tf.train.Optimizer) -> Tuple[tf.train.Optimizer, Any]:
  """Returns an optimizer of the scaled loss, and the scale.

  The scale is not saved, so that checkpoints have the usual variables. After
  an interruption it starts from its initial value.

  Args:
    optimizer: the optimizer to wrap.
  """
  def of_this_run(creator, **settings):
    return creator(**dict(
        settings, collections=[tf.GraphKeys.LOCAL_VARIABLES]))

  with tf.variable_creator_scope(of_this_run):
    loss_scale = tf.train.experimental.DynamicLossScale()
    optimizer = tf.train.experimental.enable_mixed_precision_graph_rewrite(
        optimizer, loss_scale)
  # The call enabled it for all later sessions; `configure` enables some.
  tf.train.experimental.disable_mixed_precision_graph_rewrite()
  return optimizer, loss_scale


def apply_gradients(
    optimizer: tf.train.Optimizer, loss_scale: Any,
    gradients: Iterable[Tuple[tf.Tensor, tf.Variable]],
    global_step: tf.Variable) -> tf.Operation:
  """Applies gradients if all are finite, and counts the step.

  Args:
    optimizer: from `scaling`.
    loss_scale: from `scaling`.
    gradients: pairs of gradient and variable.
    global_step: number of steps done.

  Returns:
    The operation. It fails with NOT_FINITE if a gradient is not finite at a
    scale of 1.
  """
  gradients = list(gradients)
  is_finite = tf.reduce_all([
      tf.reduce_all(tf.is_finite(gradient)) for gradient, _ in gradients])
  check = tf.Assert(is_finite | (loss_scale() > 1), [NOT_FINITE])
  # In 1.15, the condition's scope would prefix the names of new variables.
  def outside(creator, **settings):
    with tf.name_scope(''):
      return creator(**settings)

  with tf.variable_creator_scope(outside), tf.control_dependencies([check]):
    update = optimizer.apply_gradients(gradients)
  with tf.control_dependencies([update]):
    return tf.assign_add(global_step, 1).op


def configure(config: tf.ConfigProto) -> None:
  """Enables the rewrite in sessions with this configuration."""
  rewriting = config.graph_options.rewrite_options
  rewriting.auto_mixed_precision = type(rewriting).ON
