"""What the tests of the two downloading scripts share: hostile surroundings."""
import os
import shutil

import pytest

# Makes the file x where bash takes it for a number.
ATTACK = '5+A[$(touch${IFS}x)]'


def path_with(name, commands, folder):
  """Returns a PATH on which a shell script comes before a program.

  Args:
    name: the program's name.
    commands: the script, without its first line.
    folder: pathlib.Path to make a folder of programs in.
  """
  tools = folder / 'tools'
  tools.mkdir()
  program = tools / name
  program.write_text('#!/bin/sh\n' + commands)
  program.chmod(0o755)
  return '{}:{}'.format(tools, os.environ['PATH'])


def path_without_curl(folder):
  """Returns a PATH with all programs but curl; skips where there is no wget.

  Args:
    folder: pathlib.Path to make a folder of programs in.
  """
  if not shutil.which('wget'):
    pytest.skip('no wget')
  tools = folder / 'tools'
  tools.mkdir()
  for place in os.get_exec_path():
    names = os.listdir(place) if os.path.isdir(place) else []
    for name in names:
      link = tools / name
      if name != 'curl' and not link.is_symlink():
        link.symlink_to(os.path.join(place, name))
  return str(tools)
