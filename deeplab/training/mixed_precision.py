"""Training in 16 bits where that is safe: TensorFlow's rewrite of graphs.

Convolutions and the operations between them are computed in 16 bits, on a GPU;
variables keep 32 bits. The loss is scaled up, so that small gradients do
not become 0. If that makes gradients inf or NaN, the step counts but changes no
weight, and the scale is halved. At a scale of 1 there is nothing to lower: then
it is an error, as in 32 bits.
"""
from typing import Any, Iterable, Tuple

import tensorflow.compat.v1 as tf

from deeplab.config import options as options_lib
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.models import predictors

NOT_FINITE = 'Gradient is inf or nan.'


def check(model_options: options_lib.ModelOptions, parts: int) -> None:
  """Raises InputError if training in 16 bits is impossible or useless.

  Args:
    model_options: the network's structure.
    parts: number of parts that a batch is split into.
  """
  given = option('mixed_precision', True)
  if model_options.is_quantized:
    raise InputError(
        '{}: with {} the network is to see the rounding to 8 bits, and no '
        'other', given, option('quantize_delay_step',
                               model_options.quantize_delay_step))
  if parts > 1:
    raise InputError('{}: for one GPU of one host, here {} parts of a batch',
                     given, parts)
  if not predictors.gpus():
    raise InputError(
        '{}: TensorFlow {} sees no GPU here, and computes in 16 bits nowhere '
        'else; leave it out', given, tf.__version__)


def scaling(
    optimizer: tf.train.Optimizer) -> Tuple[tf.train.Optimizer, Any]:
  """Returns the optimizer with a loss that is scaled up, and the scale.

  The scale is not saved, so that checkpoints are those of any other run: after
  an interruption it starts again.

  Args:
    optimizer: applies the gradients.
  """
  def of_this_run(creator, **settings):
    return creator(**dict(
        settings, collections=[tf.GraphKeys.LOCAL_VARIABLES]))

  with tf.variable_creator_scope(of_this_run):
    loss_scale = tf.train.experimental.DynamicLossScale()
    optimizer = tf.train.experimental.enable_mixed_precision_graph_rewrite(
        optimizer, loss_scale)
  # It was enabled for all sessions from now on; `configure` selects some.
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
    gradients: with their variables.
    global_step: number of steps done.

  Returns:
    The operation that does it. It fails with NOT_FINITE if gradients are not
    finite at a scale of 1.
  """
  gradients = list(gradients)
  is_finite = tf.reduce_all([
      tf.reduce_all(tf.is_finite(gradient)) for gradient, _ in gradients])
  check = tf.Assert(is_finite | (loss_scale() > 1), [NOT_FINITE])
  # In 1.15 the names of variables made here would begin with the condition's.
  def outside(creator, **settings):
    with tf.name_scope(''):
      return creator(**settings)

  with tf.variable_creator_scope(outside), tf.control_dependencies([check]):
    update = optimizer.apply_gradients(gradients)
  with tf.control_dependencies([update]):
    return tf.assign_add(global_step, 1).op


def configure(config: tf.ConfigProto) -> None:
  """Makes sessions of this configuration rewrite their graphs."""
  rewriting = config.graph_options.rewrite_options
  rewriting.auto_mixed_precision = type(rewriting).ON
