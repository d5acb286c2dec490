"""Checks whether the other hosts of a cluster are alive.

A host is alive as long as its TensorFlow server answers at its address, which
ends when its process ends or is stopped. A thread polls all hosts, because
TensorFlow 1.15 itself waits forever for a host that is lost.
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
# Time between two polls of the same host.
_INTERVAL_SECS = 1.0
# Timeout for a connection, and for each read of the greeting.
_ANSWER_SECS = 3.0
# A host that does not answer (it or the network failed, or its process is
# stopped) is lost after this time. A host that refuses the connection is lost
# at once.
_SILENCE_SECS = 25.0
# Time between two log lines that name the hosts not yet started.
_LOG_SECS = 30.0
# gRPC servers first send a SETTINGS frame of HTTP/2 (RFC 9113, sections 3.4 and
# 6.5): 3 bytes of length, then the type, the flags, and stream 0.
_FRAME_HEADER_BYTES = 9
_SETTINGS = b'\x04\x00\x00\x00\x00\x00'


class OtherServiceError(OSError):
  """Another service uses the port of a host."""


class Heartbeat:
  """Polls the other hosts of a cluster."""

  def __init__(self, addresses: Sequence[str], task: int,
               on_loss: Callable[[List[int]], None]):
    """Stores the arguments.

    Args:
      addresses: HOST:PORT of every host.
      task: index of this host.
      on_loss: called once, in another thread, with the indices of the lost
        hosts.
    """
    self._addresses = addresses
    self._others = [number for number in range(len(addresses))
                    if number != task]
    self._on_loss = on_loss
    self._stopped = threading.Event()
    self._lost = threading.Event()

  def start(self, seconds: float) -> None:
    """Waits until all hosts have started, then starts the polling thread.

    Args:
      seconds: longest time to wait.

    Raises:
      InputError: a host did not start, or another service has its port.
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
    """Stops polling, so that other hosts may end."""
    self._stopped.set()

  def finds_loss(self, seconds: float) -> bool:
    """Waits for the loss of a host; returns whether one was lost."""
    return self._lost.wait(seconds)

  def names(self, tasks: Sequence[int]) -> str:
    """Returns hosts by task and address, such as 'task 1 (host:4711)'."""
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
        # The other hosts poll, too. This host stays until they have noticed, or
        # they would report this one as lost.
        if not self._stopped.wait(2 * _INTERVAL_SECS + _ANSWER_SECS):
          self._on_loss(lost)
        return

  def _ask_all(self) -> Dict[int, OSError]:
    """Polls all others at the same time; returns errors by host."""
    with concurrent.futures.ThreadPoolExecutor(len(self._others)) as pool:
      problems = pool.map(
          _ask, [self._addresses[task] for task in self._others])
      return {task: problem for task, problem in zip(self._others, problems)
              if problem}


def _ask(address: str) -> Optional[OSError]:
  """Returns why no TensorFlow server answers at an address, or None.

  The operating system can accept a connection for a stopped process, but only
  the process itself sends a greeting.
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
