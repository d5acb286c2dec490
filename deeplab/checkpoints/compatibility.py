"""Compares checkpoints with a graph and with the options beside them."""
import logging
import os
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

from deeplab import constants
from deeplab import errors
from deeplab.checkpoints import read
from deeplab.config import label_map as label_maps
from deeplab.config import options as options_lib
from deeplab.config.fields import definitions
from deeplab.errors import InputError
from deeplab.errors import Message
from deeplab.errors import option
from deeplab.errors import some_of
from deeplab.storage import checked_read
from deeplab.storage import files
from deeplab.storage import remote
from deeplab.system import progress

_LOG = logging.getLogger(__name__)
# Model options that an evaluation may change: they change no variable, and the
# decay is used only in training.
_FREE_AT_EVALUATION = ('crop_size', 'output_stride', 'batch_norm_decay')
_FREE_ON_RESUME = ('crop_size',)
# With quantization, their values do not change the set of variables.
_QUANTIZATION = ('quantize_delay_step', 'fake_quant')


def check_fits(
    prefix: str, graph_variables: Mapping[str, List[int]]) -> None:
  """Checks that a checkpoint fits a graph; suggests the likely wrong option.

  Args:
    prefix: checkpoint prefix.
    graph_variables: name and shape of the variables that the graph restores.

  Raises:
    InputError: variables are missing, have another shape, or are in the
      checkpoint but unused by the graph.
  """
  stored = read.variables_in(prefix)
  missing = sorted(set(graph_variables) - set(stored))
  unused = sorted(name for name in set(stored) - set(graph_variables)
                  if read.is_model_variable(name) and
                  not name.startswith(constants.DROPOUT_SCOPE + '/'))
  reshaped = other_shapes(stored, graph_variables)
  problems = []
  if missing:
    problems.append('lacks ' + named(missing))
  if unused:
    problems.append('has unused ' + named(unused))
  if reshaped:
    problems.append('differs in shape: ' + some_of(list(reshaped.values())))
  if problems:
    raise InputError('{}: {}{}', prefix, '; '.join(problems),
                     _likely_option(missing, unused, reshaped, stored))


def other_shapes(stored: Mapping[str, Sequence[int]],
                 expected: Mapping[str, Sequence[int]]) -> Dict[str, str]:
  """Describes variables with other shapes than expected: texts by name.

  Args:
    stored: shapes in the checkpoint, by name.
    expected: shapes by name.
  """
  return {name: '{} is {}, expected {}'.format(
      name, list(stored[name]), list(expected[name]))
          for name in sorted(set(stored) & set(expected))
          if list(stored[name]) != list(expected[name])}


def named(names: Sequence[str]) -> str:
  """Returns '2 variables (a, b)'."""
  return '{} ({})'.format(
      progress.counted(len(names), 'variable'), some_of(names))


def _likely_option(missing, unused, reshaped, stored):
  """Guesses the wrong option from the names of the variables."""
  def in_scope(scope, names):
    return any(name.startswith(scope) for name in names)

  classes = stored.get('logits/semantic/weights', [None])[-1]
  has_decoder = in_scope(constants.DECODER_SCOPE, stored)
  wants_decoder = in_scope(constants.DECODER_SCOPE, missing)
  drops_decoder = in_scope(constants.DECODER_SCOPE, unused)
  for is_likely, hint, *options in (
      (not in_scope(constants.BACKBONE_SCOPE, stored),
       'it is not a checkpoint of this network'),
      (any(map(read.is_quantization_variable, unused)),
       'it was trained quantization-aware: add {}',
       option('quantize_delay_step', 0)),
      (any(map(read.is_quantization_variable, missing)),
       'it is a float checkpoint: drop {}', option('quantize_delay_step')),
      (drops_decoder and not wants_decoder,
       'was it trained with {}?', option('decoder_output_stride', 4)),
      (wants_decoder and not has_decoder,
       'it has no decoder: drop {}', option('decoder_output_stride')),
      (in_scope(constants.LOGITS_SCOPE, reshaped),
       'it has {} classes: give {}', classes, option('num_classes', classes)),
      (True, 'was it trained with other options of the network, such as {} or '
       '{}?', option('depth_multiplier'), option('atrous_rates'))):
    if is_likely:
      return Message('; ' + hint, *options)
  return ''


