"""Tests messages about signals, lack of memory, and operating system errors.

Names and terminals of any kind must not break the messages.
"""
import os
import signal
import subprocess
import sys

import pytest
import tensorflow.compat.v1 as tf

from deeplab import errors
from deeplab.cli import option_flags
from deeplab.cli import runner
from deeplab.cli import script_flags
from deeplab.errors import InputError
from deeplab.system import signals
from tests import names
from tests import scripts


def start(tmp_path, body, *, env=None, ignored=()):
  """Starts a script whose main consists of the given lines.

  Args:
    tmp_path: folder of the script, and its working folder.
    body: lines of source.
    env: dict of environment variables to add.
    ignored: signals that it ignores from the start, as under nohup.
  """
  script = tmp_path / 'script.py'
  script.write_text(
      'import os, signal, sys, time\nsys.path.insert(0, sys.argv.pop())\n'
      'from deeplab.cli import runner\n'
      'from deeplab.storage import files\nimport logging\n'
      'def main():\n{}'
      'runner.run(main)\n'.format(
          ''.join('  {}\n'.format(line) for line in body)), encoding='utf-8')

  def ignore():
    for number in ignored:
      signal.signal(number, signal.SIG_IGN)

  return subprocess.Popen(
      [sys.executable, str(script), scripts.REPOSITORY], cwd=str(tmp_path),
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=ignore,
      env=dict(os.environ, **(env or {})), start_new_session=True)


def run(tmp_path, body, **options):
  """Runs such a script; returns (exit status, standard output, error)."""
  process = start(tmp_path, body, **options)
  output, problems = process.communicate(timeout=60)
  return (process.returncode, output.decode('utf-8', 'replace'),
          problems.decode('utf-8', 'replace'))


def test_some_of():
  assert errors.some_of([]) == ''
  assert errors.some_of(['a', 'b', 'c']) == 'a, b, c'
  assert errors.some_of(['a', 'b', 'c', 'd', 'e']) == 'a, b, c, and 2 more'
  assert errors.some_of(['a', 'b'], '; ', limit=1) == 'a; and 1 more'


# --- Signals ---------------------------------------------------------------

WAITING = ['with files.replacing("made") as (temporary,):',
           '  open(temporary, "w").close()', '  print("ready", flush=True)',
           '  time.sleep(60)']


@pytest.mark.parametrize('number', signals.SIGNALS)
def test_a_signal_ends_a_script_after_it_cleans_up(tmp_path, number):
  process = start(tmp_path, WAITING)
  assert process.stdout.readline() == b'ready\n'
  assert len(list(tmp_path.iterdir())) == 2
  os.killpg(process.pid, number)
  unused_output, problems = process.communicate(timeout=60)
  assert problems.decode() == (
      'ERROR script.py: stopped by {}; files with their final names are '
      'complete, temporary files are removed\n'.format(number.name))
  assert process.returncode == 128 + number
  assert [path.name for path in tmp_path.iterdir()] == ['script.py']


@pytest.mark.parametrize('first, later, said, cleaned', [
    ('SIGTERM', ['SIGTERM', 'SIGHUP'], 'SIGTERM', 'cleaned\n'),
    ('SIGTERM', ['SIGINT'], 'SIGINT', ''),
    ('SIGINT', ['SIGINT'], 'SIGINT', '')])
def test_only_a_later_ctrl_c_cuts_the_cleanup_short(
    tmp_path, first, later, said, cleaned):
  status, output, problems = run(tmp_path, [
      'def send(name):', '  os.kill(os.getpid(), getattr(signal, name))',
      '  time.sleep(0.01)', 'try:', '  send("{}")'.format(first),
      'finally:', '  list(map(send, {}))'.format(later), '  print("cleaned")'])
  assert output == cleaned
  assert problems.startswith('ERROR script.py: stopped by {}; '.format(said))
  assert problems.count('\n') == 1
  assert status == 128 + signal.Signals[said]


def test_signals_that_are_ignored_stay_ignored(tmp_path):
  status, output, problems = run(
      tmp_path, ['os.kill(os.getpid(), signal.SIGHUP)', 'print("goes on")'],
      ignored=[signal.SIGHUP])
  assert (status, output, problems) == (0, 'goes on\n', '')


def test_signal_handlers_are_restored():
  before = [signal.getsignal(number) for number in signals.SIGNALS]
  with pytest.raises(signals.Stopped) as caught, signals.Request():
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()
  assert (caught.value.name, caught.value.status) == ('SIGTERM', 143)
  assert [signal.getsignal(number) for number in signals.SIGNALS] == before


def test_a_second_signal_ends_a_run_at_once():
  for first in signals.SIGNALS:
    with signals.Request(), signals.Request(orderly=True) as request:
      os.kill(os.getpid(), first)
      assert request.name == first.name
      with request.held():
        os.kill(os.getpid(), signal.SIGHUP)
      assert request.name == 'SIGHUP'
      with pytest.raises(signals.Stopped, match='SIGTERM') as caught:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
      assert caught.value.status == 143
  before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
  try:
    with signals.Request(orderly=True) as request:
      os.kill(os.getpid(), signal.SIGHUP)
    assert request.name is None
  finally:
    signal.signal(signal.SIGHUP, before)


