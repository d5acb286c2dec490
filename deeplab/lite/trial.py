"""Runs a TFLite file in a process of its own, so that a crash ends no other.

An interpreter follows the offsets in a file without checking them. As a
program, this runs the given file once, on a black image.
"""
import os
import subprocess
import sys

if __name__ == '__main__':
  sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(
      os.path.realpath(__file__)))))

import numpy as np

from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.lite import interpreters


def check(path: str, name: str) -> None:
  """Refuses a file that the interpreter crashes on, and no other.

  Args:
    path: the .tflite file.
    name: the option with this path, for messages.

  Raises:
    InputError: it crashes.
  """
  # By path: with -m, Python would import from the current folder first.
  tried = subprocess.run(
      [sys.executable, os.path.realpath(__file__), path],
      stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL)
  # Ended by a signal.
  if tried.returncode < 0:
    raise InputError('{}: the interpreter crashed; the file may be damaged',
                     option(name, path))


if __name__ == '__main__':
  with interpreters.TflitePredictor(sys.argv[1]) as predictor:
    predictor.predict(np.zeros((1,) + predictor.input_size + (3,), np.uint8))
