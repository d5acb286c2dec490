"""Starts all tasks of a cluster on this machine; ends after the first failure.

It is for trying out training on several hosts; each task is a process. It needs
no TensorFlow.
"""
import contextlib
import ctypes
import functools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import IO, Dict, List, NamedTuple, Optional, Sequence

from deeplab.errors import InputError
from deeplab.system import signals

_HOST = '127.0.0.1'
# Flags that the launcher sets for each task.
_OWN = ('cluster', 'task')
_POLL_SECS = 0.2
# After the first failure, the other tasks have _NOTICE_SECS to end by
# themselves (they do so within a minute), and then _SAVE_SECS to save.
_NOTICE_SECS = 90.0
_SAVE_SECS = 60.0
# prctl(2): sets the signal that Linux sends when the parent process dies.
_SET_PARENT_DEATH_SIGNAL = 1


class Failure(NamedTuple):
  """The first task that failed, and its exit status."""
  task: int
  # The status that shells report.
  status: int

  def __str__(self):
    how = 'ended with status {}'.format(self.status)
    if self.status > 128:
      with contextlib.suppress(ValueError):
        how = 'was ended by {}'.format(
            signal.Signals(self.status - 128).name)
    return 'task {} {}'.format(self.task, how)


def run(script: str, arguments: Sequence[str],
        hosts: int) -> Optional[Failure]:
  """Runs a script once per task; prints their output, each line with its task.

  The first of signals.SIGNALS is passed to all tasks, which save. Stopped is
  raised once they have ended.

  Args:
    script: path of train.py.
    arguments: the script's arguments, except those that differ between tasks.
    hosts: number of tasks.

  Returns:
    The first failure; None: all tasks succeeded.

  Raises:
    InputError: an argument that the launcher itself sets.
  """
  for argument in arguments:
    if argument.lstrip('-').partition('=')[0] in _OWN:
      raise InputError('{}: this script sets it for each task; leave it out',
                       argument)
  addresses = ','.join(
      '{}:{}'.format(_HOST, port) for port in _free_ports(hosts))
  tasks: List[subprocess.Popen] = []
  printers: List[threading.Thread] = []
  try:
    for task in range(hosts):
      tasks.append(subprocess.Popen(
          [sys.executable, script, *arguments, '--cluster=' + addresses,
           '--task={}'.format(task)],
          stdout=subprocess.PIPE, stderr=subprocess.PIPE,
          # Ctrl-C reaches only this process, which passes it on once.
          start_new_session=True,
          preexec_fn=functools.partial(
              _end_with_parent, ctypes.CDLL(None), os.getpid())))
    for task, process in enumerate(tasks):
      for pipe, stream in ((process.stdout, sys.stdout),
                           (process.stderr, sys.stderr)):
        printers.append(threading.Thread(
            target=_print_with_task, args=(task, pipe, stream), daemon=True))
        printers[-1].start()
    return _wait(tasks)
  except signals.Stopped as stopped:
    _end(tasks, stopped.status - 128)
    raise
  finally:
    for process in tasks:
      if process.poll() is None:
        process.kill()
      process.wait()
    for printer in printers:
      printer.join()


def _end_with_parent(libc, parent):
  """Makes a new task save and end if the launcher is killed."""
  libc.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
  if os.getppid() != parent:  # the launcher died before that
    os._exit(1)


def _free_ports(count: int) -> List[int]:
  with contextlib.ExitStack() as stack:
    sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
    for one in sockets:
      one.bind((_HOST, 0))
    return [one.getsockname()[1] for one in sockets]


def _print_with_task(task: int, pipe: IO[bytes], stream: IO[str]):
  """Prints the lines of a pipe, each with its task's number in front."""
  for line in pipe:
    text = '[{}] {}'.format(task, line.decode(errors='replace').rstrip('\n'))
    # A closed output stream must not end the tasks.
    with contextlib.suppress(OSError, ValueError):
      stream.write(text + '\n')
      stream.flush()


def _wait(tasks) -> Optional[Failure]:
  """Waits for all tasks to end; returns the first failure."""
  failure = None
  ended: Dict[int, int] = {}
  deadline = None
  while len(ended) < len(tasks):
    for task, process in enumerate(tasks):
      if task not in ended and process.poll() is not None:
        ended[task] = process.returncode
        if process.returncode and not failure:
          failure = Failure(task, process.returncode if process.returncode > 0
                            else 128 - process.returncode)
          deadline = time.monotonic() + _NOTICE_SECS
    if deadline and time.monotonic() > deadline:
      _end(tasks, signal.SIGTERM)
      break
    time.sleep(_POLL_SECS)
  return failure


def _end(tasks, number):
  """Sends a signal to the running tasks and waits for them."""
  for process in tasks:
    if process.poll() is None:
      process.send_signal(number)
  deadline = time.monotonic() + _SAVE_SECS
  for process in tasks:
    with contextlib.suppress(subprocess.TimeoutExpired):
      process.wait(max(0.0, deadline - time.monotonic()))
