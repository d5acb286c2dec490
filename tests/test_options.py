"""Options: defined once, checked where they are made."""
import copy
import inspect
import pickle
from typing import NamedTuple

import pytest

from deeplab import fields
from deeplab import options as options_lib
from deeplab.errors import InputError

CLASSES = [cls for _, cls in inspect.getmembers(options_lib, inspect.isclass)
           if cls.__module__ == options_lib.__name__ and
           hasattr(cls, '_definitions')]
FIELDS = [(cls, name) for cls in CLASSES for name in cls._fields]
NUMBERS = [(cls, name) for cls, name in FIELDS
           if fields.definitions(cls)[name].kind in (int, float)]
# What no number is, and numbers that nothing here can be.
NO_NUMBERS = [True, 'x', b'1', [], (), {}, object(), 1j, float('nan'),
              float('inf'), float('-inf'), float('1e400'), 10 ** 20, 2 ** 70,
              -2 ** 70, 10 ** 400]


def ids(case):
  return case.__name__ if inspect.isclass(case) else case


def made(cls, **changes):
  """Options of a class, with something for each required field."""
  required = {
      name: definition.choices[0] if definition.choices else 'x'
      for name, definition in fields.definitions(cls).items()
      if definition.is_required}
  return cls(**dict(required, **changes))


def in_place(definition, value):
  """The value as the field would have it: in a tuple where it is one."""
  if definition.length is None:
    return value
  return (value,) * (definition.length or 1)


def refused(cls, name, value):
  with pytest.raises(InputError) as error:
    made(cls, **{name: value})
  message = str(error.value)
  assert message.startswith(name + '=') and ': expected ' in message, message
  assert '\n' not in message and len(message) < 250
  with pytest.raises(InputError):
    made(cls)._replace(**{name: value})


def test_every_class_of_options_is_found():
  assert len(CLASSES) >= 15 and options_lib.ModelOptions in CLASSES


@pytest.mark.parametrize('cls, name', NUMBERS, ids=ids)
def test_what_is_no_number_is_refused(cls, name):
  definition = fields.definitions(cls)[name]
  for value in NO_NUMBERS:
    refused(cls, name, in_place(definition, value))
  if definition.kind is int:
    refused(cls, name, in_place(definition, 8.0))


@pytest.mark.parametrize('cls, name', NUMBERS, ids=ids)
def test_numbers_beyond_the_bounds_are_refused_and_others_taken(cls, name):
  definition = fields.definitions(cls)[name]
  step = 1 if definition.kind is int else 1e-6

  def outcome(value):
    return definition.checked(in_place(definition, value))

  if definition.choices:
    refused(cls, name, in_place(definition, max(definition.choices) + 1))
    assert all(outcome(choice) for choice in definition.choices)
    return
  # Every number has bounds on both sides.
  assert (definition.least is None) != (definition.above is None)
  assert (definition.most is None) != (definition.below is None)
  for inside, outside in (
      (definition.least, (definition.least or 0) - step),
      (None if definition.above is None else definition.above + step,
       definition.above),
      (definition.most, (definition.most or 0) + step),
      (None if definition.below is None else definition.below - step,
       definition.below)):
    if inside is not None:
      refused(cls, name, in_place(definition, outside))
      assert outcome(inside) == in_place(definition, inside)


@pytest.mark.parametrize('cls, name', FIELDS, ids=ids)
def test_other_types_are_refused(cls, name):
  definition = fields.definitions(cls)[name]
  values = [object(), {}, 1j, [[]]]
  if definition.kind is not bool:
    values.append(False)
  if definition.kind is bool:
    values += [0, 1, 'true']
  if definition.kind is str:
    values += [7, b'text']
  if not definition.is_optional:
    values.append(None)
  for value in values:
    refused(cls, name, value)
  if definition.length:
    refused(cls, name, (8,) * (definition.length + 1))
  if definition.choices:
    refused(cls, name, in_place(definition, type(definition.choices[0])()))


