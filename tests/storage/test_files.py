"""Tests atomic writes."""
import errno
import os
import subprocess
import sys

import pytest

from deeplab import errors
from deeplab.errors import InputError
from deeplab.storage import files
from deeplab.storage import locks
from tests import scripts

pytestmark = [pytest.mark.tf1, pytest.mark.modern]

# Begins files and a folder, then waits.
_BEGIN = """
import os, sys
sys.path.insert(0, {!r})
from deeplab.storage import files
with files.replacing(*sys.argv[1:]) as temporaries:
  for temporary in temporaries[:-1]:
    with open(temporary, 'w') as out:
      out.write('half')
  os.makedirs(os.path.join(temporaries[-1], 'inner'))
  print('begun', flush=True)
  sys.stdin.read()
""".format(scripts.REPOSITORY)


def begin(*paths):
  """Starts a process that starts to write to some paths."""
  process = subprocess.Popen(
      [sys.executable, '-c', _BEGIN] + [str(path) for path in paths],
      stdin=subprocess.PIPE, stdout=subprocess.PIPE)
  assert process.stdout.readline() == b'begun\n'
  return process


def listing(folder):
  return sorted(os.listdir(str(folder)))


def write(path, text='new'):
  files.write_text(str(path), text)


def test_files_get_their_names_at_the_end(tmp_path):
  paths = [str(tmp_path / name) for name in ('a', 'b')]
  (tmp_path / 'b').write_text('old')
  with files.replacing(*paths) as temporaries:
    for temporary in temporaries:
      assert not os.path.exists(temporary)
      with open(temporary, 'w') as out:
        out.write('new')
    assert not (tmp_path / 'a').exists()
    assert (tmp_path / 'b').read_text() == 'old'
  assert listing(tmp_path) == ['a', 'b']
  assert (tmp_path / 'a').read_text() == (tmp_path / 'b').read_text() == 'new'


def test_a_failure_leaves_only_the_older_files(tmp_path):
  (tmp_path / 'b').write_text('old')
  with pytest.raises(OSError, match='disk full'):
    with files.replacing(*[
        str(tmp_path / name) for name in 'abc']) as temporaries:
      os.mkdir(temporaries[0])
      with open(os.path.join(temporaries[0], 'inside'), 'w') as out:
        out.write('half')
      with open(temporaries[1], 'w') as out:
        out.write('half')
      raise OSError('disk full')
  assert listing(tmp_path) == ['b']
  assert (tmp_path / 'b').read_text() == 'old'


def test_json_is_sorted_and_ends_with_a_line_break(tmp_path):
  files.write_json(str(tmp_path / 'x.json'), {'b': [1], 'a': 'é'})
  assert (tmp_path / 'x.json').read_bytes() == (
      b'{\n  "a": "\\u00e9",\n  "b": [\n    1\n  ]\n}\n')
  write(tmp_path / 'x.txt', 'é')
  assert (tmp_path / 'x.txt').read_bytes() == b'\xc3\xa9'


# --- Dead and live runs ----------------------------------------------------


def test_leftovers_of_dead_runs_are_removed_by_the_next_run(tmp_path):
  other = tmp_path / 'missing' / 'other'
  process = begin(tmp_path / 'a', other / 'b', tmp_path / 'folder')
  assert len(listing(tmp_path)) == 2 and len(listing(other)) == 1
  process.kill()
  process.communicate()
  (tmp_path / '.deeplab-notes').write_text('')
  (tmp_path / '.deeplab-x.tmp').mkdir()  # its run died before it locked
  (tmp_path / 'a.77.tmp').write_text('')
  # Any write removes the leftovers in its folder.
  write(tmp_path / 'z')
  write(other / 'z')
  assert listing(tmp_path) == ['.deeplab-notes', 'a.77.tmp', 'missing', 'z']
  assert listing(other) == ['z']