# --- Options beside the checkpoint -----------------------------------------


class WrittenOptions(NamedTuple):
  """Options that the checkpoints of a folder were made with."""
  # The network's structure.
  model: options_lib.ModelOptions
  # From TrainOptions; None: rebuilt, not trained.
  optimizer: Optional[str]
  # Other options that affect the training steps, by name; {}: unknown.
  recipe: Dict[str, Any]


def write_options(folder: str, model_options: options_lib.ModelOptions, *,
                  optimizer: Optional[str],
                  recipe: Optional[Dict[str, Any]] = None) -> None:
  """Writes the options of the checkpoints in a folder, as JSON beside them."""
  content = {'model': options_lib.to_json(model_options),
             'optimizer': optimizer}
  if recipe:
    content['training'] = recipe
  files.write_json(os.path.join(folder, constants.MODEL_OPTIONS_FILE), content)


def read_options(folder: str) -> Optional[WrittenOptions]:
  """Reads the options that write_options wrote; None if there is no file.

  Raises:
    InputError: the file is not one that write_options wrote.
  """
  path = os.path.join(folder, constants.MODEL_OPTIONS_FILE)
  if not remote.exists(path):
    return None
  content = checked_read.read_json(
      path, path,
      'options as train.py writes them; remove the file to do without')
  try:
    return _options_from_json(content)
  except InputError as error:
    # Named by field, not by flag, because the user gave no flag.
    raise InputError('{}: {}; remove the file to do without'.format(
        path, error))


def label_map_of(path: str) -> Optional[label_maps.LabelMap]:
  """Returns the classes of checkpoints; None if they are unknown.

  Args:
    path: folder, prefix or file of the checkpoints; it need not exist.

  Raises:
    InputError: the options beside them cannot be read.
  """
  written = read_options(
      path if remote.is_folder(path) else os.path.dirname(path))
  return (written.model.label_map or label_maps.ADE20K) if written else None


def _options_from_json(content):
  """Returns WrittenOptions from the content of the file."""
  if not isinstance(content, dict) or not isinstance(
      content.get('model'), dict):
    raise InputError('expected a dict that has a dict as model')
  optimizer = content.get('optimizer')
  if optimizer is not None:
    definition = definitions(options_lib.TrainOptions)['optimizer']
    optimizer = definition.checked(optimizer)
  recipe = content.get('training', {})
  if not isinstance(recipe, dict):
    raise InputError('expected a dict as training')
  return WrittenOptions(
      options_lib.from_json(options_lib.ModelOptions, content['model']),
      optimizer, recipe)


def with_classes_of(prefix: str, model_options: options_lib.ModelOptions,
                    num_classes: Optional[int]) -> options_lib.ModelOptions:
  """Returns options with the classes that a checkpoint was trained on.

  Args:
    prefix: checkpoint prefix.
    model_options: options of the same network; returned unchanged if the
      checkpoint has no label map of its own.
    num_classes: the number of classes that the user gave, or None.

  Raises:
    InputError: the checkpoint has another number of classes.
  """
  label_map = label_map_of(prefix)
  if label_map in (None, label_maps.ADE20K):
    return model_options
  if num_classes not in (None, label_map.num_classes):
    raise InputError('{}: trained on {} classes of a label map, got {}; drop '
                     'it', prefix, label_map.num_classes,
                     option('num_classes', num_classes))
  return model_options.with_classes(label_map)


