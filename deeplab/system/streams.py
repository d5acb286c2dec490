"""Standard streams that may be closed or full."""
import contextlib
import io
import os
import sys
from typing import Iterator

from deeplab import errors

_STDOUT, _STDERR = 1, 2  # file descriptors


class OutputError(OSError):
  """Standard output cannot be written to.

  Attributes:
    text: the output that was lost.
  """

  text = ''


@contextlib.contextmanager
def checked() -> Iterator[None]:
  """Context that raises OutputError for lost output, at its end at the latest.

  Python itself ignores a closed output and reports a full disk too late.
  """
  _open_closed_streams()
  before = sys.stdout
  if before is None or before is sys.__stdout__:
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Output(_STDOUT, 'w', closefd=False)),
        encoding=getattr(before, 'encoding', 'utf-8'),
        # File names may have bytes of another encoding.
        errors='backslashreplace',
        line_buffering=os.isatty(_STDOUT))
  try:
    yield
  finally:
    output, sys.stdout = sys.stdout, before
    output.flush()


def show(*lines: str) -> None:
  """Prints lines, with invisible characters escaped.

  Raises:
    OutputError: standard output cannot be written to.
  """
  print('\n'.join(map(errors.printable, lines)))


class _Output(io.FileIO):
  """Standard output; after a failure, it discards all further output."""

  def write(self, content):
    try:
      return super().write(content)
    except OSError as error:
      failure = OutputError(error.errno, error.strerror, 'standard output')
      failure.text = bytes(content).decode('utf-8', 'replace').strip()
      null = os.open(os.devnull, os.O_WRONLY)
      os.dup2(null, _STDOUT)
      os.close(null)
      raise failure


def _open_closed_streams() -> None:
  """Opens closed streams, so that no other file gets their descriptor."""
  for descriptor in range(_STDERR + 1):
    try:
      os.fstat(descriptor)
    except OSError:
      # Takes the lowest free descriptor. Writing to the output still fails.
      os.open(os.devnull,
              os.O_WRONLY if descriptor == _STDERR else os.O_RDONLY)
      os.set_inheritable(descriptor, True)
  if sys.stderr is None:
    sys.stderr = io.open(
        _STDERR, 'w', errors='backslashreplace', closefd=False)
