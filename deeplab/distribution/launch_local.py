"""Starts all tasks of a cluster on this machine; ends with the first failure.

For trying out what several hosts do; each task is a process of its own. Needs
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
# Flags that the launcher itself gives to each task.
_OWN = ('cluster', 'task')
_POLL_SECS = 0.2
# After one task failed, the others have so long to end by themselves (they do
# within a minute), and then to save.
_NOTICE_SECS = 90.0
_SAVE_SECS = 60.0
# Of prctl(2): the signal that Linux sends when the process's parent dies.
_SET_PARENT_DEATH_SIGNAL = 1


class Failure(NamedTuple):
  """How the first task failed that did."""
  task: int
  # Exit status, as shells report it.
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
  """Runs a script once a task; prints what all say, each line with its task.

  The first of stops.SIGNALS, which raises Stopped, goes to all tasks, which
  save; it is raised once they have ended.

  Args:
    script: path of train.py.
    arguments: of the script, but for those that differ between tasks.
    hosts: number of tasks.

  Returns:
    The first failure; None: all ended well.

  Raises:
    InputError: an argument that is not the caller's to give.
  """
  for argument in arguments:
    if argument.lstrip('-').partition('=')[0] in _OWN:
      raise InputError('{}: given by this script, to each task its own; leave '
                       'it out', argument)
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
          # This process passes Ctrl-C on, once.
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
  if os.getppid() != parent:  # it was killed before that
    os._exit(1)


def _free_ports(count: int) -> List[int]:
  with contextlib.ExitStack() as stack:
    sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
    for one in sockets:
      one.bind((_HOST, 0))
    return [one.getsockname()[1] for one in sockets]


def _print_with_task(task: int, pipe: IO[bytes], stream: IO[str]):
  """Prints lines of a pipe, each with its task's number in front."""
  for line in pipe:
    text = '[{}] {}'.format(task, line.decode(errors='replace').rstrip('\n'))
    # A stream that is closed is no reason to end the tasks in the middle.
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
  """Sends a signal to the tasks that are left, and waits for them."""
  for process in tasks:
    if process.poll() is None:
      process.send_signal(number)
  deadline = time.monotonic() + _SAVE_SECS
  for process in tasks:
    with contextlib.suppress(subprocess.TimeoutExpired):
      process.wait(max(0.0, deadline - time.monotonic()))