def check_options(
    prefix: str, model_options: options_lib.ModelOptions) -> None:
  """Checks that options equal the options written beside the checkpoint.

  Raises:
    InputError: names every option that differs.
  """
  written = read_options(os.path.dirname(prefix))
  if written is None:
    return
  trained = written.model
  differences = _differences(trained, model_options, _FREE_AT_EVALUATION)
  if differences:
    raise InputError('{}: {}', prefix, errors.joined('; ', differences))
  if trained.output_stride != model_options.output_stride:
    _LOG.warning('%s was trained with %s, used with %d', prefix,
                 option('output_stride', trained.output_stride),
                 model_options.output_stride)


def check_resumable(folder: str, model_options: options_lib.ModelOptions, *,
                    optimizer: str, recipe: Dict[str, Any]) -> None:
  """Checks that a resumed run has the same network and optimizer as before.

  Other differences, such as the learning rate, are logged.

  Raises:
    InputError: names every option that differs.
  """
  written = read_options(folder)
  if written is None:
    return
  differences = _differences(written.model, model_options, _FREE_ON_RESUME)
  if written.optimizer != optimizer:
    differences.append(Message(
        '{}: was {}, now {}', option('optimizer'), written.optimizer,
        optimizer))
  if differences:
    raise InputError(
        '{} was made with other options ({}); use a new {}',
        option('train_logdir', folder), errors.joined('; ', differences),
        option('train_logdir'))
  for name in sorted(set(written.recipe) & set(recipe)):
    before, now = written.recipe[name], recipe[name]
    if before != now and name == 'records':
      _LOG.warning('resuming with other records than before: the names or '
                   'sizes of the shards differ')
    elif before != now:
      _LOG.warning('resuming with another %s than before: %s, was %s',
                   option(name), _in_words(now), _in_words(before))


def _differences(trained, given, free):
  """Returns 'option: trained with x, got y' for each option that differs."""
  found = []
  if trained.is_quantized and not given.is_quantized:
    found.append(Message('trained quantization-aware: add {}',
                         option('quantize_delay_step', 0)))
  if given.is_quantized and not trained.is_quantized:
    found.append(Message('trained in float: drop {}',
                         option('quantize_delay_step')))
  classes = label_maps.difference(*(
      one.label_map or label_maps.ADE20K for one in (trained, given)))
  if classes:
    found.append(Message('{}: id {} was trained as {}, now it is {}',
                         option('label_map'), *classes))
  for name in trained._fields:
    if name == 'label_map' or name == 'num_classes' and classes:
      continue
    before, now = getattr(trained, name), getattr(given, name)
    if name not in free + _QUANTIZATION and before != now and not _rates_fit(
        name, trained, given):
      found.append(Message('{}: checkpoint was trained with {}, got {}',
                           option(name), _in_words(before), _in_words(now)))
  return found


def _rates_fit(name, trained, given):
  """Whether atrous rates may differ, because the output strides do."""
  return (name == 'atrous_rates' and
          trained.output_stride != given.output_stride and
          len(trained.atrous_rates) == len(given.atrous_rates))


def _in_words(value):
  return None if value in (None, ()) else option('', value).text


def options_by_variables(
    stored: Mapping[str, Sequence[int]], path: str
) -> options_lib.ModelOptions:
  """Guesses a network's structure from its variables.

  Args:
    stored: shapes of variables, by name.
    path: the file with the variables, for messages.

  Returns:
    Options; if they do not affect variables, they have the published values.

  Raises:
    InputError: the variables belong to another network.
  """
  logits = constants.LOGITS_SCOPE + '/' + constants.SEMANTIC_SCOPE + '/weights'
  if len(stored.get(logits, [])) != 4:
    raise InputError('{}: lacks {}; it is not of this network', path, logits)
  decoder = any(name.startswith(constants.DECODER_SCOPE + '/')
                for name in stored)
  return options_lib.ModelOptions(
      num_classes=stored[logits][-1],
      decoder_output_stride=(4,) if decoder else (),
      quantize_delay_step=(
          0 if any(map(read.is_quantization_variable, stored)) else -1))
