"""Work in parts: part K of N, each a run of its own, on any machine.

Parts that write to one folder leave a file there when they are done, with what
the work is: the last one to come completes it.
"""
import os
import re
from typing import (
  Any,
  Dict,
  Iterable,
  List,
  Mapping,
  NamedTuple,
  Optional,
  Tuple,
)

from deeplab import files
from deeplab import inputs
from deeplab.errors import InputError
from deeplab.errors import some_of

_FILE = re.compile(r'part-(\d+)-of-(\d+)\.json')
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


# --- Parts that write to one folder ----------------------------------------


def file_of(folder: str, part: Part) -> str:
  """Returns the path of the file that a part leaves."""
  return os.path.join(folder, 'part-{}-of-{}.json'.format(*part))


def files_in(folder: str) -> Dict[Part, str]:
  """Returns the paths of the files that parts have left in a folder."""
  found = {}
  for name in os.listdir(folder):
    match = _FILE.fullmatch(name)
    part = match and Part(*map(int, match.groups()))
    if part and part.number < part.of:
      found[part] = os.path.join(folder, name)
  return found


def missing_in(folder: str, of: int) -> str:
  """Names the parts that have left no file in a folder; see missing_of."""
  return missing_of([part.number for part in files_in(folder)], of)


def begun(marker: str) -> Optional[Dict[str, Any]]:
  """Returns the work that a marker says parts have begun, with their number.

  Args:
    marker: existing file, of parts or of a run without parts.

  Returns:
    The work, and the number of parts as `parts`; None: not of parts.
  """
  try:
    found = inputs.read_json(marker, marker, 'a marker')
    return found if type(found['parts']) is int else None
  except (InputError, KeyError, TypeError):
    return None


def keep(folder: str, part: Part, work: Mapping[str, Any],
         content: Any) -> None:
  """Writes the file that says that a part is done.

  Args:
    folder: where parts of the work meet.
    part: which it is.
    work: what all of them have in common, as JSON has it.
    content: what the last one needs to complete the work.
  """
  files.write_json(file_of(folder, part), {'work': work, 'content': content})


def kept(folder: str, of: int, work: Mapping[str, Any]) -> List[Any]:
  """Reads what the parts of a work have left, in their order.

  Args:
    folder: where they meet.
    of: how many parts there are.
    work: as for `keep`.

  Returns:
    Their contents, as far as they are there: of some parts, or of all.

  Raises:
    InputError: one of another work, or that cannot be read.
    FileNotFoundError: another part has completed the work, and removes them.
  """
  contents = []
  for part, path in sorted(files_in(folder).items()):
    kind = 'what a part leaves; remove it and run that part again'
    try:
      left = inputs.read_json(path, path, kind)
    except InputError:
      if not os.path.exists(path):
        raise FileNotFoundError(path)
      raise
    try:
      content, of_work = left['content'], dict(left['work'])
    except (KeyError, TypeError, ValueError):
      raise InputError('{}: damaged; expected {}'.format(path, kind))
    check_same(path, dict(of_work, parts=part.of), dict(work, parts=of))
    contents.append(content)
  return contents


def check_same(path: str, there: Mapping[str, Any],
               work: Mapping[str, Any]) -> None:
  """Raises InputError where a file is of another work.

  Args:
    path: the file.
    there: the work that it says.
    work: the one that is wanted.
  """
  differing = differences(there, work)
  if differing:
    raise InputError('{} is of another work: {}; give another folder, or '
                     'remove that one', path, some_of(differing, '; '))
