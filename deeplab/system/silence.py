"""Keeps notices of TensorFlow and TFLite off standard error.

Neither has a setting for it. Only this module changes state of the whole
process: log levels, warning filters and, briefly, where standard error leads.
"""
import contextlib
import ctypes
import logging
import os
import subprocess
import sys
from typing import Iterator
import warnings

# The beginning of notices of native code: TFLite interpreters, TensorFlow's log
# below the level of errors, and its quantizer.
_NOTICE = (r'^(INFO: |[IW][0-9]{4} [0-9]|WARNING: All log messages before absl|'
           r'fully_quantize: [0-9])')
_STDERR = 2  # file descriptor


def import_tensorflow() -> None:
  """Imports TensorFlow without its notices; errors stay visible.

  Raises:
    ImportError: TensorFlow is not installed.
  """
  # TensorFlow 2.21 writes some notices before it looks at any log level.
  with without_notices():
    import tensorflow  # noqa: F401


def silence_tensorflow() -> None:
  """Silences device chatter and deprecation notices of a later import."""
  # Newer versions call it an error that there is no GPU.
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

  Native libraries write to the file descriptor, past sys.stderr. The filter is
  a process of its own: if native code aborts, its last words still appear.
  """
  sys.stderr.flush()
  kept = os.dup(_STDERR)
  # In a session of its own, Ctrl-C does not end the filter.
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
