"""Tests of deeplab.locks."""
import subprocess
import sys

import pytest

from deeplab import locks
from tests.scripts import REPOSITORY

_HOLD = """
import sys
sys.path.insert(0, {!r})
from deeplab import locks
with locks.exclusive(sys.argv[1]):
  print('held', flush=True)
  sys.stdin.read()
""".format(REPOSITORY)


@pytest.mark.parametrize('kind', ['file', 'folder'])
def test_a_lock_ends_with_the_process_that_holds_it(tmp_path, kind):
  path = tmp_path / 'lock'
  if kind == 'file':
    path.write_text('')
  else:
    path.mkdir()
  holder = subprocess.Popen(
      [sys.executable, '-c', _HOLD, str(path)], stdin=subprocess.PIPE,
      stdout=subprocess.PIPE)
  try:
    assert holder.stdout.readline() == b'held\n'
    with pytest.raises(BlockingIOError), locks.exclusive(str(path)):
      pass
  finally:
    holder.kill()
    holder.communicate()
  with locks.exclusive(str(path)):
    pass


def test_a_lock_is_free_after_its_context(tmp_path):
  with pytest.raises(ZeroDivisionError), locks.exclusive(str(tmp_path)):
    raise ZeroDivisionError
  with locks.exclusive(str(tmp_path)):
    pass


def test_what_is_not_there_cannot_be_locked(tmp_path):
  with pytest.raises(FileNotFoundError), locks.exclusive(str(tmp_path / 'no')):
    pass
