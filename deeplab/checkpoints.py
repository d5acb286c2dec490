"""Checkpoints: finding, describing, comparing with a graph, restoring."""
import contextlib
import logging
import os
import re
import tempfile
from typing import (
  Any,
  Callable,
  Dict,
  Iterable,
  List,
  Mapping,
  NamedTuple,
  Optional,
  Sequence,
  Tuple,
)

import numpy as np
import tensorflow.compat.v1 as tf

from deeplab import contract
from deeplab import errors
from deeplab import files
from deeplab import inputs
from deeplab import label_map as label_maps
from deeplab import options as options_lib
from deeplab import storage
from deeplab import tf_texts
from deeplab.errors import InputError
from deeplab.errors import Message
from deeplab.errors import option
from deeplab.errors import some_of
from deeplab.fields import definitions

_LOG = logging.getLogger(__name__)
# The file in which TensorFlow lists a folder's checkpoints.
STATE = 'checkpoint'
_PART = re.compile(r'\.(index|meta|data-\d{5}-of-\d{5})$')
_STEP = re.compile(r'-(\d+)$')
# Characters with which a path is not the only one that it fits, or not at all.
_PATTERN = re.compile(r'[][\\*?]')
# The classes of a reader's errors move from one version to the next.
_READING_ERRORS = (tf.errors.OpError, LookupError, ValueError, RuntimeError)
# Model options that an evaluation may choose anew: they change no variable,
# and the decay is of use in training only.
_FREE_AT_EVALUATION = ('crop_size', 'output_stride', 'batch_norm_decay')
_FREE_ON_RESUME = ('crop_size',)
# Compared by whether there is any quantization, which variables hang on.
_QUANTIZATION = ('quantize_delay_step', 'fake_quant')


# --- Finding ---------------------------------------------------------------


def find_latest(folder: str) -> Optional[str]:
  """Returns the prefix of the newest checkpoint in a folder, or None.

  By name alone: it may not be readable; see `Newest`.
  """
  names = _listing(folder).names
  return os.path.join(folder, names[0]) if names else None


class Newest:
  """Finds the newest checkpoint of a folder that can be read.

  The one place that decides which checkpoint of a folder is used. Which is the
  newest, the state file `checkpoint` says; without one that can be read, the
  largest step. A checkpoint of a larger step that the state file does not list
  is of a save that was cut off just before its end: it is newer.

  Remembers what it has read and said, so that a folder can be watched.

  Attributes:
    folder: where the checkpoints are.
    problems: what was wrong with the folder when `find` was last called, such
      as newer checkpoints that cannot be read; list of texts.
  """

  def __init__(self, folder: str, *, strict: bool = False):
    """Remembers the arguments.

    Args:
      folder: where the checkpoints are.
      strict: refuse a newest checkpoint that cannot be read.
    """
    self.folder = folder
    self._strict = strict
    self._damages: Dict[Any, Optional[str]] = {}
    self._said: List[str] = []
    self.problems: List[str] = []

  def find(self) -> Optional[str]:
    """Returns the newest prefix that can be read, or None.

    Where it is not the newest of all, that is said in a line of the log.

    Raises:
      InputError: where it is not, and another one is not wanted.
    """
    found = self._look()
    if self.problems and self._strict:
      raise InputError('{}: {}; that is refused with {}', self.folder,
                       '; '.join(self.problems),
                       option('strict_checkpoint', True))
    if found and self.problems and self.problems != self._said:
      _LOG.warning('%s: %s; taking %s', self.folder,
                   '; '.join(self.problems), found)
      self._said = self.problems
    return found and os.path.join(self.folder, found)

  def _look(self):
    """Returns the name of the newest that can be read, or None."""
    while True:
      listing = _listing(self.folder)
      self.problems = list(listing.problems)
      found = None
      for name in listing.names:
        damage = self._damage(name)
        if not damage:
          found = name
          break
        self.problems.append('{} cannot be read ({})'.format(name, damage))
      # A trainer may have replaced meanwhile what was not as it should be.
      if not self.problems or _listing(self.folder) == listing:
        return found

  def _damage(self, name):
    """Returns damage_of a checkpoint, without reading it a second time."""
    prefix = os.path.join(self.folder, name)
    facts = []
    for part in parts_of(prefix):
      with contextlib.suppress(FileNotFoundError):
        facts.append((part, storage.state(part)))
    key = tuple(facts)
    if key not in self._damages:
      self._damages[key] = damage_of(prefix)
    return self._damages[key]


