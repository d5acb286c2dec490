"""Work in parts: part K of N, each a run of its own, on any machine."""
from typing import NamedTuple, Sequence, Tuple


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


def missing_of(found: Sequence[Part], count: int) -> str:
  """Names the parts that are not there, such as 'parts 1, 3 of 4'; or ''."""
  missing = sorted(set(range(count)) - {part.number for part in found})
  if not missing:
    return ''
  return 'part{} {} of {}'.format(
      's' if len(missing) > 1 else '', ', '.join(map(str, missing)), count)
