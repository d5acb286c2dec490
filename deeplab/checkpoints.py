"""Checkpoints: finding, describing, comparing with a graph, restoring."""
import contextlib
import logging
import os
import re
import tarfile
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
)
import zipfile

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
# Model files that are not checkpoints, by the ending of their names.
_MODEL_FILES = {'.pb': 'a frozen graph', '.tflite': 'a TFLite file',
                '.onnx': 'an ONNX file'}
# Glob metacharacters: TensorFlow treats a prefix as a pattern.
_PATTERN = re.compile(r'[][\\*?]')
# The classes of a reader's errors differ between versions.
_READING_ERRORS = (tf.errors.OpError, LookupError, ValueError, RuntimeError)
# Model options that an evaluation may change: they change no variable, and the
# decay matters in training only.
_FREE_AT_EVALUATION = ('crop_size', 'output_stride', 'batch_norm_decay')
_FREE_ON_RESUME = ('crop_size',)
# Only whether there is any quantization decides which variables there are.
_QUANTIZATION = ('quantize_delay_step', 'fake_quant')


# --- Finding ---------------------------------------------------------------


def find_latest(folder: str) -> Optional[str]:
  """Returns the prefix of the newest checkpoint in a folder, or None.

  It may not be readable; see `Newest`.
  """
  names, _ = _listing(folder)
  return os.path.join(folder, names[0]) if names else None


class Newest:
  """Finds the newest checkpoint of a folder that can be read.

  The state file `checkpoint` says which is the newest; without a readable one,
  it is the checkpoint with the largest step. A checkpoint of a larger step that
  the state file does not list is newer: its save was cut off just before the
  end.

  Remembers what it has read and logged, so that a folder can be watched.

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
    self.problems: List[str] = []
    self._strict = strict
    self._damages: Dict[Any, Optional[str]] = {}
    self._logged: List[str] = []

  def find(self) -> Optional[str]:
    """Returns the newest prefix that can be read, or None.

    Logs a line if it is not the newest of all.

    Raises:
      InputError: it is not, and `strict` was given.
    """
    found = self._look()
    if self.problems and self._strict:
      raise InputError('{}: {}; that is refused with {}', self.folder,
                       '; '.join(self.problems),
                       option('strict_checkpoint', True))
    if found and self.problems and self.problems != self._logged:
      _LOG.warning('%s: %s; taking %s', self.folder,
                   '; '.join(self.problems), found)
      self._logged = self.problems
    return found and os.path.join(self.folder, found)

  def _look(self):
    """Returns the name of the newest that can be read, or None."""
    while True:
      names, problems = listing = _listing(self.folder)
      found = None
      self.problems = list(problems)
      for name in names:
        damage = self._damage(name)
        if not damage:
          found = name
          break
        self.problems.append('{} cannot be read ({})'.format(name, damage))
      # A trainer may have replaced a damaged one in the meantime.
      if not self.problems or _listing(self.folder) == listing:
        return found

  def _damage(self, name):
    """Returns damage_of a checkpoint, without reading it a second time."""
    prefix = os.path.join(self.folder, name)
    states = []
    for part in parts_of(prefix):
      with contextlib.suppress(FileNotFoundError):
        states.append((part, storage.state(part)))
    key = tuple(states)
    if key not in self._damages:
      self._damages[key] = damage_of(prefix)
    return self._damages[key]


def find(path: str, name: str, *, strict: bool = False) -> str:
  """Resolves a folder, a prefix or any file of a checkpoint to a prefix.

  Args:
    path: what the user gave.
    name: the option's name, for the message.
    strict: in a folder, refuse a newest checkpoint that cannot be read.

  Returns:
    The newest of a folder that can be read; else the one that was given.

  Raises:
    InputError: no checkpoint is there, or none that can be read.
  """
  given = option(name, path)
  if storage.is_folder(path):
    newest = Newest(path, strict=strict)
    found = newest.find()
    if not found:
      raise InputError('{}: no checkpoint in this folder ({})', given,
                       '; '.join(newest.problems) or '0 *.index files')
    return found
  prefix = _PART.sub('', path)
  if parts_of(prefix):
    problem = damage_of(prefix)
    if problem:
      raise InputError('{}: cannot be read ({})', given, problem)
    return prefix
  _refuse_other_kinds(given, path)
  latest = find_latest(os.path.dirname(path) or '.')
  raise InputError('{}: no checkpoint there ({})', given, (
      'that folder holds {}'.format(os.path.basename(latest)) if latest
      else 'no checkpoint in that folder'))


def _refuse_other_kinds(given, path):
  """Refuses files that people give for a checkpoint."""
  if os.path.isfile(path) and (
      tarfile.is_tarfile(path) or zipfile.is_zipfile(path)):
    raise InputError('{}: is an archive; unpack it and give the folder that '
                     'holds its *.index file', given)
  kind = _MODEL_FILES.get(os.path.splitext(path)[1])
  if kind and storage.exists(path):
    raise InputError('{}: is {}, which cannot be trained; expected a '
                     'checkpoint: a folder or the *.index file in it', given,
                     kind)


def listed(folder: str) -> Optional[List[str]]:
  """Returns the names of checkpoints in a folder's state file, oldest first.

  Names have no folder: a checkpoint that was moved is beside its state file.
  None: there is no readable state file.
  """
  state, _ = _state(folder)
  return state and _names_in(state)


def parts_of(prefix: str) -> List[str]:
  """Returns the paths of a checkpoint's files, the index first."""
  folder, name = os.path.split(prefix)
  # Not by glob: a folder's name may have its metacharacters.
  paths = [
      os.path.join(folder, entry) for entry in _entries(folder or os.curdir)
      if _PART.search(entry) and _PART.sub('', entry) == name]
  return sorted(paths, key=lambda path: (not path.endswith('.index'), path))


