"""Reads whole files that a user names, if they are files and not too large.

A reader would wait for a pipe, and a device may never end.
"""
import json
import os
import stat
from typing import Any, Union

from deeplab import constants
from deeplab.errors import InputError
from deeplab.errors import Option
from deeplab.storage import remote


def read(path: str, name: Union[str, Option], kind: str,
         remedy: str = '') -> bytes:
  """Returns the content of a file.

  Args:
    path: the file.
    name: the path, or the option with it, for messages.
    kind: what it is expected to be, such as 'a frozen graph'.
    remedy: end of the message if it is no file; '': what is expected.

  Raises:
    InputError: there is no such file, or it is too large.
    OSError: it cannot be read.
  """
  check(path, name, kind, remedy)
  size = remote.size(path)
  if size > constants.MAX_FILE_BYTES:
    raise InputError('{}: {} bytes; expected {} of at most {}', name, size,
                     kind, constants.MAX_FILE_BYTES)
  with remote.reading(path) as source:
    return source.read()


def check(path: str, name: Union[str, Option], kind: str,
          remedy: str = '') -> None:
  """Checks that there is a file, of any size; arguments as for `read`.

  Raises:
    InputError: there is none.
  """
  problem = _problem(path)
  if problem:
    raise InputError('{}: {}; {}', name, problem, remedy or 'expected ' + kind)


def read_text(path: str, name: Union[str, Option], kind: str) -> str:
  """Returns the text of a file, as Python has names of files.

  Arguments as for `read`.

  Raises:
    InputError: as from `read`, or it is no text.
    OSError: it cannot be read.
  """
  # File names may be in another encoding. Editors on Windows may write a byte
  # order mark; UTF-16 has bytes of 0.
  text = read(path, name, kind).decode('utf-8-sig', 'surrogateescape')
  if '\0' in text:
    raise InputError('{}: not a text file in UTF-8; expected {}', name, kind)
  return text


def read_json(path: str, name: Union[str, Option], kind: str) -> Any:
  """Returns what a file of JSON holds; arguments as for `read`.

  Raises:
    InputError: as from `read_text`, or it is no JSON.
    OSError: it cannot be read.
  """
  text = read_text(path, name, kind)
  try:
    return json.loads(text)
  except RecursionError:
    problem = 'nested too deeply'
  except ValueError as error:
    problem = 'no JSON: {}'.format(error)
  raise InputError('{}: {}; expected {}', name, problem, kind)


def _problem(path):
  """Returns why a path cannot be read to its end, or None."""
  if remote.is_remote(path):
    return None if remote.is_file(path) else 'no such file'
  try:
    mode = os.stat(path).st_mode
  except (FileNotFoundError, NotADirectoryError):
    return 'no such file'
  if stat.S_ISDIR(mode):
    return 'is a folder'
  return None if stat.S_ISREG(mode) else 'is a device or a pipe'