def test_a_live_run_of_the_same_target_keeps_its_files(tmp_path):
  process = begin(tmp_path / 'a', tmp_path / 'folder')
  try:
    write(tmp_path / 'a', 'first')
    assert len(listing(tmp_path)) == 2
    with files.replacing(str(tmp_path / 'a')) as (temporary,):
      with open(temporary, 'w') as out:
        out.write('third')
      process.communicate(b'')
      assert process.returncode == 0
      assert (tmp_path / 'a').read_text() == 'half'
  finally:
    process.kill()
    process.wait()  # Python 3.6 cannot communicate twice
  assert listing(tmp_path) == ['a', 'folder']
  assert (tmp_path / 'a').read_text() == 'third'


def test_without_locks_no_leftovers_are_removed(
    tmp_path, monkeypatch):
  hidden = tmp_path / '.deeplab-x.tmp'
  hidden.mkdir()

  def unsupported(*unused):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

  monkeypatch.setattr(locks.fcntl, 'flock', unsupported)
  write(tmp_path / 'a')
  assert listing(tmp_path) == [hidden.name, 'a']


@pytest.mark.parametrize('module, name', [
    (locks, 'exclusive'), (locks.fcntl, 'flock')])
def test_a_temporary_folder_removed_by_another_run_is_remade(
    tmp_path, monkeypatch, module, name):
  """Another run looks for leftovers between the folder's creation and lock."""
  lock = getattr(module, name)
  taken = []

  def look_first(*arguments):
    if not taken:
      taken.append(arguments)
      locks.remove_leftovers(str(tmp_path))
    return lock(*arguments)

  monkeypatch.setattr(module, name, look_first)
  write(tmp_path / 'a')
  assert taken and listing(tmp_path) == ['a']


def test_a_lock_is_released_after_its_context(tmp_path):
  with pytest.raises(ZeroDivisionError), locks.exclusive(str(tmp_path)):
    with pytest.raises(BlockingIOError), locks.exclusive(str(tmp_path)):
      pass
    raise ZeroDivisionError
  with locks.exclusive(str(tmp_path)):
    pass


# --- The disk --------------------------------------------------------------


def test_data_is_synced_before_the_rename(tmp_path, monkeypatch):
  happened = []
  fsync, replace = os.fsync, os.replace

  def note_sync(descriptor):
    happened.append('sync ' + os.path.basename(
        os.readlink('/proc/self/fd/{}'.format(descriptor))))
    fsync(descriptor)

  def note_rename(source, target):
    happened.append('name ' + os.path.basename(target))
    replace(source, target)

  monkeypatch.setattr(os, 'fsync', note_sync)
  monkeypatch.setattr(os, 'replace', note_rename)
  folder = tmp_path / 'out'
  with files.replacing(
      str(folder / 'data'), str(folder / 'list')) as temporaries:
    os.mkdir(temporaries[0])
    for path in (os.path.join(temporaries[0], 'inside'), temporaries[1]):
      with open(path, 'w'):
        pass
  assert sorted(happened[:3]) == ['sync data', 'sync inside', 'sync list']
  assert happened[3:] == ['name data', 'sync out', 'name list', 'sync out']


def test_a_disk_without_sync_is_accepted_but_a_failing_one_is_not(
    tmp_path, monkeypatch):
  code = errno.EINVAL

  def refuse(unused_descriptor):
    raise OSError(code, os.strerror(code))

  monkeypatch.setattr(os, 'fsync', refuse)
  write(tmp_path / 'a', 'first')
  code = errno.EIO
  with pytest.raises(OSError) as error:
    write(tmp_path / 'a', 'second')
  assert errors.of_system(error.value) == (
      '{}: Input/output error'.format(tmp_path / 'a'))
  assert (tmp_path / 'a').read_text() == 'first'
  assert listing(tmp_path) == ['a']


def test_a_rename_that_fails_names_the_new_files(tmp_path):
  (tmp_path / 'b').mkdir()
  paths = [str(tmp_path / name) for name in 'abc']
  with pytest.raises(OSError) as error:
    files.write_all(dict.fromkeys(paths, b'new'))
  assert errors.of_system(error.value) == (
      '{}: Is a directory; of 3 files, these are new: {}; run again'.format(
          paths[1], paths[0]))
  assert listing(tmp_path) == ['a', 'b']


