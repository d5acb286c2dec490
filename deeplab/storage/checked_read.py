"""Reads whole files named by a user, if they are regular and not too large.

Reading a pipe would block, and a device may never end.
"""
import json
import os
import stat
from typing import Any, Callable, Union

from deeplab import constants
from deeplab.errors import InputError
from deeplab.errors import Option
from deeplab.storage import remote


def read(path: str, name: Union[str, Option], kind: str,
         remedy: str = '') -> bytes:
  """Returns the content of a file.

  Args:
    path: the file.
    name: the path, or the option that names it, for messages.
    kind: the expected kind of file, such as 'a frozen graph'.
    remedy: end of the message if it is no regular file; '': the kind.

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
  """Checks that a file exists, of any size; arguments as for `read`.

  Raises:
    InputError: it does not exist.
  """
  problem = _problem(path)
  if problem:
    raise InputError('{}: {}; {}', name, problem, remedy or 'expected ' + kind)


def read_text(path: str, name: Union[str, Option], kind: str) -> str:
  """Returns a file's text, decoded like Python's file names.

  Arguments as for `read`.

  Raises:
    InputError: as from `read`, or it is not text.
    OSError: it cannot be read.
  """
  # File names may be in another encoding. Editors on Windows may write a byte
  # order mark. UTF-16 has zero bytes.
  text = read(path, name, kind).decode('utf-8-sig', 'surrogateescape')
  if '\0' in text:
    raise InputError('{}: not a text file in UTF-8; expected {}', name, kind)
  return text


def read_json(path: str, name: Union[str, Option], kind: str) -> Any:
  """Returns the content of a JSON file; arguments as for `read`.

  Raises:
    InputError: as from `read_text`, or it is not JSON.
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


def json_with(*keys: str) -> Callable[[str], bool]:
  """Returns a function that checks whether a file is JSON with these keys.

  Args:
    *keys: keys of the top-level object; 'a.b' is a key of the object at key a.
  """
  def found(path):
    try:
      content = read_json(path, path, 'JSON')
      for key in keys:
        value = content
        for name in key.split('.'):
          value = value[name]
    except (InputError, OSError, LookupError, TypeError):
      return False
    return True

  return found


def _problem(path):
  """Returns why a path is not a regular file, or None."""
  if remote.is_remote(path):
    return None if remote.is_file(path) else 'no such file'
  try:
    mode = os.stat(path).st_mode
  except (FileNotFoundError, NotADirectoryError):
    return 'no such file'
  if stat.S_ISDIR(mode):
    return 'is a folder'
  return None if stat.S_ISREG(mode) else 'is a device or a pipe'
