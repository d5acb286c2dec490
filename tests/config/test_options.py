"""Tests the definition and the checks of options."""
import copy
import inspect
import pickle
from typing import NamedTuple, Optional, Tuple

import pytest
import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab.config import fields
from deeplab.config import options as options_lib
from deeplab.errors import InputError
from deeplab.nets import deeplab_v3

CLASSES = [cls for _, cls in inspect.getmembers(options_lib, inspect.isclass)
           if hasattr(cls, '_definitions')]
FIELDS = [(cls, name, fields.definitions(cls)[name])
          for cls in CLASSES for name in cls._fields]


def made(cls, **changes):
  """Returns options of a class, with values for required fields."""
  required = {
      name: definition.choices[0] if definition.choices else 'x'
      for name, definition in fields.definitions(cls).items()
      if definition.is_required}
  return cls(**dict(required, **changes))


def refusal(field, value):
  """Returns the error message for a value of a field."""
  with pytest.raises(InputError) as error:
    field.checked(value)
  message = str(error.value)
  assert message.startswith(field.name + '=') and ': expected ' in message
  assert '\n' not in message and len(message) < 250
  return message


def test_every_field_has_a_description_and_a_valid_default():
  assert len(CLASSES) >= 15 and options_lib.ModelOptions in CLASSES
  for cls, name, definition in FIELDS:
    assert definition.help.endswith('.') and '--' not in definition.help
    if not definition.is_required:
      assert definition.checked(definition.default) == definition.default
      assert getattr(made(cls), name) == definition.default
    if definition.length:
      assert definition.form


def test_options_are_named_tuples():
  for cls in CLASSES:
    options = made(cls)
    assert cls(*options) == options and hash(options)
    assert copy.deepcopy(options) == options
    assert pickle.loads(pickle.dumps(options)) == options
    assert type(options._replace()) is cls
    assert options_lib.from_json(cls, options_lib.to_json(options)) == options
    with pytest.raises(TypeError):
      cls(no_such_field=1)


@fields.options
class Walk(NamedTuple):
  """A walk, with a field of every kind."""
  name: str = fields.required('Name.')
  steps: int = fields.field(5, 'Steps.', least=1, most=9)
  pace: float = fields.field(1.0, 'Pace.', above=0, below=2)
  foot: str = fields.field('left', 'Foot.', choices=('left', 'right'))
  is_slow: bool = fields.field(False, 'Whether it is slow.')
  size: Tuple[int, int] = fields.field((1, 2), 'Size.', least=0, most=9,
                                       form='HEIGHT,WIDTH')
  turns: Tuple[float, ...] = fields.field((), 'Turns.', least=0, most=9)
  end: Optional[int] = fields.field(None, 'End.', least=0, most=9)


@pytest.mark.parametrize('name, taken, refused', [
    ('name', ['x'], [7, b'x', None, False, 'a\0b']),
    ('steps', [1, 9], [0, 10, 8.0, True, 'x', None, 2 ** 70, float('nan'), (),
                       object()]),
    ('pace', [1, 1e-6, 2 - 1e-6], [0, 2, float('inf'), float('nan'), 10 ** 400,
                                   1j, '1', None]),
    ('foot', ['right'], ['', 'LEFT', None, 1]),
    ('is_slow', [True], [0, 1, 'true', None]),
    ('size', [(0, 9), [3, 4]], [(1,), (1, 2, 3), (1, 10), 5, (1, 2.0), [[]]]),
    ('turns', [(), (1, 2.5)], [(10,), (float('nan'),), 'x', {}]),
    ('end', [None, 0], [10, -1, 'x', 1.5]),
])
def test_a_field_accepts_values_of_its_type_within_its_bounds(
    name, taken, refused):
  field = fields.definitions(Walk)[name]
  for value in taken:
    assert field.checked(value) == (
        tuple(value) if isinstance(value, list) else value)
  for value in refused:
    refusal(field, value)
    with pytest.raises(InputError):
      Walk('x')._replace(**{name: value})


def test_an_error_message_gives_the_expected_values():
  definitions = fields.definitions(Walk)
  assert refusal(definitions['steps'], 0) == (
      'steps=0: expected a whole number from 1 to 9')
  assert refusal(definitions['foot'], 'both') == (
      'foot=both: expected left or right')
  assert refusal(definitions['size'], (1,)) == (
      'size=1: expected HEIGHT,WIDTH, each a whole number from 0 to 9')


def test_values_are_converted_to_the_type_of_the_field():
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
def test_contradictory_model_options_are_refused(changes, message):
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
def test_contradictory_preprocessing_options_are_refused(changes, message):
  with pytest.raises(InputError) as error:
    options_lib.PreprocessOptions(**changes)
  assert str(error.value) == message


@pytest.mark.parametrize('factor', [1, 16, 64])
def test_factors_below_the_limit_are_accepted(factor):
  options_lib.PreprocessOptions(
      min_resize_value=65, max_resize_value=65, resize_factor=factor)
  options_lib.PreprocessOptions(resize_factor=factor)


def test_a_deviation_of_zero_is_refused():
  for deviation in (0.0, 0.99):
    with pytest.raises(InputError, match='a deviation above 0'):
      made(options_lib.ConversionOptions,
           quantized_input_stats=(128.0, deviation))


def graph_of(model):
  """Returns the nodes of a tiny network's graph, as bytes."""
  with tf.Graph().as_default() as graph:
    logits = deeplab_v3.logits(
        tf.zeros([1] + list(model.crop_size) + [3]), model)
    predictions = deeplab_v3.predictions(logits, model)
    assert predictions.op.name == constants.OUTPUT_NODE
    assert predictions.shape.as_list() == [1] + list(model.crop_size)
    definition = graph.as_graph_def()
  return sorted(node.SerializeToString(deterministic=True)
                for node in definition.node)


@pytest.mark.slow
def test_every_model_option_changes_the_graph(shallow):
  tiny = options_lib.ModelOptions(
      crop_size=(33, 33), decoder_output_stride=(4,))
  plain = graph_of(tiny)
  for change in (
      {'num_classes': 21},
      {'output_stride': 8},
      {'decoder_output_stride': ()},
      {'decoder_output_stride': (4, 8)},
      {'atrous_rates': (6, 12)},
      {'depth_multiplier': 0.5},
      {'depth_multiplier': 0.5, 'divisible_by': 16},
      {'aspp_convs_filters': 128},
      {'aspp_with_concat_projection': False},
      {'atrous_rates': (6,), 'aspp_with_separable_conv': False},
      {'image_pooling_crop_size': (17, 17)},
      {'image_pooling_crop_size': (17, 17), 'image_pooling_stride': (2, 2)},
      {'decoder_filters': 64},
      {'decoder_use_separable_conv': False},
      {'decoder_use_sum_merge': True},
      {'decoder_output_is_logits': True},
      {'decoder_use_sum_merge': True, 'decoder_output_is_logits': True},
      {'use_bounded_activation': True},
      {'prediction_with_upsampled_logits': False}):
    changed = tiny._replace(**change)
    last = list(change)[-1]
    without = changed._replace(**{last: getattr(tiny, last)})
    assert graph_of(changed) != (
        plain if without == tiny else graph_of(without)), change