def find(path: str, name: str, *, strict: bool = False) -> str:
  """Resolves a folder, a prefix or any one file of a checkpoint to a prefix.

  Args:
    path: what the user gave.
    name: the option's name, for the message.
    strict: of a folder, refuse a newest checkpoint that cannot be read.

  Returns:
    Of a folder, the newest that can be read; else the one that was given.

  Raises:
    InputError: where no checkpoint is there, or none that can be read.
  """
  if storage.is_folder(path):
    newest = Newest(path, strict=strict)
    found = newest.find()
    if not found:
      raise InputError('{}: no checkpoint in this folder ({})',
                       option(name, path),
                       '; '.join(newest.problems) or '0 *.index files')
    return found
  prefix = _PART.sub('', path)
  if storage.exists(prefix + '.index') or parts_of(prefix):
    problem = damage_of(prefix)
    if problem:
      raise InputError(
          '{}: cannot be read ({})', option(name, path), problem)
    return prefix
  folder = os.path.dirname(path) or '.'
  latest = find_latest(folder) if storage.is_folder(folder) else None
  there = 'that folder holds {}'.format(
      os.path.basename(latest)) if latest else 'no checkpoint in that folder'
  raise InputError(
      '{}: no checkpoint there ({})', option(name, path), there)


def listed(folder: str) -> Optional[List[str]]:
  """Returns names of checkpoints in a folder's state file, oldest first.

  Returns:
    As TensorFlow lists them, without their folder: one that was moved is where
    the file is. None without a file that can be read.
  """
  state = _state(folder)[0]
  return state and _names_in(state)


def parts_of(prefix: str) -> List[str]:
  """Returns the paths of a checkpoint's files, the index first."""
  folder, name = os.path.split(prefix)
  # Without patterns: a folder's name may have their characters.
  paths = [
      os.path.join(folder, entry) for entry in _entries(folder or os.curdir)
      if _PART.search(entry) and _PART.sub('', entry) == name]
  return sorted(paths, key=lambda path: (not path.endswith('.index'), path))


class _Listing(NamedTuple):
  """What a folder says of its checkpoints."""
  # Names of checkpoints, newest first.
  names: List[str]
  # What is wrong with the state file.
  problems: List[str]


def _listing(folder):
  """Lists a folder's checkpoints, be they readable or not: a _Listing."""
  state, problem = _state(folder)
  problems = [problem] if problem else []
  kinds: Dict[str, List[str]] = {}
  for entry in _entries(folder):
    match = _PART.search(entry)
    if match:
      kinds.setdefault(_PART.sub('', entry), []).append(match.group(1))
  by_step = sorted((name for name in kinds if kinds[name] != ['meta']),
                   key=lambda name: (step_of(name), name), reverse=True)
  if not state:
    return _Listing(by_step, problems)
  newest = os.path.basename(state.model_checkpoint_path)
  in_state = _names_in(state) + [newest]
  # Between the renames of a save, the data are there and the index is not.
  by_step = [name for name in by_step
             if name in in_state or 'index' in kinds[name]]
  stem = re.compile(re.escape(_STEP.sub('', newest)) + r'-\d+$')
  names = [name for name in by_step
           if stem.match(name) and step_of(name) > step_of(newest) and
           name not in in_state]
  if newest in kinds:
    names.append(newest)
  else:
    problems.append('the state file {} names {}, of which there is no '
                    'file'.format(STATE, state.model_checkpoint_path))
  return _Listing(
      names + [name for name in by_step if name not in names], problems)


def _state(folder):
  """Reads the state file: (CheckpointState or None, what is wrong or None)."""
  path = os.path.join(folder, STATE)
  if not storage.exists(path):
    return None, None
  try:
    # Gives None for what is no text format, and says why in TensorFlow's log.
    state = tf.train.get_checkpoint_state(folder)
  except (tf.errors.OpError, ValueError):
    state = None
  return state, None if state else (
      'the state file {} cannot be read'.format(STATE))


def _names_in(state):
  """Returns the names of checkpoints in a CheckpointState."""
  return [os.path.basename(path) for path in (
      state.all_model_checkpoint_paths or [state.model_checkpoint_path])]


def _entries(folder):
  """Returns the names in a folder; none where it is not there."""
  try:
    return storage.names_in(folder)
  except (FileNotFoundError, NotADirectoryError):
    return []


def step_of(prefix: str) -> int:
  """Returns the step at the end of a prefix; 0 where there is none."""
  match = _STEP.search(prefix)
  return int(match.group(1)) if match else 0


# --- Reading ---------------------------------------------------------------


def damage_of(prefix: str) -> Optional[str]:
  """Reads all of a checkpoint; returns why that fails, or None.

  Every block of the index and every variable has a checksum.
  """
  ending = '.index'
  if not storage.exists(prefix + ending):
    return 'there is no {}{}'.format(os.path.basename(prefix), ending)
  try:
    with _reader(prefix) as reader:
      for name in reader.get_variable_to_shape_map():
        reader.get_tensor(name)
  except _READING_ERRORS as error:
    return _in_one_line(error)
  return None


