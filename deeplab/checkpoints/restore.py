"""Restores variables from checkpoints."""
import logging
from typing import Callable, Iterable, Sequence

import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab.checkpoints import compatibility
from deeplab.checkpoints import find
from deeplab.checkpoints import read
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.errors import some_of

_LOG = logging.getLogger(__name__)


def restorer(
    variables: Sequence[tf.Variable]) -> Callable[[tf.Session, str], None]:
  """Adds operations to the default graph to restore variables.

  Args:
    variables: variables of that graph.

  Returns:
    Function of a session and a prefix that restores all variables. It raises
    InputError if a value is missing, not finite or unreadable, or has another
    type or shape.
  """
  saver_def = tf.train.Saver(variables).saver_def
  names = [variable.op.name for variable in variables]

  def restore(session, prefix):
    problem = read.not_finite_in(prefix, names)
    if problem:
      raise InputError('{}: {}', prefix, problem)
    # Saver.restore would treat the prefix as a glob pattern.
    with read.reading(prefix), read.without_patterns(prefix) as literal:
      session.run(saver_def.restore_op_name,
                  {saver_def.filename_tensor_name: literal})

  return restore


def initializer_from(
    path: str, variables: Sequence[tf.Variable],
    excluded_scopes: Iterable[str], *,
    strict: bool = False) -> Callable[[tf.Session], None]:
  """Prepares initialization from a checkpoint.

  It restores all variables in the checkpoint, including optimizer slots, except
  `global_step` and the excluded scopes.

  Args:
    path: folder, prefix or file of the checkpoint.
    variables: the graph's global variables.
    excluded_scopes: prefixes of names that keep their initial values.
    strict: whether to refuse a folder's newest checkpoint if it is unreadable.

  Returns:
    Function of a session that restores.

  Raises:
    InputError: there is no readable checkpoint, the backbone is incomplete, a
      decoder would go unused, or shapes differ.
  """
  prefix = find.find(path, 'tf_initial_checkpoint', strict=strict)
  stored = read.variables_in(prefix)
  excluded = tuple(excluded_scopes) + (tf.GraphKeys.GLOBAL_STEP,)
  wanted = [variable for variable in variables
            if not variable.op.name.startswith(excluded)]
  restored = [variable for variable in wanted if variable.op.name in stored]
  _check_initial(prefix, stored, wanted)
  _check_unused(prefix, {name for name in stored if read.is_weight(name) and
                         not name.startswith(excluded)}, variables)
  weights = {variable.op.name for variable in variables
             if read.is_weight(variable.op.name)}
  new = weights - {variable.op.name for variable in restored}
  scopes = sorted({name.split('/')[0] for name in new})
  _LOG.info('restored %d/%d model variables from %s%s',
            len(weights) - len(new), len(weights), prefix,
            ' (newly initialized: {})'.format(', '.join(scopes))
            if scopes else '')
  restore = restorer(restored)
  return lambda session: restore(session, prefix)


def _check_initial(prefix, stored, wanted):
  """Checks that a checkpoint has the wanted variables and shapes."""
  given = option('tf_initial_checkpoint', prefix)
  shapes = {variable.op.name: variable.shape.as_list() for variable in wanted}
  backbone = [name for name in shapes
              if name.startswith(constants.BACKBONE_SCOPE) and
              read.is_weight(name)]
  missing = sorted(set(backbone) - set(stored))
  if missing:
    raise InputError(
        '{}: lacks {} of {} variables of the backbone ({}): a checkpoint of '
        'another network?', given, len(missing), len(backbone),
        some_of(missing))
  for name, problem in compatibility.other_shapes(stored, shapes).items():
    if name.startswith(constants.LOGITS_SCOPE):
      raise InputError(
          '{}: checkpoint has {} classes, the model {}: add {}', given,
          stored[name][-1], shapes[name][-1],
          option('initialize_last_layer', False))
    raise InputError('{}: {}', given, problem)


def _check_unused(prefix, stored, variables):
  """Raises InputError for an unused decoder; logs other unused weights.

  Logits that were trained on the decoder's output are useless without it.
  """
  unused = sorted(stored - {variable.op.name for variable in variables})
  given = option('tf_initial_checkpoint', prefix)
  if any(name.startswith(constants.DECODER_SCOPE) for name in unused):
    raise InputError(
        '{}: has {} that this network does not use; add {} to keep the '
        'decoder, or {} to train without one', given,
        compatibility.named(unused),
        option('decoder_output_stride', 4),
        option('initialize_last_layer', False))
  if unused:
    _LOG.warning('%s: has %s that this network does not use', given,
                 compatibility.named(unused))
