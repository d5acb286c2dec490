"""Paints small scenes in ADE20K's folder layout, for demos and tests.

The scenes have a dozen classes. Every class has its own colour, varied by
instance, shading and grain, so a small network learns them in a few hundred
steps. Ids above 31 and unlabelled pixels occur as in ADE20K. Scores on these
scenes do not predict scores on photographs.
"""
import os
from typing import Tuple

import numpy as np
from PIL import Image

from deeplab import constants
from deeplab.config import options as options_lib
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.storage import checked_read
from deeplab.storage import files
from deeplab.system import progress

DATASET_FOLDER = 'ADEChallengeData2016'
# Marks a folder whose pictures may be replaced: they are not ADE20K.
_MARKER = 'synthetic.txt'
_MARKER_TEXT = 'Painted by make_synthetic_ade20k.py; not ADE20K.\n'
_SPLIT_FOLDERS = {'train': 'training', 'val': 'validation'}
# Patterns of all files of a data set; the last one appears last.
_OUTPUTS = tuple(
    '{}/{}/ADE_{}_{}.{}'.format(kind, folder, split, 8 * '[0-9]', ending)
    for split, folder in _SPLIT_FOLDERS.items()
    for kind, ending in (('images', 'jpg'), ('annotations', 'png'))
) + (_MARKER,)
_JPEG_QUALITY = 92

# Class -> mean colour (RGB, 0..255) and grain (standard deviation). Fence and
# lamp are ADE20K classes above 31, which training ignores.
_UNLABELLED = 'other'
_LOOKS = {
    'other': ((128, 128, 128), 30), 'wall': ((214, 196, 160), 5),
    'building': ((170, 96, 80), 14), 'sky': ((120, 180, 235), 4),
    'floor': ((130, 86, 48), 10), 'tree': ((30, 110, 40), 24),
    'ceiling': ((240, 240, 232), 3), 'road': ((96, 96, 104), 8),
    'bed': ((190, 40, 90), 8), 'windowpane': ((170, 220, 255), 6),
    'grass': ((110, 190, 50), 18), 'person': ((240, 150, 30), 10),
    'door': ((70, 40, 20), 6), 'mountain': ((100, 84, 130), 14),
    'car': ((20, 40, 190), 8), 'painting': ((150, 30, 200), 28),
    'fence': ((220, 220, 90), 8), 'lamp': ((255, 240, 120), 4),
}
_LABELS_ABOVE_KEPT = {'fence': 33, 'lamp': 37}


def label_of(name: str) -> int:
  """Returns the ADE20K id of one of this module's classes."""
  if name in _LABELS_ABOVE_KEPT:
    return _LABELS_ABOVE_KEPT[name]
  return constants.CLASS_NAMES.index(name)


def make_dataset(options: options_lib.SyntheticOptions) -> str:
  """Paints a data set and publishes it when it is complete.

  Replaces the files of an earlier run and keeps all others in the folder.

  Args:
    options: counts, size and seed; picture i of a split depends only on seed,
      size and i.

  Returns:
    The path of the ADEChallengeData2016 folder.

  Raises:
    InputError: a file that no run wrote has a needed name.
  """
  folder = os.path.join(options.output_dir, DATASET_FOLDER)
  if os.path.isdir(folder) and not _is_marker(
      os.path.join(folder, _MARKER)) and any(
          not name.startswith('.') for name in os.listdir(folder)):
    raise InputError('{} exists and is no synthetic data set; give another {}',
                     folder, option('output_dir'))
  with files.replacing_own(
      option('output_dir', options.output_dir), folder, _OUTPUTS,
      _is_marker) as temporary:
    _paint_all(
        temporary, {'train': options.train_images, 'val': options.val_images},
        options.long_side, options.seed)
  return folder


def _is_marker(path):
  try:
    return checked_read.read_text(path, path, 'text') == _MARKER_TEXT
  except InputError:
    return False


def _paint_all(folder, counts, long_side, seed):
  """Writes the pictures of both splits; counts are by split."""
  for split, count in counts.items():
    images, labels = (os.path.join(folder, kind, _SPLIT_FOLDERS[split])
                      for kind in ('images', 'annotations'))
    os.makedirs(images)
    os.makedirs(labels)
    for index in progress.shown(range(1, count + 1), 'painting ' + split,
                                unit='pair'):
      # Each picture has its own seed, so the counts do not matter.
      image, label = paint_scene(
          np.random.RandomState(
              [seed, constants.SPLITS.index(split), index]), long_side)
      stem = 'ADE_{}_{:08d}'.format(split, index)
      Image.fromarray(image).save(
          os.path.join(images, stem + '.jpg'), quality=_JPEG_QUALITY)
      Image.fromarray(label).save(os.path.join(labels, stem + '.png'))
  with open(os.path.join(folder, _MARKER), 'w') as out:
    out.write(_MARKER_TEXT)


