"""What an option is, said once: type, default, bounds and help of a field.

    @fields.options
    class WalkOptions(NamedTuple):
      steps: int = fields.field(100, 'Steps to walk.', least=1, most=10 ** 6)

An object of such a class is valid: making it and `_replace` check every field,
then call the method `_check`, where the class has one, for what fields must be
to each other. What is wrong raises InputError with the field's name. Flags are
made from the same definitions, in deeplab.script_flags.
"""
import functools
import math
import numbers
from typing import Any, Dict, NamedTuple, Optional, Tuple, Union, get_type_hints

from deeplab import errors
from deeplab import storage
from deeplab.errors import InputError

_KINDS = {int: 'a whole number', float: 'a number', bool: 'true or false',
          str: 'text'}
# A value that cannot be used is quoted up to here.
_QUOTED = 60


class Field(NamedTuple):
  """The definition of a field; made by `field` and `required`."""
  help: str
  default: Any = None
  is_required: bool = False
  # Of the value or, in a tuple, of each element; None: no such bound.
  least: Optional[float] = None
  above: Optional[float] = None
  most: Optional[float] = None
  below: Optional[float] = None
  # The only values there are; (): any within the bounds.
  choices: Tuple[Union[int, str], ...] = ()
  # Whether the text is given to TensorFlow, which takes names in UTF-8 alone.
  in_utf8: bool = False
  # Whether the text may be a path that is not of this machine; see `storage`.
  remote: bool = False
  # Fewest elements of a tuple of any length.
  fewest: int = 0
  # How a tuple of fixed length is written, such as 'HEIGHT,WIDTH'.
  form: str = ''
  # --- From name and annotation of the field.
  name: str = ''
  # int, float, bool, str or a class of options; in a tuple, of the elements;
  # object: not known yet.
  kind: type = object
  # Number of elements of a tuple, 0: any; None: not a tuple.
  length: Optional[int] = None
  is_optional: bool = False

  @property
  def expected(self) -> str:
    """Says what values the field takes."""
    if self.length is None:
      return self._expected_element()
    if self.length == 0:
      return 'a list, each ' + self._expected_element()
    return '{}, each {}'.format(self.form, self._expected_element())

  def _expected_element(self):
    if self.choices:
      *others, last = map(str, self.choices)
      return '{} or {}'.format(', '.join(others), last) if others else last
    if self.in_utf8:
      return 'a name in UTF-8, in a locale that has it (such as C.UTF-8)'
    words = [_KINDS.get(self.kind, self.kind.__name__)]
    if self.least is not None and self.most is not None:
      return '{} from {} to {}'.format(words[0], self.least, self.most)
    for text, bound in (('of at least', self.least), ('above', self.above),
                        ('at most', self.most), ('below', self.below)):
      if bound is not None:
        words.append('{} {}'.format(text, bound))
    return words[0] + ' ' + ' and '.join(words[1:]) if words[1:] else words[0]

  def checked(self, value: Any) -> Any:
    """Returns the value, in the field's own type.

    Raises:
      InputError: where it is no value for this field.
    """
    if value is None and self.is_optional:
      return None
    if not self.remote and isinstance(value, str):
      check_local(errors.option(self.name, value), value)
    try:
      return self._converted(value)
    except (ValueError, OverflowError):
      raise self.refusal(value)

  def refusal(self, value: Any) -> InputError:
    """Returns the error that says what was expected in place of a value."""
    text = ' '.join(str(errors.option('', value).text).split())
    if len(text) > _QUOTED:
      text = text[:_QUOTED] + '...'
    return InputError('{}: expected {}', errors.option(self.name, text),
                      self.expected)

  def _converted(self, value):
    if self.length is None:
      return self._element(value)
    if not isinstance(value, (list, tuple)) or len(value) < self.fewest or (
        self.length and len(value) != self.length):
      raise ValueError
    return tuple(self._element(element) for element in value)

  def _element(self, value):
    """Returns one value in the field's type, or raises ValueError."""
    # Any, as what is of some `type` would be an `object` to mypy.
    wanted: Any = {int: numbers.Integral, float: numbers.Real}.get(
        self.kind, self.kind)
    # To Python, a bool is a number.
    if not isinstance(value, wanted) or (
        isinstance(value, bool) and self.kind is not bool):
      raise ValueError
    if self.kind is str and '\0' in value:
      raise ValueError  # no file can be called so
    if self.in_utf8:
      value.encode('utf-8')
    if self.kind in (int, float):
      value = self.kind(value)
    if self.kind is float and not math.isfinite(value):
      raise ValueError
    if (self.least is not None and value < self.least or
        self.above is not None and value <= self.above or
        self.most is not None and value > self.most or
        self.below is not None and value >= self.below or
        self.choices and value not in self.choices):
      raise ValueError
    return value


def field(default: Any, text: str, **bounds: Any) -> Any:
  """Defines a field.

  Args:
    default: what it is where nothing is given.
    text: what it means, with its unit; the help of its flag.
    **bounds: of Field: least, above, most, below, choices, in_utf8, fewest,
      remote, form.
  """
  return Field(text, default=default, **bounds)


def required(text: str, **bounds: Any) -> Any:
  """Defines a field that has no default; arguments as for `field`."""
  return Field(text, is_required=True, **bounds)


def check_local(given: errors.Option, path: str) -> None:
  """Raises InputError where a path that an option gives is a remote one."""
  if storage.is_remote(path):
    raise InputError('{}: expected a path of this machine; copy what is there '
                     'first', given)


def options(cls: Any) -> Any:
  """Class decorator: makes a NamedTuple of `field`s check its values.

  Fields that are required come first.
  """
  hints = get_type_hints(cls)
  defined = {name: cls._field_defaults[name]._replace(
      name=name, **_of_annotation(hints[name])) for name in cls._fields}
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
  # _replace goes through _make.
  cls._make = classmethod(lambda cls, values: cls(*values))
  cls._definitions = defined
  return cls


def definitions(cls: Any) -> Dict[str, Field]:
  """Returns the Fields of a class of options, by name."""
  return cls._definitions


def _of_annotation(hint):
  """Returns what a type hint says, as a dict of attributes of Field."""
  # Not __origin__, which Python 3.6 has otherwise.
  arguments: Tuple[Any, ...] = getattr(hint, '__args__', None) or ()
  if type(None) in arguments:
    return dict(_of_annotation(arguments[0]), is_optional=True)
  if not arguments:
    return {'kind': hint, 'length': None}
  return {'kind': arguments[0],
          'length': 0 if arguments[-1] is Ellipsis else len(arguments)}
