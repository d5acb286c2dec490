"""Tells whether the other tasks of a cluster are still there.

A task is there as long as its own TensorFlow server answers at its address. It
answers until its process ends or is stopped, for whatever reason. A thread asks
all tasks again and again, because TensorFlow 1.15 itself waits for ever for a
task that is gone. Needs no TensorFlow.
"""
import concurrent.futures
import logging
import socket
import threading
import time
from typing import Callable, Dict, List, Optional, Sequence

_LOG = logging.getLogger(__name__)
# Between two questions to the same task.
_INTERVAL_SECS = 1.0
# For a connection, and for each piece of the greeting.
_ANSWER_SECS = 3.0
# A task that gives no answer at all (its host or the network has failed, or its
# process is stopped) counts as lost after so long; one whose host refuses the
# connection, at once.
_SILENCE_SECS = 25.0
# Between two lines of the log that name the tasks that are still missing.
_SAID_SECS = 30.0
# gRPC servers first send a SETTINGS frame of HTTP/2 (RFC 9113, sections 3.4 and
# 6.5): 3 bytes of length, then the type, the flags, and stream 0.
_FRAME_HEADER_BYTES = 9
_SETTINGS = b'\x04\x00\x00\x00\x00\x00'


class OtherServiceError(OSError):
  """Another service has the port of a task."""


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

  def wait_for_all(self, seconds: float) -> Dict[int, OSError]:
    """Waits until all tasks are there.

    Args:
      seconds: how long, at most; not at all for a port that another service
        has.

    Returns:
      The tasks that did not come, each with the reason.
    """
    deadline = time.monotonic() + seconds
    said = time.monotonic() - _SAID_SECS + 2 * _INTERVAL_SECS
    while True:
      missing = self._ask_all()
      if not missing or time.monotonic() >= deadline or any(
          isinstance(reason, OtherServiceError) for reason in missing.values()):
        return missing
      if time.monotonic() - said >= _SAID_SECS:
        said = time.monotonic()
        _LOG.info('waiting for %s', self.names(list(missing)))
      time.sleep(_INTERVAL_SECS)

  def start(self) -> None:
    """Begins to ask, in a thread; all tasks have to be there."""
    threading.Thread(target=self._run, daemon=True).start()

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
      problems = self._ask_all()
      now = time.monotonic()
      answered.update((task, now) for task in self._others
                      if task not in problems)
      lost = [task for task, problem in problems.items()
              if isinstance(problem, ConnectionRefusedError) or
              now - answered[task] >= _SILENCE_SECS]
      if lost and not self._ended.is_set():
        self._lost.set()
        # The other tasks ask, too. Until they have, this one stays, or they
        # would take it for the one that was lost.
        if not self._ended.wait(2 * _INTERVAL_SECS + _ANSWER_SECS):
          self._on_loss(lost)
        return

  def _ask_all(self) -> Dict[int, OSError]:
    """Asks all others at the same time; returns those without an answer."""
    with concurrent.futures.ThreadPoolExecutor(len(self._others)) as pool:
      problems = pool.map(
          _ask, [self._addresses[task] for task in self._others])
      return {task: problem for task, problem in zip(self._others, problems)
              if problem}


def _ask(address: str) -> Optional[OSError]:
  """Returns why no TensorFlow server answers at an address, or None.

  The operating system alone accepts a connection; only the process itself sends
  a greeting.
  """
  host, _, port = address.rpartition(':')
  greeting = b''
  try:
    with socket.create_connection(
        (host.strip('[]'), int(port)), timeout=_ANSWER_SECS) as connection:
      while len(greeting) < _FRAME_HEADER_BYTES:
        received = connection.recv(_FRAME_HEADER_BYTES - len(greeting))
        if not received:
          break
        greeting += received
  except OSError as error:
    if not greeting:
      return error
  if not greeting:
    return ConnectionAbortedError('silent')
  return None if greeting[3:] == _SETTINGS else OtherServiceError(
      'another service answers there')
