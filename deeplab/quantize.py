"""The one place that knows how fake quantization gets into a graph.

Jacob et al. 2018, section 3: weights and activations are rounded to 8 bits in
the forward pass, batch norm is folded into the weights before rounding. Two
implementations make the same variables and the same rounding:

    contrib  tf.contrib.quantize's rewrite of a finished graph, the reference's
    layers   deeplab.nets.fake_quant, for TensorFlow versions without contrib

Both are used the same way:

    quantization = quantize.for_evaluation()
    logits = deeplab_v3.logits(images, options,
                               fake_quant=quantization.fake_quant)
    ...
    quantization.rewrite()
"""
from typing import NamedTuple, Optional

from deeplab.nets import fake_quant as fake_quant_lib

CONTRIB = 'contrib'
LAYERS = 'layers'


class Quantization(NamedTuple):
  """How a graph is fake-quantized; see for_training and for_evaluation."""
  # CONTRIB, LAYERS or, for a float graph, None.
  implementation: Optional[str] = None
  is_training: bool = False
  # Step from which values are rounded, and from which batch norm uses its
  # moving averages and leaves them alone.
  delay_step: int = 0

  @property
  def fake_quant(self):
    """What the layers are to do: a FakeQuant, or None."""
    if self.implementation != LAYERS:
      return None
    return fake_quant_lib.FakeQuant(self.is_training, self.delay_step)

  def rewrite(self):
    """Adds to the default graph what the layers did not.

    To be called once the network and the loss are built, before gradients.
    """
    if self.implementation != CONTRIB:
      return
    from tensorflow.contrib import quantize
    if self.is_training:
      quantize.experimental_create_training_graph(
          quant_delay=self.delay_step, freeze_bn_delay=self.delay_step)
    else:
      quantize.create_eval_graph()


def for_training(delay_step, implementation=None):
  """Returns the Quantization of a training graph.

  Args:
    delay_step: step from which values are rounded; below 0: float.
    implementation: CONTRIB or LAYERS; None: what this TensorFlow has.
  """
  if delay_step < 0:
    return Quantization()
  return Quantization(implementation or default_implementation(), True,
                      delay_step)


def for_evaluation(is_quantized=True, implementation=None):
  """Returns the Quantization of a graph to evaluate or to export.

  Args:
    is_quantized: False: float.
    implementation: CONTRIB or LAYERS; None: what this TensorFlow has.
  """
  if not is_quantized:
    return Quantization()
  return Quantization(implementation or default_implementation())


def default_implementation():
  """CONTRIB where TensorFlow has tf.contrib.quantize, else LAYERS."""
  try:
    from tensorflow.contrib import quantize  # noqa: F401, is it there?
  except ImportError:
    return LAYERS
  return CONTRIB
