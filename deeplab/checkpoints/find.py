"""Finds checkpoints in a folder, by a prefix, or by any of their files."""
import contextlib
import logging
import os
import re
import tarfile
from typing import Any, Dict, List, Optional
import zipfile

import tensorflow.compat.v1 as tf

from deeplab.checkpoints import read
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.storage import remote

_LOG = logging.getLogger(__name__)
# The file in which TensorFlow lists a folder's checkpoints.
STATE = 'checkpoint'
_PART = re.compile(r'\.(index|meta|data-\d{5}-of-\d{5})$')
_STEP = re.compile(r'-\d+$')
# Model files that are not checkpoints, by file name extension.
_MODEL_FILES = {'.pb': 'a frozen graph', '.tflite': 'a TFLite file',
                '.onnx': 'an ONNX file'}


def find_latest(folder: str) -> Optional[str]:
  """Returns the prefix of a folder's newest checkpoint, readable or not.

  None: the folder has no checkpoint.
  """
  return next(iter(prefixes_in(folder)), None)


def prefixes_in(folder: str) -> List[str]:
  """Returns the prefixes of a folder's checkpoints, newest first.

  They need not be readable.
  """
  names, _ = _listing(folder)
  return [os.path.join(folder, name) for name in names]


class Newest:
  """Finds the newest readable checkpoint of a folder.

  The state file `checkpoint` names the newest one. Without a readable state
  file, it is the checkpoint with the largest step. A checkpoint with a larger
  step that the state file does not list is newer: its save was interrupted just
  before the end.

  An object caches results and logs each problem once, for repeated calls.

  Attributes:
    folder: folder with the checkpoints.
    problems: texts about problems that the last `find` found, such as newer
      checkpoints that cannot be read.
  """

  def __init__(self, folder: str, *, strict: bool = False):
    """Stores the arguments.

    Args:
      folder: folder with the checkpoints.
      strict: whether to refuse a newest checkpoint that cannot be read.
    """
    self.folder = folder
    self.problems: List[str] = []
    self._strict = strict
    self._damages: Dict[Any, Optional[str]] = {}
    self._logged: List[str] = []

  def find(self) -> Optional[str]:
    """Returns the prefix of the newest readable checkpoint, or None.

    Logs a line if a newer checkpoint cannot be read.

    Raises:
      InputError: a newer checkpoint cannot be read, and `strict` was given.
    """
    found = self._look()
    if self.problems and self._strict:
      raise InputError('{}: {}; refused because of {}', self.folder,
                       '; '.join(self.problems),
                       option('strict_checkpoint', True))
    if found and self.problems and self.problems != self._logged:
      _LOG.warning('%s: %s; taking %s', self.folder,
                   '; '.join(self.problems), found)
      self._logged = self.problems
    return found and os.path.join(self.folder, found)

  def _look(self):
    """Returns the name of the newest readable checkpoint, or None."""
    while True:
      names, problems = listing = _listing(self.folder)
      found = None
      self.problems = list(problems)
      for name in names:
        damage = self._damage(name)
        if not damage:
          found = name
          break
        self.problems.append('{} cannot be read ({})'.format(name, damage))
      # A trainer may have replaced a damaged checkpoint in the meantime.
      if not self.problems or _listing(self.folder) == listing:
        return found

  def _damage(self, name):
    """Returns damage_of a checkpoint, cached by the state of its files."""
    prefix = os.path.join(self.folder, name)
    states = []
    for path in parts_of(prefix):
      with contextlib.suppress(FileNotFoundError):
        states.append((path, remote.state(path)))
    key = tuple(states)
    if key not in self._damages:
      self._damages[key] = read.damage_of(prefix)
    return self._damages[key]


