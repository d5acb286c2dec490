"""Checkpoints: finding, describing, comparing with a graph, restoring."""
import glob
import logging
import os
import re
from typing import (
  Callable,
  Dict,
  Iterable,
  List,
  Mapping,
  Optional,
  Sequence,
  Tuple,
)

import tensorflow.compat.v1 as tf

from deeplab import contract
from deeplab import errors
from deeplab import files
from deeplab import inputs
from deeplab import options as options_lib
from deeplab.errors import InputError
from deeplab.errors import Message
from deeplab.errors import option
from deeplab.errors import some_of
from deeplab.fields import definitions

_LOG = logging.getLogger(__name__)
_PART = re.compile(r'\.(index|meta|data-\d{5}-of-\d{5})$')
# Model options that an evaluation may choose anew: they change no variable,
# and the decay is of use in training only.
_FREE_AT_EVALUATION = ('crop_size', 'output_stride', 'batch_norm_decay')
_FREE_ON_RESUME = ('crop_size',)
# Compared by whether there is any quantization, which variables hang on.
_QUANTIZATION = ('quantize_delay_step', 'fake_quant')


# --- Finding ---------------------------------------------------------------


def find_latest(folder: str) -> Optional[str]:
  """Returns the prefix of the newest checkpoint in a folder, or None.

  The `checkpoint` state file decides; where it is missing or points nowhere,
  the largest step among the index files does.
  """
  prefix = tf.train.latest_checkpoint(folder)
  if prefix:
    return prefix
  prefixes = [_PART.sub('', path)
              for path in glob.glob(os.path.join(folder, '*.index'))]
  return max(prefixes, key=lambda path: (step_of(path), path), default=None)


def find(path: str, name: str) -> str:
  """Resolves a folder, a prefix or any one file of a checkpoint to a prefix.

  Args:
    path: what the user gave.
    name: the option's name, for the message.

  Raises:
    InputError: where no checkpoint is there.
  """
  if os.path.isdir(path):
    prefix = find_latest(path)
    if not prefix:
      raise InputError('{}: no checkpoint in this folder (0 *.index files)',
                       option(name, path))
    return prefix
  prefix = _PART.sub('', path)
  if os.path.exists(prefix + '.index'):
    return prefix
  folder = os.path.dirname(path) or '.'
  latest = find_latest(folder) if os.path.isdir(folder) else None
  found = 'that folder holds {}'.format(
      os.path.basename(latest)) if latest else 'no checkpoint in that folder'
  raise InputError(
      '{}: no checkpoint there ({})', option(name, path), found)


def step_of(prefix: str) -> int:
  """Returns the step at the end of a prefix; 0 where there is none."""
  match = re.search(r'-(\d+)$', prefix)
  return int(match.group(1)) if match else 0


def variables_in(prefix: str) -> Dict[str, List[int]]:
  """Returns the shapes of variables, by name.

  Raises:
    InputError: where the files cannot be read.
  """
  try:
    return tf.train.NewCheckpointReader(prefix).get_variable_to_shape_map()
  except (tf.errors.OpError, ValueError, RuntimeError) as error:
    raise InputError('{}: not a readable checkpoint ({})'.format(
        prefix, str(error).split('\n')[0]))


def is_model_variable(name: str) -> bool:
  """Whether inference needs a variable, going by its name."""
  return not name.endswith(contract.TRAINING_VARIABLE_ENDINGS)


def is_quantization_variable(name: str) -> bool:
  """Whether fake quantization added a variable, going by its name."""
  return any(mark in name for mark in contract.QUANTIZATION_VARIABLE_MARKS)


# --- Comparing with a graph ------------------------------------------------


def check_fits(
    prefix: str, graph_variables: Mapping[str, List[int]]) -> None:
  """Refuses a checkpoint that is not this graph's, naming the likely option.

  Args:
    prefix: checkpoint prefix.
    graph_variables: name and shape of the variables that the graph restores.

  Raises:
    InputError: variables that are missing, of another shape, or in the
      checkpoint but unused by the graph.
  """
  stored = variables_in(prefix)
  missing = sorted(set(graph_variables) - set(stored))
  unused = sorted(name for name in set(stored) - set(graph_variables)
                  if is_model_variable(name) and
                  not name.startswith(contract.DROPOUT_SCOPE + '/'))
  reshaped = sorted(name for name in set(stored) & set(graph_variables)
                    if list(stored[name]) != list(graph_variables[name]))
  problems = []
  if missing:
    problems.append('lacks ' + _variables(missing))
  if unused:
    problems.append('has unused ' + _variables(unused))
  if reshaped:
    problems.append('differs in shape: ' + some_of([
        '{} is {}, expected {}'.format(
            name, list(stored[name]), list(graph_variables[name]))
        for name in reshaped]))
  if problems:
    raise InputError('{}: {}{}', prefix, '; '.join(problems),
                     _likely_option(missing, unused, reshaped, stored))


