"""Starts scripts from a process that has imported TensorFlow already.

The import takes longer than most scripts under test. One server for each
interpreter imports TensorFlow once, and forks for each script:

    Process(Server(python), [script, '--flag'])

The fork is like a new interpreter whose script has imported TensorFlow: it has
a session of its own, the caller's folder, files and environment variables, and
none of this repository's modules. Two things differ: TensorFlow was imported
with the server's variables, and strings have the same hashes in all forks.
"""
import array
import contextlib
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import types

_MAX_REQUEST_BYTES = 1 << 20
# Files sent with a request: standard input, output, error, and a pipe.
_FILES = 4


# --- The caller's side -----------------------------------------------------


class Server:
  """A process that has imported TensorFlow. It ends with its parent."""

  def __init__(self, python):
    """Starts the server with an interpreter."""
    self.python = python
    self.socket, theirs = socket.socketpair(
        socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # Python decides at the start how it buffers standard output, so this must
    # not be a terminal.
    self._process = subprocess.Popen(
        [python, os.path.abspath(__file__), str(theirs.fileno())],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()], start_new_session=True)
    theirs.close()


class Process(subprocess.Popen):
  """A Popen whose process is forked by a Server.

  It overrides the private methods of Popen that start a process and wait for
  its status, because the process is not a child of this one.
  """

  def __init__(self, server, words, **options):
    """Starts a script; options are Popen's cwd, stdout and stderr.

    Args:
      server: a Server.
      words: the script's path and its arguments.
      **options: as for Popen.
    """
    self._server = server
    self._lines = None  # from the server: the process id, then the status
    super().__init__([server.python] + words, universal_newlines=True,
                     **options)

  def _execute_child(self, args, *others):
    cwd, (_, _, read, write, error_read, error_write) = others[4], others[9:15]
    lines, their_lines = os.pipe()
    files = array.array('i', [
        0, 1 if write == -1 else write, 2 if error_write == -1 else error_write,
        their_lines])
    request = json.dumps(
        [args[1:], str(cwd or os.getcwd()), dict(os.environ)]).encode()
    try:
      self._server.socket.sendmsg(
          [request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
    finally:
      os.close(their_lines)
      for ours, theirs in ((read, write), (error_read, error_write)):
        if ours != -1:  # else a file of the caller
          os.close(theirs)
    self._lines = open(lines)
    self.pid = int(self._lines.readline())
    self._child_created = True

  def _try_wait(self, wait_flags):
    if wait_flags and not select.select([self._lines], [], [], 0)[0]:
      return 0, 0
    return self.pid, int(self._lines.readline())

  def _internal_poll(self, **unused_arguments):
    if self.returncode is None:
      pid, status = self._try_wait(os.WNOHANG)
      if pid:
        self._handle_exitstatus(status)
    return self.returncode


# --- The server's side -----------------------------------------------------


def main():
  """Serves requests; a fork runs one script and ends."""
  connection = socket.socket(fileno=int(sys.argv[1]))
  variables = _import_what_scripts_import()
  # Otherwise garbage collection in each fork would copy all pages.
  getattr(gc, 'freeze', lambda: None)()  # Python 3.7 and later
  # The system reaps the forks that wait for a script.
  signal.signal(signal.SIGCHLD, signal.SIG_IGN)
  while True:
    request, ancillary, _, _ = connection.recvmsg(
        _MAX_REQUEST_BYTES,
        socket.CMSG_SPACE(_FILES * array.array('i').itemsize))
    if not request:
      return
    files = array.array('i', ancillary[0][2])
    if not os.fork():
      break
    for descriptor in files:
      os.close(descriptor)
  signal.signal(signal.SIGCHLD, signal.SIG_DFL)
  connection.close()
  pid = os.fork()
  if pid:
    for descriptor in files[:3]:
      os.close(descriptor)
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(BrokenPipeError):  # the caller has ended
      os.write(files[3], '{}\n'.format(status).encode())
    os._exit(0)
  words, cwd, given = json.loads(request.decode())
  _run(files, words, cwd, dict(variables, **given))


def _import_what_scripts_import():
  """Imports TensorFlow as scripts do, and leaves no module of this repository.

  Returns:
    The environment variables that TensorFlow has set.
  """
  from absl import app  # noqa: F401
  from absl import flags

  # A script has its own folder here.
  sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
  from deeplab.system import silence

  known = set(flags.FLAGS)
  silence.silence_tensorflow()
  variables = set(os.environ)
  import tensorflow.compat.v1  # noqa: F401
  import tf_slim  # noqa: F401

  # A new script has no flags and no modules of this repository yet.
  for name in set(flags.FLAGS) - known:
    delattr(flags.FLAGS, name)
  for name in list(sys.modules):
    if name.split('.')[0] == 'deeplab':
      del sys.modules[name]
  return {name: value for name, value in os.environ.items()
          if name not in variables}


def _run(files, words, cwd, variables):
  """Runs a script in this fork as Python does."""
  import numpy as np

  os.setsid()
  os.write(files[3], '{}\n'.format(os.getpid()).encode())
  for number, descriptor in enumerate(files[:3]):
    os.dup2(descriptor, number)
  for descriptor in files:
    os.close(descriptor)
  os.chdir(cwd)
  os.environ.clear()
  os.environ.update(variables)
  np.random.seed()  # the other generators do this themselves
  sys.argv = words
  sys.path[0] = os.path.dirname(os.path.realpath(words[0]))
  module = types.ModuleType('__main__')
  module.__file__ = words[0]
  sys.modules['__main__'] = module
  with open(words[0], 'rb') as source:
    code = compile(source.read(), words[0], 'exec')
  exec(code, module.__dict__)


if __name__ == '__main__':
  main()
