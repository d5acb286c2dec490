"""Running the suite's scripts as a user does."""
import importlib.util
import os
import subprocess
import sys

import pytest

from deeplab import cli

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def python_of(environment):
  """Returns the interpreter of .venvs/<environment>; skips where none is."""
  path = os.path.join(REPOSITORY, '.venvs', environment, 'bin', 'python')
  if not os.path.exists(path):
    pytest.skip('{} is missing: ./scripts/setup.sh {}'.format(
        path, environment))
  return path


def run(script, *arguments, status=0, cwd=None, env=None,
        python=sys.executable):
  """Runs a script to its end and checks its exit status.

  Args:
    script: path from the repository's root.
    *arguments: strings.
    status: the expected exit status.
    cwd: folder to run in; None: the caller's.
    env: dict of environment variables to add.
    python: the interpreter.

  Returns:
    The CompletedProcess, with text in stdout and stderr.
  """
  done = subprocess.run(
      [python, os.path.join(REPOSITORY, script)] + list(arguments),
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
      cwd=cwd, env=dict(os.environ, **(env or {})))
  assert done.returncode == status, done.stdout + done.stderr
  return done


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
  values = cli.flags.FlagValues()
  module.define_flags(values)
  # What cli.run defines for every script, and absl's own for its log.
  return set(values) | {'debug', 'help', 'logtostderr', 'tf_warnings'}
