"""Frozen graphs and TFLite files of a network with random weights."""
import os
from typing import Any, Dict

import numpy as np
import tensorflow.compat.v1 as tf

from deeplab import contract
from deeplab import export as export_lib
from deeplab import options as options_lib
from deeplab.benchmark import cases
from deeplab.benchmark import network
from deeplab.lite import conversion
from deeplab.nets import deeplab_v3


def export(sizes: cases.Sizes, files: cases.Files, *, quantized: bool) -> None:
  """Makes the files 'float graph' and 'qat graph', and their checkpoints."""
  model_options = network.model_options(
      sizes, quantize_delay_step=0 if quantized else -1)
  folder = files('qat' if quantized else 'float')
  os.makedirs(folder)
  prefix = os.path.join(folder, 'model.ckpt-0')
  with tf.Graph().as_default():
    images = tf.placeholder(
        tf.float32, (1,) + model_options.crop_size + (3,))
    deeplab_v3.predictions(
        deeplab_v3.logits(images, model_options), model_options)
    with tf.Session() as session:
      network.initialize(session)
      tf.train.Saver().save(session, prefix, write_meta_graph=False)
  export_lib.export(model_options, options_lib.ExportOptions(
      checkpoint_path=prefix, export_path=folder))


def convert(unused_sizes: cases.Sizes, files: cases.Files, *,
            quantized: bool) -> None:
  """Makes the files 'float model' and 'qat model'."""
  name = 'qat' if quantized else 'float'
  conversion.convert(options_lib.ConversionOptions(
      graph_def=files(name, contract.FROZEN_GRAPH),
      out_tflite=files(name + '.tflite'),
      mode=(options_lib.QUANTIZATION_AWARE if quantized
            else options_lib.FLOAT)))


def quantize(sizes: cases.Sizes, files: cases.Files) -> None:
  """Makes the file 'ptq model'."""
  _quantize(files, 'ptq.tflite', sizes.calibration)


def calibrate(sizes: cases.Sizes, files: cases.Files) -> cases.Measurement:
  """Measures post-training quantization, for each calibration image."""
  name = _of_this_process('calibrated')
  return (lambda: _quantize(files, name, sizes.calibration) / sizes.calibration,
          '{} images and one conversion'.format(sizes.calibration))


def calibrate_more(sizes: cases.Sizes,
                   files: cases.Files) -> cases.Measurement:
  """Measures what an image more costs, without the conversion."""
  name = _of_this_process('calibrated-more')
  # The first conversion takes longer.
  _quantize(files, name, sizes.calibration)

  def measure():
    few, many = (_quantize(files, name, count)
                 for count in (sizes.calibration, 2 * sizes.calibration))
    return (many - few) / sizes.calibration

  return measure, ''


def predict_as_calibrated(sizes: cases.Sizes,
                          files: cases.Files) -> cases.Measurement:
  """Measures a pass of the kernels that calibration runs, and nothing else."""
  options: Dict[str, Any] = {}
  # Without a choice of kernels, as in 2.2, these are the only ones.
  kernels = getattr(tf.lite.experimental, 'OpResolverType', None)
  if kernels:
    options['experimental_op_resolver_type'] = (
        kernels.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
  interpreter = tf.lite.Interpreter(files('float.tflite'), **options)
  interpreter.allocate_tensors()
  interpreter.set_tensor(
      interpreter.get_input_details()[0]['index'],
      np.random.RandomState(0).uniform(
          -1, 1, [1, sizes.side, sizes.side, 3]).astype(np.float32))
  interpreter.invoke()
  return lambda: cases.seconds_each(interpreter.invoke, sizes.seconds), ''


def _of_this_process(name):
  """Returns the name of a model that no other process writes."""
  return '{}-{}.tflite'.format(name, os.getpid())


def _quantize(files, name, images):
  """Calibrates on so many images, and converts; returns seconds."""
  return conversion.post_training_quantize(options_lib.CalibrationOptions(
      dataset_dir=files('preprocessed'),
      graph_def=files('float', contract.FROZEN_GRAPH), out_tflite=files(name),
      input_type='uint8', sample_num=images)).seconds