def not_finite_in(
    prefix: str, names: Optional[Iterable[str]] = None) -> Optional[str]:
  """Returns which variable has a value that is inf or NaN, or None.

  Args:
    prefix: checkpoint prefix.
    names: variables to look at; None: all.

  Raises:
    InputError: where the files cannot be read.
  """
  with _reading(prefix) as reader:
    for name in sorted(
        reader.get_variable_to_shape_map() if names is None else names):
      value = reader.get_tensor(name)
      if value.dtype.kind == 'f' and not np.isfinite(value).all():
        return '{} of {} values of {} are inf or NaN'.format(
            np.sum(~np.isfinite(value)), value.size, name)
  return None


def global_step_in(prefix: str) -> int:
  """Returns the step that a checkpoint holds; 0 where it holds none.

  Raises:
    InputError: where the files cannot be read.
  """
  with _reading(prefix) as reader:
    name = tf.GraphKeys.GLOBAL_STEP
    return int(reader.get_tensor(name)) if reader.has_tensor(name) else 0


def variables_in(prefix: str) -> Dict[str, List[int]]:
  """Returns the shapes of variables, by name.

  Raises:
    InputError: where the files cannot be read.
  """
  with _reading(prefix) as reader:
    return reader.get_variable_to_shape_map()


def values_in(prefix: str, names: Iterable[str]) -> Dict[str, np.ndarray]:
  """Returns the values of variables, by name.

  Args:
    prefix: checkpoint prefix.
    names: of variables that it has.

  Raises:
    InputError: where the files cannot be read.
  """
  with _reading(prefix) as reader:
    return {name: reader.get_tensor(name) for name in names}


def types_in(prefix: str) -> Dict[str, str]:
  """Returns the types of variables, such as 'float32', by name.

  Raises:
    InputError: where the files cannot be read.
  """
  with _reading(prefix) as reader:
    types = reader.get_variable_to_dtype_map()
    return {name: tf.as_dtype(types[name]).name for name in types}


@contextlib.contextmanager
def _reading(prefix):
  """Context of a reader in which an error of reading becomes an InputError."""
  try:
    with _reader(prefix) as reader:
      yield reader
  except _READING_ERRORS as error:
    raise InputError('{}: not a readable checkpoint ({})', prefix,
                     _in_one_line(error))


@contextlib.contextmanager
def _reader(prefix):
  with _without_patterns(prefix) as literal:
    yield tf.train.NewCheckpointReader(literal)


@contextlib.contextmanager
def _without_patterns(prefix):
  """Context with a name of a checkpoint that TensorFlow takes as it is.

  It looks for the index as for a pattern, in which [1] means 1.
  """
  if not _PATTERN.search(prefix):
    yield prefix
    return
  if storage.is_remote(prefix):
    raise InputError('{}: expected a name without [ ] * ? and \\', prefix)
  folder, name = os.path.split(os.path.abspath(prefix))
  with tempfile.TemporaryDirectory() as links:
    link = os.path.join(links, 'folder')
    os.symlink(folder, link)
    yield os.path.join(link, name)


def _in_one_line(error):
  # Some file systems say nothing but the class.
  return (tf_texts.message(error).strip().split('\n')[0] or
          type(error).__name__)


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
    graph_variables: name and shape of the variables that the graph restores,
      all of them float32.

  Raises:
    InputError: variables that are missing, of another shape or type, or in the
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
  problems += _of_other_types(
      prefix, dict.fromkeys(graph_variables, 'float32'))
  if problems:
    raise InputError('{}: {}{}', prefix, '; '.join(problems),
                     _likely_option(missing, unused, reshaped, stored))


def _of_other_types(prefix, expected):
  """Says which variables have another type than expected: one text, or none.

  Args:
    prefix: checkpoint prefix.
    expected: types by name.
  """
  types = types_in(prefix)
  differing = [
      '{} is {}, expected {}'.format(name, types[name], expected[name])
      for name in sorted(set(types) & set(expected))
      if types[name] != expected[name]]
  return ['differs in type: ' + some_of(differing)] if differing else []


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
    return Message('; was it trained with another {} or {}?',
                   option('depth_multiplier'), option('divisible_by'))
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
  if not storage.exists(path):
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


def label_map_of(path: str) -> Optional[label_maps.LabelMap]:
  """Returns what the classes of checkpoints are; None where it is not written.

  Args:
    path: folder, prefix or file of the checkpoints; it need not exist.

  Raises:
    InputError: the options beside them cannot be read.
  """
  written = read_options(
      path if storage.is_folder(path) else os.path.dirname(path))
  return (written[0].label_map or label_maps.ADE20K) if written else None


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


