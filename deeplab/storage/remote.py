"""Local paths, and remote ones such as gs://BUCKET/NAME.

Records, checkpoints and event folders may be remote. Local paths use `os`;
paths that begin with SCHEME:// use tf.io.gfile and import TensorFlow only then.
An object store has no locks and no links, and a file appears there once it is
complete.
"""
import contextlib
import errno
import functools
import os
import re
from typing import Any, BinaryIO, Callable, Iterator, List, NamedTuple
import uuid

from deeplab.errors import InputError

_REMOTE = re.compile(r'[A-Za-z][A-Za-z0-9+.-]*://')


class State(NamedTuple):
  """Identifies a file's content: it changes if the file is written to."""
  # 0 if the store has no inodes.
  inode: int
  size: int
  mtime_ns: int


def is_remote(path: str) -> bool:
  """Whether a path begins with SCHEME://."""
  return _REMOTE.match(path) is not None


@contextlib.contextmanager
def _gfile(path: str) -> Iterator[Any]:
  """Context with tf.io.gfile that converts its errors to OSError."""
  try:
    import tensorflow.compat.v1 as tf
  except ImportError:
    raise InputError('{}: a remote path needs TensorFlow, which this Python '
                     'does not have'.format(path))
  try:
    yield tf.io.gfile
  except tf.errors.NotFoundError:
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
  except tf.errors.OpError as error:
    raise OSError(errno.EIO, ' '.join(error.message.split()), path)


def _call(path: str, local: Callable, of_gfile: Callable) -> Any:
  """Returns local(path), or of_gfile(tf.io.gfile) for a remote path."""
  if not is_remote(path):
    return local(path)
  with _gfile(path) as gfile:
    return of_gfile(gfile)


def exists(path: str) -> bool:
  """Whether a path is a file or folder."""
  return _call(path, os.path.exists,
               lambda gfile: gfile.exists(path) or gfile.isdir(path))


def is_folder(path: str) -> bool:
  """Whether a path is a folder."""
  try:
    # gfile.isdir returns False if the store cannot be reached.
    return _call(path, os.path.isdir,
                 lambda gfile: bool(gfile.stat(path).is_directory))
  except FileNotFoundError:
    return False


def is_file(path: str) -> bool:
  """Whether a path is a regular file."""
  if not is_remote(path):
    return os.path.isfile(path)
  return exists(path) and not is_folder(path)


def names_in(folder: str) -> List[str]:
  """Returns the names in a folder, in any order.

  Raises:
    OSError: there is no such folder, or it cannot be read.
  """
  names = _call(folder, os.listdir, lambda gfile: gfile.listdir(folder))
  return list(filter(None, (name.rstrip('/') for name in names)))


def state(path: str) -> State:
  """Returns the State of a file; raises OSError if there is none."""
  if not is_remote(path):
    status = os.stat(path)
    return State(status.st_ino, status.st_size, status.st_mtime_ns)
  with _gfile(path) as gfile:
    found = gfile.stat(path)
    return State(0, found.length, found.mtime_nsec)


def size(path: str) -> int:
  """Returns a file's size in bytes; raises OSError if there is none."""
  return state(path).size


def absolute(path: str) -> str:
  """Returns a path that is valid in any working directory."""
  return path if is_remote(path) else os.path.abspath(path)


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
  with _gfile(path) as gfile, gfile.GFile(path, 'rb') as source:
    yield source


def make_folder(folder: str) -> None:
  """Makes a folder and its missing parents."""
  _call(folder, functools.partial(os.makedirs, exist_ok=True),
        lambda gfile: gfile.makedirs(folder))


def remove(path: str) -> None:
  """Removes a file; raises OSError if there is none."""
  _call(path, os.remove, lambda gfile: gfile.remove(path))


def upload(source: str, path: str) -> None:
  """Copies a local file to a remote path; raises OSError."""
  folder, name = os.path.split(path)
  temporary = os.path.join(
      folder, '.deeplab-{}-{}.tmp'.format(name, uuid.uuid4().hex))
  with _gfile(path) as gfile:
    gfile.copy(source, temporary)
    gfile.rename(temporary, path, overwrite=True)
