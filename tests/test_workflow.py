"""The workflow for GitHub runs the README's commands.

It is read as text, because no YAML parser is installed.
"""
import re

from tests import readme

TEXT = readme.read('.github', 'workflows', 'ci.yml')


def values_of(key):
  """Returns the values of all lines `key: value`."""
  return re.findall(r'^ *(?:- )?{}: +(\S.*)$'.format(key), TEXT, re.M)


def test_the_workflow_runs_the_readme_commands():
  hurry = readme.read('README.md').split('\n## ')[0]
  commands = [block.strip() for block in readme.code_blocks(hurry)
              if block.startswith('./')]
  assert commands == ['./scripts/demo.sh', './scripts/test.sh']
  assert values_of('run') == commands


def test_actions_are_pinned_and_the_cache_key_covers_the_setup():
  assert all(re.match(r'actions/[a-z-]+@v\d+$', action)
             for action in values_of('uses'))
  # One for the job, and one for each command.
  assert len(values_of('timeout-minutes')) == 3
  assert values_of('path') == ['.venvs']
  assert "hashFiles('requirements-*.txt', 'scripts/setup.sh')" in TEXT
