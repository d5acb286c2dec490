"""Tells whether the other tasks of a cluster are still there.

A task is there as long as its own TensorFlow server answers at its address,
which it does until its process ends or is stopped, however that comes. It is
asked again and again, next to whatever else goes on: TensorFlow 1.15 itself
waits for ever for a task that is gone. Needs no TensorFlow.
"""
import logging
import socket
import threading
import time
from typing import Callable, List, Optional, Sequence

_LOG = logging.getLogger(__name__)
# Between two questions, to all.
_INTERVAL_SECS = 1.0
# For a connection, and for a word on it.
_ANSWER_SECS = 3.0
# A task that gives no answer at all (its host or the network has failed, or its
# process is stopped) is taken for lost after so long; one whose host says that
# no one listens, at once.
_SILENCE_SECS = 25.0
# Between two lines of the log that say who is waited for.
_SAID_SECS = 30.0


class Watch:
  """Asks the other tasks of a cluster whether they are there."""

  def __init__(self, addresses: Sequence[str], task: int,
               on_loss: Callable[[List[int]], None]):
    """Remembers the arguments.

    Args:
      addresses: HOST:PORT of every task.
      task: the one that asks, counted from 0.
      on_loss: called once, in a thread of its own, with the tasks that are
        gone.
    """
    self._addresses = addresses
    self._others = [number for number in range(len(addresses))
                    if number != task]
    self._on_loss = on_loss
    self._ended = threading.Event()
    self._lost = threading.Event()
    self._thread: Optional[threading.Thread] = None

  def wait_for_all(self, seconds: float) -> List[int]:
    """Waits until all tasks are there; returns those that did not come.

    Args:
      seconds: how long, at most.
    """
    deadline = time.monotonic() + seconds
    missing = self._others
    said = time.monotonic() - _SAID_SECS + 2 * _INTERVAL_SECS
    while True:
      missing = [task for task in missing if _ask(self._addresses[task])]
      if not missing or time.monotonic() >= deadline:
        return missing
      if time.monotonic() - said >= _SAID_SECS:
        said = time.monotonic()
        _LOG.info('waiting for %s', self.names(missing))
      time.sleep(_INTERVAL_SECS)

  def start(self) -> None:
    """Begins to ask, in a thread; all have to be there."""
    self._thread = threading.Thread(target=self._run, daemon=True)
    self._thread.start()

  def stop(self) -> None:
    """Asks no more: from now on, tasks may end."""
    self._ended.set()

  def finds_loss(self, seconds: float) -> bool:
    """Waits for the loss of a task; returns whether there was one.

    Args:
      seconds: how long, at most.
    """
    return self._lost.wait(seconds)

  def names(self, tasks: Sequence[int]) -> str:
    """Returns tasks as users know them, such as 'task 1 (host:4711)'."""
    return ' and '.join('task {} ({})'.format(task, self._addresses[task])
                        for task in tasks)

  def _run(self):
    answered = dict.fromkeys(self._others, time.monotonic())
    while not self._ended.wait(_INTERVAL_SECS):
      lost = []
      for task in self._others:
        problem = _ask(self._addresses[task])
        now = time.monotonic()
        if not problem:
          answered[task] = now
        elif isinstance(problem, ConnectionRefusedError) or (
            now - answered[task] >= _SILENCE_SECS):
          lost.append(task)
      if lost and not self._ended.is_set():
        self._lost.set()
        # Others ask too: until they have, this task stays, or they would take
        # it for the one that was lost.
        if not self._ended.wait(2 * _INTERVAL_SECS + _ANSWER_SECS):
          self._on_loss(lost)
        return


def _ask(address):
  """Returns why a task does not answer at an address, as an OSError, or None.

  A connection is the work of its system. A greeting takes the process: servers
  of HTTP/2, as gRPC's are, send their settings first (RFC 9113, section 3.4).
  """
  host, _, port = address.rpartition(':')
  try:
    with socket.create_connection(
        (host.strip('[]'), int(port)), timeout=_ANSWER_SECS) as connection:
      return None if connection.recv(1) else ConnectionAbortedError('silent')
  except OSError as error:
    return error
