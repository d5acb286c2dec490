"""Runs TFLite files.

The interpreter is LiteRT's, TensorFlow's or tflite_runtime's. It is imported
when the first predictor is created.
"""
import importlib
import inspect
from typing import Any, Dict, Optional, Tuple
import warnings

import numpy as np

from deeplab import constants
from deeplab import errors
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.models import interface
from deeplab.models import metadata
from deeplab.models import tflite
from deeplab.storage import checked_read
from deeplab.system import environment
from deeplab.system import silence

# A quantized input takes pixels unchanged if the real values of pixels 0 and
# 255 are this close to [-1, 1] or [0, 255], relative to the range.
_RANGE_TOLERANCE = 0.01
# Operator name that the interpreter gives a delegate.
_DELEGATE = 'DELEGATE'


def read(path: str) -> Tuple[bytes, tflite.Model]:
  """Reads a TFLite file; returns its bytes and the parsed model.

  An interpreter may crash on a damaged file, so the file is parsed first.

  Raises:
    InputError: there is no such file, it is not a whole TFLite file, or it has
      custom operators.
  """
  name = option('net_file', path)
  content = checked_read.read(
      path, name, 'a TFLite model',
      './scripts/fetch_checkpoints.sh gets the published ones')
  return content, tflite.parse(content, name)


class TflitePredictor(interface.Predictor):
  """Runs a TFLite file.

  Attributes:
    input_text: human-readable type and range of the input.
    interpreter_text: the interpreter and its kernels.
    num_threads: threads of the interpreter; 1 if it supports no more.
  """

  def __init__(self, path: str, *, is_float_input: Optional[bool] = None,
               is_input_0_255: Optional[bool] = None, num_threads: int = 1):
    """Loads the file.

    Args:
      path: the .tflite file.
      is_float_input: whether the caller expects a float input; None: no
        expectation.
      is_input_0_255: whether the input is in [0, 255], not in [-1, 1]; None:
        [-1, 1] for a float input, unchanged pixels for a quantized one.
      num_threads: threads of the interpreter, if it supports several.

    Raises:
      InputError: the file is not a TFLite model from images to labels, or its
        input is not of the expected type or range.
    """
    self.description = path
    content, model = read(path)
    self.num_classes = model.num_classes()
    self.precision = model.precision()
    interpreter_class, name = _interpreter_class()
    # The interpreters of TensorFlow 1.15 and 2.2 have one thread.
    threads = {'num_threads': num_threads} if 'num_threads' in (
        inspect.signature(interpreter_class).parameters) else {}
    self.num_threads = threads.get('num_threads', 1)
    try:
      with silence.without_notices(), warnings.catch_warnings():
        # TensorFlow's interpreter warns that it has moved to LiteRT.
        warnings.simplefilter('ignore')
        self._interpreter = interpreter_class(
            model_content=content, **threads)
        self._interpreter.allocate_tensors()
        # These calls fail if the name of a tensor is not UTF-8.
        self._input = self._interpreter.get_input_details()[0]
        self._output = self._interpreter.get_output_details()[0]
    except (ValueError, RuntimeError) as error:
      raise InputError(
          '{}: {} cannot load this model: {}', option('net_file', path), name,
          errors.one_line(str(error)))
    self.interpreter_text = '{}, {}'.format(name, _kernels(self._interpreter))
    self.runtime = '{}, {} thread{}'.format(
        self.interpreter_text, self.num_threads,
        '' if self.num_threads == 1 else 's')
    self._check_shapes()
    height, width = self._input['shape'][1:3]
    self.input_size = int(height), int(width)
    self._gives_logits = len(self._output['shape']) == 4
    self._convert, self.input_text = self._choose_conversion(is_input_0_255)
    self._check_expectations(is_float_input, is_input_0_255)

  def _check_shapes(self):
    inputs, outputs = (details['shape'].tolist()
                       for details in (self._input, self._output))
    if len(inputs) != 4 or inputs[0] != 1 or inputs[3] != constants.CHANNELS:
      raise InputError('{}: input has shape {}; expected [1, height, width, '
                       '{}]'.format(self.description, inputs,
                                    constants.CHANNELS))
    # Interpreters show a dynamic side as 1; only newer ones report it.
    given = list(self._input.get('shape_signature', inputs))
    if -1 in given[1:3] or inputs[1:3] == [1, 1]:
      raise InputError(
          '{}: height and width of the input are open; expected fixed ones: '
          'convert the model again with a fixed input size'.format(
              self.description))
    are_labels = outputs == inputs[:3] and np.issubdtype(
        self._output['dtype'], np.integer)
    are_logits = outputs[:-1] == inputs[:3] and outputs[-1] > 1
    if not are_labels and not are_logits:
      raise InputError(
          '{}: output is {} of shape {}; expected one integer label a pixel, '
          '{}, or on a fourth axis its score for each class'.format(
              self.description, np.dtype(self._output['dtype']).name,
              outputs, inputs[:3]))

  def _choose_conversion(self, is_input_0_255):
    """Returns a function from pixels to the input, and a description."""
    dtype = np.dtype(self._input['dtype'])
    scale, zero_point = self._input['quantization']
    if dtype == np.float32:
      if is_input_0_255:
        return _unchanged, 'float32 in [0, 255]'
      return constants.scale_as_tflite_scripts, 'float32 in [-1, 1]'
    text = '{} (scale {:.7g}, zero point {})'.format(
        dtype.name, scale, zero_point)
    if dtype in (np.uint8, np.int8):
      expected = ('a quantization by which pixels 0..255 mean [-1, 1] or '
                  '[0, 255]')
      # Pixel 0 is stored as the lowest value: 0 in uint8, -128 in int8.
      lowest = np.iinfo(dtype).min
      ends = [scale * (lowest + pixel - zero_point) for pixel in (0, 255)]
      # The published inputs are near [-1, 1]: 2/255 around 127, 1/128 around
      # 128.
      if _is_range(ends, (-1, 1)) or _is_range(ends, (0, 255)):
        return lambda images: (images + lowest).astype(dtype), text
    elif dtype == np.int16:
      expected = 'a quantization from -1 to 1, or from -255 to 255'
      ends = [0, scale * 32767]
      for largest, scaled in ((1, constants.scale_as_tflite_scripts),
                              (255, _unchanged)):
        if zero_point == 0 and _is_range(ends, (0, largest)):
          return lambda images, scaled=scaled: np.clip(np.rint(
              scaled(images) / scale), -32768, 32767).astype(np.int16), text
    else:
      expected = 'float32, uint8, int8 or int16'
    raise InputError('{}: input is {}; expected {}'.format(
        self.description, text, expected))

  def _check_expectations(self, is_float_input, is_input_0_255):
    """Raises InputError if an expectation contradicts the file."""
    is_float = self._input['dtype'] == np.float32
    if is_float_input is not None and is_float_input != is_float:
      raise InputError(
          '{} takes {}, but {}; drop it, the model decides',
          self.description, self.input_text,
          option('is_float_input', is_float_input))
    if not is_float and is_input_0_255 is False:
      raise InputError(
          '{} takes pixels of 0 to 255 as {}, but {}; drop it, the model '
          'decides', self.description, self.input_text,
          option('is_input_0_255', False))

  @property
  def input_contract(self) -> Dict[str, Any]:
    """The file's input, from metadata.input_contract."""
    ends = self.prepare(np.array([0, 255]))
    return metadata.input_contract(self.input_size, ends.dtype, ends.tolist())

  def prepare(self, images: np.ndarray) -> np.ndarray:
    """Returns images in the type and range of the file's input."""
    return self._convert(images.astype(np.float32))

  def predict_prepared(self, inputs: np.ndarray) -> np.ndarray:
    """Returns int32 labels of prepared images."""
    labels = []
    for pixels in inputs:
      self._interpreter.set_tensor(self._input['index'], pixels[np.newaxis])
      try:
        self._interpreter.invoke()
      except RuntimeError as error:
        raise InputError('{}: {} cannot run this model: {}'.format(
            self.description, self.interpreter_text,
            errors.one_line(str(error))))
      result = self._interpreter.get_tensor(self._output['index'])[0]
      labels.append(
          np.argmax(result, axis=-1) if self._gives_logits else result)
    return np.stack(labels).astype(np.int32)

  def close(self) -> None:
    """Frees the interpreter."""
    self._interpreter = None


