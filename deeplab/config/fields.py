"""Classes of options whose fields have a type, a default, bounds and help.

    @fields.options
    class WalkOptions(NamedTuple):
      steps: int = fields.field(100, 'Steps to walk.', least=1, most=10 ** 6)

An object of such a class is valid: its constructor and `_replace` check every
field, then call the method `_check`, if the class has one, for conditions on
several fields. A bad value raises InputError with the field's name. Flags are
made from the same definitions; see deeplab.cli.script_flags.
"""
import functools
import math
import numbers
from typing import Any, Dict, NamedTuple, Optional, Tuple, Union, get_type_hints

from deeplab import errors
from deeplab.errors import InputError
from deeplab.storage import remote as remote_lib

_KINDS = {int: 'a whole number', float: 'a number', bool: 'true or false',
          str: 'text'}
# TensorFlow and NumPy convert numbers to int32.
_LARGEST_INT = 2 ** 31 - 1
# Limit on the characters of a bad value in a message.
_QUOTED = 60


class Field(NamedTuple):
  """The definition of a field; made by `field` and `required`."""
  help: str
  default: Any = None
  is_required: bool = False
  # Bounds of the value, or of each element of a tuple; None: no such bound.
  least: Optional[float] = None
  above: Optional[float] = None
  most: Optional[float] = None
  below: Optional[float] = None
  # The only values accepted; (): any within the bounds.
  choices: Tuple[Union[int, str], ...] = ()
  # Whether the text is passed to TensorFlow, which takes names in UTF-8 only.
  in_utf8: bool = False
  # Whether the text may be a remote path; see storage.remote.
  remote: bool = False
  # Minimum length of a tuple of any length.
  fewest: int = 0
  # How a tuple of fixed length is written, such as 'HEIGHT,WIDTH'.
  form: str = ''
  # --- Derived from the field's name and annotation.
  name: str = ''
  # int, float, bool, str or a class of options; of a tuple, its elements' type.
  # object: not known yet.
  kind: type = object
  # Number of elements of a tuple, 0: any; None: not a tuple.
  length: Optional[int] = None
  is_optional: bool = False

  @property
  def expected(self) -> str:
    """Describes the values that the field accepts."""
    if self.choices:
      *others, last = map(str, self.choices)
      element = '{} or {}'.format(', '.join(others), last) if others else last
    elif self.in_utf8:
      element = 'a name in UTF-8, in a locale that has it (such as C.UTF-8)'
    elif self.least is not None and self.most is not None:
      element = '{} from {} to {}'.format(
          _KINDS[self.kind], self.least, self.most)
    else:
      bounds = ['{} {}'.format(words, bound) for words, bound in (
          ('of at least', self.least), ('above', self.above),
          ('at most', self.most), ('below', self.below)) if bound is not None]
      element = ' '.join([_KINDS.get(self.kind, self.kind.__name__)] +
                         [' and '.join(bounds)] * bool(bounds))
    if self.length is None:
      return element
    return '{}, each {}'.format(self.form if self.length else 'a list', element)

  def checked(self, value: Any) -> Any:
    """Returns the value, in the field's own type.

    Raises:
      InputError: the field does not accept it.
    """
    if value is None and self.is_optional:
      return None
    if not self.remote and isinstance(value, str):
      check_local(errors.option(self.name, value), value)
    try:
      if self.length is None:
        return self._element(value)
      if not isinstance(value, (list, tuple)) or len(value) < self.fewest or (
          self.length and len(value) != self.length):
        raise ValueError
      return tuple(map(self._element, value))
    except (ValueError, OverflowError):
      raise self.refusal(value)

  def refusal(self, value: Any) -> InputError:
    """Returns the error for a value that the field does not accept."""
    text = ' '.join(str(errors.option('', value).text).split())
    if len(text) > _QUOTED:
      text = text[:_QUOTED] + '...'
    return InputError('{}: expected {}', errors.option(self.name, text),
                      self.expected)

  def _element(self, value):
    """Returns one value in the field's type, or raises ValueError."""
    wanted: Any = {int: numbers.Integral, float: numbers.Real}.get(
        self.kind, self.kind)
    # A Python bool is a number.
    if not isinstance(value, wanted) or (
        isinstance(value, bool) and self.kind is not bool):
      raise ValueError
    if self.kind is str and '\0' in value:
      raise ValueError  # no file name has a zero byte
    if self.in_utf8:
      value.encode('utf-8')
    if self.kind in (int, float):
      value = self.kind(value)
    if (self.kind is float and not math.isfinite(value) or
        self.least is not None and value < self.least or
        self.above is not None and value <= self.above or
        self.most is not None and value > self.most or
        self.below is not None and value >= self.below or
        self.choices and value not in self.choices):
      raise ValueError
    return value


def field(default: Any, text: str, **bounds: Any) -> Any:
  """Defines a field.

  Args:
    default: value if the field is not given.
    text: its meaning and unit; the help of its flag.
    **bounds: of Field: least, above, most, below, choices, in_utf8, remote,
      fewest, form. Without bounds, numbers are at least 0 and integers fit an
      int32.
  """
  return Field(text, default=default, **bounds)


def required(text: str, **bounds: Any) -> Any:
  """Defines a field that has no default; arguments as for `field`."""
  return Field(text, is_required=True, **bounds)


def check_local(given: errors.Option, path: str) -> None:
  """Raises InputError if the path given by an option is remote."""
  if remote_lib.is_remote(path):
    raise InputError('{}: expected a local path; copy the files to this '
                     'machine first', given)


def options(cls: Any) -> Any:
  """Class decorator: makes a NamedTuple of `field`s check its values.

  Required fields come first.
  """
  hints = get_type_hints(cls)
  defined = {name: _completed(cls._field_defaults[name], name, hints[name])
             for name in cls._fields}
  new = cls.__new__
  cls._field_defaults = {name: definition.default
                         for name, definition in defined.items()
                         if not definition.is_required}
  new.__defaults__ = tuple(cls._field_defaults.values())

  @functools.wraps(new)
  def new_checked(cls, *args, **kwargs):
    values = new(cls, *args, **kwargs)
    made = tuple.__new__(cls, [
        definition.checked(value)
        for definition, value in zip(defined.values(), values)])
    if hasattr(made, '_check'):
      made._check()
    return made

  cls.__new__ = staticmethod(new_checked)
  # _replace calls _make.
  cls._make = classmethod(lambda cls, values: cls(*values))
  cls._definitions = defined
  return cls


def definitions(cls: Any) -> Dict[str, Field]:
  """Returns the Fields of a class of options, by name."""
  return cls._definitions


def _completed(definition, name, hint):
  """Returns a definition completed from the field's name and type hint."""
  # Not __origin__, which differs in Python 3.6.
  arguments: Tuple[Any, ...] = getattr(hint, '__args__', None) or ()
  if type(None) in arguments:
    return _completed(definition, name, arguments[0])._replace(is_optional=True)
  kind, length = hint, None
  if arguments:
    kind = arguments[0]
    length = 0 if arguments[-1] is Ellipsis else len(arguments)
  if kind in (int, float) and not definition.choices:
    if definition.least is None and definition.above is None:
      definition = definition._replace(least=0)
    if definition.most is None and kind is int:
      definition = definition._replace(most=_LARGEST_INT)
  return definition._replace(name=name, kind=kind, length=length)