def _listing(folder):
  """Lists a folder's checkpoints, whether or not they can be read.

  Returns:
    (names of checkpoints, newest first; problems with the state file).
  """
  state, problem = _state(folder)
  problems = [problem] if problem else []
  parts: Dict[str, List[str]] = {}
  for entry in _entries(folder):
    match = _PART.search(entry)
    if match and match.group(1) != 'meta':
      parts.setdefault(_PART.sub('', entry), []).append(match.group(1))
  by_step = sorted(parts, key=lambda name: (step_of(name), name), reverse=True)
  if not state:
    return by_step, problems
  newest = os.path.basename(state.model_checkpoint_path)
  in_state = _names_in(state) + [newest]
  # A save renames its data before its index.
  by_step = [name for name in by_step
             if name in in_state or 'index' in parts[name]]
  stem = _STEP.sub('', newest)
  newer = [name for name in by_step
           if name not in in_state and _STEP.sub('', name) == stem and
           step_of(name) > step_of(newest)]
  if newest not in parts:
    problems.append('the state file {} names {}, of which there is no '
                    'file'.format(STATE, state.model_checkpoint_path))
  else:
    newer.append(newest)
  return newer + [name for name in by_step if name not in newer], problems


def _state(folder):
  """Reads the state file: (CheckpointState or None, problem or None)."""
  if not storage.exists(os.path.join(folder, STATE)):
    return None, None
  try:
    # Returns None for a file that is not in the text format.
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
  """Returns the names in a folder; none if it does not exist."""
  try:
    return storage.names_in(folder)
  except (FileNotFoundError, NotADirectoryError):
    return []


def step_of(prefix: str) -> int:
  """Returns the step at the end of a prefix; 0 without one."""
  match = _STEP.search(prefix)
  return int(match.group(1)) if match else 0


# --- Reading ---------------------------------------------------------------