def with_classes_of(prefix: str, model_options: options_lib.ModelOptions,
                    num_classes: Optional[int]) -> options_lib.ModelOptions:
  """Returns options with the classes that a checkpoint was trained on.

  Args:
    prefix: checkpoint prefix.
    model_options: of the same network; as they are where the checkpoint has no
      classes of its own.
    num_classes: what the user says it is; None: nothing.

  Raises:
    InputError: the checkpoint has another number of classes of its own.
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
  """Atrous rates go with the output stride; their number is the structure."""
  return (name == 'atrous_rates' and
          trained.output_stride != given.output_stride and
          len(trained.atrous_rates) == len(given.atrous_rates))


def _in_words(value):
  return None if value in (None, ()) else option('', value).text


def options_by_variables(
    stored: Mapping[str, Sequence[int]], path: str
) -> options_lib.ModelOptions:
  """Returns the structure that variables speak of.

  Args:
    stored: shapes of variables, by name.
    path: the file that they are in, for messages.

  Returns:
    What is no matter of variables is as published.

  Raises:
    InputError: they are of another network.
  """
  logits = contract.LOGITS_SCOPE + '/' + contract.SEMANTIC_SCOPE + '/weights'
  if len(stored.get(logits, [])) != 4:
    raise InputError('{}: lacks {}; it is not of this network', path, logits)
  decoder = any(name.startswith(contract.DECODER_SCOPE + '/')
                for name in stored)
  return options_lib.ModelOptions(
      num_classes=stored[logits][-1],
      decoder_output_stride=(4,) if decoder else (),
      quantize_delay_step=(
          0 if any(map(is_quantization_variable, stored)) else -1))


# --- Restoring -------------------------------------------------------------


def restorer(
    variables: Sequence[tf.Variable]) -> Callable[[tf.Session, str], None]:
  """Adds to the default graph what restores variables.

  Args:
    variables: of that graph.

  Returns:
    Function of a session and a prefix that restores them all. It raises
    InputError where a value is not finite, or cannot be read.
  """
  saver_def = tf.train.Saver(variables).saver_def
  names = [variable.op.name for variable in variables]

  def restore(session, prefix):
    problem = not_finite_in(prefix, names)
    if problem:
      raise InputError('{}: {}', prefix, problem)
    # By name: a Saver looks for its files with patterns, and for the graph's
    # kind of variables where that is not the default graph.
    with _reading(prefix), _without_patterns(prefix) as literal:
      session.run(saver_def.restore_op_name,
                  {saver_def.filename_tensor_name: literal})

  return restore


def resumer_from(prefix: str, variables: Sequence[tf.Variable]
                 ) -> Callable[[tf.Session], None]:
  """Prepares to go on from a checkpoint of the same run.

  Args:
    prefix: checkpoint prefix.
    variables: the graph's global variables, all of which are restored.

  Returns:
    Function of a session that restores.

  Raises:
    InputError: variables that are missing, or of another type or shape.
  """
  stored = variables_in(prefix)
  expected = {variable.op.name: variable for variable in variables}
  problems = _of_other_types(prefix, {
      name: variable.dtype.base_dtype.name
      for name, variable in expected.items()})
  missing = sorted(set(expected) - set(stored))
  if missing:
    problems.append('lacks ' + _variables(missing))
  problems += [
      '{} is {}, expected {}'.format(name, stored[name], shape)
      for name, shape in sorted(
          (name, variable.shape.as_list())
          for name, variable in expected.items() if name in stored)
      if list(stored[name]) != shape][:1]
  if problems:
    raise InputError('{}: {}; use a new {}', prefix, '; '.join(problems),
                     option('train_logdir'))
  restore = restorer(variables)
  return lambda session: restore(session, prefix)


def initializer_from(
    path: str, variables: Sequence[tf.Variable],
    excluded_scopes: Iterable[str], *,
    strict: bool = False) -> Callable[[tf.Session], None]:
  """Prepares to start training from a checkpoint.

  Everything that the checkpoint has is restored, optimizer slots too, but for
  `global_step` and the excluded scopes.

  Args:
    path: folder, prefix or file of the checkpoint.
    variables: the graph's global variables.
    excluded_scopes: prefixes of names that start from their initial values.
    strict: of a folder, refuse a newest checkpoint that cannot be read.

  Returns:
    Function of a session that restores.

  Raises:
    InputError: where no checkpoint is there, none can be read, nothing fits,
      the backbone is incomplete, or shapes or types differ.
  """
  prefix = find(path, 'tf_initial_checkpoint', strict=strict)
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
  restore = restorer(list(restored.values()))
  return lambda session: restore(session, prefix)


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
  for problem in _of_other_types(prefix, {
      name: variable.dtype.base_dtype.name
      for name, variable in wanted.items()}):
    raise InputError('{}: {}', given, problem)
