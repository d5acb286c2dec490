"""Work in parts: part K of N, each a run of its own, on any machine."""
import re
from typing import Any, Iterable, List, Mapping, NamedTuple, Tuple

from deeplab.errors import some_of

_CHECKSUM = re.compile(r'[0-9a-f]{40,}')


class Part(NamedTuple):
  """One part of a work that is done in several."""
  # Counted from 0.
  number: int
  # How many there are.
  of: int

  def __str__(self):
    return 'part {} of {}'.format(*self)

  def bounds(self, items: int) -> Tuple[int, int]:
    """Returns (first, one past the last) of so many items that are its own.

    Parts follow each other, and differ by one item at most.
    """
    return (self.number * items // self.of,
            (self.number + 1) * items // self.of)


def missing_of(numbers: Iterable[int], of: int) -> str:
  """Names the parts that are not there, such as 'parts 1, 3 of 4'; or ''."""
  missing = sorted(set(range(of)) - set(numbers))
  if not missing:
    return ''
  named = some_of([str(number) for number in missing], limit=9)
  return 'part{} {} of {}'.format('s' if len(missing) > 1 else '', named, of)


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> List[str]:
  """Returns what two works contradict each other in, as texts.

  Args:
    one: what is known of it, by name, as JSON has it; a value that is a dict is
      compared by its own names.
    other: the same of the other work.
  """
  found = []
  for name in sorted(set(one) | set(other)):
    left, right = one.get(name), other.get(name)
    if left == right:
      continue
    if isinstance(left, dict) and isinstance(right, dict):
      found += ['{} {}'.format(name, text)
                for text in differences(left, right)]
    else:
      found.append('{} {}, and {}'.format(name, _short(left), _short(right)))
  return found


def _short(value):
  """Says a value; of a checksum, as much as one can compare by eye."""
  text = str(value)
  return text[:12] + '...' if _CHECKSUM.fullmatch(text) else text
