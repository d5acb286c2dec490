"""Tries a TFLite file in a process of its own, so that a crash takes no other.

Where the offsets in a file lead is not checked before an interpreter follows
them. As a program, it runs the file that it is given once, on a black image.
"""
import os
import subprocess
import sys

import numpy as np

from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.lite import interpreters

_FOLDER = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.realpath(__file__))))


def check(path: str, name: str) -> None:
  """Refuses a file that the interpreter crashes on.

  What else may be wrong with it, whoever opens it says.

  Args:
    path: the .tflite file.
    name: the option with this path, for messages.

  Raises:
    InputError: it crashes.
  """
  search = [_FOLDER] + list(filter(None, [os.environ.get('PYTHONPATH')]))
  tried = subprocess.run(
      [sys.executable, '-m', __name__, path],
      env=dict(os.environ, PYTHONPATH=os.pathsep.join(search)),
      stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL)
  # Ended by a signal.
  if tried.returncode < 0:
    raise InputError('{}: the interpreter crashed; the file may be damaged',
                     option(name, path))


def _run(path):
  with interpreters.TflitePredictor(path) as predictor:
    predictor.predict(np.zeros((1,) + predictor.input_size + (3,), np.uint8))


if __name__ == '__main__':
  _run(sys.argv[1])