def _variables(names):
  return '{} variable{} ({})'.format(
      len(names), '' if len(names) == 1 else 's', some_of(names))


def _likely_option(missing, unused, reshaped, stored):
  """Guesses, from the variables' names, which option was wrong."""
  def any_in(names, mark):
    return any(name.startswith(mark) for name in names)

  atrous = contract.ASPP_SCOPE + '1'
  if not any_in(stored, contract.BACKBONE_SCOPE):
    return '; it is not a checkpoint of this network'
  if any(map(is_quantization_variable, unused)):
    return Message('; it was trained quantization-aware: add {}',
                   option('quantize_delay_step', 0))
  if any(map(is_quantization_variable, missing)):
    return Message('; it is a float checkpoint: drop {}',
                   option('quantize_delay_step'))
  if any_in(unused, contract.DECODER_SCOPE) and not any_in(
      missing, contract.DECODER_SCOPE):
    return Message('; was it trained with {}?',
                   option('decoder_output_stride', 4))
  if any_in(missing, contract.DECODER_SCOPE) and not any_in(
      stored, contract.DECODER_SCOPE):
    return Message('; it has no decoder: drop {}',
                   option('decoder_output_stride'))
  if any_in(unused, atrous) or any_in(missing, atrous):
    return Message('; was it trained with other {}?', option('atrous_rates'))
  if any_in(unused + missing, contract.CONCAT_PROJECTION_SCOPE):
    return Message('; was it trained with another {}?',
                   option('aspp_with_concat_projection'))
  if any_in(unused + missing, contract.DECODER_SCOPE):
    return Message('; was it trained with other {} or {}?',
                   option('decoder_use_separable_conv'),
                   option('decoder_use_sum_merge'))
  if any_in(reshaped, contract.BACKBONE_SCOPE):
    return Message('; was it trained with another {}?',
                   option('depth_multiplier'))
  if any_in(reshaped, contract.LOGITS_SCOPE):
    classes = stored['logits/semantic/weights'][-1]
    return Message('; it has {} classes: give {}', classes,
                   option('num_classes', classes))
  if reshaped:
    return Message('; was it trained with other {}?',
                   option('aspp_convs_filters'))
  return ''


# --- Options beside the checkpoint -----------------------------------------


def write_options(folder: str, model_options: options_lib.ModelOptions, *,
                  optimizer: Optional[str]) -> None:
  """Writes what made the checkpoints of a folder, as JSON beside them.

  Args:
    folder: the folder.
    model_options: the network's structure.
    optimizer: of TrainOptions; None: made by no training, as of rebuild.
  """
  files.write_json(
      os.path.join(folder, contract.MODEL_OPTIONS_FILE),
      {'model': options_lib.to_json(model_options), 'optimizer': optimizer})


def read_options(
    folder: str
) -> Optional[Tuple[options_lib.ModelOptions, Optional[str]]]:
  """Returns (ModelOptions, optimizer), or None without the file.

  Raises:
    InputError: where the file is not what write_options wrote.
  """
  path = os.path.join(folder, contract.MODEL_OPTIONS_FILE)
  if not os.path.exists(path):
    return None
  content = inputs.read_json(
      path, path,
      'options as train.py writes them; remove the file to do without')
  try:
    return _options_from_json(content)
  except InputError as error:
    # Not what the user gave, so by field, not by flag.
    raise InputError('{}: {}; remove the file to do without'.format(
        path, error))


def _options_from_json(content):
  """Returns (ModelOptions, optimizer) from what write_options wrote."""
  if not isinstance(content, dict) or not isinstance(
      content.get('model'), dict):
    raise InputError('expected a dict that has a dict as model')
  fields = dict(content['model'])
  # Earlier versions wrote it beside the model.
  if 'quantize_delay_step' in content:
    fields['quantize_delay_step'] = content['quantize_delay_step']
  optimizer = content.get('optimizer')
  if optimizer is not None:
    definition = definitions(options_lib.TrainOptions)['optimizer']
    optimizer = definition.checked(optimizer)
  return options_lib.from_json(options_lib.ModelOptions, fields), optimizer


def check_options(
    prefix: str, model_options: options_lib.ModelOptions) -> None:
  """Refuses options other than those the checkpoint was trained with.

  Does nothing where no options were written beside the checkpoint.

  Args:
    prefix: checkpoint prefix.
    model_options: what to use it with.

  Raises:
    InputError: naming every option that differs.
  """
  written = read_options(os.path.dirname(prefix))
  if written is None:
    return
  trained, _ = written
  differences = _differences(trained, model_options, _FREE_AT_EVALUATION)
  if differences:
    raise InputError('{}: {}', prefix, errors.joined('; ', differences))
  if trained.output_stride != model_options.output_stride:
    _LOG.warning('%s was trained with %s, used with %d', prefix,
                 option('output_stride', trained.output_stride),
                 model_options.output_stride)