def find(path: str, name: str, *, strict: bool = False) -> str:
  """Resolves a folder, a prefix or any file of a checkpoint to a prefix.

  Args:
    path: a folder, prefix or file.
    name: the option's name, for the message.
    strict: whether to refuse a folder's newest checkpoint if it is unreadable.

  Returns:
    The newest readable prefix of a folder; otherwise the given prefix.

  Raises:
    InputError: there is no checkpoint, or none that can be read.
  """
  given = option(name, path)
  if remote.is_folder(path):
    newest = Newest(path, strict=strict)
    found = newest.find()
    if not found:
      raise InputError('{}: no checkpoint in this folder ({})', given,
                       '; '.join(newest.problems) or '0 *.index files')
    return found
  prefix = _PART.sub('', path)
  if parts_of(prefix):
    problem = read.damage_of(prefix)
    if problem:
      raise InputError('{}: cannot be read ({})', given, problem)
    return prefix
  _refuse_other_kinds(given, path)
  latest = find_latest(os.path.dirname(path) or '.')
  raise InputError('{}: no checkpoint there ({})', given, (
      'that folder holds {}'.format(os.path.basename(latest)) if latest
      else 'no checkpoint in that folder'))


def _refuse_other_kinds(given, path):
  """Raises InputError for files that are often mistaken for a checkpoint."""
  if os.path.isfile(path) and (
      tarfile.is_tarfile(path) or zipfile.is_zipfile(path)):
    raise InputError('{}: is an archive; unpack it and give the folder that '
                     'holds its *.index file', given)
  kind = _MODEL_FILES.get(os.path.splitext(path)[1])
  if kind and remote.exists(path):
    raise InputError('{}: is {}, which cannot be trained; expected a '
                     'checkpoint: a folder or the *.index file in it', given,
                     kind)


def listed(folder: str) -> Optional[List[str]]:
  """Returns the names of checkpoints in a folder's state file, oldest first.

  Names have no folder: a checkpoint that was moved lies beside its state file.
  None: there is no readable state file.
  """
  state, _ = _state(folder)
  return state and _names_in(state)


def parts_of(prefix: str) -> List[str]:
  """Returns the paths of a checkpoint's files, the index first."""
  folder, name = os.path.split(prefix)
  # Not by glob, because a folder's name may contain metacharacters.
  paths = [
      os.path.join(folder, entry) for entry in _entries(folder or os.curdir)
      if _PART.search(entry) and _PART.sub('', entry) == name]
  return sorted(paths, key=lambda path: (not path.endswith('.index'), path))


def _listing(folder):
  """Lists a folder's checkpoints, readable or not.

  Returns:
    (names of checkpoints, newest first; problems with the state file).
  """
  state, problem = _state(folder)
  problems = [problem] if problem else []
  endings: Dict[str, List[str]] = {}
  for entry in _entries(folder):
    match = _PART.search(entry)
    if match and match.group(1) != 'meta':
      endings.setdefault(_PART.sub('', entry), []).append(match.group(1))
  by_step = sorted(
      endings, key=lambda name: (read.step_of(name), name), reverse=True)
  if not state:
    return by_step, problems
  newest = os.path.basename(state.model_checkpoint_path)
  in_state = _names_in(state) + [newest]
  # A save renames its data first, so without an index it is incomplete.
  by_step = [name for name in by_step
             if name in in_state or 'index' in endings[name]]
  stem = _STEP.sub('', newest)
  newer = [name for name in by_step
           if name not in in_state and _STEP.sub('', name) == stem and
           read.step_of(name) > read.step_of(newest)]
  if newest not in endings:
    problems.append('the state file {} names {}, of which there is no '
                    'file'.format(STATE, state.model_checkpoint_path))
  else:
    newer.append(newest)
  return newer + [name for name in by_step if name not in newer], problems


def _state(folder):
  """Reads the state file: (CheckpointState or None, problem or None)."""
  if not remote.exists(os.path.join(folder, STATE)):
    return None, None
  try:
    # It returns None for a file that is not in the text format.
    state = tf.train.get_checkpoint_state(folder)
  except (tf.errors.OpError, ValueError):
    state = None
  return state, None if state else (
      'the state file {} cannot be read'.format(STATE))


def _names_in(state):
  """Returns the names of checkpoints in a CheckpointState."""
  return [os.path.basename(path) for path in (
      state.all_model_checkpoint_paths or [state.model_checkpoint_path])]


def _entries(folder):
  """Returns the names in a folder; none if it does not exist."""
  try:
    return remote.names_in(folder)
  except (FileNotFoundError, NotADirectoryError):
    return []