# --- Error messages --------------------------------------------------------


def said(function, *arguments):
  """Returns the error line of a function that fails."""
  with pytest.raises((OSError, InputError)) as error:
    function(*arguments)
  if isinstance(error.value, InputError):
    return str(error.value)
  return errors.of_system(error.value)


def test_errors_name_the_wanted_file_and_the_reason(tmp_path):
  (tmp_path / 'file').write_text('')
  (tmp_path / 'folder').mkdir()
  write(tmp_path / ('x' * 255))
  (tmp_path / ('x' * 255)).unlink()
  long_name = tmp_path / ('x' * 256)
  assert said(write, tmp_path / 'file' / 'a') == (
      '{}: Not a directory'.format(tmp_path / 'file' / 'a'))
  assert said(write, tmp_path / 'folder') == (
      '{}: Is a directory'.format(tmp_path / 'folder'))
  assert said(write, long_name) == '{}: File name too long'.format(long_name)
  assert said(write, '/dev/null') == (
      '/dev/null: is a device or a pipe, expected the name of a file')
  assert listing(tmp_path) == ['file', 'folder']


@pytest.mark.parametrize('code', [errno.ENOSPC, errno.EIO])
def test_a_write_that_fails_names_the_file(tmp_path, monkeypatch, code):
  def fail(path, *unused):
    # os.write does not know the name either.
    raise OSError(code, os.strerror(code))

  monkeypatch.setattr(files, '_write', fail)
  assert said(write, tmp_path / 'a') == '{}: {}'.format(
      tmp_path / 'a', os.strerror(code))
  assert listing(tmp_path) == []


def test_system_errors_are_shown_without_their_number():
  assert errors.of_system(OSError('just words')) == 'just words'
  assert errors.of_system(OSError(errno.EIO, 'Input/output error')) == (
      'Input/output error')
  assert errors.of_system(OSError(
      errno.EXDEV, 'Invalid link', 'a', None, 'b')) == 'b: Invalid link'


# --- Checks before the work ------------------------------------------------


def test_checking_an_output_leaves_no_file(tmp_path):
  (tmp_path / 'old').write_text('old')
  given = errors.option('report_json', 'x')
  files.check_outputs(given, str(tmp_path / 'new' / 'a'), str(tmp_path / 'old'))
  assert listing(tmp_path) == ['new', 'old'] and not listing(tmp_path / 'new')
  assert (tmp_path / 'old').read_text() == 'old'
  files.check_folder(given, str(tmp_path / 'logs'))
  assert not listing(tmp_path / 'logs')


def test_an_output_that_cannot_be_written_names_its_option(tmp_path):
  (tmp_path / 'file').write_text('')

  def check(path, **example):
    return said(lambda: files.check_outputs(
        errors.option('report_json', path), path, **example))

  assert check(str(tmp_path)) == (
      'report_json={}: is a folder, expected the name of a file'.format(
          tmp_path))
  assert check(str(tmp_path), example='a.json').endswith(
      'a file, such as {}'.format(tmp_path / 'a.json'))
  inside = str(tmp_path / 'file' / 'a')
  assert check(inside) == 'report_json={}: Not a directory'.format(inside)
  assert check('/dev/null') == (
      'report_json=/dev/null: is a device or a pipe, expected the name of a '
      'file')
  deeper = str(tmp_path / 'file' / 'a' / 'b')
  assert check(deeper) == 'report_json={}: Not a directory'.format(deeper)
  path = str(tmp_path / 'file')
  assert said(files.check_folder, errors.option('vis_dir', path), path) == (
      'vis_dir={}: is a file, expected a folder'.format(path))


def test_checking_an_output_notices_a_full_disk(tmp_path, monkeypatch):
  write_file = files._write

  def fail(path, content):
    if content:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    write_file(path, content)

  monkeypatch.setattr(files, '_write', fail)
  path = str(tmp_path / 'a')
  assert said(files.check_outputs, errors.option('manifest', path), path) == (
      'manifest={}: No space left on device'.format(path))
  assert listing(tmp_path) == []
