"""The one place that knows how fake quantization gets into a graph.

Jacob et al. 2018, section 3: weights and activations are rounded to 8 bits in
the forward pass, batch norm is folded into the weights before rounding.
"""
import tensorflow.compat.v1 as tf

from deeplab.errors import InputError


def rewrite_for_training(delay_step):
  """Adds fake quantization to the default graph, after the loss is built.

  Args:
    delay_step: step from which values are rounded, and from which batch norm
      uses its moving averages and leaves them alone.

  Raises:
    InputError: where this TensorFlow has no tf.contrib.quantize.
  """
  _contrib_quantize().experimental_create_training_graph(
      quant_delay=delay_step, freeze_bn_delay=delay_step)


def rewrite_for_evaluation():
  """Adds fake quantization to the default graph, for evaluation and export.

  Raises:
    InputError: where this TensorFlow has no tf.contrib.quantize.
  """
  _contrib_quantize().create_eval_graph()


def _contrib_quantize():
  try:
    from tensorflow.contrib import quantize
  except ImportError:
    raise InputError(
        '--quantize_delay_step: TensorFlow {} has no tf.contrib.quantize; '
        'expected 1.15, run ./scripts/setup.sh tf1'.format(tf.__version__))
  return quantize
