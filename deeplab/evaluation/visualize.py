"""Draws labels: colours, overlays, legends and comparison sheets.

Needs no TensorFlow.
"""
from typing import Iterable, Optional, Sequence, Tuple

import numpy as np
from PIL import Image
from PIL import ImageDraw

from deeplab import constants
from deeplab.config import label_map as label_maps
from deeplab.errors import InputError
from deeplab.storage import files

COLUMNS = ('image', 'label', 'prediction')

# Weight of the colours of classes over an image.
OPACITY = 0.6
# Rows blended at a time, because Pillow's copies take memory.
_ROWS = 256
# From this width on, lines and the letters of legends are twice as large.
WIDE = 1200
# Sizes in pixels.
_GAP = 8  # between the pictures of a sheet, and around them
_LINE_HEIGHT = 18  # of headings and of legend entries
_SWATCH = 12  # side of a legend's square of colour
# Width of a legend entry: square, class id and name.
_ENTRY_WIDTH = 112
_LETTER_WIDTH = 6
_CELL = 20  # side of a cell of a matrix, wide enough for three digits
_NAME_WIDTH = 100  # width of the names beside a matrix
_TEXT_COLOUR = (32, 32, 32)
_BACKGROUND = (255, 255, 255)
_GRAY = 128  # behind the colours of a legend
# Colour of a cell with all pixels of its row; other cells are paler.
_CELL_COLOUR = (8, 81, 156)
# Text on cells with at least this share is white.
_DARK = 0.5


def overlay(image: np.ndarray, labels: np.ndarray, opacity: float = OPACITY,
            label_map: label_maps.LabelMap = label_maps.ADE20K) -> np.ndarray:
  """Lays the colours of classes over an image, with lines between classes.

  ADE20K's colours are SceneParse150's.

  Args:
    image: [height, width, 3] RGB in [0, 255], uint8 or float.
    labels: [height, width] integer, classes; pixels of the ignored class show
      the image alone.
    opacity: weight of the colours and of the black lines, in [0, 1].
    label_map: names the classes.

  Returns:
    [height, width, 3] uint8 RGB.

  Raises:
    InputError: a value is no class.
  """
  for value in (labels.min(), labels.max()):
    if not 0 <= value < label_map.num_classes:
      raise InputError('label {}: expected a class in 0..{}'.format(
          value, label_map.num_classes - 1))
  if image.dtype != np.uint8:
    image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
  painted = np.array(label_map.palette, np.uint8)[labels]
  # Some colours of the palette are close to each other.
  line = 1 + labels.shape[1] // WIDE
  painted[:-line][labels[:-line] != labels[line:]] = 0
  painted[:, :-line][labels[:, :-line] != labels[:, line:]] = 0
  np.copyto(painted, image,
            where=(labels == constants.IGNORE_LABEL)[..., np.newaxis])
  for start in range(0, len(painted), _ROWS):
    rows = slice(start, start + _ROWS)
    painted[rows] = np.asarray(Image.blend(
        Image.fromarray(image[rows]), Image.fromarray(painted[rows]), opacity))
  return painted


def shade(index: int, opacity: float = OPACITY,
          label_map: label_maps.LabelMap = label_maps.ADE20K
          ) -> Tuple[int, int, int]:
  """Returns a class's colour in a legend: RGB, laid over a gray image.

  Args:
    index: the class; white for the ignored class, which is not painted.
    opacity: the overlay's.
    label_map: names the classes.
  """
  if index == constants.IGNORE_LABEL:
    return _BACKGROUND
  red, green, blue = (
      int(_GRAY + opacity * (channel - _GRAY))
      for channel in label_map.palette[index])
  return red, green, blue


