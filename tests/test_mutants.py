"""Checks the list in tests/mutants.py against the code and the tests."""
import ast

from tests import mutants


def test_each_mutant_fits_one_place_and_names_one_test():
  problems = []
  for mutant in mutants.MUTANTS:
    found = mutants.places(mutant)
    if len(found) != 1:
      problems.append('{}: {} places'.format(mutant.test, len(found)))
    elif mutant.code == mutant.replacement or not ast.parse(found[0][1]):
      problems.append('{}: changes nothing'.format(mutant.test))
    if len(mutants.files_of_test(mutant)) != 1:
      problems.append('{}: no such test'.format(mutant.test))
  assert not problems
