"""Keeps what TensorFlow and TFLite write unasked off standard error.

Only here does the suite change what the whole process shares, and only because
neither can be told to be quiet: log level and filters of warnings; a hook at
the import of TensorFlow; and where standard error leads, for a moment.
"""
import contextlib
import ctypes
import importlib.util
import logging
import os
import re
import sys
import tempfile
from typing import Any, Iterator
import warnings

# How a line begins that native code writes without being asked: of the TFLite
# interpreters, of TensorFlow's log at levels below error, above that log, and
# of its quantizer.
_NOTICE = re.compile(
    br'INFO: |[IW]\d{4} \d|WARNING: All log messages before absl|'
    br'fully_quantize: \d')
_STDERR = 2  # file descriptor


def silence_tensorflow(verbose: bool = False) -> None:
  """Silences deprecation notices and device chatter of TensorFlow.

  Call before TensorFlow is imported; errors stay visible.

  Args:
    verbose: True leaves everything as TensorFlow has it.
  """
  if verbose:
    return
  # Newer versions call it an error that there is no GPU.
  os.environ.setdefault(
      'TF_CPP_MIN_LOG_LEVEL', '2' if _has_cuda_driver() else '3')
  warnings.filterwarnings('ignore', category=FutureWarning)
  warnings.filterwarnings('ignore', category=DeprecationWarning)
  logging.getLogger('tensorflow').setLevel(logging.ERROR)
  sys.meta_path.insert(0, _QuietFinder('tensorflow'))


def _has_cuda_driver():
  try:
    ctypes.CDLL('libcuda.so.1')
  except OSError:
    return False
  return True


class _QuietFinder:
  """Finds one package as Python does, and has it loaded without notices.

  TensorFlow 2.21 writes some before it looks at any log level. Loading it here
  instead would do without a hook, but make a script that is given a wrong flag
  take seconds to say so.
  """

  def __init__(self, package):
    self._package = package

  def find_spec(self, name, path=None, target=None):
    """Returns the package's spec the first time, None for anything else."""
    if name != self._package:
      return None
    sys.meta_path.remove(self)
    spec = importlib.util.find_spec(name)
    if spec is None:
      return None
    # Any, as types have it that no method of a loader is replaced.
    loader: Any = spec.loader
    load = loader.exec_module

    def load_quietly(module):
      with without_notices():
        load(module)

    loader.exec_module = load_quietly
    return spec


@contextlib.contextmanager
def without_notices() -> Iterator[None]:
  """Keeps native code's notices off standard error; the rest comes at the end.

  Native libraries write to the file descriptor, past sys.stderr.
  """
  sys.stderr.flush()
  kept = os.dup(_STDERR)
  with tempfile.TemporaryFile() as written:
    os.dup2(written.fileno(), _STDERR)
    try:
      yield
    finally:
      os.dup2(kept, _STDERR)
      os.close(kept)
      written.seek(0)
      os.write(_STDERR, b''.join(
          line for line in written if not _NOTICE.match(line)))
