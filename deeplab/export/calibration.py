"""Measures the ranges of activations for post-training quantization.

TensorFlow's calibrator compares values one by one in one thread, and takes a
sum that is computed in place for its term; docs/quantization_calibration.md.
Only this module uses private names of TensorFlow, of version 2.21.
"""
import concurrent.futures
import logging
import time
from typing import Iterable, List, Optional, Tuple, Type
import warnings

import numpy as np
import tensorflow.compat.v1 as tf

from deeplab.config import options as options_lib
from deeplab.system import parallel
from deeplab.system import progress

try:
  from tensorflow.lite.python import convert as _convert
  from tensorflow.lite.tools import flatbuffer_utils as _flatbuffers

  _quantize = _convert.mlir_quantize
  _KERNELS = (
      tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
  # The method that FastConverter overrides.
  _OVERRIDDEN = tf.lite.TFLiteConverter._quantize
  is_available = True
except (ImportError, AttributeError):
  is_available = False

_LOG = logging.getLogger(__name__)
# TensorFlow's calibrator uses 4 threads on any machine. Another number gives
# values that differ in their last bits.
THREADS = 4


class FastConverter(tf.lite.TFLiteConverter):
  """TensorFlow's converter with a faster calibration."""

  def _quantize(self, model, input_type, output_type, *unused_settings):
    return _quantize(
        with_ranges(model, self.representative_dataset()),
        input_data_type=input_type, output_data_type=output_type)


def converter_class(
    calibrator: Optional[str]) -> Tuple[str, Type[tf.lite.TFLiteConverter]]:
  """Returns the name of the calibrator, and the converter that has it.

  Args:
    calibrator: the option of this name.
  """
  is_published = tf.__version__.startswith('2.2.')
  if calibrator == options_lib.FAST or not (calibrator or is_published):
    if is_available:
      return options_lib.FAST, FastConverter
    _LOG.warning(
        'TensorFlow %s cannot calibrate fast: using its own calibrator, which '
        'takes several times as long', tf.__version__)
  return options_lib.TENSORFLOW, tf.lite.TFLiteConverter


def with_ranges(
    model: bytes, samples: Iterable[List[np.ndarray]]) -> bytes:
  """Adds the range of each float activation to a TFLite model.

  Args:
    model: the TFLite file, with one input.
    samples: yields [image], float32 [1, height, width, 3] in [-1, 1].

  Raises:
    ValueError: an activation is NaN or infinite.
  """
  started = time.time()
  content = _flatbuffers.convert_bytearray_to_object(model)
  activations = {
      position: tensor
      for position, tensor in enumerate(content.subgraphs[0].tensors)
      if tensor.type == _flatbuffers.schema_fb.TensorType.FLOAT32 and
      content.buffers[tensor.buffer].data is None}
  limits = np.array(list(_limits(model, samples, list(activations))))
  for tensor, low, high in zip(activations.values(), limits[..., 0].min(0),
                               limits[..., 1].max(0)):
    if not np.isfinite(high - low):
      raise ValueError('activation {} is NaN or infinite for a calibration '
                       'image'.format(tensor.name.decode()))
    tensor.quantization = _flatbuffers.schema_fb.QuantizationParametersT()
    tensor.quantization.min, tensor.quantization.max = [low], [high]
  _LOG.info('measured the ranges of %s on %s in %.1f s',
            progress.counted(len(activations), 'activation'),
            progress.counted(len(limits), 'image'), time.time() - started)
  return bytes(_flatbuffers.convert_object_to_bytearray(content))


def _limits(model, samples, activations):
  """Yields [(lowest, highest), for each activation], for each sample."""
  with warnings.catch_warnings():
    # TensorFlow's interpreter warns that it has moved to LiteRT.
    warnings.simplefilter('ignore')
    interpreter = tf.lite.Interpreter(
        model_content=model, experimental_op_resolver_type=_KERNELS,
        num_threads=THREADS,
        # Otherwise a result may overwrite an earlier one.
        experimental_preserve_all_tensors=True)
  source = interpreter.get_input_details()[0]['index']

  def limits(position):
    # The interpreter refuses to run while such a view of its memory exists.
    values = interpreter.tensor(position)()
    return values.min(), values.max()

  with concurrent.futures.ThreadPoolExecutor(parallel.worker_count(0)) as pool:
    for image, in samples:
      interpreter.resize_tensor_input(source, image.shape)
      interpreter.allocate_tensors()
      interpreter.set_tensor(source, image)
      interpreter.invoke()
      yield list(pool.map(limits, activations))
