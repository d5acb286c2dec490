"""tests/scripts.py and tests/summary.py, which the other tests rest on."""
import json
import os
import platform
import subprocess
import sys

import pytest

from deeplab import environment
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
    scripts.run(str(script), '--flag', timeout=5)
  assert str(failure.value).splitlines() == [
      'still running after 5 s: {} {} --flag'.format(sys.executable, script),
      'told', '', 'warned']


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


@pytest.mark.parametrize('processes', ['0', '2'])
def test_a_run_is_counted(tmp_path, processes):
  counts, _ = run_tests(tmp_path, '-n', processes)
  assert counts.pop('seconds') > 0
  assert counts == {
      'python': platform.python_version(),
      'tensorflow': environment.tensorflow_version(),
      'passed': 2, 'failed': 3, 'skipped': 4,
      'reasons': {'the moon is not full': 3, 'no network': 1}}


def test_a_test_that_hangs_fails_by_name_and_others_go_on(
    tmp_path, pytestconfig):
  counts, output = run_tests(
      tmp_path, '--timeout=5', '--timeout-method=' +
      pytestconfig.getini('timeout_method'), HANG='yes')
  assert (counts['passed'], counts['failed'], counts['skipped']) == (1, 4, 4)
  assert "crashed while running 'test_some.py::test_hangs'" in output


def test_scripts_have_less_time_than_tests(pytestconfig):
  assert scripts.TIMEOUT_SECS < float(pytestconfig.getini('timeout'))


def test_closing_lines(tmp_path):
  for run, failed, reasons in (
      ('tf1.slow', 0, {'no file': 2, 'no network': 1}),
      ('tf1.quick', 4, {'no file': 3}), ('modern.all', 0, {})):
    (tmp_path / (run + '.json')).write_text(json.dumps({
        'python': '3.7.16', 'tensorflow': '1.15.5', 'seconds': 61.7,
        'passed': 100, 'failed': failed, 'skipped': sum(reasons.values()),
        'reasons': reasons}))
  # That of tf2 ended without counts.
  assert list(summary.lines_for([
      str(tmp_path / (run + '.json'))
      for run in ('tf1.slow', 'tf2.all', 'modern.all', 'tf1.quick')])) == [
      'modern: Python 3.7.16, TensorFlow 1.15.5: 100 passed, 0 failed, 0 '
      'skipped, 62 s',
      'tf1: Python 3.7.16, TensorFlow 1.15.5: 200 passed, 4 failed, 6 skipped, '
      '123 s',
      'tf2: a run did not end, see above',
      'skipped: no file: 5',
      'skipped: no network: 1',
      '300 passed, 4 failed, 6 skipped']
