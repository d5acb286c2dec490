"""Saves checkpoints atomically and keeps only the last few.

A checkpoint is written to a temporary folder, read back, and only then renamed:
a file with the name of a checkpoint can be read.
"""
import contextlib
import logging
import os
import re
from typing import Iterator, List, Optional, Sequence

import tensorflow.compat.v1 as tf

from deeplab import errors
from deeplab.checkpoints import find
from deeplab.checkpoints import read
from deeplab.errors import InputError
from deeplab.storage import files
from deeplab.storage import locks
from deeplab.storage import remote
from deeplab.system import tf_errors

_LOG = logging.getLogger(__name__)
_STEM = 'model.ckpt'
_OURS = re.compile(re.escape(_STEM) + r'-\d+$')


@contextlib.contextmanager
def publishing(prefix: str, *more: str, older: Sequence[str] = ()
               ) -> Iterator[List[str]]:
  """Context in which the files of a checkpoint are written.

  At its end they are read back, checked for inf and NaN, and renamed; the state
  file lists them as the newest. If anything fails, none is renamed.

  Args:
    prefix: checkpoint prefix.
    *more: other files of the checkpoint.
    older: names of checkpoints that the state file lists before it.

  Yields:
    The prefix to write to, then the paths to write the other files to.

  Raises:
    InputError: the checkpoint cannot be read back, or a value is not finite.
    OSError, tf.errors.OpError: it cannot be written.
  """
  folder, name = os.path.split(remote.absolute(prefix))
  # In the order of renaming: data, then the index, then the state file.
  paths = list(map(remote.absolute, more)) + [
      os.path.join(folder, name + ending)
      for ending in ('.data-00000-of-00001', '.index')]
  state = os.path.join(folder, find.STATE)
  with files.replacing(*paths, state) as temporaries:
    written = temporaries[-2][:-len('.index')]
    yield [written] + temporaries[:len(more)]
    damage = read.damage_of(written)
    if damage:
      raise InputError('{}', damage)
    problem = read.not_finite_in(written)
    if problem:
      raise InputError('{}', problem)
    # Relative to the folder, so that the folder may be moved.
    tf.train.update_checkpoint_state(
        os.path.dirname(written), name, list(older) + [name])


class Keeper:
  """Saves a run's checkpoints in its folder and keeps the last few."""

  def __init__(self, folder: str, *, max_to_keep: int,
               resumed: Optional[str] = None):
    """Adds operations to the default graph to save its variables.

    Args:
      folder: an existing folder.
      max_to_keep: checkpoints to keep; the run's older ones are removed.
      resumed: prefix of the checkpoint that the run resumes from.
    """
    self._folder = folder
    self._identity = _identity(folder)
    self._max_to_keep = max_to_keep
    self._graph = tf.get_default_graph()
    self._saver = tf.train.Saver()
    self._meta_graph: Optional[bytes] = None
    self._kept = _kept_before(folder, resumed) if resumed else []
    # Name of the checkpoint last saved or resumed from; None: none yet.
    self.newest = os.path.basename(resumed) if resumed else None

  def save(self, session: tf.Session, step: int) -> None:
    """Saves a checkpoint, then removes the oldest beyond the limit.

    Args:
      session: session of the graph.
      step: number of steps done.

    Raises:
      InputError: it cannot be saved, or has a value that is inf or NaN; older
        checkpoints are unchanged.
    """
    name = '{}-{}'.format(_STEM, step)
    prefix = os.path.join(self._folder, name)
    older = [kept for kept in self._kept if kept != name]
    older = older[max(0, len(older) + 1 - self._max_to_keep):]
    try:
      if _identity(self._folder) != self._identity:
        raise InputError('the folder has been replaced')
      with publishing(prefix, prefix + '.meta', older=older) as (
          written, meta):
        self._write(session, written, meta)
    except (OSError, tf.errors.OpError, InputError) as error:
      raise InputError('{}: cannot be saved ({}); {}', prefix, _reason(error),
                       self._kept_text())
    removed = [kept for kept in self._kept if kept not in older + [name]]
    self._kept = older + [name]
    self.newest = name
    for kept in removed:
      remove(os.path.join(self._folder, kept))

  def _write(self, session, prefix, meta):
    saver_def = self._saver.saver_def
    session.run(saver_def.save_tensor_name,
                {saver_def.filename_tensor_name: prefix})
    # The graph does not change during a run.
    if self._meta_graph is None:
      with self._graph.as_default():
        self._meta_graph = self._saver.export_meta_graph().SerializeToString(
            deterministic=True)
    with open(meta, 'wb') as out:
      out.write(self._meta_graph)

  def _kept_text(self):
    """Returns text on the checkpoint that is left if the run ends now."""
    if self.newest and remote.exists(
        os.path.join(self._folder, self.newest + '.index')):
      return '{} is kept, the steps after it are lost'.format(self.newest)
    return 'no checkpoint is kept, all steps are lost'


def remove(prefix: str) -> None:
  """Removes a checkpoint, its index first: without one it is invalid."""
  for path in find.parts_of(prefix):
    try:
      remote.remove(path)
    except OSError as error:
      _LOG.warning('an old checkpoint stays: %s', errors.of_system(error))


def _kept_before(folder, resumed):
  """Returns the names of a resumed run's checkpoints, newest last.

  Checkpoints with another stem and damaged ones are left out.
  """
  name = os.path.basename(resumed)
  names = [other for other in find.listed(folder) or []
           if other != name and
           not read.damage_of(os.path.join(folder, other))]
  return [other for other in names + [name] if _OURS.match(other)]


def remove_leftovers(folder: str) -> None:
  """Removes temporary and incomplete files of interrupted saves from a folder.

  Call it only in the process that saves there.
  """
  locks.remove_leftovers(folder)
  names = os.listdir(folder)
  listed = find.listed(folder)
  if not listed:
    return
  for name in names:
    stem, ending = os.path.splitext(name)
    # Data are renamed before the index, and are useless without it.
    if (_OURS.match(stem) and ending.startswith(('.meta', '.data-')) and
        stem not in listed and stem + '.index' not in names):
      _LOG.info('removing %s, left by an interrupted save', name)
      os.remove(os.path.join(folder, name))


def _reason(error):
  if isinstance(error, OSError):
    return errors.of_system(error)
  if isinstance(error, InputError):
    return str(error)
  return tf_errors.why_not_written(error)


def _identity(folder):
  """Returns a value that changes if the folder is replaced by another."""
  if remote.is_remote(folder):
    return folder
  status = os.stat(folder)
  return status.st_dev, status.st_ino
