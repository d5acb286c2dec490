"""The workflow for GitHub: well formed, and the README's commands in it.

Read as text: the tests have no parser of YAML.
"""
import os
import re

from tests import readme
from tests import scripts

PATH = ('.github', 'workflows', 'ci.yml')


def lines_of(text):
  """Yields (depth, key, value) of a file's lines, and None for `- ` items.

  Content of a block scalar (`key: |`) is left out.

  Args:
    text: YAML of nested mappings, indented by two spaces, with lists of
      mappings.
  """
  scalar = None  # Depth of the key whose block scalar this is.
  for line in text.splitlines():
    indent = len(line) - len(line.lstrip(' '))
    if scalar is not None and indent > scalar:
      continue
    scalar = None
    if not line.strip() or line.lstrip().startswith('#'):
      continue
    parts = re.match(r'((?:  )*(?:- )?)([\w-]+):(?: +(\S.*))?$', line)
    assert parts, line
    prefix, key, value = parts.groups()
    if value == '|':
      scalar = len(prefix)
    yield len(prefix), key, value


def values_of(key):
  return [value for _, name, value in lines_of(readme.read(*PATH))
          if name == key]


def test_it_is_well_formed():
  text = readme.read(*PATH)
  assert '\t' not in text
  lines = list(lines_of(text))
  assert [key for depth, key, _ in lines if depth == 0] == [
      'name', 'on', 'permissions', 'jobs']
  # A deeper line belongs to a key without a value, and is one level deeper.
  for (depth, _, value), (following, key, _) in zip(lines, lines[1:]):
    if following > depth:
      assert value is None and following - depth in (2, 4), key


def test_it_runs_the_commands_of_the_readme():
  hurry = readme.read('README.md').split('\n## ')[0]
  commands = [block.strip() for block in readme.code_blocks(hurry)
              if block.startswith('./')]
  assert commands == ['./scripts/demo.sh', './scripts/test.sh']
  assert values_of('run') == commands


def test_each_action_is_pinned_and_each_job_has_a_limit():
  actions = values_of('uses')
  assert len(actions) == 3
  for action in actions:
    assert re.match(r'actions/[a-z-]+@v\d+$', action), action
  # One for the job, one for each command.
  assert len(values_of('timeout-minutes')) == 3
  assert all(0 < int(minutes) <= 60 for minutes in values_of('timeout-minutes'))


def test_the_cache_is_of_the_environments_and_keyed_by_what_makes_them():
  assert values_of('path') == ['.venvs']
  named = re.findall("'([^']*)'", re.search(
      r'hashFiles\((.*?)\)', values_of('key')[0]).group(1))
  assert named == ['requirements-*.txt', 'scripts/setup.sh']
  assert os.path.exists(os.path.join(scripts.REPOSITORY, named[1]))
