"""Reads files of the repository and finds commands in README and docs/.

A command is a fenced block of code; in docs/, only if its language is bash.
"""
import glob
import os
import re
import shlex
import subprocess
import sys
import textwrap
from typing import NamedTuple

from tests import scripts
from tests import shallow


class Block(NamedTuple):
  """A fenced block of code."""
  # The language after the opening fence, such as 'bash'; '': none.
  language: str
  # Its lines, without indentation.
  content: str


def read(*path):
  with open(os.path.join(scripts.REPOSITORY, *path), encoding='utf-8') as text:
    return text.read()


def fenced(markdown):
  """Returns all fenced blocks, as Blocks."""
  return [Block(language, textwrap.dedent(content))
          for _, language, content in re.findall(
              r'^( *)```(.*)\n((?s:.*?))^\1```$', markdown, re.M)]


def code_blocks(markdown):
  """Returns the content of all fenced blocks, without their indentation."""
  return [block.content for block in fenced(markdown)]


def words_of(command):
  """Splits a command as bash does, without expanding ${VARIABLES}."""
  return shlex.split(command.replace('\\\n', ''))


def commands(markdown):
  """Returns all blocks, without a first line that names an environment."""
  return [re.sub(r'^# .*\n', '', block) for block in code_blocks(markdown)]


def python_commands(markdown):
  return [block for block in commands(markdown)
          if block.startswith('python ')]


def section(heading):
  """Returns the text of a section of the README."""
  return read('README.md').split('\n## {}\n'.format(heading))[1].split(
      '\n## ')[0]


def pages():
  """Returns the names of the pages in docs/, such as 'security.md'."""
  return sorted(os.path.basename(path) for path in glob.glob(
      os.path.join(scripts.REPOSITORY, 'docs', '*.md')))


def documented(page, beginning):
  """Returns the bash block of a page of docs/ that begins with a text."""
  found = [block.content for block in fenced(read('docs', page))
           if block.language == 'bash' and block.content.startswith(beginning)]
  assert len(found) == 1, '{}: {} bash blocks begin with {!r}'.format(
      page, len(found), beginning)
  return found[0]


class Shell:
  """Runs bash as a user does, in a folder with links to the scripts.

  tests/test_docs.py finds the commands that a test runs in the test's source,
  so write page and beginning as literals in the call.
  """

  def __init__(self, folder, is_shallow=False):
    """Makes the folder's links.

    Args:
      folder: pathlib.Path.
      is_shallow: whether `python` runs a script with the backbone of
        tests.shallow.
    """
    self.folder = folder
    self._python_folder = None
    if is_shallow:
      wrapper = folder / 'shallow' / 'python'
      wrapper.parent.mkdir()
      wrapper.write_text('#!/bin/sh\nexec "$TEST_PYTHON" "{}" "$@"\n'.format(
          os.path.join(scripts.REPOSITORY, shallow.SCRIPT)))
      wrapper.chmod(0o755)
      self._python_folder = str(wrapper.parent)
    for pattern in ('*.py', '*.sh', 'requirements-*.txt', 'scripts', '.venvs'):
      for path in glob.glob(os.path.join(scripts.REPOSITORY, pattern)):
        (folder / os.path.basename(path)).symlink_to(path)

  def start_text(self, text, *, python=sys.executable, **variables):
    """Starts a bash script. `python` is first on its PATH."""
    folder = self._python_folder or os.path.dirname(python)
    path = os.pathsep.join([folder, os.environ['PATH']])
    return subprocess.Popen(
        ['bash', '-euc', text], cwd=str(self.folder),
        env=dict(os.environ, **dict(
            {'PATH': path, 'TEST_PYTHON': python},
            **{name: str(value) for name, value in variables.items()})),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        universal_newlines=True, start_new_session=True)

  def start_documented(self, page, beginning, *, changes=(), **options):
    """Starts a bash block of a page of docs/.

    Args:
      page: such as 'security.md'.
      beginning: the text that only this block of the page begins with.
      changes: pairs (text of the block, replacement), which make the command
        smaller; each text must occur.
      **options: see start_text.

    Returns:
      A Popen.
    """
    text = documented(page, beginning)
    for old, new in changes:
      assert old in text, (page, beginning, old)
      text = text.replace(old, new)
    return self.start_text(text, **options)

  def run_documented(self, page, beginning, *, status=0, **options):
    """Runs a block as start_documented does; returns its output."""
    return self.finished(
        self.start_documented(page, beginning, **options), status)

  def finished(self, process, status=0):
    """Waits for the process; returns its output. None allows any status."""
    output, _ = scripts.output_of(process)
    assert status in (process.returncode, None), output
    return output
