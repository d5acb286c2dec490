"""Keeps the best checkpoint of a training run, with its report.

It lies in `best`, a subfolder of the checkpoints' folder. There it belongs to
its run, while training neither lists nor removes it.
"""
import contextlib
import logging
import os
from typing import Dict, Iterator

import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab.checkpoints import find
from deeplab.checkpoints import saver
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.evaluation import report as report_lib
from deeplab.storage import files
from deeplab.storage import locks
from deeplab.storage import remote

_LOG = logging.getLogger(__name__)
FOLDER = 'best'
_GIVEN = option('keep_best')


@contextlib.contextmanager
def keeping(checkpoint_dir: str, **circumstances: object) -> Iterator['Best']:
  """Context in which this run alone keeps the best checkpoint of a folder.

  Args:
    checkpoint_dir: the folder that is evaluated.
    **circumstances: fields of its reports, such as `split`; only scores in the
      same circumstances are compared.

  Raises:
    InputError: the subfolder cannot be written to, another evaluation writes
      there, or its checkpoint was scored in other circumstances.
  """
  folder = os.path.join(checkpoint_dir, FOLDER)
  files.check_folder(_GIVEN, folder)
  with locks.alone(option('checkpoint_dir', folder), folder):
    yield Best(folder, circumstances)


class Best:
  """The best checkpoint so far and its report."""

  def __init__(self, folder: str, circumstances: Dict[str, object]):
    """Reads the report that an earlier run left; see `keeping`."""
    self._folder = folder
    self._score = -1.0
    kept = find.Newest(folder).find()
    if not kept:
      return
    report = report_lib.read(_report_path(kept))
    for name, now in circumstances.items():
      if getattr(report, name) != now:
        raise InputError(
            '{}: {} was scored with another {}; move that folder elsewhere, or '
            'leave {} out', _GIVEN, kept, name, _GIVEN)
    self._score = report.scores.miou

  def copy(self, prefix: str) -> Dict[str, bytes]:
    """Reads a checkpoint, which may be gone when its score is known.

    Args:
      prefix: checkpoint prefix.

    Returns:
      Content of the files to keep, by path.
    """
    # The index comes last: without one there is no checkpoint.
    sources = find.parts_of(prefix)[::-1]
    options = os.path.join(
        os.path.dirname(prefix), constants.MODEL_OPTIONS_FILE)
    contents = {}
    for source in ([options] if remote.exists(options) else []) + sources:
      with remote.reading(source) as opened:
        contents[self._inside(source)] = opened.read()
    return contents

  def offer(self, contents: Dict[str, bytes],
            report: report_lib.Report) -> None:
    """Keeps a checkpoint if its mIoU is the highest.

    A killed run leaves the former best or the new one, each with its report.

    Args:
      contents: from `copy`.
      report: the checkpoint's report.

    Raises:
      OSError: it cannot be written.
    """
    score = report.scores.miou
    if not score > self._score:  # or it is NaN
      return
    prefix = self._inside(report.path)
    former = [each for each in find.prefixes_in(self._folder) if each != prefix]
    state = tf.train.generate_checkpoint_state_proto(
        os.curdir, os.path.basename(prefix))
    files.write_all({
        _report_path(prefix): files.json_bytes(report_lib.to_json(report)),
        **contents, self._inside(find.STATE): str(state).encode('utf-8')})
    self._score = score
    _LOG.info('the best mIoU so far is %.4f: kept as %s', score, prefix)
    for each in former:
      saver.remove(each)
      with contextlib.suppress(FileNotFoundError):
        remote.remove(_report_path(each))

  def _inside(self, path):
    return os.path.join(self._folder, os.path.basename(path))


def _report_path(prefix):
  return prefix + '.json'