# --- Memory ----------------------------------------------------------------


NO_FLAGS = option_flags.Script()


def flags_of(script, *arguments):
  values = runner.flags.FlagValues()
  script.define_flags(values)
  runner.parse(script, ['script'] + list(arguments), values)
  return values


@pytest.mark.parametrize('error', [
    MemoryError(), tf.errors.ResourceExhaustedError(
        None, None, 'OOM when allocating tensor with shape[9]\n\t [[x]]')])
def test_an_out_of_memory_error_names_flags_to_lower(error):
  assert runner.reason_of(error, flags_of(script_flags.TRAIN)) == (
      'out of memory; lower one of --train_batch_size, --train_crop_size')
  assert runner.reason_of(error, flags_of(script_flags.BUILD)) == (
      'out of memory; lower one of --num_workers')
  assert runner.reason_of(error, flags_of(NO_FLAGS)) == 'out of memory'


def test_a_full_disk_is_not_reported_as_lack_of_memory():
  error = tf.errors.ResourceExhaustedError(
      None, None, 'x.ckpt; No space left on device\n\t [[node save]]')
  assert runner.reason_of(error, flags_of(script_flags.TRAIN)) == (
      'x.ckpt; No space left on device')


def test_scripts_report_lack_of_memory_in_one_line(tmp_path):
  assert run(tmp_path, ['raise MemoryError']) == (
      2, '', 'ERROR script.py: out of memory\n')


# --- System errors ---------------------------------------------------------


@pytest.mark.parametrize('path, said', [
    ('/a/b', '--dataset_dir=/a/b: Not a directory'),
    ('/a/b/', '--dataset_dir=/a/b/: Not a directory'),
    (b'/a/b/c', '/a/b/c (in --dataset_dir=/a/b): Not a directory'),
    ('/a', '--eval_logdir=/a: Not a directory'),
    ('/ab', '/ab: Not a directory'),
    # An option that is not a path.
    ('val', 'val: Not a directory'),
    (None, 'Not a directory'), (3, 'Not a directory')])
def test_system_errors_name_the_flag(path, said):
  values = flags_of(script_flags.EVAL, '--eval_logdir=/a',
                    '--dataset_dir=/a/b', '--eval_split=val')
  error = OSError(20, 'Not a directory', path)
  assert runner.reason_of(error, values) == said


def test_system_errors_are_readable():
  values = flags_of(NO_FLAGS)
  assert runner.reason_of(OSError('no locks here'), values) == 'no locks here'
  assert runner.reason_of(OSError(), values) == 'OSError'


def test_a_defect_is_not_reported_as_a_user_error():
  values = flags_of(NO_FLAGS)
  for defect in (ValueError('x'), KeyError('x'), RuntimeError('x')):
    assert runner.reason_of(defect, values) is None


def test_a_name_that_the_locale_cannot_encode_names_the_flag():
  values = flags_of(script_flags.EVAL, '--dataset_dir=d\udcff')
  with pytest.raises(UnicodeEncodeError) as caught:
    values.dataset_dir.encode('utf-8')
  assert runner.reason_of(caught.value, values) == (
      '--dataset_dir=d\udcff: not a name in UTF-8, and no other can be used '
      'here')


# --- Names -----------------------------------------------------------------


@pytest.mark.parametrize('name, shown', [
    ('a b', 'a b'), ('é', 'é'), ('a\nb\r\tc', 'a\\nb\\r\\tc'),
    ('\x1b[2J\x9b', '\\x1b[2J\\x9b'), ('\udcff', '\\udcff'),
    ('\u202egpj', '\\u202egpj'), ('a\\nb', 'a\\nb')])
def test_invisible_characters_are_escaped(name, shown):
  assert errors.printable(name) == shown


@pytest.mark.parametrize('env', [
    {}, names.ASCII_ENVIRONMENT, {'PYTHONIOENCODING': 'latin-1'}])
def test_a_file_of_any_name_is_printed(tmp_path, env):
  status, output, problems = run(tmp_path, [
      r'print("\udcff \u00e9 \u6728")',
      r'logging.info("%s", "log\nged\udcff\u6728")',
      r'raise runner.InputError("a\n\udcff\x1b\u6728: bad")'], env=env)
  assert status == 2
  assert output.startswith('\\udcff ') and output.count('\n') == 1
  logged, line = problems.splitlines()
  assert '] log\\nged\\udcff' in logged
  assert line.startswith('ERROR script.py: a\\n\\udcff\\x1b')
  assert line.endswith(': bad')


def test_a_long_message_of_another_library_becomes_one_line(tmp_path):
  assert errors.one_line('a:\n  b\tc\n') == 'a: b c'
  error = tf.errors.InternalError(None, None, 'in converted code:\n\n    x.py')
  assert runner.reason_of(error, flags_of(NO_FLAGS)) == (
      'in converted code: x.py')
  with pytest.raises(InputError) as caught:
    flags_of(NO_FLAGS, '--flagfile=a\nb')
  assert runner.in_flags(caught.value, flags_of(NO_FLAGS)) == (
      '--flagfile=a\nb: No such file or directory')
