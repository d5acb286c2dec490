"""Maps ids on disk to trained classes and gives the classes names.

A label map is a file that the user writes, as JSON

    {"classes": [
        {"class": 1, "name": "structure", "ids": [1, 2, 6]},
        {"class": 2, "name": "ground", "ids": [4, 7, 10, 12]}]}

or, with the same meaning, as CSV, in which lines that begin with # are ignored:

    id,class,name
    1,1,structure
    2,1,structure
    4,2,ground

Ids are the values of labels on disk, 0 to 255. Classes are numbered from 1
without a gap. Every id that is not listed is class 0, "other": the loss and all
scores ignore pixels whose ground truth is 0. Without a file, ADE20K is the map.

The JSON form is stored beside records, checkpoints, graphs and images.
This module needs neither TensorFlow nor NumPy.
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

# Number of values of an 8-bit label.
NUM_IDS = 256
# Predictions and annotations are stored with 8 bits, too, and 255 is the ignore
# label of other tools.
MOST_CLASSES = 254
# A name is shown in a table's cell and in a legend.
_LONGEST_NAME = 40
_COLUMNS = ['id', 'class', 'name']
# Warning about a model that learns only one class.
ONE_CLASS = (
    'a model of one class alone is always right, with a mIoU of 1.0 whatever '
    'its weights; if it is to tell the class from the background, list the '
    "background's id too, such as 0,1,background (docs/own_data.md)")
_KIND = 'a label map: JSON, or lines of id,class,name'


class LabelMap(NamedTuple):
  """Trained classes; made by `read` or `from_json`, or ADE20K."""
  # By class; the first one is the ignored class.
  names: Tuple[str, ...]
  # The ids on disk of each class, sorted; none for the first class.
  ids: Tuple[Tuple[int, ...], ...]

  @property
  def num_classes(self) -> int:
    """Number of classes, including the ignored one."""
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
    # Many data sets mark unlabelled pixels with 255. In ADE20K, an id this high
    # shows that the file is not a label.
    return (constants.LARGEST_LABEL_ON_DISK if self == ADE20K else NUM_IDS - 1)

  @property
  def palette(self) -> Tuple[Tuple[int, int, int], ...]:
    """A colour per class, RGB in 0..255; black for the first one."""
    if self == ADE20K:
      return constants.PALETTE
    return tuple(map(_colour, range(self.num_classes)))

  def counts(self, pixels: Sequence[int]) -> Tuple[int, ...]:
    """Sums pixels by class.

    Args:
      pixels: number of pixels of each of the NUM_IDS ids.
    """
    found = [0] * self.num_classes
    for index, count in zip(self.table, pixels):
      found[index] += count
    return tuple(found)

  def class_text(self, number: int) -> str:
    """Returns the class of an id as text, such as '2 ground'."""
    index = self.table[number]
    return '{} {}'.format(index, self.names[index])

  def to_json(self) -> Dict[str, Any]:
    """Returns the map as a dict that json can write and from_json reads."""
    return {'classes': [
        {'class': index, 'name': self.names[index], 'ids': list(ids)}
        for index, ids in enumerate(self.ids) if index]}


ADE20K = LabelMap(
    constants.CLASS_NAMES,
    ((),) + tuple((index,) for index in range(1, constants.NUM_CLASSES)))


def of_model(num_classes: int, known: Optional[LabelMap] = None) -> LabelMap:
  """Returns the label map with the names and colours of a model's classes.

  Args:
    num_classes: number of the model's classes.
    known: the label map stored with the model; None if there is none.

  Returns:
    `known` if it has that many classes. Otherwise ADE20K if it has that many,
    which is an assumption; otherwise a map with names such as 'class 7'.
  """
  for label_map in (known, ADE20K):
    if label_map and label_map.num_classes == num_classes:
      return label_map
  numbers = range(1, num_classes)
  return LabelMap(
      (ADE20K.names[0],) + tuple(map('class {}'.format, numbers)),
      ((),) + tuple((n,) if n < NUM_IDS else () for n in numbers))


def _colour(index):
  """Returns a class's colour; neighbouring classes differ strongly."""
  # The colour map of PASCAL VOC: the index's bits, from the lowest one on, are
  # the highest bits of red, green and blue in turn.
  red_green_blue = [0, 0, 0]
  for place in range(8):
    for channel in range(3):
      red_green_blue[channel] |= (index >> channel & 1) << (7 - place)
    index >>= 3
  return tuple(red_green_blue)


# --- Files -----------------------------------------------------------------


class _Entry(NamedTuple):
  """An id of a class; a value may be of any type until it is checked."""
  id: Any
  label: Any
  name: Any
  # Its place in the file, for messages.
  place: str


def read(path: str) -> LabelMap:
  """Reads a label map from a JSON or CSV file.

  Raises:
    InputError: there is no such file, or it is not a label map.
    OSError: it cannot be read.
  """
  given = option('label_map', path)
  text = checked_read.read_text(path, given, _KIND)
  is_json = text.lstrip()[:1] in ('{', '[')
  content = checked_read.read_json(path, given, _KIND) if is_json else None
  try:
    return from_json(content) if is_json else _from_entries(
        _entries_of_csv(text))
  except InputError as error:
    raise InputError('{}: {}', given, str(error))