def legend(classes: Iterable[int], width: int,
           label_map: label_maps.LabelMap = label_maps.ADE20K,
           opacity: float = OPACITY) -> Image.Image:
  """Draws the colour, id and name of classes, in rows.

  Args:
    classes: drawn in increasing order.
    width: width of the picture, in pixels; a row has as many entries as fit.
    label_map: names the classes.
    opacity: the overlay's; see `shade`.

  Returns:
    RGB, `width` wide and as high as needed.
  """
  classes = sorted(set(classes))
  texts = ['{} {}'.format(index, label_map.names[index]) for index in classes]
  entry = max([_ENTRY_WIDTH] + [
      _SWATCH + 2 * _GAP + _LETTER_WIDTH * len(text) for text in texts])
  columns = max(1, (width - _GAP) // entry)
  rows = -(-len(classes) // columns)
  picture = Image.new('RGB', (width, rows * _LINE_HEIGHT + _GAP), _BACKGROUND)
  draw = ImageDraw.Draw(picture)
  for place, (index, text) in enumerate(zip(classes, texts)):
    left = _GAP + place % columns * entry
    top = place // columns * _LINE_HEIGHT
    draw.rectangle((left, top, left + _SWATCH - 1, top + _SWATCH - 1),
                   fill=shade(index, opacity, label_map), outline=_TEXT_COLOUR)
    draw.text((left + _SWATCH + _GAP // 2, top), text, fill=_TEXT_COLOUR)
  return picture


def sheet(rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str],
          classes: Iterable[int],
          label_map: label_maps.LabelMap = label_maps.ADE20K) -> Image.Image:
  """Puts pictures side by side, with titles above and a legend below.

  Args:
    rows: for each row its pictures, which have one size: [height, width, 3]
      uint8 RGB.
    titles: one for each column.
    classes: classes in the legend.
    label_map: names the classes.

  Returns:
    RGB.
  """
  column = _GAP + max([_LETTER_WIDTH * len(title) for title in titles] +
                      [row[0].shape[1] for row in rows])
  height = sum(row[0].shape[0] + _GAP for row in rows)
  key = legend(classes, _GAP + len(titles) * column, label_map)
  made = Image.new('RGB', (key.width, _LINE_HEIGHT + height + key.height),
                   _BACKGROUND)
  draw = ImageDraw.Draw(made)
  for place, title in enumerate(titles):
    draw.text((_GAP + place * column, _GAP // 2), title, fill=_TEXT_COLOUR)
  top = _LINE_HEIGHT
  for row in rows:
    for place, picture in enumerate(row):
      made.paste(Image.fromarray(picture), (_GAP + place * column, top))
    top += row[0].shape[0] + _GAP
  made.paste(key, (0, top))
  return made


def unpadded_size(image: np.ndarray) -> Tuple[int, int]:
  """Returns (height, width) without padding, which is at the bottom and right.

  Margins that have the gray of padding are cut off too.

  Args:
    image: [height, width, 3] RGB in [0, 255], uint8 or float.
  """
  is_image = (image.astype(np.uint8) != int(constants.PADDING_VALUE)).any(2)
  height, width = (
      int(used[-1]) + 1 if used.size else side for used, side in zip(
          (np.flatnonzero(is_image.any(axis)) for axis in (1, 0)),
          is_image.shape))
  return height, width


def prediction_sheet(
    images: Sequence[np.ndarray], labels: Sequence[np.ndarray],
    predictions: Sequence[np.ndarray],
    label_map: label_maps.LabelMap = label_maps.ADE20K) -> Image.Image:
  """Puts images, labels and predictions side by side, with a legend below.

  Args:
    images: at least one [height, width, 3], RGB in [0, 255], uint8 or float.
      Sizes may differ between images. Their padding is not painted.
    labels: [height, width] integer, one for each image.
    predictions: [height, width] integer, one for each image.
    label_map: names the classes.

  Returns:
    RGB: a row for each image, in the columns of COLUMNS.

  Raises:
    InputError: a value is no class.
  """
  rows = []
  present = {constants.IGNORE_LABEL}
  for image, label, prediction in zip(images, labels, predictions):
    height, width = unpadded_size(image)
    shown = np.full_like(prediction, constants.IGNORE_LABEL)
    shown[:height, :width] = prediction[:height, :width]
    rows.append([overlay(image, label, 0.0, label_map),
                 overlay(image, label, label_map=label_map),
                 overlay(image, shown, label_map=label_map)])
    present.update(np.unique([label, shown]).tolist())
  return sheet(
      rows, COLUMNS, present - {constants.IGNORE_LABEL}, label_map)


def confusion_matrix(matrix: np.ndarray, names: Sequence[str],
                     classes: Optional[Sequence[int]] = None) -> Image.Image:
  """Draws a confusion matrix; rows are labels and columns are predictions.

  A cell shows the percentage of its row's pixels. It is empty for no pixel, and
  0 for less than half a percent.

  Args:
    matrix: [num_classes, num_classes] integer, from metrics.confusion_matrix.
    names: names of all classes.
    classes: the classes to draw; None: all.

  Returns:
    RGB.
  """
  classes = range(len(names)) if classes is None else classes
  matrix = np.asarray(matrix, np.float64)
  shares = matrix / np.maximum(1.0, matrix.sum(axis=1, keepdims=True))
  left = _GAP + max([_NAME_WIDTH] + [
      _LETTER_WIDTH * (len(names[index]) + 4) for index in classes])
  top = _GAP + 2 * _LINE_HEIGHT
  side = len(classes) * _CELL + _GAP
  title = 'label (row), prediction (column), % of the row'
  picture = Image.new('RGB', (
      max(left + side, _LETTER_WIDTH * len(title)), top + side), _BACKGROUND)
  draw = ImageDraw.Draw(picture)
  draw.text((_GAP, _GAP), title, fill=_TEXT_COLOUR)
  for place, index in enumerate(classes):
    draw.text((_GAP, top + place * _CELL + _GAP // 2),
              '{:>2} {}'.format(index, names[index]), fill=_TEXT_COLOUR)
    draw.text((left + place * _CELL + _GAP // 2, top - _LINE_HEIGHT),
              '{:>2}'.format(index), fill=_TEXT_COLOUR)
  shares = shares[np.ix_(classes, classes)]
  colours = np.rint(
      _BACKGROUND + shares[..., np.newaxis] * np.subtract(
          _CELL_COLOUR, _BACKGROUND)).astype(int)
  for row, column in np.argwhere(shares):
    x, y = left + column * _CELL, top + row * _CELL
    share = shares[row, column]
    # Cells are separated by a line.
    draw.rectangle((x, y, x + _CELL - 2, y + _CELL - 2),
                   fill=tuple(colours[row, column].tolist()))
    draw.text((x + 1, y + _GAP // 2), '{:>3.0f}'.format(100 * share),
              fill=_BACKGROUND if share > _DARK else _TEXT_COLOUR)
  return picture


def save(path: str, picture: Image.Image) -> None:
  """Writes a PNG atomically; an existing file is replaced."""
  with files.replacing(path) as (temporary,):
    picture.save(temporary, format='PNG')
