"""Makes flags from fields of options, and options from parsed flags.

Type, default, bounds and help of a flag come from the options field that it
sets (deeplab.config.fields).
"""
from typing import (
  Any,
  Callable,
  Collection,
  Dict,
  Mapping,
  NamedTuple,
  Optional,
  Tuple,
)

from absl import flags

from deeplab import errors
from deeplab.config import fields
from deeplab.errors import InputError
from deeplab.system import environment

# Makes flags belong to the script that requests them, also in --help.
flags.disclaim_key_flags()

# Parity: common.py and export_model.py of the reference define these lists as
# repeated flags. Other lists have commas, which these flags also accept.
_REPEATED = ('atrous_rates', 'crop_size', 'inference_scales', 'label_weights')


class Group(NamedTuple):
  """The flags for one class of options."""
  options: type
  # Flag names by field, if they differ from the field's name.
  names: Mapping[str, str] = {}
  # Defaults by field, if they differ from the field's default.
  defaults: Mapping[str, Any] = {}
  # Fields without a flag.
  without: Collection[str] = ()
  # Values of fields that have no flag.
  given: Mapping[str, Any] = {}
  # Template of the name that error messages use for a renamed field.
  mention: str = '{}'

  def flags(self) -> Dict[str, str]:
    """Returns the flag names by field, for the fields that have a flag."""
    return {field: self.names.get(field, field)
            for field in fields.definitions(self.options)
            if field not in self.without and field not in self.given}


class Script(NamedTuple):
  """The command line of a script."""
  # Keyword argument of the script's main: the flags that it is made from.
  groups: Mapping[str, Group] = {}
  # Names from environment.ENVIRONMENTS, the recommended one first, and
  # environment.TFLITE if any TFLite interpreter suffices; (): no TensorFlow.
  environments: Tuple[str, ...] = ()
  # Defines additional flags that set no field.
  define: Optional[Callable[[flags.FlagValues], None]] = None
  # Makes main's keyword arguments, if they are not one object per group.
  make: Optional[Callable[
      [flags.FlagValues, Mapping[str, Group]], Dict[str, Any]]] = None
  # Flag that takes the positional arguments; None: they are refused.
  words: Optional[str] = None

  @property
  def needs_tensorflow(self) -> bool:
    """Whether the script always imports TensorFlow."""
    return bool(self.environments) and (
        environment.TFLITE not in self.environments)

  def define_flags(self, flag_values: flags.FlagValues) -> None:
    """Defines all flags of the script."""
    for group in self.groups.values():
      _define_group(flag_values, group)
    if self.define:
      self.define(flag_values)

  def arguments(self, flag_values: flags.FlagValues) -> Dict[str, Any]:
    """Returns main's keyword arguments.

    Args:
      flag_values: parsed.

    Raises:
      InputError: a required flag is missing, or a value is out of bounds.
    """
    if self.make:
      return self.make(flag_values, self.groups)
    return {keyword: make(flag_values, group)
            for keyword, group in self.groups.items()}


# --- Flags from fields -----------------------------------------------------


def _define_group(flag_values, group):
  """Defines a flag per field; an existing flag sets this field, too."""
  definitions = fields.definitions(group.options)
  for field, name in group.flags().items():
    if name not in flag_values:
      definition = definitions[field]
      _define_flag(flag_values, name, definition,
                   group.defaults.get(field, definition.default))
      flag_values[name].sets = {}
    flag_values[name].sets[group.options, field] = (
        group.mention.format(field) if field in group.names else field)


def _define_flag(flag_values, name, definition, default):
  """Defines the flag of a field."""
  define: Callable[..., Any]
  if definition.length is not None and name in _REPEATED:
    parser = (flags.IntegerParser if definition.kind is int
              else flags.FloatParser)()
    flags.DEFINE_flag(_Numbers(
        parser, flags.ArgumentSerializer(), name, list(default or []) or None,
        definition.help), flag_values)
    return
  elif definition.length is not None:
    define = flags.DEFINE_list
    default = [element if isinstance(element, str) else '{:g}'.format(element)
               for element in default or []] or None
  elif definition.kind is str and definition.choices:
    flags.DEFINE_enum(name, default, list(definition.choices), definition.help,
                      flag_values=flag_values)
    return
  else:
    by_kind: Dict[type, Callable[..., Any]] = {
        int: flags.DEFINE_integer, float: flags.DEFINE_float,
        bool: flags.DEFINE_boolean, str: flags.DEFINE_string}
    define = by_kind[definition.kind]
  define(name, default, definition.help, flag_values=flag_values)


class _Numbers(flags.MultiFlag):
  """A repeated flag of numbers that also takes comma-separated ones."""

  def parse(self, arguments):
    super().parse(
        arguments.split(',') if isinstance(arguments, str) else arguments)


# --- Options from flags ----------------------------------------------------


def make(flag_values: flags.FlagValues, group: Group, **given: Any) -> Any:
  """Returns a group's options.

  Args:
    flag_values: parsed.
    group: a group whose flags are defined.
    **given: values of fields without a flag.

  Raises:
    InputError: a required flag is missing, or a value is out of bounds.
  """
  definitions = fields.definitions(group.options)
  values = dict(group.given, **given)
  for field, name in group.flags().items():
    if field not in values:
      values[field] = value_of(flag_values[name], definitions[field])
  return group.options(**values)


def value_of(flag: flags.Flag, definition: fields.Field) -> Any:
  """Returns a flag's value in the field's type.

  Raises:
    InputError: a required flag is missing, or an element is no number.
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
