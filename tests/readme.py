"""Reading files of the repository, and the commands in its README.

A command is a fenced block of code.
"""
import os
import re
import shlex
import textwrap

from tests import scripts


def read(*path):
  with open(os.path.join(scripts.REPOSITORY, *path), encoding='utf-8') as text:
    return text.read()


def code_blocks(markdown):
  """Returns the content of all fenced blocks, without their indentation."""
  return [textwrap.dedent(content) for _, content in re.findall(
      r'^( *)```\w*\n(.*?)^\1```$', markdown, re.M | re.S)]


def words_of(command):
  """Splits a command as bash does, ${VARIABLES} left as they are."""
  return shlex.split(command.replace('\\\n', ''))


def python_commands(markdown):
  return [block for block in code_blocks(markdown)
          if block.startswith('python ')]


def section(heading):
  """Returns the text of a chapter of the README, up to the next one."""
  return read('README.md').split('\n## {}\n'.format(heading))[1].split(
      '\n## ')[0]