def _unchanged(images):
  return images


def _is_range(ends, wanted):
  """Returns whether two real values are about the ends of a range."""
  return np.allclose(
      ends, wanted, rtol=0, atol=_RANGE_TOLERANCE * (wanted[1] - wanted[0]))


def _interpreter_class():
  """Returns the best installed interpreter, and its name with version.

  LiteRT is first because TensorFlow's own interpreter is no longer maintained.
  The old ones, which gave the published scores, run if LiteRT is not available.
  """
  litert, tflite_runtime = environment.TFLITE_PACKAGES
  tensorflow = environment.tensorflow_version()
  for package, module, version in (
      (litert, 'ai_edge_litert.interpreter',
       environment.installed_version(litert)),
      ('TensorFlow', 'tensorflow', tensorflow),
      (tflite_runtime, 'tflite_runtime.interpreter',
       environment.installed_version(tflite_runtime))):
    if version:
      found = importlib.import_module(module)
      found = found.lite if package == 'TensorFlow' else found
      if hasattr(found, 'Interpreter'):
        return found.Interpreter, '{} {}'.format(package, version)
  raise InputError('no TFLite interpreter; install TensorFlow or one of '
                   '{}'.format(', '.join(environment.TFLITE_PACKAGES)))


def _kernels(interpreter):
  """Returns the names of the kernels, if the interpreter lists them."""
  # Interpreters that cannot list their operators have no default delegate.
  list_operators = getattr(interpreter, '_get_ops_details', list)
  operators = [operator['op_name'] for operator in list_operators()]
  return ('XNNPACK delegate' if _DELEGATE in operators else
          'built-in kernels')
