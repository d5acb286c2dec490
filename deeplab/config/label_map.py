"""Which ids on disk are which trained class, and what the classes are called.

A label map is a file of the user's, as JSON

    {"classes": [
        {"class": 1, "name": "structure", "ids": [1, 2, 6]},
        {"class": 2, "name": "ground", "ids": [4, 7, 10, 12]}]}

or, with the same meaning, as CSV, where lines that begin with # do not count:

    id,class,name
    1,1,structure
    2,1,structure
    4,2,ground

Ids are what labels on disk hold, 0 to 255. Classes are numbered from 1 without
a gap. Every id that is not listed is class 0, "other": ignored by the loss and
by the ground truth of every score. Without a file, ADE20K is the map.

What is stored beside records, checkpoints, graphs and images is the JSON form.
Needs neither TensorFlow nor NumPy.
"""
import csv
import re
from typing import (
  Any,
  Dict,
  List,
  NamedTuple,
  Optional,
  Sequence,
  Tuple,
  Union,
)

from deeplab import constants
from deeplab import errors
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.storage import checked_read

# What labels of 8 bits can hold.
NUM_IDS = 256
# 8 bits again: predictions and annotations are stored so, and 255 is what other
# tools ignore.
MOST_CLASSES = 254
# A name is a cell of a table, and a word in a legend.
_LONGEST_NAME = 40
_COLUMNS = ['id', 'class', 'name']
# Warning about a model that learns one class alone.
ONE_CLASS = (
    'a model of one class alone is always right, with a mIoU of 1.0 whatever '
    'its weights; if it is to tell the class from the background, list the '
    "background's id too, such as 0,1,background (docs/own_data.md)")
_KIND = 'a label map: JSON, or lines of id,class,name'


class LabelMap(NamedTuple):
  """Trained classes; made by `read`, by `from_json`, or ADE20K."""
  # By class; the first is that of what is not listed.
  names: Tuple[str, ...]
  # The ids on disk of each class, in order; none for the first.
  ids: Tuple[Tuple[int, ...], ...]

  @property
  def num_classes(self) -> int:
    """Number of classes, the ignored one among them."""
    return len(self.names)

  @property
  def table(self) -> Tuple[int, ...]:
    """The class of each of the NUM_IDS ids."""
    classes = [constants.IGNORE_LABEL] * NUM_IDS
    for index, ids in enumerate(self.ids):
      for number in ids:
        classes[number] = index
    return tuple(classes)

  @property
  def largest_id(self) -> int:
    """The largest id that a label on disk may hold."""
    # Data of one's own may mark with 255 what has no label, as many do. In
    # ADE20K such an id says that the file is no label.
    return (constants.LARGEST_LABEL_ON_DISK if self == ADE20K else NUM_IDS - 1)

  @property
  def palette(self) -> Tuple[Tuple[int, int, int], ...]:
    """A colour for each class, RGB in 0..255; black for the first."""
    if self == ADE20K:
      return constants.PALETTE
    return tuple(map(_colour, range(self.num_classes)))

  def counts(self, pixels: Sequence[int]) -> Tuple[int, ...]:
    """Adds up pixels by class.

    Args:
      pixels: number of pixels of each id, NUM_IDS of them.
    """
    found = [0] * self.num_classes
    for index, count in zip(self.table, pixels):
      found[index] += count
    return tuple(found)

  def class_text(self, number: int) -> str:
    """Says which class an id is, such as '2 ground'."""
    index = self.table[number]
    return '{} {}'.format(index, self.names[index])

  def to_json(self) -> Dict[str, Any]:
    """Returns what from_json reads, as a dict that json can write."""
    return {'classes': [
        {'class': index, 'name': self.names[index], 'ids': list(ids)}
        for index, ids in enumerate(self.ids) if index]}


ADE20K = LabelMap(
    constants.CLASS_NAMES,
    ((),) + tuple((index,) for index in range(1, constants.NUM_CLASSES)))