def paint_scene(random: np.random.RandomState,
                long_side: int = 320) -> Tuple[np.ndarray, np.ndarray]:
  """Paints one scene.

  Args:
    random: source of randomness.
    long_side: longer side, in pixels; the other is 60 to 100 % of it.

  Returns:
    (image, label): uint8 [height, width, 3] RGB, and uint8 [height, width]
    with ADE20K ids.
  """
  short_side = int(long_side * random.uniform(0.6, 1.0))
  size = (short_side, long_side) if random.rand() < 0.7 else (
      long_side, short_side)
  canvas = _Canvas(random, size)
  if random.rand() < 0.5:
    _paint_outdoors(canvas)
  else:
    _paint_indoors(canvas)
  if random.rand() < 0.5:
    canvas.ellipse(_UNLABELLED, random.uniform(0.2, 0.8),
                   random.uniform(0.2, 0.8), 0.12, 0.08)
  return canvas.shaded(), canvas.label


def _paint_outdoors(canvas):
  uniform = canvas.random.uniform
  horizon = uniform(0.45, 0.65)
  canvas.box('sky', 0, 0, 1, horizon)
  if canvas.random.rand() < 0.4:
    canvas.triangle('mountain', uniform(0.2, 0.8), horizon - uniform(0.2, 0.35),
                    horizon, uniform(0.3, 0.6))
  for left in np.arange(uniform(0, 0.3), 1, 0.35):
    canvas.box('building', left, horizon - uniform(0.1, 0.35),
               left + uniform(0.15, 0.3), horizon)
  canvas.box(canvas.either('road', 'grass'), 0, horizon, 1, 1)
  if canvas.random.rand() < 0.3:
    canvas.box('fence', 0, horizon - 0.03, uniform(0.3, 0.7), horizon + 0.05)
  for _ in range(canvas.random.randint(1, 4)):
    x, size = uniform(0.1, 0.9), uniform(0.12, 0.22)
    kind = canvas.random.choice(['tree', 'car', 'person'])
    if kind == 'tree':
      canvas.ellipse('tree', x, horizon - size / 2, size / 1.5, size)
    elif kind == 'car':
      canvas.box('car', x - size, horizon + 0.05, x + size,
                 horizon + 0.05 + size)
    else:
      canvas.ellipse('person', x, horizon + 0.1, size / 2.5, size)


def _paint_indoors(canvas):
  uniform = canvas.random.uniform
  top, bottom = uniform(0.08, 0.2), uniform(0.6, 0.75)
  canvas.box('wall', 0, 0, 1, bottom)
  canvas.box('ceiling', 0, 0, 1, top)
  canvas.box('floor', 0, bottom, 1, 1)
  door = uniform(0.02, 0.2)
  canvas.box('door', door, top + 0.1, door + uniform(0.12, 0.2), bottom)
  hanging = canvas.either('painting', 'windowpane')
  left = uniform(0.45, 0.65)
  canvas.box(hanging, left, top + 0.08, left + uniform(0.2, 0.3),
             top + uniform(0.25, 0.35))
  if canvas.random.rand() < 0.7:
    left = uniform(0.3, 0.5)
    canvas.box('bed', left, bottom - uniform(0.05, 0.12),
               left + uniform(0.35, 0.5), bottom + uniform(0.12, 0.2))
  if canvas.random.rand() < 0.5:
    canvas.ellipse('person', uniform(0.3, 0.9), bottom, uniform(0.05, 0.08),
                   uniform(0.18, 0.25))
  if canvas.random.rand() < 0.5:
    canvas.ellipse('lamp', uniform(0.2, 0.8), top, 0.06, 0.06)


class _Canvas:
  """Paints an image and its label together; coordinates are fractions."""

  def __init__(self, random, size):
    self.random = random
    self.label = np.zeros(size, np.uint8)
    self._image = np.zeros(size + (3,), np.float32)
    height, width = size
    self._y, self._x = np.mgrid[0:height, 0:width].astype(np.float32)
    self._y /= height
    self._x /= width

  def either(self, first, second):
    return first if self.random.rand() < 0.5 else second

  def box(self, name, left, top, right, bottom):
    self._fill(name, (self._x >= left) & (self._x < right) &
               (self._y >= top) & (self._y < bottom))

  def ellipse(self, name, x, y, radius_x, radius_y):
    self._fill(name, ((self._x - x) / radius_x) ** 2 +
               ((self._y - y) / radius_y) ** 2 < 1)

  def triangle(self, name, x, top, bottom, half_width):
    reach = half_width * (self._y - top) / (bottom - top)
    self._fill(name, (self._y < bottom) & (np.abs(self._x - x) < reach))

  def _fill(self, name, mask):
    color, grain = _LOOKS[name]
    tint = self.random.normal(0, 6, 3)
    noise = self.random.normal(0, grain, (int(mask.sum()), 1))
    self._image[mask] = np.array(color) + tint + noise
    self.label[mask] = label_of(name)

  def shaded(self):
    """Returns the image as uint8, lit from one side."""
    slope_x, slope_y = self.random.uniform(-0.15, 0.15, 2)
    light = 1 + slope_x * (self._x - 0.5) + slope_y * (self._y - 0.5)
    return np.clip(self._image * light[..., np.newaxis], 0, 255).astype(
        np.uint8)
