"""A predictor (see `counting`) that runs a TFLite file.

Any TFLite interpreter will do: LiteRT's, TensorFlow's or tflite_runtime's. It
is imported when the first predictor is made.
"""
import importlib
import inspect
from typing import Optional
import warnings

import numpy as np

from deeplab import contract
from deeplab import counting
from deeplab import environment
from deeplab import errors
from deeplab import inputs
from deeplab import quiet
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.lite import model_file

_CHANNELS = 3
# How far from [-1, 1] or [0, 255] the real values of pixels 0 and 255 may be
# for a quantized input to take pixels as they are, relative to the range.
_RANGE_TOLERANCE = 0.01
# A delegate's operator, as the interpreter names it.
_DELEGATE = 'DELEGATE'
# Packages that are an interpreter, and the modules it is in.
_LITERT = ('ai-edge-litert', 'ai_edge_litert.interpreter')
_TFLITE_RUNTIME = ('tflite-runtime', 'tflite_runtime.interpreter')


def check_file(path: str) -> None:
  """Checks that a file looks like a TFLite model, without an interpreter.

  Args:
    path: the .tflite file.

  Raises:
    InputError: no such file, another kind of file, or custom operators.
  """
  _content(path)


def _content(path):
  name = option('net_file', path)
  content = inputs.read(
      path, name, 'a TFLite model',
      './scripts/fetch_checkpoints.sh gets the published ones')
  model_file.check(content, name)
  return content


class TflitePredictor(counting.Predictor):
  """A TFLite file from images to labels; see the module.

  Attributes:
    description: the path.
    input_size: (height, width) of the input, in pixels.
    input_text: type and range of the input, for people.
    interpreter_text: which interpreter runs it, with which kernels.
    runtime: the same, with its number of threads.
    num_threads: int, of the interpreter; 1 where it cannot have several.
  """

  def __init__(self, path: str, *, is_float_input: Optional[bool] = None,
               is_input_0_255: Optional[bool] = None, num_threads: int = 1):
    """Loads the file.

    Args:
      path: the .tflite file.
      is_float_input: what the caller takes the input to be; None: no idea.
      is_input_0_255: whether the input is in [0, 255], not in [-1, 1]; None:
        [-1, 1] for a float input, pixels as they are for a quantized one.
      num_threads: where the interpreter can have several.

    Raises:
      InputError: where the file is no TFLite model that makes labels of
        images, or its input is not what the caller takes it to be.
    """
    content = _content(path)
    self.description = path
    self._interpreter, name, self.num_threads, self._input, self._output = (
        _load(content, path, num_threads))
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
    if len(inputs) != 4 or inputs[0] != 1 or inputs[3] != _CHANNELS:
      raise InputError('{}: input has shape {}; expected [1, height, width, '
                       '{}]'.format(self.description, inputs, _CHANNELS))
    # Interpreters take an open side for 1; only newer ones tell.
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
    """Returns a function from pixels to the input, and what it is in words."""
    dtype = np.dtype(self._input['dtype'])
    if dtype == np.float32:
      if is_input_0_255:
        return _as_they_are, 'float32 in [0, 255]'
      return contract.scale_as_tflite_scripts, 'float32 in [-1, 1]'
    text = '{} (scale {:.7g}, zero point {})'.format(
        dtype.name, *self._input['quantization'])
    if dtype == np.int16:
      return self._choose_int16(text)
    if dtype not in (np.uint8, np.int8):
      raise InputError('{}: input is {}; expected float32, uint8, int8 or '
                       'int16'.format(self.description, text))
    # The value that stands for pixel 0: 0 for uint8, -128 for int8.
    lowest = np.iinfo(dtype).min
    if not _takes_pixels(lowest, *self._input['quantization']):
      raise InputError(
          '{}: input is {}; expected a quantization by which pixels 0..255 '
          'mean [-1, 1] or [0, 255]'.format(self.description, text))

    def shift(images):
      return (images + lowest).astype(dtype)

    return shift, text

  def _choose_int16(self, text):
    """The same for int16, whose scale is the largest value over 32767."""
    scale, zero_point = self._input['quantization']
    limits = np.iinfo(np.int16)
    for largest, scaled in ((1, contract.scale_as_tflite_scripts),
                            (255, _as_they_are)):
      if zero_point == 0 and abs(
          scale * limits.max - largest) <= _RANGE_TOLERANCE * largest:
        def quantize(images, scaled=scaled):
          return np.clip(np.rint(scaled(images) / scale), limits.min,
                         limits.max).astype(np.int16)

        return quantize, text
    raise InputError(
        '{}: input is {}; expected a quantization from -1 to 1, or from -255 '
        'to 255'.format(self.description, text))

  def _check_expectations(self, is_float_input, is_input_0_255):
    """Raises InputError where an expectation contradicts the file."""
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

  def predict(self, images: np.ndarray) -> np.ndarray:
    """Returns int32 labels of images, uint8 ones too; see the base class."""
    labels = [self._predict_one(self.prepare(image)) for image in images]
    return np.stack(labels).astype(np.int32)

  def prepare(self, images: np.ndarray) -> np.ndarray:
    """Returns images, or one, as the file takes them; see the base class."""
    return self._convert(images.astype(np.float32))

  def predict_prepared(self, inputs: np.ndarray) -> np.ndarray:
    """Returns int32 labels of what `prepare` made; see the base class."""
    return np.stack(list(map(self._predict_one, inputs))).astype(np.int32)

  def _predict_one(self, pixels):
    self._interpreter.set_tensor(self._input['index'], pixels[np.newaxis])
    self._interpreter.invoke()
    result = self._interpreter.get_tensor(self._output['index'])[0]
    return np.argmax(result, axis=-1) if self._gives_logits else result

  def close(self) -> None:
    """Frees the interpreter."""
    self._interpreter = None


