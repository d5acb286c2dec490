"""Tests tests/scripts.py, which other tests use, and tests that hang."""
import json
import os
import signal
import subprocess
import sys

import pytest

from tests import scripts

# --- A script that hangs ---------------------------------------------------


def test_a_script_that_hangs_is_killed_and_its_output_is_shown(tmp_path):
  script = tmp_path / 'hangs.py'
  # The child keeps standard output open too.
  script.write_text(
      'import subprocess, sys, time\n'
      'subprocess.Popen([sys.executable, "-c", "import time; '
      'time.sleep(600)"])\n'
      'print("told", flush=True)\n'
      'print("warned", file=sys.stderr, flush=True)\n'
      'time.sleep(600)\n')
  with pytest.raises(pytest.fail.Exception) as failure:
    scripts.run(str(script), '--flag', timeout=2)
  assert str(failure.value).splitlines() == [
      'still running after 2 s: {} {} --flag'.format(sys.executable, script),
      'told', '', 'warned']


# --- Forked scripts --------------------------------------------------------


def started(folder, text, *arguments, **options):
  """Starts a script with this source."""
  script = folder / 'script.py'
  script.write_text(text)
  return scripts.start(str(script), *arguments, **options)


SURROUNDINGS = """
'''A docstring.'''
import json, os, signal, stat, sys
from absl import app, flags, logging
print(json.dumps({
    'argv': sys.argv, 'path': sys.path, 'executable': sys.executable,
    'main': [__name__, __file__, __doc__, sys.modules['__main__'] is not None
             and sys.modules['__main__'].__dict__ is globals()],
    'spec': __spec__, 'package': __package__,
    'cwd': os.getcwd(), 'umask': os.umask(0),
    'variables': {name: value for name, value in os.environ.items()
                  if name != 'PYTEST_CURRENT_TEST'},
    'flags': sorted(flags.FLAGS),
    'here': [name for name in sys.modules if name.startswith('deeplab')],
    'session': os.getsid(0) == os.getpid() == os.getpgrp(),
    'signals': [str(signal.getsignal(number)) for number in range(1, 32)],
    'threads': os.listdir('/proc/self/task') == [str(os.getpid())],
    'files': [stat.S_IFMT(os.fstat(int(number)).st_mode)
              for number in os.listdir('/proc/self/fd')[:-1]],
    'buffered': [sys.stdout.line_buffering, sys.stderr.line_buffering,
                 sys.stdin.read()],
    'encoding': [sys.stdout.encoding, sys.stderr.encoding]}))
"""


def test_a_fork_behaves_like_a_new_interpreter(tmp_path, monkeypatch):
  monkeypatch.setenv('SOME_VARIABLE', 'a')
  found = []
  for fresh in True, False:
    process = started(tmp_path, SURROUNDINGS, '--flag', cwd=str(tmp_path),
                      fresh=fresh)
    output, errors = scripts.output_of(process)
    assert (process.returncode, errors) == (0, '')
    found.append(json.loads(output))
  variables = [surroundings.pop('variables') for surroundings in found]
  assert set(variables[0].items()) <= set(variables[1].items())
  assert found[0] == found[1]


@pytest.mark.parametrize('text, status, output, errors', [
    # A fork has imported TensorFlow already.
    ('import sys; sys.exit(7 if "tensorflow" in sys.modules else 1)', 7, '',
     ''),
    ('1 / 0', 1, '', 'ZeroDivisionError: division by zero\n'),
    ('import os; os.kill(os.getpid(), 9)', -9, '', ''),
    ('import atexit; atexit.register(print, "bye")', 0, 'bye\n', ''),
    ('import threading, time\n'
     'threading.Thread(target=lambda: (time.sleep(.1), print("late"))).start()',
     0, 'late\n', ''),
])
def test_forks_end_as_an_interpreter_does(
    tmp_path, text, status, output, errors):
  process = started(tmp_path, text)
  printed = process.communicate()
  assert process.returncode == process.poll() == process.wait() == status
  assert printed[0] == output
  assert printed[1].endswith(errors) and bool(printed[1]) == bool(errors)


def test_a_fork_can_be_watched_and_stopped(tmp_path):
  with open(str(tmp_path / 'log'), 'w') as log:
    process = started(
        tmp_path, 'import sys, time\n'
        'try:\n  print("ready", flush=True)\n  time.sleep(600)\n'
        'finally:\n  sys.stderr.write("saved")\n', stderr=log)
  assert process.stdout.readline() == 'ready\n' and process.stderr is None
  assert process.poll() is None
  with pytest.raises(subprocess.TimeoutExpired):
    process.communicate(timeout=0.1)
  process.send_signal(signal.SIGINT)
  assert process.communicate() == ('', None)
  # The status after an interrupt depends on Python's version.
  assert process.returncode in (1, -signal.SIGINT)
  assert (tmp_path / 'log').read_text().startswith('saved')
  process.kill()  # has no effect after the end


# --- A test that hangs -----------------------------------------------------


@pytest.mark.slow
def test_a_test_that_hangs_fails_and_the_others_run(
    tmp_path, pytestconfig):
  (tmp_path / 'test_some.py').write_text(
      'import time\ndef test_hangs():\n  time.sleep(600)\n'
      'def test_good():\n  pass\n')
  done = subprocess.run(
      [sys.executable, '-m', 'pytest', '-n1', '--timeout=2',
       '--timeout-method=' + pytestconfig.getini('timeout_method'),
       '--rootdir', str(tmp_path), '-c', os.devnull, str(tmp_path)],
      stdout=subprocess.PIPE, universal_newlines=True,
      env={name: value for name, value in os.environ.items()
           if not name.startswith('PYTEST_')})
  assert done.returncode == 1, done.stdout
  assert "crashed while running 'test_some.py::test_hangs'" in done.stdout
  assert '1 failed, 1 passed' in done.stdout
  assert scripts.TIMEOUT_SECS < float(pytestconfig.getini('timeout'))
