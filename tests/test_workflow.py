"""The workflow for GitHub runs the README's commands.

It is read as text, because the tests have no parser of YAML.
"""
import re

from tests import readme

TEXT = readme.read('.github', 'workflows', 'ci.yml')


def values_of(key):
  """Returns the values of all lines `key: value`."""
  return re.findall(r'^ *(?:- )?{}: +(\S.*)$'.format(key), TEXT, re.M)


def test_it_runs_the_commands_of_the_readme():
  hurry = readme.read('README.md').split('\n## ')[0]
  commands = [block.strip() for block in readme.code_blocks(hurry)
              if block.startswith('./')]
  assert commands == ['./scripts/demo.sh', './scripts/test.sh']
  assert values_of('run') == commands


def test_actions_are_pinned_and_environments_are_cached_by_what_makes_them():
  assert all(re.match(r'actions/[a-z-]+@v\d+$', action)
             for action in values_of('uses'))
  # One for the job, one for each command.
  assert len(values_of('timeout-minutes')) == 3
  assert values_of('path') == ['.venvs']
  assert "hashFiles('requirements-*.txt', 'scripts/setup.sh')" in TEXT
