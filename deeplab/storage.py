"""Paths of this machine, and of object stores, such as gs://BUCKET/NAME.

A path of this machine goes to `os` as it is. What begins with SCHEME:// is
left to TensorFlow, which has gs:// built in, and is imported only then. Whoever
takes a path that may be either asks here; what an option may be, its field
says. An object store has no folders that one could rename or lock, no links,
and nothing that is half written under its name: see `upload`.
"""
import contextlib
import errno
import functools
import importlib
import os
import re
import shutil
import tempfile
from typing import Any, BinaryIO, Iterator, List, NamedTuple
import uuid

from deeplab.errors import InputError

_REMOTE = re.compile(r'([A-Za-z][A-Za-z0-9+.-]*)://')
# What a file is called until it is whole: as in `files`, hidden.
_TEMPORARY = '.deeplab-{}-{}.tmp'
# A package that teaches TensorFlow others.
_PLUGIN = 'tensorflow_io'
_WHERE = 'expected a path of this machine, or gs://BUCKET/NAME'


class State(NamedTuple):
  """What changes where a file is replaced or written to."""
  # 0 where files have none, as in an object store.
  inode: int
  size: int
  mtime_ns: int


def is_remote(path: str) -> bool:
  """Whether a path is in an object store, or in what else has a SCHEME://."""
  return _REMOTE.match(path) is not None


# --- What is there ---------------------------------------------------------


def exists(path: str) -> bool:
  """Whether there is such a file or folder."""
  if not is_remote(path):
    return os.path.exists(path)
  return _remote(path).exists(path) or is_folder(path)


def is_folder(path: str) -> bool:
  """Whether there is such a folder."""
  if not is_remote(path):
    return os.path.isdir(path)
  # Not isdir, to which a store that cannot be reached is no folder.
  try:
    return bool(_remote(path).stat(path).is_directory)
  except FileNotFoundError:
    return False


def is_file(path: str) -> bool:
  """Whether there is such a file, and it is no folder, device or pipe."""
  if not is_remote(path):
    return os.path.isfile(path)
  return _remote(path).exists(path) and not is_folder(path)


def names_in(folder: str) -> List[str]:
  """Returns the names in a folder, in any order.

  Raises:
    OSError: there is no such folder, or it cannot be read.
  """
  if not is_remote(folder):
    return os.listdir(folder)
  return [name.rstrip('/') for name in _remote(folder).listdir(folder)
          if name.rstrip('/')]


def state(path: str) -> State:
  """Returns the State of a file; raises OSError where there is none."""
  if not is_remote(path):
    status = os.stat(path)
    return State(status.st_ino, status.st_size, status.st_mtime_ns)
  found = _remote(path).stat(path)
  return State(0, found.length, found.mtime_nsec)


def size(path: str) -> int:
  """Returns a file's size in bytes; raises OSError where there is none."""
  return state(path).size


def absolute(path: str) -> str:
  """Returns a path that holds in any folder."""
  return path if is_remote(path) else os.path.abspath(path)


# --- Reading and writing ---------------------------------------------------


@contextlib.contextmanager
def reading(path: str) -> Iterator[BinaryIO]:
  """Context with an open file that has read, seek and tell.

  Raises:
    OSError: there is none, or it cannot be read.
  """
  if not is_remote(path):
    with open(path, 'rb') as source:
      yield source
    return
  with _explained(path), _remote(path).GFile(path, 'rb') as source:
    yield source


def make_folder(folder: str) -> None:
  """Makes a folder, and those above it, where they are missing."""
  if not is_remote(folder):
    os.makedirs(folder, exist_ok=True)
  else:
    _remote(folder).makedirs(folder)


def remove(path: str) -> None:
  """Removes a file; raises OSError where there is none."""
  if not is_remote(path):
    os.remove(path)
  else:
    _remote(path).remove(path)


def upload(source: str, path: str) -> None:
  """Copies a file of this machine to a remote path, whole or not at all.

  It goes up under another name, gets its own once all bytes are there, and
  replaces what had that name. An object store does so at once. A process that
  is killed may leave the other name, which no reader looks at.

  Args:
    source: the file.
    path: a remote path.

  Raises:
    OSError: it cannot be written.
  """
  folder, name = os.path.split(path)
  temporary = os.path.join(folder, _TEMPORARY.format(name, uuid.uuid4().hex))
  remote = _remote(path)
  try:
    remote.copy(source, temporary, overwrite=True)
    if size(temporary) != os.path.getsize(source):
      raise OSError(errno.EIO, 'not all bytes arrived', path)
    remote.rename(temporary, path, overwrite=True)
  except BaseException:
    with contextlib.suppress(OSError):
      remove(temporary)
    raise


def free_bytes(folder: str) -> int:
  """Returns the room for what is going to be written to a folder.

  What goes to an object store is written to this machine's temporary files
  first.
  """
  return shutil.disk_usage(
      tempfile.gettempdir() if is_remote(folder) else folder).free


# --- TensorFlow's file systems ---------------------------------------------


class _Remote:
  """tf.io.gfile, with the errors that `os` has."""

  def __init__(self, gfile):
    self._gfile = gfile
    self.GFile = gfile.GFile

  def __getattr__(self, name):
    function = getattr(self._gfile, name)

    def explained(path, *more, **options):
      with _explained(path):
        return function(path, *more, **options)

    return explained


def _remote(path: str) -> Any:
  """Returns what has the functions of tf.io.gfile for a remote path.

  Raises:
    InputError: this TensorFlow does not know such paths, or there is none.
  """
  scheme = _REMOTE.match(path)
  assert scheme
  problem, gfile = _gfile_for(scheme.group(1).lower())
  if problem:
    raise InputError('{}: {}'.format(path, problem))
  return _Remote(gfile)


@functools.lru_cache(maxsize=None)
def _gfile_for(scheme):
  """Returns (why a scheme cannot be used or None, tf.io.gfile or None)."""
  try:
    import tensorflow.compat.v1 as tf
  except ImportError:
    return ('a path of {}:// needs TensorFlow, which this Python does not '
            'have; {}'.format(scheme, _WHERE)), None
  if _knows(tf, scheme):
    return None, tf.io.gfile
  with contextlib.suppress(Exception):  # of whatever kind where it does not fit
    importlib.import_module(_PLUGIN)
    if _knows(tf, scheme):
      return None, tf.io.gfile
  remedy = ''
  if scheme in ('s3', 'hdfs', 'viewfs', 'har', 'az', 'oss'):
    remedy = '; install a tensorflow-io that is made for it, which has them'
  return 'TensorFlow {} has no {}:// paths{}; {}'.format(
      tf.__version__, scheme, remedy, _WHERE), None


def _knows(tf, scheme):
  try:
    tf.io.gfile.exists(scheme + '://')
  except tf.errors.UnimplementedError:
    return False
  except tf.errors.OpError:
    pass  # it knows such paths, of which this is none
  return True


@contextlib.contextmanager
def _explained(path):
  """Turns TensorFlow's errors into the system's."""
  import tensorflow.compat.v1 as tf
  try:
    yield
  except tf.errors.NotFoundError:
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
  except (tf.errors.PermissionDeniedError, tf.errors.UnauthenticatedError):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
  except tf.errors.OpError as error:
    raise OSError(
        errno.EIO, ' '.join(error.message.split()) or type(error).__name__,
        path)
