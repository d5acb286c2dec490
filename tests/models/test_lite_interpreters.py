"""Tests the TFLite predictor: inputs, labels and interpreters."""
import os
import sys
import types

import numpy as np
import pytest

from deeplab.errors import InputError
from deeplab.models import interpreters
from deeplab.system import environment
from tests.models import test_lite_model_file

pytestmark = [pytest.mark.tf1, pytest.mark.tf2, pytest.mark.modern]

QAT = (0.0078125, 128)
PTQ = (0.007843137718737125, 127)
SIZE = (2, 3)  # height, width


class FakeInterpreter:
  """Keeps its inputs; its labels are channel 0 of the input."""

  # What it reports about its input and output.
  dtype, quantization = np.float32, (0.0, 0)
  input_shape, output_shape = (1,) + SIZE + (3,), (1,) + SIZE
  output_dtype = np.int32
  operators = ()
  details = {}
  failure = None

  def __init__(self, model_content, num_threads=None):
    self.num_threads = num_threads
    self.inputs = []

  def allocate_tensors(self):
    if self.failure:
      raise self.failure

  def get_input_details(self):
    return [dict(
        {'index': 4, 'dtype': self.dtype, 'quantization': self.quantization,
         'shape': np.array(self.input_shape, np.int32)}, **self.details)]

  def get_output_details(self):
    return [{'index': 7, 'dtype': self.output_dtype,
             'shape': np.array(self.output_shape, np.int32)}]

  def set_tensor(self, index, value):
    assert index == 4
    assert value.dtype == self.dtype and value.shape == self.input_shape
    self.inputs.append(value)

  def invoke(self):
    pass

  def get_tensor(self, index):
    assert index == 7
    return self.inputs[-1][..., 0].astype(self.output_dtype)


@pytest.fixture
def path(tmp_path):
  path = tmp_path / 'x.tflite'
  path.write_bytes(test_lite_model_file.model_bytes())
  return str(path)


@pytest.fixture
def make(path, monkeypatch):
  """Returns a function that makes a predictor with a fake interpreter."""
  def make_predictor(interpreter=None, arguments=None, **facts):
    fake = type('Fake', (interpreter or FakeInterpreter,), facts)
    monkeypatch.setattr(interpreters, '_interpreter_class',
                        lambda: (fake, 'Fake 1.0'))
    return interpreters.TflitePredictor(path, **(arguments or {}))
  return make_predictor


def given_to(predictor, *values):
  """Returns what the interpreter gets for images of these values."""
  images = np.stack([np.full(SIZE + (3,), value, np.float32)
                     for value in values])
  predictor.predict(images)
  return [array[0, 0, 0, 0] for array in predictor._interpreter.inputs]


# --- Inputs ----------------------------------------------------------------

PIXELS = (0, 1, 127, 255)


@pytest.mark.parametrize('dtype, quantization, expected', [
    (np.uint8, QAT, PIXELS),
    (np.uint8, PTQ, PIXELS),
    (np.uint8, (1.0, 0), PIXELS),
    (np.int8, (QAT[0], 0), (-128, -127, -1, 127)),
    (np.int8, (PTQ[0], -1), (-128, -127, -1, 127)),
    (np.int8, (1.0, -128), (-128, -127, -1, 127)),
    # int16 inputs are real values divided by the scale.
    (np.int16, (1 / 32767, 0), (-32767, -32510, -128, 32767)),
    (np.int16, (255 / 32767, 0), (0, 128, 16319, 32767)),
])
def test_pixels_are_converted_for_quantized_inputs(
    make, dtype, quantization, expected):
  predictor = make(dtype=dtype, quantization=quantization)
  assert given_to(predictor, *PIXELS) == list(expected)


def test_pixels_are_scaled_for_float_inputs(make):
  np.testing.assert_allclose(
      given_to(make(), *PIXELS), [-1, 1 / 127.5 - 1, 127 / 127.5 - 1, 1],
      atol=1e-7)
  assert given_to(
      make(arguments={'is_input_0_255': True}), *PIXELS) == list(PIXELS)


@pytest.mark.parametrize('facts, arguments, text', [
    ({}, {'is_float_input': True, 'is_input_0_255': False},
     'float32 in [-1, 1]'),
    ({}, {'is_input_0_255': True}, 'float32 in [0, 255]'),
    ({'dtype': np.uint8, 'quantization': QAT},
     {'is_float_input': False, 'is_input_0_255': True},
     'uint8 (scale 0.0078125, zero point 128)'),
    ({'dtype': np.uint8, 'quantization': PTQ}, {},
     'uint8 (scale 0.007843138, zero point 127)'),
])
def test_description_of_inputs(make, facts, arguments, text):
  predictor = make(arguments=arguments, **facts)
  assert predictor.input_text == text
  assert predictor.input_size == SIZE


