"""Scripts that start from a process which has imported TensorFlow already.

The import takes longer than most of what tests have scripts do. So one process
for each interpreter does it once, and forks for each script:

    process = Server(python, dict(os.environ)).start([script, '--flag'])

The fork then is what a new interpreter is once its script has imported
TensorFlow: it has a session of its own, the caller's folder and files, and no
module of this repository, nor a graph or a thread of TensorFlow. Different is
what comes before that: environment variables are those of the server, a script
finds TensorFlow loaded, and in all forks strings have the same hashes.
"""
import array
import gc
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types

# A request: the arguments, mostly.
_MAX_BYTES = 1 << 20
_FILES = 4  # that come with it: standard input, output, error, and the status
_INT_BYTES = array.array('i').itemsize


# --- The caller's side -----------------------------------------------------


class ServerError(Exception):
  """A Server has ended."""


class Server:
  """A process that has imported TensorFlow; ends with the one that made it."""

  def __init__(self, python, environ):
    """Starts it.

    Args:
      python: path of the interpreter.
      environ: dict of environment variables, also of the scripts.
    """
    self._log = tempfile.TemporaryFile(mode='w+')
    self._socket, theirs = socket.socketpair(
        socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # Its standard output is no terminal, as Python buffers accordingly.
    self._process = subprocess.Popen(
        [python, os.path.abspath(__file__), str(theirs.fileno())],
        stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
        env=environ, pass_fds=[theirs.fileno()])
    theirs.close()

  def start(self, arguments, *, cwd=None, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE):
    """Starts a script.

    Args:
      arguments: list of strings; the first is the script's path.
      cwd: folder to run in; None: the caller's.
      stdout: an open file, or PIPE.
      stderr: the same.

    Returns:
      A Process.
    """
    status, their_status = os.pipe()
    read, write = zip(*(os.pipe() if target == subprocess.PIPE else
                        (None, os.dup(target.fileno()))
                        for target in (stdout, stderr)))
    files = array.array('i', [0, *write, their_status])
    request = json.dumps([arguments, str(cwd or os.getcwd()), _umask()])
    try:
      self._socket.sendmsg([request.encode()], [
          (socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
    except OSError:
      raise ServerError(self._ending())
    finally:
      for descriptor in files[1:]:
        os.close(descriptor)
    status = open(status)
    pid = status.readline()
    if not pid:
      raise ServerError(self._ending())
    return Process(
        self, self._process.args[:1] + arguments, int(pid), status,
        *(None if end is None else open(end) for end in read))

  def _ending(self):
    self._process.wait()
    self._log.seek(0)
    return '{} ended with status {}:\n{}'.format(
        ' '.join(self._process.args), self._process.returncode,
        self._log.read())


class Process:
  """As a subprocess.Popen, as far as tests use it.

  Attributes:
    args: list of strings, as for a new interpreter.
    pid: its number, and that of its session.
    returncode: None as long as it is not known to have ended.
    stdout: text file to read from, or None where the caller gave one.
    stderr: the same.
  """

  def __init__(self, server, args, pid, status, stdout, stderr):
    self._server = server  # which has to stay, to say how it ended
    self.args = args
    self.pid = pid
    self.returncode = None
    self.stdout = stdout
    self.stderr = stderr
    self._status = status
    self._readers = None

  def poll(self):
    """Returns the exit status, or None while it runs."""
    if self.returncode is None and select.select([self._status], [], [], 0)[0]:
      self._finish()
    return self.returncode

  def wait(self, timeout=None):
    """Returns the exit status once there is one.

    Args:
      timeout: seconds; None: no limit.

    Raises:
      subprocess.TimeoutExpired: it still runs.
    """
    if self.returncode is None:
      if not select.select([self._status], [], [], timeout)[0]:
        raise subprocess.TimeoutExpired(self.args, timeout)
      self._finish()
    return self.returncode

  def _finish(self):
    line = self._status.readline()
    if not line:
      raise ServerError('the process that started {} has ended'.format(
          ' '.join(self.args)))
    self._status.close()
    self.returncode = int(line)

  def send_signal(self, number):
    """Sends a signal if it runs."""
    if self.poll() is None:
      os.kill(self.pid, number)

  def terminate(self):
    self.send_signal(signal.SIGTERM)

  def kill(self):
    self.send_signal(signal.SIGKILL)

  def communicate(self, timeout=None):
    """Reads all output and waits; returns (standard output, standard error).

    Args:
      timeout: seconds; None: no limit.

    Raises:
      subprocess.TimeoutExpired: it runs, or what it started has its output
        open; call again to wait on.
    """
    deadline = None if timeout is None else time.time() + timeout
    if self._readers is None:
      self._readers = [pipe and _Reader(pipe)
                       for pipe in (self.stdout, self.stderr)]
    for reader in filter(None, self._readers):
      reader.join(deadline and max(0, deadline - time.time()))
      if reader.is_alive():
        raise subprocess.TimeoutExpired(self.args, timeout)
    self.wait(deadline and max(0, deadline - time.time()))
    return tuple(reader and reader.text for reader in self._readers)


class _Reader(threading.Thread):
  """Reads a pipe to its end."""

  def __init__(self, pipe):
    super().__init__(daemon=True)
    self._pipe = pipe
    self.text = ''
    self.start()

  def run(self):
    with self._pipe:
      self.text = self._pipe.read()


def _umask():
  mask = os.umask(0)
  os.umask(mask)
  return mask


# --- The server's side -----------------------------------------------------


def main():
  """Serves; in a fork runs a script, and ends as an interpreter does."""
  connection = socket.socket(fileno=int(sys.argv[1]))
  _import_what_scripts_import()
  if hasattr(gc, 'freeze'):  # from Python 3.7 on
    # Each fork would look at all objects at its end, which copies their pages.
    gc.freeze()
  arguments = _serve(connection)
  if arguments:
    _run(arguments)


def _import_what_scripts_import():
  """Imports TensorFlow as scripts do, and nothing of this repository."""
  from absl import app  # noqa: F401
  from absl import flags
  from absl import logging  # noqa: F401

  # In a script, its own folder.
  sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
  from deeplab import environment
  from deeplab import quiet

  variables = dict(os.environ)
  environment.pool_memory()
  quiet.silence_tensorflow()
  added = set(os.environ) - set(variables)
  known = set(flags.FLAGS)
  import tensorflow.compat.v1  # noqa: F401
  import tf_slim  # noqa: F401

  # A script has not done this when it begins.
  for name in added:
    del os.environ[name]
  for name in set(flags.FLAGS) - known:
    delattr(flags.FLAGS, name)
  for name in list(sys.modules):
    if name.split('.')[0] == 'deeplab':
      del sys.modules[name]


def _serve(connection):
  """Forks for each request.

  Args:
    connection: socket that they come from.

  Returns:
    In a fork: the script's path and its arguments. In the server: None, once
    the other end is closed.
  """
  statuses = {}  # from the number of a process to where its status goes
  woken, waker = os.pipe()
  os.set_blocking(waker, False)
  signal.signal(signal.SIGCHLD, lambda *unused: None)
  signal.set_wakeup_fd(waker)
  while True:
    ready, _, _ = select.select([connection, woken], [], [])
    if woken in ready:
      os.read(woken, _MAX_BYTES)
      _report_ended(statuses)
    if connection not in ready:
      continue
    request, ancillary, _, _ = connection.recvmsg(
        _MAX_BYTES, socket.CMSG_SPACE(_FILES * _INT_BYTES))
    if not request:
      return None
    files = array.array('i', ancillary[0][2])
    pid = os.fork()
    if not pid:
      signal.set_wakeup_fd(-1)
      signal.signal(signal.SIGCHLD, signal.SIG_DFL)
      connection.close()
      for descriptor in [woken, waker, *statuses.values()]:
        os.close(descriptor)
      return _prepare(files, *json.loads(request.decode()))
    statuses[pid] = files.pop()
    for descriptor in files:
      os.close(descriptor)


def _report_ended(statuses):
  """Says the statuses of those that have ended, as subprocess has them."""
  for pid, descriptor in list(statuses.items()):
    ended, status = os.waitpid(pid, os.WNOHANG)
    if ended:
      try:
        os.write(descriptor, '{}\n'.format(
            -os.WTERMSIG(status) if os.WIFSIGNALED(status)
            else os.WEXITSTATUS(status)).encode())
      except BrokenPipeError:
        pass  # nobody waits for it any more
      os.close(statuses.pop(pid))


def _prepare(files, arguments, cwd, umask):
  """Makes a fork the process that was asked for; returns the arguments."""
  import numpy as np

  os.setsid()
  for number, descriptor in enumerate(files[:3]):
    os.dup2(descriptor, number)
  os.write(files[3], '{}\n'.format(os.getpid()).encode())
  for descriptor in files:
    os.close(descriptor)
  os.umask(umask)
  os.chdir(cwd)
  # Others do so by themselves, but for that of Python 3.6.
  np.random.seed()
  random.seed()
  return arguments


def _run(arguments):
  """Runs a script as Python does."""
  path = arguments[0]
  sys.argv = arguments
  sys.path[0] = os.path.dirname(os.path.realpath(path))
  module = types.ModuleType('__main__')
  module.__file__ = path
  sys.modules['__main__'] = module
  with open(path, 'rb') as source:
    code = compile(source.read(), path, 'exec')
  exec(code, module.__dict__)


if __name__ == '__main__':
  main()
