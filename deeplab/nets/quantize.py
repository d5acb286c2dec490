"""Adds fake quantization to the network.

Jacob et al. 2018, section 3: weights and activations are rounded to 8 bits in
the forward pass, and batch norm is folded into the weights before rounding. Two
implementations make the same variables and round alike:

    contrib  tf.contrib.quantize's rewrite of the finished network, as in the
             reference; only TensorFlow 1.15 has it
    layers   deeplab.nets.fake_quant, within each layer; a training step takes
             less time (BENCHMARKS.md)

ModelOptions select the implementation and the first step; deeplab_v3.logits
calls this module.
"""
from typing import Optional

import tensorflow.compat.v1 as tf

from deeplab.config import options as options_lib
from deeplab.distribution import replicas
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.nets import fake_quant as fake_quant_lib


def implementation(options: options_lib.ModelOptions) -> Optional[str]:
  """Returns options.CONTRIB, options.LAYERS, or None: no quantization.

  Args:
    options: the network's structure; if they name no implementation, the
      rewrite is used if TensorFlow has it.

  Raises:
    InputError: the rewrite is requested, but this TensorFlow has none.
  """
  if not options.is_quantized:
    return None
  if options.fake_quant == options_lib.CONTRIB and not has_contrib():
    raise InputError(
        '{}: TensorFlow {} has no tf.contrib.quantize; expected {}',
        option('fake_quant', options.fake_quant), tf.__version__,
        options_lib.LAYERS)
  return options.fake_quant or (
      options_lib.CONTRIB if has_contrib() else options_lib.LAYERS)


def has_contrib() -> bool:
  """Whether this TensorFlow has tf.contrib.quantize."""
  try:
    from tensorflow.contrib import quantize  # noqa: F401, is it there?
  except ImportError:
    return False
  return True


def for_layers(
    options: options_lib.ModelOptions,
    is_training: bool, replica: replicas.Replica = replicas.ONLY
) -> Optional[fake_quant_lib.FakeQuant]:
  """Returns the layers' settings; None: layers do not quantize.

  In training, this adds the counter of steps. Call it in the root scope, once,
  before the first layer.

  Args:
    options: the network's structure.
    is_training: whether ranges follow the values.
    replica: the replica that this network is.
  """
  if implementation(options) != options_lib.LAYERS:
    return None
  if is_training and replica.is_first:
    fake_quant_lib.count_steps()
  return fake_quant_lib.FakeQuant(
      is_training, options.quantize_delay_step if is_training else 0, replica)


def rewritten(outputs: tf.Tensor, options: options_lib.ModelOptions,
              is_training: bool) -> tf.Tensor:
  """Applies tf.contrib.quantize's rewrite to the default graph, if selected.

  Call it with the finished network, before anything reads its outputs, so that
  the rewrite covers only the network.

  Args:
    outputs: the network's last tensor.
    options: the network's structure.
    is_training: as in for_layers.

  Returns:
    The tensor to read instead of outputs.
  """
  if implementation(options) != options_lib.CONTRIB:
    return outputs
  from tensorflow.contrib import quantize
  # The rewrite inserts its rounding between a tensor and its readers, so there
  # must be one. An identity would count as an activation.
  reader = tf.stop_gradient(outputs)
  if is_training:
    quantize.experimental_create_training_graph(
        quant_delay=options.quantize_delay_step,
        freeze_bn_delay=options.quantize_delay_step)
  else:
    quantize.create_eval_graph()
  return reader.op.inputs[0]