def of_model(num_classes: int, known: Optional[LabelMap] = None) -> LabelMap:
  """Returns the names and colours of a model's classes.

  Args:
    num_classes: number of classes that the model has.
    known: the label map stored with the model; None if there is none.

  Returns:
    `known` if it has that many classes. Otherwise ADE20K if it has that many,
    which is an assumption; otherwise numbers as names, such as 'class 7'.
  """
  for label_map in (known, ADE20K):
    if label_map and label_map.num_classes == num_classes:
      return label_map
  numbers = range(1, num_classes)
  return LabelMap(
      (ADE20K.names[0],) + tuple(map('class {}'.format, numbers)),
      ((),) + tuple((n,) if n < NUM_IDS else () for n in numbers))


def _colour(index):
  """Returns a class's colour: far apart for numbers that are close."""
  # That of PASCAL VOC: bits of the number, from the lowest on, are the highest
  # ones of red, green and blue in turn.
  red_green_blue = [0, 0, 0]
  for place in range(8):
    for channel in range(3):
      red_green_blue[channel] |= (index >> channel & 1) << (7 - place)
    index >>= 3
  return tuple(red_green_blue)


# --- Files -----------------------------------------------------------------


class _MapError(InputError):
  """What is wrong with a map, without the name of its file."""


class _Entry(NamedTuple):
  """An id of a class; a value may be of any type until it is checked."""
  id: Any
  label: Any
  name: Any
  # Where it stands, for messages.
  place: str


def read(path: str) -> LabelMap:
  """Reads a label map from a file of JSON or CSV; see the module.

  Raises:
    InputError: there is no such file, or it is no label map.
    OSError: it cannot be read.
  """
  given = option('label_map', path)
  text = checked_read.read_text(path, given, _KIND)
  try:
    text.encode('utf-8')
  except UnicodeEncodeError as error:
    raise InputError('{}: line {}: not UTF-8; expected {}', given,
                     text.count('\n', 0, error.start) + 1, _KIND)
  try:
    if text.lstrip()[:1] in ('{', '['):
      return from_json(checked_read.read_json(path, given, _KIND))
    return _from_entries(_entries_of_csv(text))
  except _MapError as error:
    raise InputError('{}: {}', given, str(error))


def from_json(content: Any) -> LabelMap:
  """Makes a LabelMap of what LabelMap.to_json returns.

  Raises:
    InputError: it is something else, or no map of classes; without the name of
      a file.
  """
  return _from_entries(_entries_of_json(content))


def optional_from_json(content: Any, path: str) -> Optional[LabelMap]:
  """Reads the key `label_map` of a file of the suite's; None without it.

  Args:
    content: what the file holds, a dict.
    path: the file, for messages.

  Raises:
    InputError: what is there is no label map.
  """
  if content.get('label_map') is None:
    return None
  try:
    return from_json(content['label_map'])
  except _MapError as error:
    raise InputError('{}: label_map: {}'.format(path, error))


def json_entry(label_map: LabelMap) -> Dict[str, Any]:
  """Returns what optional_from_json reads: {} for ADE20K, which goes unsaid."""
  return {} if label_map == ADE20K else {'label_map': label_map.to_json()}


def _entries_of_json(content):
  classes = content.get('classes') if isinstance(content, dict) else None
  if not isinstance(classes, list):
    raise _MapError('expected {"classes": [{"class": 1, "name": "...", "ids": '
                    '[...]}, ...]}')
  entries = []
  for position, one in enumerate(classes, 1):
    place = 'entry {}'.format(position)
    if not isinstance(one, dict) or set(one) - {'class', 'name', 'ids'}:
      raise _MapError(place + ' of classes: expected class, name and ids')
    ids = one.get('ids')
    if not isinstance(ids, list) or not ids:
      raise _MapError(
          place + ' of classes: expected ids, a list of at least one number')
    entries += [_Entry(number, one.get('class'), one.get('name'), place)
                for number in ids]
  return entries


def _entries_of_csv(text):
  entries = []
  header = None
  rows = csv.reader(text.splitlines(), skipinitialspace=True, strict=True)
  try:
    for row in rows:
      cells = [cell.strip() for cell in row]
      if not any(cells) or cells[0].startswith('#'):
        continue
      place = 'line {}'.format(rows.line_num)
      problem = ''
      if header is None:
        header = cells
        if header != _COLUMNS:
          problem = 'is ' + _shown(','.join(cells))
      elif len(cells) != len(_COLUMNS):
        problem = 'has {} columns'.format(len(cells))
      else:
        entries.append(_Entry(_number(cells[0]), _number(cells[1]), cells[2],
                              place))
      if problem:
        raise _MapError('{} {}; expected {}'.format(
            place, problem, ','.join(_COLUMNS)))
  except csv.Error as error:
    raise _MapError('line {}: {}; expected {}'.format(
        rows.line_num, error, ','.join(_COLUMNS)))
  return entries


