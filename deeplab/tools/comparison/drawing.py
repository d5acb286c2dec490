"""Draws predictions for single images, and their differences."""
import base64
import io
from typing import List, Sequence, Tuple

import numpy as np
from PIL import Image

from deeplab import constants
from deeplab.config import label_map as label_maps
from deeplab.evaluation import visualize
from deeplab.tools.comparison import counts as counts_lib

# Colours of pixels on which two models differ, safe for colour-blind readers.
FIRST_RIGHT = (0, 114, 178)
OTHER_RIGHT = (230, 159, 0)
NONE_RIGHT = (204, 51, 153)
DIFFERENT = (213, 94, 0)
MEANINGS = (
    (FIRST_RIGHT, 'only the first model is right'),
    (OTHER_RIGHT, 'only the other one is right'),
    (NONE_RIGHT, 'both are wrong, in different ways'),
    (DIFFERENT, 'they differ where there is no label'))
# Other pixels are gray: brightness * _DIMMED + _GROUND.
_DIMMED, _GROUND = 0.45, 120
_THUMBNAIL_SIZE = (256, 384)  # at most
_JPEG_QUALITY = 82


def panels(shown: counts_lib.Shown, names: Sequence[str],
           label_map: label_maps.LabelMap = label_maps.ADE20K
           ) -> List[Tuple[str, np.ndarray]]:
  """Paints an image, its label, all predictions and their differences.

  Args:
    shown: the image.
    names: names of the models.
    label_map: the label map of the classes.

  Returns:
    Titles, and pictures: [height, width, 3] uint8 RGB.
  """
  def overlay(labels):
    return visualize.overlay(shown.image, labels, label_map=label_map)

  found = [('image', shown.image)]
  if shown.label is not None:
    found.append(('label', overlay(shown.label)))
  found += [(name, overlay(prediction))
            for name, prediction in zip(names, shown.predictions)]
  return found + [
      ('{} against {}'.format(name, names[0]), difference_map(shown, index))
      for index, name in enumerate(names) if index]


def difference_map(shown: counts_lib.Shown, other: int) -> np.ndarray:
  """Paints the differences between the first model and another one.

  Args:
    shown: the image.
    other: index of the other model.

  Returns:
    [height, width, 3] uint8 RGB: the image in dim gray, and different pixels in
    FIRST_RIGHT, OTHER_RIGHT or NONE_RIGHT, or in DIFFERENT without a label.
  """
  first, second = shown.predictions[0], shown.predictions[other]
  gray = shown.image.mean(axis=2, keepdims=True) * _DIMMED + _GROUND
  painted = np.repeat(gray, 3, axis=2).astype(np.uint8)
  different = first != second
  label = shown.label
  if label is None:
    painted[different] = DIFFERENT
    return painted
  labelled = different & (label != constants.IGNORE_LABEL)
  painted[different & ~labelled] = DIFFERENT
  painted[labelled] = NONE_RIGHT
  painted[labelled & (first == label)] = FIRST_RIGHT
  painted[labelled & (second == label)] = OTHER_RIGHT
  return painted


def classes_shown(shown: Sequence[counts_lib.Shown]) -> List[int]:
  """Returns the classes that are visible in pictures of these images."""
  found = {int(index) for one in shown for labels in (
      *one.predictions, *([] if one.label is None else [one.label]))
           for index in np.unique(labels)}
  return sorted(found - {constants.IGNORE_LABEL})


def thumbnail(pixels: np.ndarray) -> Tuple[str, Tuple[int, int]]:
  """Returns a small picture as a data URI, and its (width, height)."""
  image = Image.fromarray(pixels)
  # thumbnail() never enlarges.
  image.thumbnail(_THUMBNAIL_SIZE)
  out = io.BytesIO()
  image.save(out, 'JPEG', quality=_JPEG_QUALITY)
  return data_uri(out.getvalue(), 'image/jpeg'), image.size


def data_uri(content: bytes, kind: str) -> str:
  """Returns a file's content as a data URI."""
  return 'data:{};base64,{}'.format(
      kind, base64.b64encode(content).decode('ascii'))
