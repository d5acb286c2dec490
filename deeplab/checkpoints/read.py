"""Reads checkpoints, their variables and values, and finds damage."""
import contextlib
import os
import re
import tempfile
from typing import Any, Dict, Iterable, Iterator, List, Optional

import numpy as np
import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab.errors import InputError
from deeplab.storage import remote
from deeplab.system import tf_errors

_STEP = re.compile(r'-(\d+)$')
# Glob metacharacters: TensorFlow treats a prefix as a pattern.
_PATTERN = re.compile(r'[][\\*?]')
# The classes of the reader's errors differ between versions.
_READING_ERRORS = (tf.errors.OpError, LookupError, ValueError, RuntimeError)


def step_of(prefix: str) -> int:
  """Returns the step at the end of a prefix; 0 without one."""
  match = _STEP.search(prefix)
  return int(match.group(1)) if match else 0


def damage_of(prefix: str) -> Optional[str]:
  """Reads a whole checkpoint; returns why that fails, or None.

  Each block of the index and each variable has a checksum.
  """
  index = prefix + '.index'
  if not remote.exists(index):
    return 'there is no ' + os.path.basename(index)
  try:
    with _reader(prefix) as reader:
      for name in reader.get_variable_to_shape_map():
        reader.get_tensor(name)
  except _READING_ERRORS as error:
    return _in_one_line(error)
  return None


def not_finite_in(
    prefix: str, names: Optional[Iterable[str]] = None) -> Optional[str]:
  """Describes the first variable with a value that is inf or NaN, or None.

  Args:
    prefix: checkpoint prefix.
    names: variables to check; None: all.

  Raises:
    InputError: the files cannot be read.
  """
  values = values_in(prefix, variables_in(prefix) if names is None else names)
  for name, value in sorted(values.items()):
    if value.dtype.kind == 'f' and not np.isfinite(value).all():
      return '{} of {} values of {} are inf or NaN'.format(
          np.sum(~np.isfinite(value)), value.size, name)
  return None


def global_step_in(prefix: str) -> int:
  """Returns the step stored in a checkpoint or, without one, in its name.

  Raises:
    InputError: the files cannot be read.
  """
  name = tf.GraphKeys.GLOBAL_STEP
  if name in variables_in(prefix):
    return int(values_in(prefix, [name])[name])
  return step_of(prefix)


def variables_in(prefix: str) -> Dict[str, List[int]]:
  """Returns the shapes of variables, by name.

  Raises:
    InputError: the files cannot be read.
  """
  with reading(prefix) as reader:
    return reader.get_variable_to_shape_map()


def values_in(prefix: str, names: Iterable[str]) -> Dict[str, np.ndarray]:
  """Returns the values of variables, by name.

  Args:
    prefix: checkpoint prefix.
    names: names of variables in the checkpoint.

  Raises:
    InputError: the files cannot be read.
  """
  with reading(prefix) as reader:
    return {name: reader.get_tensor(name) for name in names}


@contextlib.contextmanager
def reading(prefix: str) -> Iterator[Any]:
  """Context that gives a reader and converts its errors to InputErrors."""
  try:
    with _reader(prefix) as reader:
      yield reader
  except _READING_ERRORS as error:
    raise InputError('{}: not a readable checkpoint ({})', prefix,
                     _in_one_line(error))


@contextlib.contextmanager
def _reader(prefix):
  with without_patterns(prefix) as literal:
    yield tf.train.NewCheckpointReader(literal)


@contextlib.contextmanager
def without_patterns(prefix: str) -> Iterator[str]:
  """Context that gives a prefix without glob metacharacters, for TensorFlow."""
  if not _PATTERN.search(prefix):
    yield prefix
    return
  if remote.is_remote(prefix):
    raise InputError('{}: expected a name without [ ] * ? and \\', prefix)
  folder, name = os.path.split(os.path.abspath(prefix))
  with tempfile.TemporaryDirectory() as links:
    link = os.path.join(links, 'folder')
    os.symlink(folder, link)
    yield os.path.join(link, name)


def _in_one_line(error):
  # Some file systems give an empty message.
  return (tf_errors.message(error).strip().split('\n')[0] or
          type(error).__name__)


def is_model_variable(name: str) -> bool:
  """Whether inference needs a variable, according to its name."""
  return not name.endswith(constants.TRAINING_VARIABLE_ENDINGS)


def is_quantization_variable(name: str) -> bool:
  """Whether fake quantization added a variable, according to its name."""
  return any(mark in name for mark in constants.QUANTIZATION_VARIABLE_MARKS)


def is_weight(name: str) -> bool:
  """Whether a variable is a weight or statistic of the network itself."""
  return is_model_variable(name) and not is_quantization_variable(name)