def damage_of(prefix: str) -> Optional[str]:
  """Reads all of a checkpoint; returns why that fails, or None.

  Every block of the index and every variable has a checksum.
  """
  index = prefix + '.index'
  if not storage.exists(index):
    return 'there is no ' + os.path.basename(index)
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
    InputError: the files cannot be read.
  """
  values = values_in(prefix, variables_in(prefix) if names is None else names)
  for name, value in sorted(values.items()):
    if value.dtype.kind == 'f' and not np.isfinite(value).all():
      return '{} of {} values of {} are inf or NaN'.format(
          np.sum(~np.isfinite(value)), value.size, name)
  return None


def global_step_in(prefix: str) -> int:
  """Returns the step in a checkpoint or, if it holds none, in its name.

  Raises:
    InputError: the files cannot be read.
  """
  name = tf.GraphKeys.GLOBAL_STEP
  if name in variables_in(prefix):
    return int(values_in(prefix, [name])[name])
  return step_of(prefix)


def variables_in(prefix: str) -> Dict[str, List[int]]:
  """Returns the shapes of variables, by name.

  Raises:
    InputError: the files cannot be read.
  """
  with _reading(prefix) as reader:
    return reader.get_variable_to_shape_map()


def values_in(prefix: str, names: Iterable[str]) -> Dict[str, np.ndarray]:
  """Returns the values of variables, by name.

  Args:
    prefix: checkpoint prefix.
    names: variables that it has.

  Raises:
    InputError: the files cannot be read.
  """
  with _reading(prefix) as reader:
    return {name: reader.get_tensor(name) for name in names}


@contextlib.contextmanager
def _reading(prefix):
  """Context of a reader, whose errors become InputErrors."""
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
  """Context of a prefix without glob metacharacters, for TensorFlow."""
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
  # Some file systems give no text.
  return (tf_texts.message(error).strip().split('\n')[0] or
          type(error).__name__)


def is_model_variable(name: str) -> bool:
  """Whether inference needs a variable, judging by its name."""
  return not name.endswith(contract.TRAINING_VARIABLE_ENDINGS)


def is_quantization_variable(name: str) -> bool:
  """Whether fake quantization added a variable, judging by its name."""
  return any(mark in name for mark in contract.QUANTIZATION_VARIABLE_MARKS)


def _is_weight(name):
  """Whether a variable is a weight or statistic of the network itself."""
  return is_model_variable(name) and not is_quantization_variable(name)


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
  reshaped = _other_shapes(stored, graph_variables)
  problems = []
  if missing:
    problems.append('lacks ' + _variables(missing))
  if unused:
    problems.append('has unused ' + _variables(unused))
  if reshaped:
    problems.append('differs in shape: ' + some_of(list(reshaped.values())))
  if problems:
    raise InputError('{}: {}{}', prefix, '; '.join(problems),
                     _likely_option(missing, unused, reshaped, stored))


def _other_shapes(stored, expected):
  """Describes variables whose shape differs from the expected: texts by name.

  Args:
    stored: shapes in the checkpoint, by name.
    expected: shapes by name.
  """
  return {name: '{} is {}, expected {}'.format(
      name, list(stored[name]), list(expected[name]))
          for name in sorted(set(stored) & set(expected))
          if list(stored[name]) != list(expected[name])}


def _variables(names):
  return '{} variable{} ({})'.format(
      len(names), '' if len(names) == 1 else 's', some_of(names))


def _likely_option(missing, unused, reshaped, stored):
  """Guesses, from the variables' names, which option was wrong."""
  def in_scope(scope, names):
    return any(name.startswith(scope) for name in names)

  classes = stored.get('logits/semantic/weights', [None])[-1]
  has_decoder = in_scope(contract.DECODER_SCOPE, stored)
  wants_decoder = in_scope(contract.DECODER_SCOPE, missing)
  drops_decoder = in_scope(contract.DECODER_SCOPE, unused)
  for is_likely, hint, *options in (
      (not in_scope(contract.BACKBONE_SCOPE, stored),
       'it is not a checkpoint of this network'),
      (any(map(is_quantization_variable, unused)),
       'it was trained quantization-aware: add {}',
       option('quantize_delay_step', 0)),
      (any(map(is_quantization_variable, missing)),
       'it is a float checkpoint: drop {}', option('quantize_delay_step')),
      (drops_decoder and not wants_decoder,
       'was it trained with {}?', option('decoder_output_stride', 4)),
      (wants_decoder and not has_decoder,
       'it has no decoder: drop {}', option('decoder_output_stride')),
      (in_scope(contract.LOGITS_SCOPE, reshaped),
       'it has {} classes: give {}', classes, option('num_classes', classes)),
      (True, 'was it trained with other options of the network, such as {} or '
       '{}?', option('depth_multiplier'), option('atrous_rates'))):
    if is_likely:
      return Message('; ' + hint, *options)
  return ''


