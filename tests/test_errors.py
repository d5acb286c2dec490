"""The words of errors."""
import pytest

from deeplab import errors

pytestmark = [pytest.mark.tf1, pytest.mark.modern]


def test_some_of():
  assert errors.some_of([]) == ''
  assert errors.some_of(['a', 'b', 'c']) == 'a, b, c'
  assert errors.some_of(['a', 'b', 'c', 'd', 'e']) == 'a, b, c, and 2 more'
  assert errors.some_of(['a', 'b'], '; ', limit=1) == 'a; and 1 more'
