"""The symptoms in the tables are what the suite says."""
import ast
import glob
import os
import re

import pytest

from tests import readme
from tests import scripts

# What a symptom stands for: numbers, None, and whatever '...' leaves out.
_VARIES = re.compile(r'\.\.\.|None|\d[\d.]*(?: (?:or|to) \d[\d.]*)*')
# Said by the system, not by the suite.
_OF_THE_SYSTEM = {'No space left on device'}


def symptoms_in(markdown):
  """Returns the texts in the first column that are quoted from a script."""
  first = re.findall(r'^\| ([^|]*) \|', markdown, re.M)
  return [text for cell in first for text in re.findall('`([^`]+)`', cell)]


def is_said(symptom, texts):
  """Whether a symptom is part of one of the texts, but for what varies."""
  pattern = re.compile('.+?'.join(map(re.escape, _VARIES.split(symptom))))
  return any(pattern.search(text) for text in texts)


def text_of(node):
  """Returns the text that a node is; None where it is none."""
  # In a field of another name before Python 3.8.
  text = getattr(node, 'value', getattr(node, 's', None))
  return text if isinstance(text, str) else None


@pytest.fixture(scope='module')
def texts():
  """All texts in the sources, each with what stands in it for a value."""
  found = []
  for pattern in ('*.py', 'scripts/*.py', 'deeplab/**/*.py'):
    for path in glob.glob(os.path.join(scripts.REPOSITORY, pattern),
                          recursive=True):
      tree = ast.parse(readme.read(os.path.relpath(path, scripts.REPOSITORY)))
      for statement in ast.walk(tree):
        if isinstance(statement, ast.Expr):
          statement._fields = () if text_of(statement.value) else (
              statement._fields)  # of a docstring nothing is said
      values = map(text_of, ast.walk(tree))
      found += filter(None, values)
  for pattern in ('*.sh', 'scripts/*.sh'):
    for path in glob.glob(os.path.join(scripts.REPOSITORY, pattern)):
      # A message may go on in the next line.
      found.append(re.sub(r'" \\\n *"', ' ', readme.read(os.path.relpath(
          path, scripts.REPOSITORY))))
  return found


def test_what_is_said_is_told_from_what_is_not():
  texts = ['checkpoint has {} classes, the model {}: add {}']
  assert is_said('checkpoint has 151 classes, the model 32', texts)
  assert is_said('checkpoint has ... classes', texts)
  assert not is_said('checkpoint has 151 kinds', texts)
  assert not is_said('was made with other flags', ['made with other options'])


@pytest.mark.parametrize('path', ['README.md', 'docs/troubleshooting.md'])
def test_every_symptom_is_what_a_script_says(path, texts):
  markdown = (readme.section('Troubleshooting') if path == 'README.md'
              else readme.read(path))
  symptoms = symptoms_in(markdown)
  assert len(symptoms) > 5
  assert [symptom for symptom in symptoms
          if symptom not in _OF_THE_SYSTEM and
          not is_said(symptom, texts)] == []


def test_the_short_table_is_part_of_the_long_one():
  short = [line for line in readme.section('Troubleshooting').splitlines()
           if line.startswith('| ')]
  # Links lead there from another folder.
  long = readme.read('docs', 'troubleshooting.md').replace(
      '](../README.md#', '](#').splitlines()
  assert 8 <= len(short[1:]) <= 10
  assert [line for line in short if line not in long] == []
