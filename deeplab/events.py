"""Events for TensorBoard, written one after the other."""
import logging
import os
import socket
import time
from typing import Any

import tensorflow.compat.v1 as tf

from deeplab import tf_texts

_LOG = logging.getLogger(__name__)
# What the first event of a file says, by which TensorBoard knows it.
FILE_VERSION = 'brain.Event:2'


def new_path(logdir: str) -> str:
  """Returns the path of a new file of events."""
  return os.path.join(logdir, 'events.out.tfevents.{:.3f}.{}'.format(
      time.time(), socket.gethostname()))


class Writer:
  """Writes a run's events; where that fails, the run goes on without them.

  TensorFlow's own FileWriter does so too, but without a word in 1.15, and with
  the traceback of a thread in later versions. A context, which closes the file.
  """

  def __init__(self, logdir: str):
    """Creates the file.

    Args:
      logdir: an existing folder.

    Raises:
      tf.errors.OpError: it cannot be created.
    """
    self._path = new_path(logdir)
    self._writer = tf.io.TFRecordWriter(self._path)
    self._failed = False
    self.add(0, file_version=FILE_VERSION)

  def __enter__(self) -> 'Writer':
    return self

  def __exit__(self, *unused_exception: object) -> None:
    self._attempt(self._writer.close)

  def add(self, step: int, **what: Any) -> None:
    """Writes an event.

    Args:
      step: number of steps done.
      **what: one field of a tf.Event, such as `summary`.
    """
    event = tf.Event(wall_time=time.time(), step=step, **what)
    self._attempt(lambda: self._writer.write(event.SerializeToString()))
    # At once: a run may end at any time.
    self._attempt(self._writer.flush)

  def _attempt(self, write):
    if self._failed:
      return
    try:
      write()
    except Exception as error:  # its class moves between versions
      self._failed = True
      _LOG.warning('%s: no more events are written (%s)', self._path,
                   tf_texts.why_not_written(error))
