"""Tests pictures pixel by pixel against hand-worked values."""
import os

import numpy as np
from PIL import Image
import pytest

from deeplab.errors import InputError
from deeplab.evaluation import visualize

WALL = (120, 120, 120)  # class 1
BUILDING = (180, 120, 120)  # class 2
SKY = (6, 230, 230)  # class 3
WHITE = (255, 255, 255)


def gray(value, height=2, width=2):
  return np.full([height, width, 3], value, np.uint8)


def test_colour_uses_the_palette():
  for index, colour in ((1, WALL), (3, SKY), (31, (8, 255, 214))):
    np.testing.assert_array_equal(
        visualize.overlay(gray(9, 300), np.full([300, 2], index), 1.0),
        [[colour] * 2] * 300)
  for value in (-1, 32):
    with pytest.raises(InputError, match='label {}: expected a class in 0..31$'
                       .format(value)):
      visualize.overlay(gray(9, 1, 2), np.array([[1, value]]))


def test_an_overlay_blends_classes_and_draws_borders():
  labels = np.array([[1, 1, 0, 3], [1, 1, 3, 3]])
  blend = visualize.overlay(gray(100, 2, 4), labels, opacity=0.25)
  assert blend.dtype == np.uint8
  # 0.75 * 100 + 0.25 * colour, or black: sky is above, or left of, no other.
  line, wall, sky, alone = (75,) * 3, (105,) * 3, (76, 132, 132), (100,) * 3
  np.testing.assert_array_equal(
      blend, [[wall, line, alone, sky], [wall, line, sky, sky]])
  # Lines are wider in wide pictures.
  labels = np.full([3, 1300], 1)
  labels[:, 650:] = 3
  blend = visualize.overlay(gray(255, 3, 1300), labels, opacity=1.0)
  assert list(np.flatnonzero(blend[0, :, 0] == 0)) == [648, 649]
  # Float images are rounded and clipped; opacity 0 leaves them unchanged.
  blend = visualize.overlay(
      gray(0) + np.array([-3.0, 128.6, 300.0], np.float32),
      np.array([[1, 3], [2, 0]]), opacity=0.0)
  assert (blend == [0, 129, 255]).all()


def test_a_legend_has_the_shade_and_name_of_each_class():
  picture = visualize.legend([3, 1, 1], width=300, opacity=0.25)
  assert picture.size == (300, 26)
  # Squares of 12 pixels with an outline, 8 pixels from the left; the next entry
  # starts 112 pixels on. The colour is that of the class over gray.
  wall, sky = (tuple(visualize.overlay(
      gray(128), np.full([2, 2], index), 0.25)[0, 0]) for index in (1, 3))
  assert [picture.getpixel(place) for place in (
      (7, 0), (9, 1), (18, 10), (20, 11), (121, 1))] == [
          WHITE, wall, wall, WHITE, sky]
  # Entries wrap to the width; the ignored class has no colour.
  picture = visualize.legend([0, 2, 3], width=232, opacity=1.0)
  assert picture.size == (232, 2 * 18 + 8)
  assert picture.getpixel((9, 1)) == WHITE
  assert picture.getpixel((121, 1)) == BUILDING
  assert picture.getpixel((9, 19)) == SKY
  beside_the_swatch = np.asarray(picture)[:18, 24:100]
  assert (beside_the_swatch < 128).any()


def test_image_label_and_prediction_are_side_by_side():
  wall, building, sky = map(visualize.shade, (1, 2, 3))
  padded = gray(127, 40, 24)
  padded[:30, :20] = 128
  sheet = visualize.prediction_sheet(
      [gray(128, 20, 30), padded],
      [np.full([20, 30], 1), np.full([40, 24], 0)],
      [np.full([20, 30], 2), np.full([40, 24], 3)])
  # Columns as wide as 'prediction' and a gap of 8; a heading of 18; a legend.
  assert sheet.size == (8 + 3 * 68, 18 + 28 + 48 + 3 * 18 + 8)
  assert sheet.getpixel((8, 18)) == (128,) * 3
  assert sheet.getpixel((8 + 68, 18)) == wall
  assert sheet.getpixel((8 + 136 + 29, 18 + 19)) == building
  assert sheet.getpixel((8 + 68, 18 + 28)) == (128,) * 3
  assert sheet.getpixel((8 + 136, 18 + 28)) == sky
  # Padding has no class.
  assert sheet.getpixel((8 + 136 + 23, 18 + 28 + 39)) == (127,) * 3
  # The legend has the classes of labels and predictions, but not class 0.
  legend_top = 18 + 28 + 48
  swatches = [
      sheet.getpixel((9, legend_top + 1 + 18 * row)) for row in range(3)]
  assert swatches == [wall, building, sky]


def test_an_image_of_only_padding_is_not_cropped():
  assert visualize.unpadded_size(gray(127, 3, 4)) == (3, 4)


def test_cells_of_a_confusion_matrix_are_shaded_by_row_share():
  matrix = np.array([[0, 0, 0], [0, 60, 20], [0, 0, 5]])
  picture = visualize.confusion_matrix(matrix, ['other', 'wall', 'house'])
  # The corner of a cell has no text.
  corners = np.asarray(picture)[44::20, 108::20][:3, :3]
  # 255 - 0.75 * 247, 255 - 0.75 * 174, 255 - 0.75 * 99
  np.testing.assert_array_equal(corners, [
      [WHITE, WHITE, WHITE],
      [WHITE, (70, 124, 181), (193, 212, 230)],
      [WHITE, WHITE, (8, 81, 156)]])
  # Numbers are in the middle of cells, names on the left.
  pixels = np.array(picture)
  assert len(np.unique(pixels[64:83, 128:147].reshape(-1, 3), axis=0)) > 1
  renamed = np.array(visualize.confusion_matrix(
      matrix, ['other', 'wall', 'sea']))
  assert (pixels[:, :100] != renamed[:, :100]).any()
  np.testing.assert_array_equal(pixels[:, 108:], renamed[:, 108:])
  # The chosen classes are drawn as if there were no others.
  few = visualize.confusion_matrix(matrix, ['other', 'wall', 'house'], [1, 2])
  np.testing.assert_array_equal(np.array(few)[44:84, 108:148],
                                pixels[64:104, 128:168])


def test_a_picture_is_written_atomically(tmp_path):
  path = tmp_path / 'sheet.png'
  visualize.save(str(path), Image.new('RGB', (3, 2), SKY))
  with Image.open(str(path)) as picture:
    assert picture.format == 'PNG'
    assert picture.size == (3, 2)
    assert picture.getpixel((2, 1)) == SKY
  assert os.listdir(str(tmp_path)) == ['sheet.png']
