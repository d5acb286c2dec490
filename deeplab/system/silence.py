"""Keeps notices of TensorFlow and TFLite off standard error.

Neither has a setting for it. Only this module changes global state of the
process: log levels, warning filters and, briefly, the standard error stream.
"""
import contextlib
import ctypes
import logging
import os
import subprocess
import sys
from typing import Iterator
import warnings

# How notices of native code begin: TFLite interpreters, TensorFlow's log below
# the level of errors, and TensorFlow's quantizer.
_NOTICE = (r'^(INFO: |[IW][0-9]{4} [0-9]|WARNING: All log messages before absl|'
           r'fully_quantize: [0-9])')
_STDERR = 2  # file descriptor


def import_tensorflow() -> None:
  """Imports TensorFlow without its notices; errors stay visible.

  Raises:
    ImportError: TensorFlow is not installed.
  """
  # TensorFlow 2.21 writes some notices before it reads the log level.
  with without_notices():
    import tensorflow  # noqa: F401


def silence_tensorflow() -> None:
  """Silences notices about devices and deprecation of a later import."""
  # Newer versions report a missing GPU as an error.
  os.environ.setdefault(
      'TF_CPP_MIN_LOG_LEVEL', '2' if _has_cuda_driver() else '3')
  warnings.filterwarnings('ignore', category=FutureWarning)
  warnings.filterwarnings('ignore', category=DeprecationWarning)
  logging.getLogger('tensorflow').setLevel(logging.ERROR)


def _has_cuda_driver():
  try:
    ctypes.CDLL('libcuda.so.1')
  except OSError:
    return False
  return True


@contextlib.contextmanager
def without_notices() -> Iterator[None]:
  """Filters native code's notices out of standard error.

  Native libraries write to the file descriptor, not to sys.stderr. The filter
  is a process of its own: if native code aborts, its last lines still appear.
  """
  sys.stderr.flush()
  kept = os.dup(_STDERR)
  # Ctrl-C does not reach a filter in its own session.
  with subprocess.Popen(
      ['grep', '-avE', '--line-buffered', _NOTICE], stdin=subprocess.PIPE,
      stdout=kept, env=dict(os.environ, LC_ALL='C'),
      start_new_session=True) as notices:
    assert notices.stdin is not None
    os.dup2(notices.stdin.fileno(), _STDERR)
    try:
      yield
    finally:
      sys.stderr.flush()
      os.dup2(kept, _STDERR)
      os.close(kept)
