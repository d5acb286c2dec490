"""Lists and reads pictures of any shape; fits them to a network and back.

A network gets pictures preprocessed as in evaluation. Two things differ from
data sets, whose images are used as stored: the EXIF orientation is applied, as
in viewers, and any colour type is allowed. Transparency is dropped, as in
TensorFlow.
"""
import contextlib
import logging
import os
from typing import List, NamedTuple, Tuple

import numpy as np
import tensorflow.compat.v1 as tf

from deeplab.config import options as options_lib
from deeplab.data import decoding
from deeplab.data import pairs
from deeplab.data import png_folder
from deeplab.data import preprocess
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.errors import some_messages
from deeplab.system import parallel

_LOG = logging.getLogger(__name__)
# EXIF orientation to the transformation that viewers apply: whether to
# transpose, then the directions of rows and columns.
_TURNS = {2: (False, 1, -1), 3: (False, -1, -1), 4: (False, -1, 1),
          5: (True, 1, 1), 6: (True, 1, -1), 7: (True, -1, -1),
          8: (True, -1, 1)}


class Fitted(NamedTuple):
  """A picture in a network's input size."""
  # [height, width, 3] float32 RGB in [0, 255], padded on the right and below.
  image: np.ndarray
  # (height, width) without padding.
  size: Tuple[int, int]


def list_pictures(path: str, name: str = 'pictures') -> List[str]:
  """Returns the paths of the pictures at a path.

  Args:
    path: a picture; or a folder, searched without its subfolders.
    name: the option with this path, for messages.

  Returns:
    Paths, at least one; img_2 before img_10.

  Raises:
    InputError: there is no picture.
  """
  if os.path.isdir(path):
    paths = png_folder.image_paths(path, name)
    folder = os.path.dirname(paths[0])
    if not os.path.samefile(folder, path):
      _LOG.warning('%s: using the pictures in %s', option(name, path), folder)
    return paths
  if not os.path.lexists(path):
    raise InputError('{}: no such file or folder', option(name, path))
  return [path]


def check(paths: List[str], skip_bad: bool = False
          ) -> Tuple[List[str], List[str]]:
  """Decodes pictures to find bad ones before any other work.

  Args:
    paths: from list_pictures.
    skip_bad: skip bad pictures, unless all are bad.

  Returns:
    (paths, problems): the good pictures, and the problems of the others.

  Raises:
    InputError: names the first few bad pictures.
  """
  def check_one(path):
    return pairs.image_facts(pairs.read_file(path), os.path.basename(path))

  found, problems = parallel.check_all(
      check_one, paths, title='checking', unit='picture')
  facts = {path: fact for path, fact in zip(paths, found) if fact}
  good = list(facts)
  if problems and not (skip_bad and good):
    raise InputError('{} of {} pictures cannot be used: {}', len(problems),
                     len(paths), some_messages(problems))
  for warning in pairs.warnings(
      {os.path.basename(path): fact for path, fact in facts.items()},
      orientation=False):
    _LOG.warning('%s', warning)
  return good, [str(problem) for problem in problems]


def read(path: str, *, exif_rotation: bool = True) -> np.ndarray:
  """Reads a picture.

  Args:
    path: a JPEG or PNG file.
    exif_rotation: apply the EXIF orientation.

  Returns:
    [height, width, 3] uint8 RGB.

  Raises:
    InputError: it is no JPEG or PNG, is damaged, or has too many pixels.
  """
  name = os.path.basename(path)
  image = pairs.decode(pairs.read_file(path), name)
  pixels = _rgb(image)
  turn = _TURNS.get(pairs.orientation_of(image)) if exif_rotation else None
  if turn:
    swapped, rows, columns = turn
    pixels = np.swapaxes(pixels, 0, 1) if swapped else pixels
    pixels = np.ascontiguousarray(pixels[::rows, ::columns])
  return pixels


def _rgb(image):
  """Converts a PIL.Image of any mode to uint8 [height, width, 3]."""
  if image.mode in pairs.SIXTEEN_BITS:
    # Pillow would clip values above 255.
    gray = (np.asarray(image).astype(np.int64) >> 8).astype(np.uint8)
    return np.repeat(gray[..., np.newaxis], 3, axis=2)
  if image.mode == 'P' and 'transparency' in image.info:
    image = image.convert('RGBA')
  return np.array(image.convert('RGB'))


def geometry(crop_size: Tuple[int, int],
             resize_factor: int = 1) -> options_lib.PreprocessOptions:
  """Returns options that resize images to a network's input size.

  Args:
    crop_size: (height, width) of the network's input. An image's longer side
      becomes the shorter one of these, or a little less.
    resize_factor: 1 as in the app, or 16 as in eval.py's documented command.
  """
  side = min(crop_size)
  return options_lib.PreprocessOptions(
      crop_size=crop_size, min_resize_value=side, max_resize_value=side,
      resize_factor=resize_factor)


class Fitter(contextlib.AbstractContextManager):
  """Fits pictures to a network's input."""

  def __init__(self, crop_size: Tuple[int, int], resize_factor: int = 1):
    """Builds the graph; arguments as for `geometry`."""
    self.options = geometry(crop_size, resize_factor)
    with tf.Graph().as_default() as graph:
      self._picture = tf.placeholder(tf.uint8, [None, None, 3])
      image, _ = preprocess.for_evaluation(self._picture, None, self.options)
      shape = tf.shape(self._picture)
      self._fitted = image, preprocess.resized_size(
          shape[0], shape[1], self.options)
      self._session = tf.Session(graph=graph, config=decoding.cpu_only())

  def fit(self, picture: np.ndarray) -> Fitted:
    """Resizes and pads a picture, [height, width, 3] uint8."""
    image, size = self._session.run(self._fitted, {self._picture: picture})
    return Fitted(image, (int(size[0]), int(size[1])))

  def close(self) -> None:
    """Frees the session."""
    self._session.close()

  def __exit__(self, *unused_exception):
    self.close()


def labels_as_seen(labels: np.ndarray, fitted_size: Tuple[int, int],
                   size: Tuple[int, int]) -> np.ndarray:
  """Resizes labels of a fitted picture to the picture's own size.

  Args:
    labels: [height, width] integer, labels of Fitted.image.
    fitted_size: Fitted.size.
    size: (height, width) of the picture, in pixels.

  Returns:
    uint8 of `size`, by nearest neighbour with aligned corners.
  """
  rows, columns = (
      np.rint(np.linspace(0, fitted - 1, own)).astype(np.int64)
      for fitted, own in zip(fitted_size, size))
  return labels.astype(np.uint8)[rows][:, columns]