def check_resumable(folder: str, model_options: options_lib.ModelOptions, *,
                    optimizer: str) -> None:
  """Refuses to go on in a folder that another configuration filled.

  Raises:
    InputError: naming what differs.
  """
  written = read_options(folder)
  if written is None:
    return
  trained, last_optimizer = written
  differences = _differences(trained, model_options, _FREE_ON_RESUME)
  if last_optimizer != optimizer:
    differences.append(Message(
        '{}: was {}, now {}', option('optimizer'), last_optimizer, optimizer))
  if differences:
    raise InputError(
        '{} was made with other options ({}); use a new {}',
        option('train_logdir', folder), errors.joined('; ', differences),
        option('train_logdir'))


def _differences(trained, given, free):
  """One 'option: trained with x, got y' for each option that differs."""
  found = []
  if trained.is_quantized and not given.is_quantized:
    found.append(Message('trained quantization-aware: add {}',
                         option('quantize_delay_step', 0)))
  if given.is_quantized and not trained.is_quantized:
    found.append(Message('trained in float: drop {}',
                         option('quantize_delay_step')))
  for name in trained._fields:
    before, now = getattr(trained, name), getattr(given, name)
    if name not in free + _QUANTIZATION and before != now and not _rates_fit(
        name, trained, given):
      found.append(Message('{}: checkpoint was trained with {}, got {}',
                           option(name), _in_words(before), _in_words(now)))
  return found


def _rates_fit(name, trained, given):
  """Atrous rates go with the output stride; their number is the structure."""
  return (name == 'atrous_rates' and
          trained.output_stride != given.output_stride and
          len(trained.atrous_rates) == len(given.atrous_rates))


def _in_words(value):
  return None if value in (None, ()) else option('', value).text


# --- Restoring -------------------------------------------------------------


def initializer_from(
    path: str, variables: Sequence[tf.Variable],
    excluded_scopes: Iterable[str]) -> Callable[[tf.Session], None]:
  """Prepares to start training from a checkpoint.

  Everything that the checkpoint has is restored, optimizer slots too, but for
  `global_step` and the excluded scopes.

  Args:
    path: folder, prefix or file of the checkpoint.
    variables: the graph's global variables.
    excluded_scopes: prefixes of names that start from their initial values.

  Returns:
    Function of a session that restores.

  Raises:
    InputError: where no checkpoint is there, nothing fits, the backbone is
      incomplete, or shapes differ.
  """
  prefix = find(path, 'tf_initial_checkpoint')
  stored = variables_in(prefix)
  excluded = tuple(excluded_scopes) + ('global_step',)
  wanted = {variable.op.name: variable for variable in variables
            if not variable.op.name.startswith(excluded)}
  restored = {name: variable for name, variable in wanted.items()
              if name in stored}
  _check_initial(prefix, stored, wanted)
  model_names = [variable.op.name for variable in variables
                 if is_model_variable(variable.op.name) and
                 not is_quantization_variable(variable.op.name)]
  skipped = sorted({name.split('/')[0] for name in model_names
                    if name not in restored})
  _LOG.info('restored %d/%d model variables from %s%s',
            sum(name in restored for name in model_names), len(model_names),
            prefix, ' (skipped: {})'.format(', '.join(skipped))
            if skipped else '')
  saver = tf.train.Saver(restored)
  return lambda session: saver.restore(session, prefix)


def _check_initial(prefix, stored, wanted):
  """Refuses a checkpoint to start from that does not fit."""
  given = option('tf_initial_checkpoint', prefix)
  backbone = [name for name in wanted
              if name.startswith(contract.BACKBONE_SCOPE)
              and is_model_variable(name)
              and not is_quantization_variable(name)]
  missing = sorted(name for name in backbone if name not in stored)
  if missing:
    raise InputError(
        '{}: lacks {} of {} variables of the backbone ({}): a checkpoint of '
        'another network?', given, len(missing), len(backbone),
        some_of(missing))
  for name in sorted(set(stored) & set(wanted)):
    expected = wanted[name].shape.as_list()
    if list(stored[name]) == expected:
      continue
    if name.startswith(contract.LOGITS_SCOPE):
      raise InputError(
          '{}: checkpoint has {} classes, the model {}: add {}', given,
          stored[name][-1], expected[-1],
          option('initialize_last_layer', False))
    raise InputError('{}: {} is {}, expected {}', given, name,
                     list(stored[name]), expected)
