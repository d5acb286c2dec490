"""Finds out whether the other hosts of a cluster are still there.

A host is there as long as its TensorFlow server answers at its address, which
it does until its process ends or is stopped. A thread asks all hosts again and
again, because TensorFlow 1.15 itself waits for ever for one that is gone.
"""
import concurrent.futures
import logging
import socket
import threading
import time
from typing import Callable, Dict, List, Optional, Sequence

from deeplab.errors import InputError
from deeplab.errors import option

_LOG = logging.getLogger(__name__)
# Between two questions to the same host.
_INTERVAL_SECS = 1.0
# For a connection, and for each piece of the greeting.
_ANSWER_SECS = 3.0
# A host that gives no answer (it or the network has failed, or its process is
# stopped) counts as lost after this time; one that refuses the connection, at
# once.
_SILENCE_SECS = 25.0
# Between two lines of the log that name the hosts that are still missing.
_LOG_SECS = 30.0
# gRPC servers first send a SETTINGS frame of HTTP/2 (RFC 9113, sections 3.4 and
# 6.5): 3 bytes of length, then the type, the flags, and stream 0.
_FRAME_HEADER_BYTES = 9
_SETTINGS = b'\x04\x00\x00\x00\x00\x00'


class OtherServiceError(OSError):
  """Another service has the port of a host."""


class Heartbeat:
  """Asks the other hosts of a cluster whether they are there."""

  def __init__(self, addresses: Sequence[str], task: int,
               on_loss: Callable[[List[int]], None]):
    """Remembers the arguments.

    Args:
      addresses: HOST:PORT of every host.
      task: the one that asks, counted from 0.
      on_loss: called once, in a thread of its own, with the hosts that are
        gone.
    """
    self._addresses = addresses
    self._others = [number for number in range(len(addresses))
                    if number != task]
    self._on_loss = on_loss
    self._stopped = threading.Event()
    self._lost = threading.Event()

  def start(self, seconds: float) -> None:
    """Waits until all hosts are there, then begins to watch them.

    Args:
      seconds: how long to wait, at most.

    Raises:
      InputError: some did not come, or another service has their port.
    """
    given = option('cluster', self._addresses)
    deadline = time.monotonic() + seconds
    logged = time.monotonic() - _LOG_SECS + 2 * _INTERVAL_SECS
    missing = self._ask_all()
    while missing:
      impostors = [task for task, reason in missing.items()
                   if isinstance(reason, OtherServiceError)]
      if impostors:
        raise InputError(
            '{}: another service than train.py answers at {}; expected a free '
            'port of each host', given, self.names(impostors))
      if time.monotonic() >= deadline:
        raise InputError(
            '{}: {} did not start within {:.0f} s; start the same command '
            'there, with its own {}', given, self.names(list(missing)), seconds,
            option('task'))
      if time.monotonic() - logged >= _LOG_SECS:
        logged = time.monotonic()
        _LOG.info('waiting for %s', self.names(list(missing)))
      time.sleep(_INTERVAL_SECS)
      missing = self._ask_all()
    threading.Thread(target=self._run, daemon=True).start()

  def stop(self) -> None:
    """Asks no more: from now on, hosts may end."""
    self._stopped.set()

  def finds_loss(self, seconds: float) -> bool:
    """Waits some seconds for the loss of a host; returns whether there was."""
    return self._lost.wait(seconds)

  def names(self, tasks: Sequence[int]) -> str:
    """Returns hosts as users know them, such as 'task 1 (host:4711)'."""
    return ' and '.join('task {} ({})'.format(task, self._addresses[task])
                        for task in tasks)

  def _run(self):
    answered = dict.fromkeys(self._others, time.monotonic())
    while not self._stopped.wait(_INTERVAL_SECS):
      problems = self._ask_all()
      now = time.monotonic()
      answered.update((task, now) for task in self._others
                      if task not in problems)
      lost = [task for task, problem in problems.items()
              if isinstance(problem, ConnectionRefusedError) or
              now - answered[task] >= _SILENCE_SECS]
      if lost and not self._stopped.is_set():
        self._lost.set()
        # The other hosts ask, too. This one stays until they have, or they
        # would take it for the lost one.
        if not self._stopped.wait(2 * _INTERVAL_SECS + _ANSWER_SECS):
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
