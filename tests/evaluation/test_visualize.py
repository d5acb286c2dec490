"""Pictures, checked pixel by pixel against values worked out by hand."""
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


def test_classes_are_painted_in_the_palette():
  np.testing.assert_array_equal(
      visualize.colour(np.array([[0, 1], [3, 31]], np.int32)),
      [[(0, 0, 0), WALL], [SKY, (8, 255, 214)]])
  for value in (-1, 32):
    with pytest.raises(InputError, match='label {}: expected a class in 0..31$'
                       .format(value)):
      visualize.colour(np.array([[1, value]]))


def test_an_overlay_leaves_the_ignored_class_as_it_is():
  blend = visualize.overlay(
      gray(100), np.array([[0, 1], [2, 3]]), opacity=0.25)
  assert blend.dtype == np.uint8
  # 0.75 * 100 + 0.25 * colour: sky's red is 76.5, rounded to even.
  np.testing.assert_array_equal(
      blend, [[(100, 100, 100), (105, 105, 105)],
              [(120, 105, 105), (76, 132, 132)]])
  # Float images are rounded and clipped.
  blend = visualize.overlay(
      gray(0) + np.array([-3.0, 128.6, 300.0], np.float32),
      np.zeros([2, 2], int))
  np.testing.assert_array_equal(blend[1, 1], [0, 129, 255])


def test_painting_by_rows_is_painting_at_once(monkeypatch):
  random = np.random.RandomState(0)
  pixels = random.randint(0, 256, [600, 3, 3]).astype(np.uint8)
  labels = random.randint(0, 32, [600, 3])
  by_rows = visualize.overlay(pixels, labels, 0.3)
  monkeypatch.setattr(visualize, '_ROWS', 600)
  np.testing.assert_array_equal(
      visualize.overlay(pixels, labels, 0.3), by_rows)


def test_a_legend_has_a_swatch_and_a_name_for_each_class_in_order():
  picture = visualize.legend([3, 1, 1], width=300)
  assert picture.size == (300, 26)
  # Squares of 12 pixels, 8 pixels in; the next entry is 112 pixels on.
  assert [picture.getpixel(place) for place in (
      (7, 0), (8, 0), (19, 11), (20, 11), (120, 0))] == [
          WHITE, WALL, WALL, WHITE, SKY]
  # It wraps to the width.
  picture = visualize.legend([1, 2, 3], width=232)
  assert picture.size == (232, 2 * 18 + 8)
  assert picture.getpixel((120, 0)) == BUILDING
  assert picture.getpixel((8, 18)) == SKY
  beside_the_swatch = np.asarray(picture)[:18, 24:100]
  assert (beside_the_swatch < 128).any()


def test_image_label_and_prediction_are_side_by_side():
  sheet = visualize.prediction_sheet(
      [gray(10, 20, 30), gray(20, 40, 24)],
      [np.full([20, 30], 1), np.full([40, 24], 0)],
      [np.full([20, 30], 2), np.full([40, 24], 3)], opacity=1.0)
  # Columns of 30 and a gap of 8; a heading of 18; a legend of one column.
  assert sheet.size == (8 + 3 * 38, 18 + 28 + 48 + 3 * 18 + 8)
  assert sheet.getpixel((8, 18)) == (10, 10, 10)
  assert sheet.getpixel((8 + 38, 18)) == WALL
  assert sheet.getpixel((8 + 76 + 29, 18 + 19)) == BUILDING
  assert sheet.getpixel((8, 18 + 28)) == (20, 20, 20)
  assert sheet.getpixel((8 + 38, 18 + 28)) == (20, 20, 20)
  assert sheet.getpixel((8 + 76 + 23, 18 + 28 + 39)) == SKY
  # Legend: the classes of labels and predictions, without the ignored one.
  legend_top = 18 + 28 + 48
  swatches = [sheet.getpixel((8, legend_top + 18 * row)) for row in range(3)]
  assert swatches == [WALL, BUILDING, SKY]


def test_cells_of_a_confusion_matrix_are_as_dark_as_their_share_of_the_row():
  matrix = np.array([[0, 0, 0], [0, 60, 20], [0, 0, 5]])
  picture = visualize.confusion_matrix(matrix, ['other', 'wall', 'house'])
  # The corner of each cell, where nothing is written.
  corners = np.asarray(picture)[44::20, 108::20][:3, :3]
  # 255 - 0.75 * 247, 255 - 0.75 * 174, 255 - 0.75 * 99
  np.testing.assert_array_equal(corners, [
      [WHITE, WHITE, WHITE],
      [WHITE, (70, 124, 181), (193, 212, 230)],
      [WHITE, WHITE, (8, 81, 156)]])
  # The middle of a cell shows its number; the names stand on the left.
  pixels = np.array(picture)
  assert len(np.unique(pixels[64:83, 128:147].reshape(-1, 3), axis=0)) > 1
  renamed = np.array(visualize.confusion_matrix(
      matrix, ['other', 'wall', 'sea']))
  assert (pixels[:, :100] != renamed[:, :100]).any()
  np.testing.assert_array_equal(pixels[:, 108:], renamed[:, 108:])


def test_a_picture_is_saved_whole(tmp_path):
  path = tmp_path / 'sheet.png'
  visualize.save(str(path), Image.new('RGB', (3, 2), SKY))
  with Image.open(str(path)) as picture:
    assert picture.format == 'PNG'
    assert picture.size == (3, 2)
    assert picture.getpixel((2, 1)) == SKY
  assert os.listdir(str(tmp_path)) == ['sheet.png']
