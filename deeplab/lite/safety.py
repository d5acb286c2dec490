"""What a TFLite file is, and asks to be run, before an interpreter is given it.

Identifier and list of operators are all that is looked at, with the standard
library alone: scores are measured where there is an interpreter and nothing
else.
"""
import struct
from typing import Union

from deeplab import inputs
from deeplab.errors import InputError
from deeplab.errors import Option

_IDENTIFIER = b'TFL3'  # bytes 4 to 8 of every TFLite file
# The kind of operator whose code is not TFLite's own: it is looked up by name,
# and TensorFlow's interpreter finds all of TensorFlow's under 'Flex...'.
_CUSTOM = 32
# Positions of fields in the format's tables (FlatBuffers).
_MODEL_OPERATOR_CODES = 1
# Files from before 2020 have the first only, a byte; later ones have both.
_CODE_DEPRECATED, _CODE_CUSTOM_NAME, _CODE_BUILTIN = 0, 1, 3


def read(path: str, name: Union[str, Option], remedy: str = '') -> bytes:
  """Returns the bytes of a file, if they are a TFLite model's.

  Args:
    path: the file.
    name: the path, or the option with it, for messages.
    remedy: what to say where there is no such file.

  Raises:
    InputError: there is none, or it is larger than any such model, another kind
      of file, or has custom operators.
  """
  content = inputs.read(path, name, 'a TFLite model', remedy)
  check(content, name)
  return content


def check(content: bytes, name: Union[str, Option]) -> None:
  """Refuses what is no TFLite model, or has operators that are not its own.

  Args:
    content: bytes of the file.
    name: the file's path, or the option with it, for messages.

  Raises:
    InputError: naming the operator; or the list cannot be read, or there is
      none.
  """
  if content[4:8] != _IDENTIFIER:
    raise InputError(
        '{}: not a TFLite model (bad identifier {}, expected {})', name,
        content[4:8], _IDENTIFIER)
  try:
    custom = next(_custom_operators(content), None)
  except struct.error:
    raise InputError('{}: damaged or cut off TFLite model ({} bytes)', name,
                     len(content))
  if custom is not None:
    # ascii() keeps control characters from the terminal.
    raise InputError(
        '{}: has the custom operator {}, which no network like this one has; '
        'refused, as it could run anything', name,
        ascii(custom.decode('utf-8', 'replace'))[1:-1] or 'without a name')


def _custom_operators(content):
  """Yields the names of custom operators, as bytes."""
  codes = _field(content, _follow(content, 0), _MODEL_OPERATOR_CODES)
  if codes is None:
    return
  vector = _follow(content, codes)
  length, = _unpack('<I', content, vector)
  for index in range(length):
    code = _follow(content, vector + 4 + 4 * index)
    kinds = [_unpack(form, content, place)[0] for form, place in (
        ('<b', _field(content, code, _CODE_DEPRECATED)),
        ('<i', _field(content, code, _CODE_BUILTIN))) if place is not None]
    # Old interpreters go by one field, new ones by the larger of the two.
    if _CUSTOM in kinds:
      yield _string(content, _field(content, code, _CODE_CUSTOM_NAME))


def _string(content, place):
  if place is None:
    return b''
  start = _follow(content, place)
  length, = _unpack('<I', content, start)
  return _unpack('{}s'.format(length), content, start + 4)[0]


def _follow(content, place):
  """Returns where the offset that stands at a place leads."""
  return place + _unpack('<I', content, place)[0]


def _field(content, table, number):
  """Returns where a table has a field; None where it has none."""
  layout = table - _unpack('<i', content, table)[0]
  size, = _unpack('<H', content, layout)
  place = 4 + 2 * number
  if place + 2 > size:
    return None
  offset, = _unpack('<H', content, layout + place)
  return table + offset if offset else None


def _unpack(form, content, place):
  if place < 0:  # struct would count from the end
    raise struct.error('before the beginning')
  return struct.unpack_from(form, content, place)
