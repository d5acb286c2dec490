"""Signals that end a script in order, so that it removes what is unfinished."""
import contextlib
import os
import signal
from typing import Iterator

# Of the system, of who presses Ctrl-C, and of a terminal that was closed.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Stopped(BaseException):
  """A signal asked for the end; no Exception, as nothing may go on after it.

  Attributes:
    name: of the signal, such as 'SIGTERM'.
    status: exit status, as shells report a program that the signal ended.
  """

  def __init__(self, number: int):
    self.name = signal.Signals(number).name
    self.status = 128 + number
    super().__init__(self.name)


@contextlib.contextmanager
def raised() -> Iterator[None]:
  """Context in which the first of SIGNALS raises Stopped in the main thread.

  Later ones change nothing, as some programs send two of them; but Ctrl-C works
  again, for whoever does not want to wait. A signal that is not handled as at
  the start of Python keeps its handler: nohup has one ignored.
  """
  owner = os.getpid()

  def stop(number, unused_frame):
    if os.getpid() != owner:  # a fork of it, which has nothing to tidy up
      os._exit(128 + number)
    for other in previous:
      signal.signal(other, signal.default_int_handler
                    if other == signal.SIGINT else signal.SIG_IGN)
    raise Stopped(number)

  defaults = (signal.SIG_DFL, signal.default_int_handler)
  previous = {number: signal.getsignal(number) for number in SIGNALS
              if signal.getsignal(number) in defaults}
  try:
    for number in previous:
      signal.signal(number, stop)
    yield
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)
