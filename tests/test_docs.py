"""The pages in docs/: every command in them is run by some test.

A command is a bash block. The test that runs it says so by the call that does,
`Shell.run_documented('page.md', 'how the block begins')`, in tests/readme.py.
"""
import ast
import glob
import os
import re

import pytest

from tests import readme
from tests import scripts

_RUNS = ('run_documented', 'start_documented')
# How a line begins that somebody would copy into a terminal.
_COMMAND = re.compile(
    r'(\$ |\./|\.venvs/|(python3?|pip3?|bash|source|export|docker) )')
_LANGUAGES = {'bash', 'json', 'python', 'text'}


def runs_in(source):
  """Returns (page, beginning) of the documented commands that a test runs."""
  found = []
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Call) and (
        getattr(node.func, 'attr', None) in _RUNS):
      # What is no text in place raises.
      found.append(tuple(map(ast.literal_eval, node.args)))
  return found


def not_run(page, markdown, runs):
  """Returns the bash blocks of a page that no run begins as.

  Args:
    page: such as 'security.md'.
    markdown: the page.
    runs: pairs as runs_in returns them.
  """
  return [block.content for block in readme.fenced(markdown)
          if block.language == 'bash' and not any(
              page == name and block.content.startswith(beginning)
              for name, beginning in runs)]


@pytest.fixture(scope='module')
def runs():
  found = []
  for path in glob.glob(os.path.join(scripts.REPOSITORY, 'tests', '**',
                                     'test_*.py'), recursive=True):
    found += runs_in(readme.read(os.path.relpath(path, scripts.REPOSITORY)))
  return found


# --- The rule itself -------------------------------------------------------


def test_runs_are_found_in_a_source():
  assert runs_in("""
def test_this(shell):
  assert 'ready' in shell.run_documented('page.md', 'python train.py', a=1)
  run_documented('page.md', 'a function of the same name')
  shell.start_text('python eval.py')
""") == [('page.md', 'python train.py')]


def test_a_command_that_no_test_runs_is_found():
  page = ('A page.\n\n```bash\npython train.py \\\n  --steps=1\n```\n\n'
          '1. Then\n\n   ```bash\n   python eval.py\n   ```\n\n'
          '```text\nstep 1\n```\n')
  assert not_run('page.md', page, [('page.md', 'python train')]) == [
      'python eval.py\n']
  assert not_run('page.md', page, [('other.md', 'python')]) == [
      'python train.py \\\n  --steps=1\n', 'python eval.py\n']


# --- The pages -------------------------------------------------------------


@pytest.mark.parametrize('page', readme.pages())
def test_every_command_is_run_by_a_test(page, runs):
  assert not_run(page, readme.read('docs', page), runs) == []


@pytest.mark.parametrize('page', readme.pages())
def test_what_looks_like_a_command_is_a_bash_block(page):
  for block in readme.fenced(readme.read('docs', page)):
    assert block.language in _LANGUAGES, block
    if block.language != 'bash':
      assert [line for line in block.content.splitlines()
              if _COMMAND.match(line)] == []


def test_every_run_is_of_a_command(runs):
  assert runs
  for page, beginning in runs:
    assert readme.documented(page, beginning)


def test_the_audit_names_requirements_that_are_all_pinned(tmp_path):
  """It asks a database; here something else answers to its name."""
  audit = tmp_path / 'bin' / 'pip-audit'
  audit.parent.mkdir()
  audit.write_text('#!/bin/sh\necho "$@"\ncat "$4"\n')
  audit.chmod(0o755)
  (tmp_path / 'home').mkdir()
  printed = readme.Shell(tmp_path / 'home').run_documented(
      'security.md', 'pip-audit', PATH='{}{}{}'.format(
          audit.parent, os.pathsep, os.environ['PATH'])).splitlines()
  assert printed[0] == '--strict --no-deps -r requirements-tf1.txt'
  # As --no-deps demands.
  lines = [line for line in printed[1:] if line and not line.startswith('#')]
  assert lines and all('==' in line for line in lines)