def _as_they_are(images):
  return images


def _takes_pixels(lowest, scale, zero_point):
  """Whether pixels, from the type's lowest value up, mean [-1, 1] or [0, 255].

  The published files' inputs mean that nearly, not exactly: 2/255 around 127
  and 1/128 around 128.
  """
  first, last = (scale * (lowest + pixel - zero_point) for pixel in (0, 255))
  return any(
      max(abs(first - low), abs(last - high)) <= _RANGE_TOLERANCE * (high - low)
      for low, high in ((-1, 1), (0, 255)))


# --- The interpreter -------------------------------------------------------


def _load(content, path, num_threads):
  """Returns an interpreter that is ready to run, and facts about it.

  Returns:
    (interpreter, its name, its number of threads, details of its input,
    details of its output).
  """
  interpreter_class, name = _interpreter_class()
  arguments = {}
  if 'num_threads' in inspect.signature(interpreter_class).parameters:
    arguments['num_threads'] = num_threads
  else:  # TensorFlow 1.15's and 2.2's
    num_threads = 1
  try:
    with quiet.without_notices(), warnings.catch_warnings():
      # TensorFlow's says that it has moved to LiteRT.
      warnings.simplefilter('ignore')
      interpreter = interpreter_class(model_content=content, **arguments)
      interpreter.allocate_tensors()
      # These fail if the name of a tensor is not UTF-8.
      details = (interpreter.get_input_details()[0],
                 interpreter.get_output_details()[0])
  except (ValueError, RuntimeError) as error:
    raise InputError(
        '{}: {} cannot load this model: {}', option('net_file', path), name,
        errors.one_line(str(error)))
  return (interpreter, name, num_threads) + details


def _interpreter_class():
  """Returns the best interpreter there is, and its name with its version.

  LiteRT goes first: TensorFlow's own interpreter is no longer kept up. The old
  ones, which the published scores are of, run where LiteRT does not exist.
  """
  found = (_from_package(*_LITERT) or _from_tensorflow() or
           _from_package(*_TFLITE_RUNTIME))
  if not found:
    raise InputError('no TFLite interpreter; install TensorFlow or one of '
                     '{}'.format(', '.join(environment.TFLITE_PACKAGES)))
  return found


def _from_package(package, module):
  version = environment.installed_version(package)
  if not version:
    return None
  return (importlib.import_module(module).Interpreter,
          '{} {}'.format(package, version))


def _from_tensorflow():
  version = environment.tensorflow_version()
  if not version:
    return None
  import tensorflow as tf
  if not hasattr(tf.lite, 'Interpreter'):
    return None
  return tf.lite.Interpreter, 'TensorFlow {}'.format(version)


def _kernels(interpreter):
  """Names the kernels that run a model, as far as the interpreter tells."""
  # Interpreters that cannot list their operators have no default delegate.
  list_operators = getattr(interpreter, '_get_ops_details', list)
  operators = [operator['op_name'] for operator in list_operators()]
  return ('XNNPACK delegate' if _DELEGATE in operators else
          'built-in kernels')
