"""Locks on folders, which end with the process that holds them."""
import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from typing import Iterator, Union

from deeplab import errors
from deeplab.storage import remote

# The name of a hidden folder.
PREFIX, _SUFFIX = '.deeplab-', '.tmp'


@contextlib.contextmanager
def exclusive(folder: str) -> Iterator[None]:
  """Context that holds the exclusive lock of a folder.

  The kernel frees the lock when the process ends, even if it is killed.

  Raises:
    BlockingIOError: another process, or another context of this one, holds it.
    OSError: there is no such folder, or its file system cannot lock folders.
  """
  if remote.is_remote(folder):
    raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP), folder)
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    yield
  finally:
    os.close(descriptor)


@contextlib.contextmanager
def alone(given: Union[str, errors.Option], folder: str) -> Iterator[None]:
  """Context in which no other run of the suite writes to a folder.

  It does nothing on a file system without locks.

  Args:
    given: the folder, or the option that names it, for the message.
    folder: existing folder.

  Raises:
    InputError: another run writes there.
  """
  with contextlib.ExitStack() as stack:
    try:
      stack.enter_context(exclusive(folder))
    except BlockingIOError:
      raise errors.InputError('{}: another run writes there', given)
    except OSError:
      pass
    yield


@contextlib.contextmanager
def hidden_folder(parent: str) -> Iterator[str]:
  """Context with a new, locked folder in another one, removed at its end.

  First it removes the hidden folders of killed processes.
  """
  remove_leftovers(parent)
  with contextlib.ExitStack() as stack:
    while True:
      folder = tempfile.mkdtemp(dir=parent, prefix=PREFIX, suffix=_SUFFIX)
      stack.callback(shutil.rmtree, folder, ignore_errors=True)
      try:
        stack.enter_context(exclusive(folder))
      except (BlockingIOError, FileNotFoundError):
        continue  # another run removes it as a leftover
      except OSError:
        break  # a file system without locks
      if os.path.exists(folder):
        break
    yield folder


def remove_leftovers(parent: str) -> None:
  """Removes hidden folders of killed processes from a folder.

  On a file system that cannot lock folders, they stay.
  """
  for name in os.listdir(parent):
    if name.startswith(PREFIX) and name.endswith(_SUFFIX):
      path = os.path.join(parent, name)
      with contextlib.suppress(OSError), exclusive(path):
        shutil.rmtree(path)
