"""Measured: TFLite models, in an interpreter and in the script."""
import itertools
import os
import subprocess
import sys
import time

import numpy as np

from deeplab import contract
from deeplab.benchmark import cases
from deeplab.lite import interpreters

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
_SCRIPT = os.path.join(_ROOT, 'segmentation_inference_eval_seg_tflite.py')


def predict(sizes: cases.Sizes, files: cases.Files, *, model: str,
            threads: int) -> cases.Measurement:
  """Labels of one image that is there already.

  Args:
    sizes: cases.Sizes.
    files: function from names to a path.
    model: 'float', 'ptq' or 'qat'.
    threads: of the interpreter.
  """
  predictor = interpreters.TflitePredictor(
      files(model + '.tflite'), num_threads=threads)
  image = np.random.RandomState(0).uniform(
      0, 255, [1, sizes.side, sizes.side, 3]).astype(np.uint8)
  predictor.predict(image)
  return (lambda: cases.seconds_each(
      lambda: predictor.predict(image), sizes.seconds),
          predictor.interpreter_text)


def evaluate(sizes: cases.Sizes, files: cases.Files, *,
             images: str) -> cases.Measurement:
  """The evaluation script, as a process, with start and checks.

  Args:
    sizes: cases.Sizes.
    files: function from names to a path.
    images: 'few' or 'many', which sizes say the number of.
  """
  count = getattr(sizes, images)
  folder = files(images)
  _link_images(files('preprocessed'), folder, count)
  command = [
      sys.executable, _SCRIPT, '--net_file=' + files('float.tflite'),
      '--test_dir=' + folder]

  def measure():
    started = time.perf_counter()
    subprocess.run(command, check=True)
    return (time.perf_counter() - started) / count

  return measure, '{} images'.format(count)


def _link_images(source, target, count):
  """Makes a folder of pairs that are links to those of another one."""
  for name in (contract.PREPROCESSED_IMAGES, contract.PREPROCESSED_ANNOTATIONS):
    os.makedirs(os.path.join(target, name))
    # There may be more links than pairs.
    paths = itertools.cycle(
        entry.path for entry in sorted(
            os.scandir(os.path.join(source, name)), key=lambda e: e.name))
    for number, path in zip(range(count), paths):
      os.link(path, os.path.join(
          target, name, contract.preprocessed_name(number)))