# --- Options beside the checkpoint -----------------------------------------


class WrittenOptions(NamedTuple):
  """What made the checkpoints of a folder."""
  # The network's structure.
  model: options_lib.ModelOptions
  # Of TrainOptions; None: made by no training, but rebuilt.
  optimizer: Optional[str]
  # What else decides the steps of the training, by name; {}: unknown.
  recipe: Dict[str, Any]


def write_options(folder: str, model_options: options_lib.ModelOptions, *,
                  optimizer: Optional[str],
                  recipe: Optional[Dict[str, Any]] = None) -> None:
  """Writes what made the checkpoints of a folder, as JSON beside them."""
  content = {'model': options_lib.to_json(model_options),
             'optimizer': optimizer}
  if recipe:
    content['training'] = recipe
  files.write_json(os.path.join(folder, contract.MODEL_OPTIONS_FILE), content)


def read_options(folder: str) -> Optional[WrittenOptions]:
  """Returns what write_options wrote in a folder; None without the file.

  Raises:
    InputError: write_options did not write the file.
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
    # By field, not by flag: the user did not give it.
    raise InputError('{}: {}; remove the file to do without'.format(
        path, error))


def label_map_of(path: str) -> Optional[label_maps.LabelMap]:
  """Returns the classes of checkpoints; None if they are not written.

  Args:
    path: folder, prefix or file of the checkpoints; it need not exist.

  Raises:
    InputError: the options beside them cannot be read.
  """
  written = read_options(
      path if storage.is_folder(path) else os.path.dirname(path))
  return (written.model.label_map or label_maps.ADE20K) if written else None


def _options_from_json(content):
  """Returns WrittenOptions from what the file holds."""
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
  recipe = content.get('training', {})
  if not isinstance(recipe, dict):
    raise InputError('expected a dict as training')
  return WrittenOptions(
      options_lib.from_json(options_lib.ModelOptions, fields), optimizer,
      recipe)


def with_classes_of(prefix: str, model_options: options_lib.ModelOptions,
                    num_classes: Optional[int]) -> options_lib.ModelOptions:
  """Returns options with the classes that a checkpoint was trained on.

  Args:
    prefix: checkpoint prefix.
    model_options: of the same network; returned if the checkpoint has no
      classes of its own.
    num_classes: the number that the user gave, or None.

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
  """Refuses options other than those written beside the checkpoint.

  Raises:
    InputError: naming every option that differs.
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
  """Refuses to resume a run that had another network or optimizer.

  Logs what else of its recipe differs, such as the learning rate.

  Raises:
    InputError: naming what differs.
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
  """Whether atrous rates may differ: they depend on the output stride."""
  return (name == 'atrous_rates' and
          trained.output_stride != given.output_stride and
          len(trained.atrous_rates) == len(given.atrous_rates))


def _in_words(value):
  return None if value in (None, ()) else option('', value).text


