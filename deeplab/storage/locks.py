"""Locks on folders, which end with the process that holds them."""
import contextlib
import errno
import fcntl
import os
from typing import Iterator, Union

from deeplab import errors
from deeplab.storage import remote


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