def _number(cell):
  """Returns the whole number that a cell holds, or the cell if it is none."""
  # int() takes '1_0' and digits of other scripts too.
  return int(cell) if re.fullmatch('-?[0-9]{1,9}', cell) else cell


def _from_entries(entries):
  """Makes a LabelMap of _Entry's, or raises _MapError."""
  other = constants.IGNORE_LABEL
  names = {other: constants.CLASS_NAMES[other]}
  ids: Dict[int, List[int]] = {other: []}
  places: Dict[int, str] = {}
  for entry in entries:
    problem = _problem(entry, names, places)
    if problem:
      raise _MapError('{}: {}'.format(entry.place, problem))
    places[entry.id] = entry.place
    names[entry.label] = entry.name
    ids.setdefault(entry.label, []).append(entry.id)
  count = max(names)
  if not count:
    raise _MapError('lists no class; expected at least class 1')
  missing = sorted(set(range(count)) - set(names))
  if missing:
    raise _MapError('no id of class {}, but of class {}; expected classes 1, '
                    '2, ... without a gap'.format(missing[0], count))
  # An id that is listed as class 0 is the same as one that is not listed.
  ids[constants.IGNORE_LABEL] = []
  classes = range(count + 1)
  return LabelMap(tuple(names[index] for index in classes),
                  tuple(tuple(sorted(ids[index])) for index in classes))


def _problem(entry, names, places):
  """Returns what is wrong with an entry, by itself or beside earlier ones.

  Args:
    entry: _Entry.
    names: of the classes before it.
    places: where the ids before it stand.
  """
  name = entry.name
  for word, number, most in (
      ('class', entry.label, MOST_CLASSES), ('id', entry.id, NUM_IDS - 1)):
    if type(number) is not int or not 0 <= number <= most:
      return '{} {}: expected a whole number from 0 to {}'.format(
          word, _shown(number), most)
  if entry.id in places:
    return 'id {} is listed twice, first in {}'.format(
        entry.id, places[entry.id])
  problem = ''
  if (not isinstance(name, str) or not name or name != name.strip() or
      len(name) > _LONGEST_NAME or not name.isprintable()):
    problem = '; expected a name of 1 to {} visible characters'.format(
        _LONGEST_NAME)
  elif names.get(entry.label, name) != name:
    problem = ', and before ' + names[entry.label]
  elif entry.label not in names and name in names.values():
    problem = ', as another class is'
  return problem and 'class {} is called {}{}'.format(
      entry.label, _shown(name), problem)


def _shown(value):
  text = ascii(value) if not isinstance(value, str) else (
      errors.printable(value) or "''")
  return text if len(text) <= _LONGEST_NAME else text[:_LONGEST_NAME] + '...'


# --- Several of them -------------------------------------------------------

# What says which classes there are: a file, an option, or a word.
Source = Union[str, errors.Option]


def agreed(*sources: Tuple[Source, Optional[LabelMap]]) -> LabelMap:
  """Returns the one map of all that have one; ADE20K where none has.

  Args:
    *sources: who says so, and the map; None: says nothing.

  Raises:
    InputError: two of them say different things.
  """
  found = [(name, one) for name, one in sources if one is not None]
  for (first, mine), (second, other) in zip(found, found[1:]):
    problem = difference(mine, other)
    if problem:
      number, here, there = problem
      raise InputError(
          '{}: id {} is {}, but {} by {}; expected the same classes', first,
          number, here, there, second)
  return found[0][1] if found else ADE20K


def difference(first: LabelMap, second: LabelMap
               ) -> Optional[Tuple[int, str, str]]:
  """Returns an id of another class, and what it is by each; None: the same."""
  for number in range(NUM_IDS):
    texts = first.class_text(number), second.class_text(number)
    if texts[0] != texts[1]:
      return (number,) + texts
  return None
