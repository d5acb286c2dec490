"""Flags made from the definitions of options, and options made from flags."""
from typing import (
  Any,
  Callable,
  Collection,
  Dict,
  Mapping,
  Optional,
  Type,
  TypeVar,
)

from deeplab import errors
from deeplab import fields
from deeplab import options
from deeplab.cli import flags
from deeplab.errors import InputError

flags.disclaim_key_flags()

# Parity: common.py and export_model.py of the reference have these lists as
# flags that are given once for each element; others are one flag, with commas.
_REPEATED = ('atrous_rates', 'crop_size', 'inference_scales', 'label_weights')

RANDOM_SCALING = (
    'min_scale_factor', 'max_scale_factor', 'scale_factor_step_size')


_Options = TypeVar('_Options')


# --- Flags from definitions ------------------------------------------------


def define(flag_values: flags.FlagValues, cls: type, *,
           only: Optional[Collection[str]] = None,
           without: Collection[str] = (),
           names: Optional[Mapping[str, str]] = None,
           defaults: Optional[Mapping[str, Any]] = None,
           mention: str = '{}') -> None:
  """Defines a flag for each field of a class of options.

  A flag that is there already, for another class, sets this field too.

  Args:
    flag_values: what they are defined on.
    cls: class of options.
    only: names of the fields; None: all.
    without: names of fields that get no flag.
    names: the flags' names by field, where they are others.
    defaults: the flags' defaults by field, where they are others.
    mention: template of what messages of the library call the fields.
  """
  for field, definition in fields.definitions(cls).items():
    if field in without or only is not None and field not in only:
      continue
    name = (names or {}).get(field, field)
    is_new = name not in flag_values
    if is_new:
      _define_flag(flag_values, name, definition,
                   (defaults or {}).get(field, definition.default))
    # Any, as absl's flags have no `sets` of their own.
    flag: Any = flag_values[name]
    if is_new:
      flag.sets = {}
    flag.sets[cls, field] = mention.format(field)


def _define_flag(flag_values, name, definition, default):
  """Defines the flag of a field."""
  if definition.length is not None:
    _define_list(flag_values, name, definition, default)
  elif definition.kind is str and definition.choices:
    flags.DEFINE_enum(name, default, list(definition.choices), definition.help,
                      flag_values=flag_values)
  else:
    define_one: Dict[type, Callable[..., Any]] = {
        int: flags.DEFINE_integer, float: flags.DEFINE_float,
        bool: flags.DEFINE_boolean, str: flags.DEFINE_string}
    define_one[definition.kind](
        name, default, definition.help, flag_values=flag_values)


def _define_list(flag_values, name, definition, default):
  """Defines the flag of a field that is a tuple."""
  if name in _REPEATED:
    flags.DEFINE_multi(
        _ElementParser(name, definition.kind), flags.ArgumentSerializer(), name,
        list(default) if default else None, definition.help,
        flag_values=flag_values)
  else:
    flags.DEFINE_list(
        name, [element if isinstance(element, str) else '{:g}'.format(element)
               for element in default] if default else None, definition.help,
        flag_values=flag_values)


class _ElementParser(flags.ArgumentParser):
  """Reads one element of a flag that is given once for each."""

  def __init__(self, name, kind):
    self._name = name
    parsers: Dict[type, Type[flags.ArgumentParser]] = {
        int: flags.IntegerParser, float: flags.FloatParser}
    self._parser = parsers[kind]()
    self.syntactic_help = self._parser.syntactic_help

  def flag_type(self):
    return self._parser.flag_type()

  def parse(self, argument):
    try:
      return self._parser.parse(argument)
    except ValueError:
      elements = str(argument).split(',')
      if len(elements) == 1:
        raise
      raise ValueError('expected one number; give several as ' + ' '.join(
          '--{}={}'.format(self._name, element) for element in elements))


# --- Options from flags ----------------------------------------------------


def make(flag_values: flags.FlagValues, cls: Type[_Options],
         **given: Any) -> _Options:
  """Makes options of a class from the flags that set its fields.

  Args:
    flag_values: parsed.
    cls: class of options.
    **given: fields that are not taken from flags.

  Raises:
    InputError: a required flag that is missing, a value that is out of bounds.
  """
  for name in flag_values:
    for owner, field in getattr(flag_values[name], 'sets', ()):
      if owner is cls and field not in given:
        given[field] = value_of(
            flag_values[name], fields.definitions(cls)[field])
  return cls(**given)


def value_of(flag: flags.Flag, definition: fields.Field) -> Any:
  """Returns a flag's value in the type of a field.

  Raises:
    InputError: a required flag that is missing, a list of something else.
  """
  value = flag.value
  if definition.is_required and not value:
    raise InputError('{} is required: {}', errors.option(definition.name),
                     definition.help)
  if definition.length is None:
    return value
  if not value:
    return None if definition.is_optional else ()
  try:
    return tuple(definition.kind(element) for element in value)
  except ValueError:
    raise definition.refusal(value)


# --- What several scripts share --------------------------------------------


def define_input_flags(flag_values: flags.FlagValues, *, prefix: str,
                       split: str, **defaults: Any) -> None:
  """Defines where images come from: folder, split, batch, crop, resizing.

  Args:
    flag_values: what they are defined on.
    prefix: of the names of some of the flags, 'train' or 'eval'.
    split: default of the split.
    **defaults: of other fields.
  """
  names = {field: '{}_{}'.format(prefix, field)
           for field in ('split', 'batch_size', 'crop_size')}
  defaults['split'] = split
  define(flag_values, options.DatasetOptions, names=names, defaults=defaults,
         without=('seed',))
  define(flag_values, options.PreprocessOptions, names=names,
         defaults=defaults, without=RANDOM_SCALING)
