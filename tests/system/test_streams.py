"""Scripts whose standard streams are closed, full or broken pipes."""
import os
import subprocess
import sys

import pytest

from tests import scripts

pytestmark = [pytest.mark.tf1, pytest.mark.modern]

_SCRIPT = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from deeplab.cli import runner

def main():
  with open('written', 'w') as out:
    out.write('whole')
    print('written: 5 bytes\\nin a file')

runner.run(main)
"""


def shell(command, cwd, script=_SCRIPT):
  """Runs a line of bash that starts a script; returns (status, stderr)."""
  path = os.path.join(str(cwd), 'script.py')
  with open(path, 'w') as out:
    out.write(script)
  done = subprocess.run(
      ['bash', '-c', 'set -o pipefail; ' + command.replace(
          'SCRIPT', '{} {} {}'.format(
              sys.executable, path, scripts.REPOSITORY))],
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=str(cwd),
      universal_newlines=True, timeout=scripts.TIMEOUT_SECS)
  return done.returncode, done.stderr


@pytest.mark.parametrize('command, reason', [
    ('SCRIPT >/dev/full', 'No space left on device'),
    ('exec 3> >(exit); sleep 0.3; SCRIPT >&3', 'Broken pipe'),
    ('SCRIPT <&- >&-', 'Bad file descriptor'),
])
def test_lost_output_is_reported_on_standard_error(
    tmp_path, command, reason):
  assert shell(command, tmp_path) == (
      2, 'ERROR script.py: standard output: {}; not shown: written: 5 bytes in '
      'a file\n'.format(reason))
  assert (tmp_path / 'written').read_text() == 'whole'


@pytest.mark.parametrize('command', [
    'SCRIPT | head -1', 'SCRIPT <&- 2>&-'])
def test_a_reader_that_stops_early_is_not_an_error(
    tmp_path, command):
  assert shell(command, tmp_path) == (0, '')


@pytest.mark.parametrize('command, line', [
    ('SCRIPT --help >/dev/full',
     'ERROR script.py: standard output: No space left on device\n'),
    ('SCRIPT --help >&-',
     'ERROR script.py: standard output: Bad file descriptor\n')])
def test_help_that_cannot_be_printed_is_an_error(tmp_path, command, line):
  assert shell(command, tmp_path) == (2, line)


def test_input_errors_are_printed_without_standard_output(tmp_path):
  script = _SCRIPT.replace('  with open', '  raise OSError(5, "I/O", "a")\n'
                           '  with open')
  assert shell('SCRIPT >&-', tmp_path, script) == (
      2, 'ERROR script.py: a: I/O\n')
