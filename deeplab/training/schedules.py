"""Learning rates and gradient multipliers."""
from typing import Dict, Iterable, Tuple

import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab.config import options as options_lib


def learning_rate(options: options_lib.TrainOptions,
                  global_step: tf.Tensor) -> tf.Tensor:
  """Returns the learning rate at a step.

  `poly` is base * (1 - step / total) ** power, down to the end value (Liu et
  al. 2015, ParseNet, section 3.3). `step` multiplies by a factor at intervals.
  Both count steps from the end of the slow start.

  Args:
    options: policy and rates.
    global_step: integer scalar.

  Returns:
    float32 scalar.
  """
  step = tf.maximum(global_step - options.slow_start_step, 0)
  if options.learning_policy == 'step':
    rate = tf.train.exponential_decay(
        options.base_learning_rate, step, options.learning_rate_decay_step,
        options.learning_rate_decay_factor, staircase=True)
  else:
    rate = tf.train.polynomial_decay(
        options.base_learning_rate, step,
        options.decay_steps or options.training_number_of_steps,
        end_learning_rate=options.end_learning_rate,
        power=options.learning_power)
  return tf.where(global_step < options.slow_start_step,
                  options.slow_start_learning_rate, rate)


def gradient_multipliers(
    variable_names: Iterable[str],
    options: options_lib.TrainOptions) -> Dict[str, float]:
  """Returns gradient factors: 2 for biases, times the last layers' factor.

  Args:
    variable_names: names of the model's variables.
    options: selects the last layers, and their factor.

  Returns:
    Factors by name, except factors of 1.
  """
  multipliers = {}
  for name in variable_names:
    factor = 2.0 if 'biases' in name else 1.0
    if any(scope in name for scope in last_layer_scopes(options)):
      factor *= options.last_layer_gradient_multiplier
    if factor != 1.0:
      multipliers[name] = factor
  return multipliers


def last_layer_scopes(options: options_lib.TrainOptions) -> Tuple[str, ...]:
  """Returns the scopes of the last layers."""
  if options.last_layers_contain_logits_only:
    return (constants.LOGITS_SCOPE,)
  return constants.LAST_LAYER_SCOPES
