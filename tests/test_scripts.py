"""tests/scripts.py and tests/summary.py, which the other tests rest on."""
import json
import os
import platform
import signal
import subprocess
import sys

import pytest

from deeplab.system import environment
from tests import scripts
from tests import summary

# --- A script that does not end --------------------------------------------


def test_a_script_that_hangs_is_killed_and_its_output_shown(tmp_path):
  script = tmp_path / 'hangs.py'
  # Its child has its standard output open too.
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


# --- Scripts that start from a fork ----------------------------------------


def started(folder, text, *arguments, **options):
  """Starts a script of this text."""
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


def test_a_fork_finds_what_a_new_interpreter_does(tmp_path, monkeypatch):
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
    # A fork has TensorFlow already.
    ('import sys; sys.exit(7 if "tensorflow" in sys.modules else 1)', 7, '',
     ''),
    ('import sys; sys.exit("no")', 1, '', 'no\n'),
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
  # How Python ends after an interrupt depends on its version.
  assert process.returncode in (1, -signal.SIGINT)
  assert (tmp_path / 'log').read_text().startswith('saved')
  process.kill()  # does nothing any more


# --- Counts ----------------------------------------------------------------

SOME_TESTS = """
import os, time
import pytest

def test_good():
  pass

@pytest.mark.parametrize('number', range(2))
def test_bad(number):
  assert number > 2

@pytest.fixture
def broken():
  raise ValueError

def test_error(broken):
  pass

@pytest.mark.parametrize('number', range(3))
def test_skipped(number):
  pytest.skip('the moon is not full')

@pytest.mark.skipif(True, reason='no network')
def test_left_out():
  pass

def test_hangs():
  if 'HANG' in os.environ:
    time.sleep(600)
"""


def run_tests(folder, *arguments, **variables):
  """Runs these as scripts/test.sh does; returns (counts, output)."""
  (folder / 'test_some.py').write_text(SOME_TESTS)
  inherited = {name: value for name, value in os.environ.items()
               if not name.startswith('PYTEST_')}
  done = subprocess.run(
      [sys.executable, '-m', 'pytest', '-p', 'tests.summary', '-n', '1',
       '--rootdir', str(folder), '-c', os.devnull, str(folder)] +
      list(arguments), cwd=scripts.REPOSITORY, stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT, universal_newlines=True,
      env=dict(inherited, DEEPLAB_TEST_SUMMARY=str(folder / 'here.json'),
               **variables))
  assert done.returncode == 1, done.stdout
  return json.loads((folder / 'here.json').read_text()), done.stdout


def test_a_run_is_counted(tmp_path):
  counts, _ = run_tests(tmp_path, '-n', '0')
  assert counts.pop('seconds') > 0
  assert counts == {
      'python': platform.python_version(),
      'tensorflow': environment.tensorflow_version(),
      'passed': 2, 'failed': 3, 'skipped': 4,
      'reasons': {'the moon is not full': 3, 'no network': 1}}


@pytest.mark.slow
def test_a_test_that_hangs_fails_by_name_and_others_go_on(
    tmp_path, pytestconfig):
  counts, output = run_tests(
      tmp_path, '--timeout=2', '--timeout-method=' +
      pytestconfig.getini('timeout_method'), HANG='yes')
  assert (counts['passed'], counts['failed'], counts['skipped']) == (1, 4, 4)
  assert "crashed while running 'test_some.py::test_hangs'" in output


def test_scripts_have_less_time_than_tests(pytestconfig):
  assert scripts.TIMEOUT_SECS < float(pytestconfig.getini('timeout'))


def test_closing_lines(tmp_path):
  for name, failed, reasons in (
      ('tf1', 4, {'no file': 2, 'no network': 1}),
      ('modern', 0, {'no file': 3})):
    (tmp_path / (name + '.json')).write_text(json.dumps({
        'python': '3.7.16', 'tensorflow': '1.15.5', 'seconds': 61.7,
        'passed': 100, 'failed': failed, 'skipped': sum(reasons.values()),
        'reasons': reasons}))
  assert list(summary.lines_for(str(tmp_path))) == [
      'modern: Python 3.7.16, TensorFlow 1.15.5: 100 passed, 0 failed, 3 '
      'skipped, 62 s',
      'tf1: Python 3.7.16, TensorFlow 1.15.5: 100 passed, 4 failed, 3 '
      'skipped, 62 s',
      'skipped: no file: 5',
      'skipped: no network: 1',
      '200 passed, 4 failed, 6 skipped']