def refusal(make, path, arguments=None, interpreter=None, **facts):
  with pytest.raises(InputError) as caught:
    make(interpreter, arguments=arguments, **facts)
  return str(caught.value).replace(path, 'PATH')


QUANTIZED = {'dtype': np.uint8, 'quantization': QAT}


@pytest.mark.parametrize('arguments, facts, message', [
    ({'is_float_input': False}, {},
     'takes float32 in [-1, 1], but is_float_input=false'),
    ({'is_float_input': True}, QUANTIZED,
     'takes uint8 (scale 0.0078125, zero point 128), but is_float_input=true'),
    ({'is_input_0_255': False}, QUANTIZED,
     'takes pixels of 0 to 255 as uint8 (scale 0.0078125, zero point 128), but '
     'is_input_0_255=false')])
def test_flags_that_contradict_the_file(make, path, arguments, facts, message):
  assert refusal(make, path, arguments, **facts) == (
      'PATH {}; drop it, the model decides'.format(message))


@pytest.mark.parametrize('dtype, quantization, expected', [
    (np.uint8, (1 / 255., 0), 'a quantization by which pixels 0..255 mean'),
    (np.uint8, (0.0, 0), 'a quantization by which pixels 0..255 mean'),
    (np.uint8, (QAT[0], 0), 'a quantization by which pixels 0..255 mean'),
    (np.uint8, (2 / 255., 120), 'a quantization by which pixels 0..255 mean'),
    (np.int16, (1 / 32767, 1), 'a quantization from -1 to 1, or from -255 to'),
    (np.int16, (1 / 64, 0), 'a quantization from -1 to 1, or from -255 to'),
    (np.int32, (0.0, 0), 'float32, uint8, int8 or int16')])
def test_inputs_with_an_unsuitable_quantization_are_refused(
    make, path, dtype, quantization, expected):
  message = refusal(make, path, dtype=dtype, quantization=quantization)
  assert message.startswith(
      'PATH: input is {} (scale {:.7g}, zero point {}); expected {}'.format(
          np.dtype(dtype).name, *quantization, expected))


def test_models_of_other_tasks_are_refused(make, path):
  for shape in ((1, 2, 3), (2, 2, 3, 3), (1, 2, 3, 4)):
    assert refusal(make, path, input_shape=shape) == (
        'PATH: input has shape {}; expected [1, height, width, 3]'.format(
            list(shape)))
  for facts in ({'input_shape': (1, 1, 1, 3)},
                {'details': {'shape_signature': np.array([1, -1, -1, 3])}}):
    assert refusal(make, path, **facts) == (
        'PATH: height and width of the input are open; expected fixed ones: '
        'convert the model again with a fixed input size')
  expected = ('PATH: output is {}; expected one integer label a pixel, '
              '[1, 2, 3], or on a fourth axis its score for each class')
  assert refusal(make, path, output_dtype=np.float32) == expected.format(
      'float32 of shape [1, 2, 3]')
  for shape in ((1, 2, 3, 1), (1, 1, 2, 32), (1, 2)):
    assert refusal(make, path, output_shape=shape) == expected.format(
        'int32 of shape {}'.format(list(shape)))


# --- Labels ----------------------------------------------------------------


@pytest.mark.parametrize('dtype', [np.int32, np.int64, np.uint8])
def test_labels(make, dtype):
  predictor = make(dtype=np.uint8, quantization=QAT, output_dtype=dtype)
  images = np.zeros((2,) + SIZE + (3,), np.uint8)
  images[..., 0] = [[[0, 1, 2], [3, 4, 5]], [[6, 7, 8], [9, 10, 31]]]
  labels = predictor.predict(images)
  assert labels.dtype == np.int32
  np.testing.assert_array_equal(labels, images[..., 0])
  predictor.close()


@pytest.mark.parametrize('dtype', [np.float32, np.uint8])
def test_labels_of_logits(make, dtype):
  """A label is the first largest score of the last axis."""
  class Scoring(FakeInterpreter):

    def get_tensor(self, index):
      return self.inputs[-1].astype(self.output_dtype)

  predictor = make(
      Scoring, output_dtype=dtype, output_shape=(1,) + SIZE + (3,),
      arguments={'is_input_0_255': True})
  images = np.array([[[[9, 0, 0], [0, 9, 0], [0, 0, 9]],
                      [[0, 9, 9], [7, 7, 7], [1, 2, 3]]]], np.uint8)
  labels = predictor.predict(images)
  assert labels.dtype == np.int32
  assert labels.tolist() == [[[0, 1, 2], [1, 0, 2]]]
  np.testing.assert_array_equal(
      predictor.predict_prepared(predictor.prepare(images)), labels)


# --- Files and interpreters ------------------------------------------------


