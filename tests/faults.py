"""Simulates faults for scripts under test: a kill, a full disk.

kill_at.c, a preloaded library, kills a process at a chosen file operation.
The library does not know of it.
"""
import contextlib
import hashlib
import os
import resource
import shutil
import subprocess

_LIBRARY = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'kill_at.c')


class Injector:
  """Counts calls that change files below a root, and kills at a chosen one."""

  def __init__(self, folder, root):
    """Compiles the library.

    Args:
      folder: pathlib.Path of an empty folder.
      root: pathlib.Path of the folder in which calls are counted.
    """
    self._calls = folder / 'calls'
    self._kill_at = folder / 'kill_at'
    library = folder / 'kill_at.so'
    subprocess.run(['cc', '-shared', '-fPIC', '-o', str(library), _LIBRARY,
                    '-ldl'], check=True)
    self.environ = {'LD_PRELOAD': str(library), 'FAULTS_FOLDER': str(folder),
                    'FAULTS_ROOT': str(root)}

  @staticmethod
  def is_possible():
    return bool(shutil.which('cc'))

  @contextlib.contextmanager
  def counting(self, kill_at=0):
    """Context in which calls are counted.

    Args:
      kill_at: number of the call to kill at, starting at 1; 0: none.
    """
    self._kill_at.write_text(str(kill_at))
    self._calls.write_text('')
    try:
      yield
    finally:
      self._kill_at.unlink()

  def calls(self):
    """Returns (name, path) of each call counted in the last context."""
    return [tuple(line.split(None, 1))
            for line in self._calls.read_text().splitlines()]


# --- The disk --------------------------------------------------------------


@contextlib.contextmanager
def largest_file(size):
  """Limits the size of files that this process can write, in bytes."""
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@contextlib.contextmanager
def disk(folder, size):
  """Context that mounts a small disk at a folder, if this is allowed.

  Args:
    folder: pathlib.Path of an empty folder.
    size: bytes.

  Yields:
    A Disk, or None if mounting is not allowed.
  """
  mounted = not subprocess.run(
      ['mount', '-t', 'tmpfs', '-o', 'size={}'.format(size), 'tmpfs',
       str(folder)], stderr=subprocess.DEVNULL).returncode
  try:
    yield Disk(folder) if mounted else None
  finally:
    if mounted:
      subprocess.run(['umount', '-l', str(folder)], check=True)


class Disk:
  """A small disk."""

  def __init__(self, folder):
    self._folder = folder

  @contextlib.contextmanager
  def full_but_for(self, size):
    """Context in which only `size` bytes are free."""
    filler = self._folder / '.filler'
    status = os.statvfs(str(self._folder))
    with open(str(filler), 'wb') as out:
      out.write(bytes(max(0, status.f_bavail * status.f_frsize - size)))
    try:
      yield
    finally:
      filler.unlink()

  @contextlib.contextmanager
  def read_only(self):
    """Context in which nobody can write, not even root."""
    self._remount('ro')
    try:
      yield
    finally:
      self._remount('rw')

  def _remount(self, mode):
    subprocess.run(['mount', '-o', 'remount,' + mode, str(self._folder)],
                   check=True)


# --- The result ------------------------------------------------------------


def contents(folder):
  """Returns a dict from path to SHA-1, or None for a folder.

  Args:
    folder: pathlib.Path.
  """
  found = {}
  for path in sorted(folder.rglob('*')):
    found[str(path.relative_to(folder))] = None if path.is_dir() else (
        hashlib.sha1(path.read_bytes()).hexdigest())
  return found