@pytest.mark.parametrize('cls, name', FIELDS, ids=ids)
def test_every_field_is_described_and_has_a_valid_default(cls, name):
  definition = fields.definitions(cls)[name]
  assert definition.help.endswith('.') and '--' not in definition.help
  if not definition.is_required:
    assert definition.checked(definition.default) == definition.default
    assert getattr(made(cls), name) == definition.default
  if definition.length:
    assert definition.form


@pytest.mark.parametrize('cls', CLASSES, ids=ids)
def test_options_stay_named_tuples(cls):
  options = made(cls)
  assert cls(*options) == options and hash(options)
  assert copy.deepcopy(options) == options
  assert pickle.loads(pickle.dumps(options)) == options
  assert type(options._replace()) is cls
  assert options_lib.from_json(cls, options_lib.to_json(options)) == options
  with pytest.raises(TypeError):
    cls(no_such_field=1)


def test_values_are_put_into_the_type_of_the_field():
  options = options_lib.ModelOptions(
      crop_size=[65, 33], depth_multiplier=1, atrous_rates=[6])
  assert options.crop_size == (65, 33) and options.atrous_rates == (6,)
  assert isinstance(options.depth_multiplier, float)


@pytest.mark.parametrize('changes, message', [
    ({'decoder_output_stride': (16,)},
     'decoder_output_stride=16: expected less than output_stride=16'),
    ({'crop_size': (8, 512)},
     'crop_size=8,512: expected at least output_stride=16 a side'),
    ({'image_pooling_crop_size': (512, 513)},
     'image_pooling_crop_size=512,513: expected at most crop_size=512,512'),
    ({'decoder_output_is_logits': True},
     'decoder_output_is_logits=true: expected a decoder; add '
     'decoder_output_stride=4'),
])
def test_a_model_that_contradicts_itself_is_refused(changes, message):
  with pytest.raises(InputError) as error:
    options_lib.ModelOptions()._replace(**changes)
  assert str(error.value) == message


@pytest.mark.parametrize('changes, message', [
    ({'max_resize_value': 5},
     'max_resize_value=5 without min_resize_value: give both or neither'),
    ({'min_resize_value': 9, 'max_resize_value': 8},
     'max_resize_value=8: expected at least min_resize_value=9'),
    ({'min_resize_value': 65, 'max_resize_value': 65, 'resize_factor': 600},
     'resize_factor=600: expected at most min_resize_value=65'),
    ({'min_resize_value': 65, 'max_resize_value': 65, 'resize_factor': 65},
     'resize_factor=65: expected less than max_resize_value=65'),
    ({'min_scale_factor': 2.5},
     'min_scale_factor=2.5: expected at most max_scale_factor=2.0'),
    ({'scale_factor_step_size': 1e-9},
     'scale_factor_step_size=1e-09: expected 0, or a step that fits 1000 times '
     'between min_scale_factor=0.5 and max_scale_factor=2.0'),
])
def test_preprocessing_that_contradicts_itself_is_refused(changes, message):
  with pytest.raises(InputError) as error:
    options_lib.PreprocessOptions(**changes)
  assert str(error.value) == message


@pytest.mark.parametrize('factor', [1, 16, 64])
def test_factors_below_the_limit_are_taken(factor):
  options_lib.PreprocessOptions(
      min_resize_value=65, max_resize_value=65, resize_factor=factor)
  options_lib.PreprocessOptions(resize_factor=factor)


def test_statistics_of_no_use_to_the_converter_are_refused():
  for deviation in (0.0, 1e-30, -1.0, 0.99):
    refused(options_lib.ConversionOptions, 'quantized_input_stats',
            (128.0, deviation))


def test_a_field_is_all_that_an_option_takes():
  @fields.options
  class Walk(NamedTuple):
    """A walk."""
    steps: int = fields.field(5, 'Steps.', least=1, most=9)

  assert Walk().steps == 5
  with pytest.raises(InputError) as error:
    Walk(steps=0)
  assert str(error.value) == (
      'steps=0: expected a whole number from 1 to 9')