def from_json(content: Any) -> LabelMap:
  """Makes a LabelMap from a dict as LabelMap.to_json returns.

  Raises:
    InputError: it is not a valid map; the message has no file name.
  """
  return _from_entries(_entries_of_json(content))


def optional_from_json(content: Any, path: str) -> Optional[LabelMap]:
  """Reads the key `label_map` of a file; returns None if it has none.

  Args:
    content: the file's content, a dict.
    path: the file, for messages.

  Raises:
    InputError: the key's value is not a label map.
  """
  if content.get('label_map') is None:
    return None
  try:
    return from_json(content['label_map'])
  except InputError as error:
    raise InputError('{}: label_map: {}'.format(path, error))


def json_entry(label_map: LabelMap) -> Dict[str, Any]:
  """Returns a dict for optional_from_json to read: {} for ADE20K."""
  return {} if label_map == ADE20K else {'label_map': label_map.to_json()}


def _entries_of_json(content):
  classes = content.get('classes') if isinstance(content, dict) else None
  if not isinstance(classes, list):
    raise InputError('expected {"classes": [{"class": 1, "name": "...", "ids": '
                    '[...]}, ...]}')
  entries = []
  for position, one in enumerate(classes, 1):
    place = 'entry {}'.format(position)
    if not isinstance(one, dict) or set(one) - {'class', 'name', 'ids'}:
      raise InputError(place + ' of classes: expected class, name and ids')
    ids = one.get('ids')
    if not isinstance(ids, list) or not ids:
      raise InputError(
          place + ' of classes: expected ids, a list of at least one number')
    entries += [_Entry(number, one.get('class'), one.get('name'), place)
                for number in ids]
  return entries


def _entries_of_csv(text):
  entries = []
  header = None
  expected = '{} {}; expected ' + ','.join(_COLUMNS)
  rows = csv.reader(text.splitlines(), skipinitialspace=True, strict=True)
  try:
    for row in rows:
      cells = [cell.strip() for cell in row]
      if not any(cells) or cells[0].startswith('#'):
        continue
      place = 'line {}'.format(rows.line_num)
      if header is None:
        header = cells
      elif len(cells) == len(_COLUMNS):
        entries.append(_Entry(_number(cells[0]), _number(cells[1]), cells[2],
                              place))
        continue
      if cells != _COLUMNS:
        raise InputError(
            expected.format(place, 'is ' + _shown(','.join(cells))))
  except csv.Error as error:
    raise InputError(
        expected.format('line {}:'.format(rows.line_num), error))
  return entries


def _number(cell):
  """Returns the integer in a cell, or the cell's text if it has none."""
  # int() also accepts '1_0' and digits of other scripts.
  return int(cell) if re.fullmatch('-?[0-9]{1,9}', cell) else cell


def _from_entries(entries):
  """Makes a LabelMap from _Entry objects, or raises InputError."""
  other = constants.IGNORE_LABEL
  names = {other: constants.CLASS_NAMES[other]}
  ids: Dict[int, List[int]] = {other: []}
  places: Dict[int, str] = {}
  for entry in entries:
    problem = _problem(entry, names, places)
    if problem:
      raise InputError('{}: {}'.format(entry.place, problem))
    places[entry.id] = entry.place
    names[entry.label] = entry.name
    ids.setdefault(entry.label, []).append(entry.id)
  count = max(names)
  if not count:
    raise InputError('lists no class; expected at least class 1')
  missing = sorted(set(range(count)) - set(names))
  if missing:
    raise InputError('no id of class {}, but of class {}; expected classes 1, '
                    '2, ... without a gap'.format(missing[0], count))
  # An id listed as class 0 means the same as an id that is not listed.
  ids[constants.IGNORE_LABEL] = []
  classes = range(count + 1)
  return LabelMap(tuple(names[index] for index in classes),
                  tuple(tuple(sorted(ids[index])) for index in classes))


def _problem(entry, names, places):
  """Returns the problem with an entry, alone or together with earlier ones.

  Args:
    entry: _Entry.
    names: names of the classes before it.
    places: places of the ids before it.
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
    problem = ('; expected a name of 1 to {} visible characters in UTF-8'
               .format(_LONGEST_NAME))
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


# --- Several label maps ----------------------------------------------------

# The source of a label map: a file, an option, or a word.
Source = Union[str, errors.Option]


def agreed(*sources: Tuple[Source, Optional[LabelMap]]) -> LabelMap:
  """Returns the label map that all sources agree on; ADE20K if none has one.

  Args:
    *sources: pairs of a source and its map; None: it has no map.

  Raises:
    InputError: two maps differ.
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
  """Returns an id and its class in each map, if they differ; None: same."""
  for number in range(NUM_IDS):
    texts = first.class_text(number), second.class_text(number)
    if texts[0] != texts[1]:
      return (number,) + texts
  return None
