"""A record's data, held against what readers take; opened without TensorFlow.

TensorFlow 1.15 ends with a segmentation fault on data that are no tf.Example:
its error has them in its text, which Python then fails to decode. What passes
`check_form` can be given to it.
"""
from typing import Dict, NamedTuple, Tuple

from deeplab import contract
from deeplab.data import pairs
from deeplab.errors import InputError

# Tags of the wire format: number and type, the latter 2, of a field that says
# its length.
_FIRST_FIELD = 0x0a
_SECOND_FIELD = 0x12
# Of a field of type 0, a number.
_FIRST_NUMBER = 0x08
# Kinds of a tf.train.Feature, by tag.
_BYTES = _FIRST_FIELD
_INTEGERS = 0x1a
_KINDS = {_BYTES: 'bytes', _SECOND_FIELD: 'floats', _INTEGERS: 'integers'}
# What readers parse, and of what kind it is to be; contract has the names.
_KINDS_BY_KEY = {
    contract.KEY_IMAGE: _BYTES, contract.KEY_LABEL: _BYTES,
    contract.KEY_FILENAME: _BYTES, contract.KEY_HEIGHT: _INTEGERS,
    contract.KEY_WIDTH: _INTEGERS}
_REQUIRED = (contract.KEY_IMAGE, contract.KEY_LABEL)
# As TensorFlow reads lengths: 32 bits, 7 in a byte.
_LENGTH_BYTES = 5
# Where a feature is that is not there.
_NOWHERE = (0, 0)


class Form(NamedTuple):
  """What the form of a tf.Example tells; the images are not decoded."""
  # contract.KEY_FILENAME as it stands there; empty: none.
  filename: str
  image: bytes
  label: bytes


class _NotAnExampleError(Exception):
  """The bytes are no serialized tf.Example."""


def check_form(data: bytes) -> Form:
  """Checks that data are a tf.Example with what readers parse.

  Strict as TensorFlow's own reader is, which is stricter than protobuf: each
  entry has a key and then a value.

  Args:
    data: a record's.

  Raises:
    InputError: in words that go after 'record N'.
  """
  try:
    features = _features(data)
    filename = data[slice(*_value(
        data, features, contract.KEY_FILENAME, _BYTES))].decode(
            'utf-8', 'surrogateescape')
    try:
      found = {key: _value(data, features, key, kind)
               for key, kind in _KINDS_BY_KEY.items()}
      for key in _REQUIRED:
        if found[key] == _NOWHERE:
          raise InputError('no ' + key)
    except InputError as error:
      raise InputError('{}: {}'.format(_called(filename), error))
  except _NotAnExampleError:
    raise InputError('is not a tf.Example')
  return Form(filename, data[slice(*found[contract.KEY_IMAGE])],
              data[slice(*found[contract.KEY_LABEL])])


def check_content(
    data: bytes, largest_id: int = contract.LARGEST_LABEL_ON_DISK) -> None:
  """Checks the rest: decodes the images, as the builder does with files.

  Args:
    data: a record's.
    largest_id: the largest that a label may hold.

  Raises:
    InputError: in words that go after 'record N'.
  """
  form = check_form(data)
  name = _called(form.filename)
  size = pairs.image_facts(
      form.image, '{}: {}'.format(name, contract.KEY_IMAGE))[1]
  label = pairs.decode_label(
      form.label, '{}: {}'.format(name, contract.KEY_LABEL),
      largest_id=largest_id)
  if size != label.size:
    raise InputError('{}: image {}x{}, label {}x{}'.format(
        name, *(size + label.size)))


def _called(filename):
  return '({})'.format(filename or 'no name')


def _features(data: bytes) -> Dict[str, Tuple[int, int]]:
  """Returns where the tf.train.Feature of each key begins and ends."""
  features: Dict[str, Tuple[int, int]] = {}
  position = 0
  while position < len(data):
    position, end = _field(data, position, len(data), _FIRST_FIELD)
    while position < end:
      position, entry_end = _field(data, position, end, _FIRST_FIELD)
      key, key_end = _field(data, position, entry_end, _FIRST_FIELD)
      value, position = _field(data, key_end, entry_end, _SECOND_FIELD)
      if position != entry_end:
        raise _NotAnExampleError
      # Keys of other programs may be anything.
      features[data[key:key_end].decode('latin-1')] = value, position
  return features


def _field(data, position, end, tag):
  """Returns where the content of a field begins and ends.

  Args:
    data: bytes.
    position: where the field begins.
    end: where what it is part of ends.
    tag: what it is to begin with.
  """
  if position >= end or data[position] != tag:
    raise _NotAnExampleError
  length = 0
  for count in range(_LENGTH_BYTES):
    position += 1
    if position >= end:
      break
    length |= (data[position] & 127) << 7 * count
    if data[position] < 128:
      if length < end - position:
        return position + 1, position + 1 + length
      break
  raise _NotAnExampleError


def _value(data, features, key, wanted):
  """Returns where the only value of a feature begins and ends.

  Where there is none, that is _NOWHERE.
  """
  position, end = features.get(key, _NOWHERE)
  if position == end:  # nothing, or a feature of no kind
    return _NOWHERE
  kind = data[position]
  if kind != wanted:
    raise InputError('{} holds {}, expected {}'.format(
        key, _KINDS.get(kind, 'something else'), _KINDS[wanted]))
  position, end = _field(data, position, end, wanted)
  if position == end:
    found = 'no value'
  elif wanted == _BYTES:
    value = _field(data, position, end, _FIRST_FIELD)
    found = 'more' if value[1] < end else ''
  else:
    # One integer, with a tag or as a list; a byte from 128 on is not its last.
    value = (position + 1, end) if data[position] == _FIRST_NUMBER else (
        _field(data, position, end, _FIRST_FIELD))
    lasts = [byte < 128 for byte in data[slice(*value)]]
    found = '' if lasts[-1:] == [True] and sum(lasts) == 1 else 'other than one'
  if found:
    raise InputError('{} holds {}, expected one value'.format(key, found))
  return value
