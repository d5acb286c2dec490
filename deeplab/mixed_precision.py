"""Training in 16 bits where that does no harm: TensorFlow's rewrite of graphs.

Convolutions and what lies between them are computed in 16 bits, on a GPU;
variables stay as they are. The loss is scaled up, so that small gradients do
not become 0; a step whose gradients are no numbers then is left out, not
counted, and the scale lowered.
"""
from typing import Iterable, Tuple

import tensorflow.compat.v1 as tf

from deeplab import options as options_lib
from deeplab import predictors
from deeplab.errors import InputError
from deeplab.errors import option


def check(model_options: options_lib.ModelOptions, parts: int) -> None:
  """Raises InputError where training in 16 bits cannot be, or is of no use.

  Args:
    model_options: the network's structure.
    parts: into how many parts a batch is split.
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


def scaling(optimizer: tf.train.Optimizer) -> tf.train.Optimizer:
  """Returns the optimizer with a loss that is scaled up.

  Its scale is no part of checkpoints, which stay those of any other run: after
  an interruption it is found anew.

  Args:
    optimizer: what applies the gradients.
  """
  def of_this_run(creator, **settings):
    return creator(**dict(
        settings, collections=[tf.GraphKeys.LOCAL_VARIABLES]))

  with tf.variable_creator_scope(of_this_run):
    optimizer = tf.train.experimental.enable_mixed_precision_graph_rewrite(
        optimizer)
  # That was for sessions of all graphs from now on; see `configure`.
  tf.train.experimental.disable_mixed_precision_graph_rewrite()
  return optimizer


def apply_gradients(
    optimizer: tf.train.Optimizer,
    gradients: Iterable[Tuple[tf.Tensor, tf.Variable]],
    global_step: tf.Variable) -> tf.Operation:
  """Applies gradients where all are numbers, and counts the step.

  Args:
    optimizer: from `scaling`.
    gradients: with their variables.
    global_step: number of steps done.

  Returns:
    The operation that does it.
  """
  # In 1.15 a variable that is made here has the name of the condition in front
  # of its own.
  def outside(creator, **settings):
    with tf.name_scope(''):
      return creator(**settings)

  with tf.variable_creator_scope(outside):
    return optimizer.apply_gradients(gradients, global_step=global_step)


def configure(config: tf.ConfigProto) -> None:
  """Has sessions of this configuration rewrite their graphs."""
  rewriting = config.graph_options.rewrite_options
  rewriting.auto_mixed_precision = type(rewriting).ON
