"""Frozen graphs and TFLite files of a network with random weights."""
import os

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
  _quantize(sizes, files, 'ptq.tflite')


def calibrate(sizes: cases.Sizes, files: cases.Files) -> cases.Measurement:
  """Measures post-training quantization, for each calibration image."""
  def measure():
    result = _quantize(sizes, files, 'calibrated-{}.tflite'.format(os.getpid()))
    return result.seconds / sizes.calibration

  return measure, '{} images and one conversion'.format(sizes.calibration)


def _quantize(sizes, files, name):
  return conversion.post_training_quantize(options_lib.CalibrationOptions(
      dataset_dir=files('preprocessed'),
      graph_def=files('float', contract.FROZEN_GRAPH), out_tflite=files(name),
      input_type='uint8', sample_num=sizes.calibration))
