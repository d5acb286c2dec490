"""Reading files of the repository, and the commands in README and docs/.

A command is a fenced block of code; in docs/, one whose language is bash.
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


class Block(NamedTuple):
  """A fenced block of code."""
  # What stands behind the fence, such as 'bash'; '': nothing.
  language: str
  # Its lines, without their indentation.
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
  """Splits a command as bash does, ${VARIABLES} left as they are."""
  return shlex.split(command.replace('\\\n', ''))


def commands(markdown):
  """Returns all blocks without the comment that names an environment."""
  return [re.sub(r'^# .*\n', '', block) for block in code_blocks(markdown)]


def python_commands(markdown):
  return [block for block in commands(markdown)
          if block.startswith('python ')]


def section(heading):
  """Returns the text of a chapter of the README, up to the next one."""
  return read('README.md').split('\n## {}\n'.format(heading))[1].split(
      '\n## ')[0]


def pages():
  """Returns the names of the pages in docs/, such as 'security.md'."""
  return sorted(os.path.basename(path) for path in glob.glob(
      os.path.join(scripts.REPOSITORY, 'docs', '*.md')))


def documented(page, beginning):
  """Returns the one bash block of a page of docs/ that begins with a text."""
  found = [block.content for block in fenced(read('docs', page))
           if block.language == 'bash' and block.content.startswith(beginning)]
  assert len(found) == 1, '{}: {} bash blocks begin with {!r}'.format(
      page, len(found), beginning)
  return found[0]


class Shell:
  """A user's bash, in an empty folder that shows the scripts.

  What a test has run of a page in docs/ is found in the test's source, see
  tests/test_docs.py: page and beginning are written out in the call.
  """

  def __init__(self, folder):
    self.folder = folder
    for pattern in ('*.py', '*.sh', 'requirements-*.txt', 'scripts', '.venvs'):
      for path in glob.glob(os.path.join(scripts.REPOSITORY, pattern)):
        (folder / os.path.basename(path)).symlink_to(path)

  def start_text(self, text, *, python=sys.executable, **variables):
    """Starts lines of bash, in which `python` is an interpreter."""
    path = os.pathsep.join([os.path.dirname(python), os.environ['PATH']])
    return subprocess.Popen(
        ['bash', '-euc', text], cwd=str(self.folder),
        env=dict(os.environ, **dict({'PATH': path}, **{
            name: str(value) for name, value in variables.items()})),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        universal_newlines=True, start_new_session=True)

  def start_documented(self, page, beginning, *, changes=(), **options):
    """Starts a bash block of a page of docs/.

    Args:
      page: such as 'security.md'.
      beginning: what the block begins with, and no other one of the page.
      changes: pairs of a text of the block and what takes its place, to make a
        step small; each text must be there.
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
    """Runs one to its end; returns what it printed. See start_documented."""
    return self.finished(
        self.start_documented(page, beginning, **options), status)

  def finished(self, process, status=0):
    """Waits for the end; returns what was printed. Any status will do: None."""
    output, _ = scripts.output_of(process)
    assert status in (process.returncode, None), output
    return output
