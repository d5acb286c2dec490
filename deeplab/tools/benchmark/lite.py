"""Measures TFLite inference and evaluation."""
import itertools
import os
import subprocess
import sys
import time

import numpy as np

from deeplab import constants
from deeplab.models import interpreters
from deeplab.system import environment
from deeplab.tools.benchmark import cases

_SCRIPT = os.path.join(
    environment.REPOSITORY, 'segmentation_inference_eval_seg_tflite.py')


def predict(sizes: cases.Sizes, paths: cases.Paths, *, model: str,
            threads: int) -> cases.Measured:
  """Measures inference on one image; model is 'float', 'ptq' or 'qat'."""
  predictor = interpreters.TflitePredictor(
      paths(model + '.tflite'), num_threads=threads)
  image = np.random.RandomState(0).uniform(
      0, 255, [1, sizes.side, sizes.side, 3]).astype(np.uint8)
  predictor.predict(image)
  return (cases.seconds_each(lambda: predictor.predict(image), sizes.seconds),
          predictor.interpreter_text)


def evaluate(sizes: cases.Sizes, paths: cases.Paths, *,
             images: str) -> cases.Measured:
  """Measures the evaluation script on 'few' or 'many' images of the sizes."""
  count = getattr(sizes, images)
  source, folder = paths('preprocessed'), paths(images)
  for name in (constants.PREPROCESSED_IMAGES,
               constants.PREPROCESSED_ANNOTATIONS):
    os.makedirs(os.path.join(folder, name))
    # Pairs repeat if `count` is larger.
    names = itertools.cycle(sorted(os.listdir(os.path.join(source, name))))
    for number, each in zip(range(count), names):
      os.link(os.path.join(source, name, each), os.path.join(
          folder, name, constants.preprocessed_name(number)))
  started = time.perf_counter()
  subprocess.check_call([
      sys.executable, _SCRIPT, '--net_file=' + paths('float.tflite'),
      '--test_dir=' + folder])
  return ((time.perf_counter() - started) / count,
          '{} images'.format(count))