def test_files_that_are_not_models_are_refused(tmp_path):
  with pytest.raises(InputError) as caught:
    interpreters.read(str(tmp_path))
  assert str(caught.value) == (
      'net_file={}: is a folder; ./scripts/fetch_checkpoints.sh gets the '
      'published ones'.format(tmp_path))
  for content in (b'', b'TFL3', b'....TFL2....'):
    path = tmp_path / 'x.tflite'
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
      interpreters.read(str(path))
    assert str(caught.value) == (
        'net_file={}: not a TFLite model (bad identifier {}, expected '
        "b'TFL3')".format(path, content[4:8]))


def test_a_model_that_the_interpreter_refuses(make, path):
  for failure, words in (
      (ValueError('no tensors'), 'no tensors'),
      (RuntimeError('no tensors'), 'no tensors'),
      # Raised for the name of a tensor.
      (UnicodeDecodeError('utf-8', b'', 0, 1, 'bad'), "'utf-8' codec")):
    assert refusal(make, path, failure=failure).startswith(
        'net_file=PATH: Fake 1.0 cannot load this model: ' + words)


def test_threads_and_kernels(make):
  class OneThread(FakeInterpreter):

    def __init__(self, model_content):
      FakeInterpreter.__init__(self, model_content)

  class Listing(FakeInterpreter):

    def _get_ops_details(self):
      return [{'op_name': name} for name in self.operators]

  arguments = {'num_threads': 3}
  predictor = make(arguments=arguments)
  assert (predictor.num_threads, predictor._interpreter.num_threads) == (3, 3)
  assert make(OneThread, arguments).num_threads == 1
  for interpreter, operators, kernels in (
      (None, (), 'built-in kernels'),
      (Listing, ('CONV_2D',), 'built-in kernels'),
      (Listing, ('CONV_2D', 'DELEGATE'), 'XNNPACK delegate')):
    assert make(interpreter, operators=operators).interpreter_text == (
        'Fake 1.0, ' + kernels)


@pytest.mark.parametrize('written, shown', [
    (b'INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n', ''),
    (b'ERROR: no such kernel\nINFO: Created\n', 'ERROR: no such kernel\n')])
def test_log_lines_of_the_interpreter_are_hidden(make, capfd, written, shown):
  class Talking(FakeInterpreter):

    def allocate_tensors(self):
      os.write(2, written)

  make(Talking)
  assert capfd.readouterr().err == shown


@pytest.mark.parametrize('package, module', [
    ('ai-edge-litert', 'ai_edge_litert'), ('tflite-runtime', 'tflite_runtime')])
def test_litert_is_preferred_to_tensorflow(
    monkeypatch, package, module):
  import tensorflow as tf
  versions = {package: '2.1'}
  monkeypatch.setattr(environment, 'installed_version', versions.get)
  fake = types.ModuleType(module + '.interpreter')
  fake.Interpreter = FakeInterpreter
  monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
  monkeypatch.setitem(sys.modules, fake.__name__, fake)
  alone = (FakeInterpreter, package + ' 2.1')
  assert interpreters._interpreter_class() == alone
  assert environment.problem_with(('tf2', environment.TFLITE)) is None
  versions['tensorflow'] = tf.__version__
  assert interpreters._interpreter_class() == (
      alone if package == 'ai-edge-litert' else (
          tf.lite.Interpreter, 'TensorFlow {}'.format(tf.__version__)))


def test_environments_that_run_tflite_files_are_named(monkeypatch):
  monkeypatch.setattr(environment, 'installed_version',
                      {'tensorflow-cpu': '2.21.0'}.get)
  assert environment.problem_with(('tf2', environment.TFLITE)) is None
  assert '2.21.0' in environment.problem_with(('tf2',))
  monkeypatch.setattr(environment, 'installed_version', lambda package: None)
  with pytest.raises(InputError, match='^no TFLite interpreter; install'):
    interpreters._interpreter_class()
  assert environment.problem_with(('tf2', environment.TFLITE)).startswith(
      'needs TensorFlow 2.2 or any other TFLite interpreter (none found for ')


# --- The published files ---------------------------------------------------


@pytest.mark.parametrize('name, text', [
    ('freeze_ptq.tflite', 'uint8 (scale 0.007843138, zero point 127)'),
    ('freeze_qat.tflite', 'uint8 (scale 0.0078125, zero point 128)')])
def test_inputs_of_the_published_files(reference_dir, name, text):
  predictor = interpreters.TflitePredictor(
      os.path.join(reference_dir, name), num_threads=1)
  assert predictor.input_size == (512, 512)
  assert predictor.input_text == text
  # Newer interpreters have a delegate, older ones do not.
  kernels = ('XNNPACK delegate' if environment.installed_version(
      'ai-edge-litert') else 'built-in kernels')
  assert predictor.interpreter_text.endswith(', ' + kernels)
  predictor.close()
