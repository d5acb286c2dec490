"""The list of tests/mutants.py, held against the code and the tests."""
import os
import re

import pytest

from tests import mutants


def read(*parts):
  with open(os.path.join(mutants.REPOSITORY, *parts),
            encoding='utf-8') as source:
    return source.read()


@pytest.mark.parametrize('mutant', mutants.MUTANTS, ids=lambda m: m.name)
def test_changes_the_code_and_names_a_test(mutant):
  assert read(mutant.path).count(mutant.text) == 1
  assert mutant.text != mutant.replacement
  tests = re.findall(r'def (test_\w+)', read('tests', mutant.test))
  assert any(mutant.word in test for test in tests)
