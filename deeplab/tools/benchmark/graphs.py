"""Exports and converts a network with random weights."""
import os
from typing import Any, Dict, Optional

import numpy as np
import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab.config import options as options_lib
from deeplab.export import calibration
from deeplab.export import freeze as export_lib
from deeplab.export import tflite_conversion
from deeplab.nets import deeplab_v3
from deeplab.tools.benchmark import cases
from deeplab.tools.benchmark import network


def export(sizes: cases.Sizes, paths: cases.Paths, *, quantized: bool) -> None:
  """Makes the files 'float graph' and 'qat graph', and their checkpoints."""
  model_options = network.model_options(
      sizes, quantize_delay_step=0 if quantized else -1)
  folder = paths('qat' if quantized else 'float')
  os.makedirs(folder)
  prefix = os.path.join(folder, 'model.ckpt-0')
  with tf.Graph().as_default(), tf.Session() as session:
    images = tf.placeholder(
        tf.float32, (1,) + model_options.crop_size + (3,))
    deeplab_v3.predictions(
        deeplab_v3.logits(images, model_options), model_options)
    network.initialize(session)
    tf.train.Saver().save(session, prefix, write_meta_graph=False)
  export_lib.export(model_options, options_lib.ExportOptions(
      checkpoint_path=prefix, export_path=folder))


def convert(unused_sizes: cases.Sizes, paths: cases.Paths, *,
            quantized: bool) -> None:
  """Makes the files 'float model' and 'qat model'."""
  name = 'qat' if quantized else 'float'
  tflite_conversion.convert(options_lib.ConversionOptions(
      graph_def=paths(name, constants.FROZEN_GRAPH),
      out_tflite=paths(name + '.tflite'),
      mode=(options_lib.QUANTIZATION_AWARE if quantized
            else options_lib.FLOAT)))


def quantize(sizes: cases.Sizes, paths: cases.Paths) -> None:
  """Makes the file 'ptq model'."""
  _quantize(paths, 'ptq', sizes.calibration)


def calibrate(sizes: cases.Sizes, paths: cases.Paths) -> cases.Measured:
  """Measures post-training quantization, for each calibration image."""
  return (
      _quantize(paths, 'calibrated', sizes.calibration) / sizes.calibration,
      '{} images and one conversion'.format(sizes.calibration))


def calibrate_more(sizes: cases.Sizes, paths: cases.Paths, *,
                   calibrator: Optional[str] = None) -> cases.Measured:
  """Measures the cost of one more image, without the conversion."""
  # The first conversion takes longer.
  _, few, many = (
      _quantize(paths, 'calibrated', times * sizes.calibration, calibrator)
      for times in (1, 1, 2))
  return (many - few) / sizes.calibration, ''


def predict_as_calibrated(
    sizes: cases.Sizes, paths: cases.Paths) -> cases.Measured:
  """Measures only the inference that calibration runs."""
  options: Dict[str, Any] = {}
  # TensorFlow 2.2 has no choice of kernels: it only has these.
  kernels = getattr(tf.lite.experimental, 'OpResolverType', None)
  if kernels:
    options = {
        'experimental_op_resolver_type':
            kernels.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        'num_threads': calibration.THREADS}
  interpreter = tf.lite.Interpreter(paths('float.tflite'), **options)
  interpreter.allocate_tensors()
  interpreter.set_tensor(
      interpreter.get_input_details()[0]['index'],
      np.random.RandomState(0).uniform(
          -1, 1, [1, sizes.side, sizes.side, 3]).astype(np.float32))
  interpreter.invoke()
  return cases.seconds_each(interpreter.invoke, sizes.seconds), ''


def _quantize(paths, name, images, calibrator=None):
  """Quantizes with a number of calibration images; returns seconds."""
  options = options_lib.CalibrationOptions(
      dataset_dir=paths('preprocessed'),
      graph_def=paths('float', constants.FROZEN_GRAPH),
      out_tflite=paths(name + '.tflite'), input_type='uint8',
      sample_num=images, calibrator=calibrator)
  return tflite_conversion.post_training_quantize(options).seconds
