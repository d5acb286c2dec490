"""Runs the suite's scripts as a user does."""
import functools
import importlib.util
import os
import re
import signal
import subprocess
import sys

import pytest

from deeplab.cli import runner
from deeplab.cli import script_flags
from tests import forkserver
from tests import shallow

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# More than any script under test needs. Less than the limit of a test, which
# would end it without showing the script's output.
TIMEOUT_SECS = 300


def python_of(environment):
  """Returns the interpreter of .venvs/<environment>; skips if there is none."""
  path = os.path.join(REPOSITORY, '.venvs', environment, 'bin', 'python')
  if not os.path.exists(path):
    pytest.skip('{} is missing: ./scripts/setup.sh {}'.format(
        path, environment))
  return path


def output_of(process, timeout=TIMEOUT_SECS):
  """Waits for a process to end; if it hangs, kills it and fails the test.

  Args:
    process: from `start`, or a Popen with start_new_session, so that its
      children are killed too.
    timeout: seconds to wait.

  Returns:
    Its (standard output, standard error).
  """
  try:
    return process.communicate(timeout=timeout)
  except BaseException as error:
    os.killpg(process.pid, signal.SIGKILL)
    printed = '\n'.join(filter(None, process.communicate()))
    if isinstance(error, subprocess.TimeoutExpired):
      pytest.fail('still running after {} s: {}\n{}'.format(
          timeout, ' '.join(process.args), printed))
    raise


def start(script, *arguments, cwd=None, env=None, python=sys.executable,
          fresh=False, is_shallow=False, stdout=subprocess.PIPE,
          stderr=subprocess.PIPE):
  """Starts a script in a new session.

  Args:
    script: path from the repository's root.
    *arguments: strings.
    cwd: folder to run in; None: the caller's.
    env: dict of environment variables to add.
    python: the interpreter.
    fresh: start a new interpreter, as a user does: for tests of startup and
      imports, or of runs that must share nothing. `env` implies it. Otherwise
      tests.forkserver forks the script, which saves TensorFlow's import.
    is_shallow: run it with the backbone of tests.shallow.
    stdout: an open file, or PIPE.
    stderr: the same.

  Returns:
    A Popen.
  """
  words = [os.path.join(REPOSITORY, name) for name in (
      [shallow.SCRIPT, script] if is_shallow else [script])] + list(arguments)
  if not fresh and not env:
    return forkserver.Process(
        _server(python), words, cwd=cwd, stdout=stdout, stderr=stderr)
  return subprocess.Popen(
      [python] + words, stdout=stdout, stderr=stderr, universal_newlines=True,
      cwd=cwd, env=dict(os.environ, **(env or {})), start_new_session=True)


@functools.lru_cache(maxsize=None)
def _server(python):
  return forkserver.Server(python)


def run(script, *arguments, status=0, timeout=TIMEOUT_SECS, **options):
  """Runs a script to its end and checks its exit status.

  Args:
    script: path from the repository's root.
    *arguments: strings.
    status: the expected exit status.
    timeout: seconds that the script may take.
    **options: see start.

  Returns:
    The CompletedProcess, with text in stdout and stderr.
  """
  process = start(script, *arguments, **options)
  output, errors = output_of(process, timeout)
  assert process.returncode == status, output + errors
  return subprocess.CompletedProcess(
      process.args, process.returncode, output, errors)


def refusal(script, *arguments, **options):
  """Runs a script that must refuse its input; returns the one line."""
  done = run(script, *arguments, status=2, **options)
  lines = [line for line in done.stderr.splitlines()
           if line.startswith('ERROR')]
  assert len(lines) == 1, done.stderr
  assert 'Traceback' not in done.stderr
  assert lines[0].startswith('ERROR {}: '.format(os.path.basename(script)))
  return lines[0]


def flags_of(script):
  """Returns the names of the flags that a script takes, as a set.

  Args:
    script: path from the repository's root.
  """
  specification = importlib.util.spec_from_file_location(
      'script_under_test', os.path.join(REPOSITORY, script))
  module = importlib.util.module_from_spec(specification)
  specification.loader.exec_module(module)
  if hasattr(module, 'parser'):  # a script without absl
    return set(re.findall(r'--(\w+)', module.parser().format_help()))
  values = runner.flags.FlagValues()
  script_flags.SCRIPTS.get(
      script, getattr(module, 'SCRIPT', None)).define_flags(values)
  # Flags that runner defines for every script, and absl's for its log.
  return set(values) | {'debug', 'help', 'logtostderr', 'tf_warnings'}