def options_by_variables(
    stored: Mapping[str, Sequence[int]], path: str
) -> options_lib.ModelOptions:
  """Guesses the structure of a network from its variables.

  Args:
    stored: shapes of variables, by name.
    path: the file that they are in, for messages.

  Returns:
    Options; those that change no variable are as published.

  Raises:
    InputError: the variables are of another network.
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
  """Adds operations to the default graph that restore variables.

  Args:
    variables: of that graph.

  Returns:
    Function of a session and a prefix that restores them all. It raises
    InputError if a value is missing, not finite, cannot be read, or is of
    another type or shape.
  """
  saver_def = tf.train.Saver(variables).saver_def
  names = [variable.op.name for variable in variables]

  def restore(session, prefix):
    problem = not_finite_in(prefix, names)
    if problem:
      raise InputError('{}: {}', prefix, problem)
    # Saver.restore would look for the prefix as for a pattern.
    with _reading(prefix), _without_patterns(prefix) as literal:
      session.run(saver_def.restore_op_name,
                  {saver_def.filename_tensor_name: literal})

  return restore


def initializer_from(
    path: str, variables: Sequence[tf.Variable],
    excluded_scopes: Iterable[str], *,
    strict: bool = False) -> Callable[[tf.Session], None]:
  """Prepares to start training from a checkpoint.

  Restores everything that the checkpoint has, optimizer slots too, except
  `global_step` and the excluded scopes.

  Args:
    path: folder, prefix or file of the checkpoint.
    variables: the graph's global variables.
    excluded_scopes: prefixes of names that start from their initial values.
    strict: in a folder, refuse a newest checkpoint that cannot be read.

  Returns:
    Function of a session that restores.

  Raises:
    InputError: no checkpoint is there, none can be read, the backbone is
      incomplete, a decoder would go unused, or shapes differ.
  """
  prefix = find(path, 'tf_initial_checkpoint', strict=strict)
  stored = variables_in(prefix)
  excluded = tuple(excluded_scopes) + (tf.GraphKeys.GLOBAL_STEP,)
  wanted = [variable for variable in variables
            if not variable.op.name.startswith(excluded)]
  restored = [variable for variable in wanted if variable.op.name in stored]
  _check_initial(prefix, stored, wanted)
  _check_unused(prefix, {name for name in stored if _is_weight(name) and
                         not name.startswith(excluded)}, variables)
  weights = {variable.op.name for variable in variables
             if _is_weight(variable.op.name)}
  new = weights - {variable.op.name for variable in restored}
  scopes = sorted({name.split('/')[0] for name in new})
  _LOG.info('restored %d/%d model variables from %s%s',
            len(weights) - len(new), len(weights), prefix,
            ' (newly initialized: {})'.format(', '.join(scopes))
            if scopes else '')
  restore = restorer(restored)
  return lambda session: restore(session, prefix)


def _check_initial(prefix, stored, wanted):
  """Refuses a checkpoint whose variables do not fit the wanted ones."""
  given = option('tf_initial_checkpoint', prefix)
  shapes = {variable.op.name: variable.shape.as_list() for variable in wanted}
  backbone = [name for name in shapes
              if name.startswith(contract.BACKBONE_SCOPE) and _is_weight(name)]
  missing = sorted(set(backbone) - set(stored))
  if missing:
    raise InputError(
        '{}: lacks {} of {} variables of the backbone ({}): a checkpoint of '
        'another network?', given, len(missing), len(backbone),
        some_of(missing))
  for name, problem in _other_shapes(stored, shapes).items():
    if name.startswith(contract.LOGITS_SCOPE):
      raise InputError(
          '{}: checkpoint has {} classes, the model {}: add {}', given,
          stored[name][-1], shapes[name][-1],
          option('initialize_last_layer', False))
    raise InputError('{}: {}', given, problem)


def _check_unused(prefix, stored, variables):
  """Refuses to drop a decoder, and logs other weights that are not used.

  Logits that were trained on the decoder's output mean nothing without it.
  """
  unused = sorted(stored - {variable.op.name for variable in variables})
  given = option('tf_initial_checkpoint', prefix)
  if any(name.startswith(contract.DECODER_SCOPE) for name in unused):
    raise InputError(
        '{}: has {} that this network does not use; add {} to keep the '
        'decoder, or {} to train without one', given, _variables(unused),
        option('decoder_output_stride', 4),
        option('initialize_last_layer', False))
  if unused:
    _LOG.warning('%s: has %s that this network does not use', given,
                 _variables(unused))
