"""The one place that knows how fake quantization gets into the network.

Jacob et al. 2018, section 3: weights and activations are rounded to 8 bits in
the forward pass, batch norm is folded into the weights before rounding. Two
implementations make the same variables and the same rounding:

    contrib  tf.contrib.quantize's rewrite of the finished network, the
             reference's; TensorFlow 1.15 alone has it
    layers   deeplab.nets.fake_quant, as part of each layer; a training step
             takes less time (BENCHMARKS.md)

Which one, and from which step on, ModelOptions say; deeplab_v3.logits does the
rest.
"""
from typing import Optional

import tensorflow.compat.v1 as tf

from deeplab.config import options as options_lib
from deeplab.distribution import replicas
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.nets import fake_quant as fake_quant_lib


def implementation(options: options_lib.ModelOptions) -> Optional[str]:
  """Returns who quantizes: options.CONTRIB, options.LAYERS, or None: no one.

  Args:
    options: the network's structure; without a choice, TensorFlow's own rewrite
      is taken where there is one.

  Raises:
    InputError: where the rewrite is asked for, and this TensorFlow has none.
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
  """Returns what every layer is to do; None: nothing.

  Where layers quantize in training, their steps are counted from here on; to be
  called in the root scope, once, before the first layer.

  Args:
    options: the network's structure.
    is_training: whether ranges follow the values that are seen.
    replica: which of the networks that share a batch it is.
  """
  if implementation(options) != options_lib.LAYERS:
    return None
  if is_training and replica.is_first:
    fake_quant_lib.count_steps()
  return fake_quant_lib.FakeQuant(
      is_training, options.quantize_delay_step if is_training else 0, replica)


def rewritten(outputs: tf.Tensor, options: options_lib.ModelOptions,
              is_training: bool) -> tf.Tensor:
  """Adds to the default graph what the layers did not.

  To be called with the finished network, before anything reads its outputs:
  the rewrite then sees nothing but the network.

  Args:
    outputs: the network's last tensor.
    options: the network's structure.
    is_training: as in for_layers.

  Returns:
    The tensor to read in place of outputs.
  """
  if implementation(options) != options_lib.CONTRIB:
    return outputs
  from tensorflow.contrib import quantize
  # The rewrite puts its rounding between a tensor and those who read it, and
  # gives up where no one does. An identity would count as an activation.
  reader = tf.stop_gradient(outputs)
  if is_training:
    quantize.experimental_create_training_graph(
        quant_delay=options.quantize_delay_step,
        freeze_bn_delay=options.quantize_delay_step)
  else:
    quantize.create_eval_graph()
  return reader.op.inputs[0]
