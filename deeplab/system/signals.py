"""Signals that end a script in order: it removes its temporary files."""
import contextlib
import logging
import os
import signal
import socket
import threading
from typing import Any, Callable, Dict, Iterator, List, Optional

_LOG = logging.getLogger(__name__)
# The system's, Ctrl-C, and that of a terminal that was closed.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Time to act on a signal.
_ACT_SECS = 5.0


class Stopped(BaseException):
  """A signal ends the script; no Exception, so that nothing catches it.

  Attributes:
    name: the signal's name, such as 'SIGTERM'.
    status: exit status, as shells report a program that the signal ended.
  """

  def __init__(self, number: int):
    self.name = signal.Signals(number).name
    self.status = 128 + number
    super().__init__(self.name)


@contextlib.contextmanager
def raised() -> Iterator[None]:
  """Context in which the first of SIGNALS raises Stopped in the main thread.

  Later ones are ignored, because some programs send two, except Ctrl-C, for an
  impatient user. A signal that does not have Python's default handler keeps its
  own: under nohup one is ignored.
  """
  owner = os.getpid()

  def stop(number, unused_frame):
    if os.getpid() != owner:  # a forked process has nothing to remove
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


class Request:
  """A context in which a signal asks for an orderly stop.

  A second signal raises Stopped at once, but not while something is held.

  Attributes:
    name: the last signal that was received, such as 'SIGTERM'; None: none.
  """

  def __init__(self) -> None:
    self.name: Optional[str] = None
    self._is_held = False
    self._previous: Dict[signal.Signals, Any] = {}

  def __enter__(self) -> 'Request':
    for number in SIGNALS:
      if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
        self._previous[number] = signal.signal(number, self._receive)
    return self

  def __exit__(self, *unused_exception: object) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)

  @contextlib.contextmanager
  def held(self) -> Iterator[None]:
    """Context that no signal interrupts, such as a save."""
    self._is_held = True
    try:
      yield
    finally:
      self._is_held = False

  def _receive(self, number, unused_frame):
    is_first = self.name is None
    self.name = signal.Signals(number).name
    if not is_first and not self._is_held:
      raise Stopped(number)
    _LOG.info('%s received: stopping once a checkpoint is saved', self.name)


@contextlib.contextmanager
def heard_while_waiting(end: Callable[[int], None]) -> Iterator[None]:
  """Context of the main thread in which a second one of SIGNALS is heard.

  Python calls handlers only when the main thread returns from native code. If
  it waits there for other machines, it may never return.

  Args:
    end: called with a second signal's number, in another thread, if the main
      thread is still in this context after some seconds.
  """
  hears, tells = socket.socketpair()
  tells.setblocking(False)
  left = threading.Event()

  def listen():
    received: List[signal.Signals] = []
    while len(received) < 2:
      # One byte for each signal that has a handler.
      numbers = hears.recv(16)
      if not numbers:
        return
      new = [signal.Signals(number) for number in numbers if number in SIGNALS]
      received += new
      if new and len(received) == 1 and not left.wait(_ACT_SECS):
        _LOG.info('%s: waiting for all tasks to finish a step; a second signal '
                  'ends this one', received[0].name)
    if not left.wait(_ACT_SECS):
      end(received[1])

  thread = threading.Thread(target=listen, daemon=True)
  thread.start()
  previous = signal.set_wakeup_fd(tells.fileno())
  try:
    yield
  finally:
    left.set()
    signal.set_wakeup_fd(previous)
    tells.close()
    thread.join()
    hears.close()
