"""Writes TensorBoard events, one by one or a file at once."""
import logging
import os
import socket
import time
from typing import Any

import numpy as np
from PIL import Image
import tensorflow.compat.v1 as tf

from deeplab.data import png
from deeplab.storage import files
from deeplab.system import tf_errors

_LOG = logging.getLogger(__name__)
# The first event of a file holds its format.
_FILE_VERSION = 'brain.Event:2'


def _new_path(logdir):
  return os.path.join(logdir, 'events.out.tfevents.{:.3f}.{}'.format(
      time.time(), socket.gethostname()))


def _event(step, **fields):
  return tf.Event(
      wall_time=time.time(), step=step, **fields).SerializeToString(
          deterministic=True)


def picture(tag: str, image: Image.Image) -> tf.Summary.Value:
  """Returns a value that TensorBoard shows as an image.

  Args:
    tag: its name in TensorBoard.
    image: RGB, of any size.
  """
  return tf.Summary.Value(tag=tag, image=tf.Summary.Image(
      height=image.height, width=image.width, colorspace=len(image.getbands()),
      encoded_image_string=png.encode(np.asarray(image))))


def write_file(logdir: str, step: int, summary: tf.Summary) -> None:
  """Writes a file with one summary atomically.

  Args:
    logdir: folder; created if it is missing.
    step: the summary's step.
    summary: values.

  Raises:
    OSError, tf.errors.OpError: it cannot be written.
  """
  # tf.summary.FileWriter would ignore errors.
  with files.replacing(_new_path(logdir)) as (temporary,), (
      tf.io.TFRecordWriter(os.fsencode(temporary))) as writer:
    writer.write(_event(0, file_version=_FILE_VERSION))
    writer.write(_event(step, summary=summary))


class Writer:
  """Writes a run's events; after an error, the run continues without them.

  TensorFlow's own FileWriter fails silently in 1.15, and with a thread's
  traceback in later versions. As a context manager, it closes the file.
  """

  def __init__(self, logdir: str):
    """Creates the file.

    Args:
      logdir: an existing folder.

    Raises:
      tf.errors.OpError: it cannot be created.
    """
    self._path = _new_path(logdir)
    self._writer = tf.io.TFRecordWriter(self._path)
    self._failed = False
    self.add(0, file_version=_FILE_VERSION)

  def __enter__(self) -> 'Writer':
    return self

  def __exit__(self, *unused_exception: object) -> None:
    self._attempt(self._writer.close)

  def add(self, step: int, **fields: Any) -> None:
    """Writes an event and flushes it.

    Args:
      step: the global step.
      **fields: one field of a tf.Event, such as `summary`.
    """
    self._attempt(lambda: self._writer.write(_event(step, **fields)))
    self._attempt(self._writer.flush)

  def _attempt(self, write):
    if self._failed:
      return
    try:
      write()
    except Exception as error:  # its class differs between versions
      self._failed = True
      _LOG.warning('%s: no more events are written (%s)', self._path,
                   tf_errors.why_not_written(error))
