"""Handles signals, so that a stopped script removes its temporary files."""
import contextlib
import logging
import os
import signal
import socket
import threading
from typing import Any, Callable, Dict, Iterator, List, Optional

_LOG = logging.getLogger(__name__)
# Sent by the system, by Ctrl-C, and by a terminal that is closed.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Time for the main thread to react to a signal.
_ACT_SECS = 5.0


class Stopped(BaseException):
  """A signal ends the script. Not an Exception, so that nothing catches it.

  Attributes:
    name: the signal's name, such as 'SIGTERM'.
    status: exit status that shells report for a program ended by the signal.
  """

  def __init__(self, number: int):
    self.name = signal.Signals(number).name
    self.status = 128 + number
    super().__init__(self.name)


class Request:
  """A context in which a signal asks the script to stop.

  One signal ends a script at once: Stopped is raised in the main thread. If
  `orderly` is set, the first signal only sets `name`, and the next one raises
  Stopped, except within `held`. Signals after Stopped are ignored, because some
  programs send two; Ctrl-C still interrupts. A signal that was ignored before,
  as under nohup, stays ignored.

  Attributes:
    name: the last signal received, such as 'SIGTERM'; None: none yet.
  """

  def __init__(self, *, orderly: bool = False):
    """Stores whether the first signal is left to the caller, to stop later."""
    self.name: Optional[str] = None
    self._is_last = not orderly
    self._is_held = False
    self._owner = os.getpid()
    self._previous: Dict[signal.Signals, Any] = {}

  def __enter__(self) -> 'Request':
    for number in SIGNALS:
      # None: a handler that Python did not install and cannot restore.
      if signal.getsignal(number) not in (signal.SIG_IGN, None):
        self._previous[number] = signal.signal(number, self._receive)
    return self

  def __exit__(self, *unused_exception: object) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)

  @contextlib.contextmanager
  def held(self) -> Iterator[None]:
    """Context that signals do not interrupt, such as a save."""
    self._is_held = True
    try:
      yield
    finally:
      self._is_held = False

  def _receive(self, number, unused_frame):
    if os.getpid() != self._owner:  # a forked process has nothing to remove
      os._exit(128 + number)
    self.name = signal.Signals(number).name
    if self._is_held or not self._is_last:
      self._is_last = True
      _LOG.info('%s received: stopping once a checkpoint is saved', self.name)
      return
    for other in self._previous:
      signal.signal(other, signal.default_int_handler
                    if other == signal.SIGINT else signal.SIG_IGN)
    raise Stopped(number)


@contextlib.contextmanager
def heard_while_waiting(end: Callable[[int], None]) -> Iterator[None]:
  """Context of the main thread that handles a second signal in another thread.

  Python calls handlers only when the main thread returns from native code. If
  that code waits for other machines, it may never return.

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
      # One byte per signal that has a handler.
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
