"""Pictures, checked pixel by pixel against values worked out by hand."""
import os

import numpy as np
from PIL import Image
import pytest

from deeplab import visualize
from deeplab.errors import InputError

WALL = (120, 120, 120)  # class 1
BUILDING = (180, 120, 120)  # class 2
SKY = (6, 230, 230)  # class 3


def gray(value, height=2, width=2):
  return np.full([height, width, 3], value, np.uint8)


class TestColour(object):

  def test_paints_the_palette(self):
    np.testing.assert_array_equal(
        visualize.colour(np.array([[0, 1], [3, 31]], np.int32)),
        [[(0, 0, 0), WALL], [SKY, (8, 255, 214)]])

  @pytest.mark.parametrize('value', [-1, 32, 255])
  def test_refuses_what_is_no_class(self, value):
    with pytest.raises(InputError) as error:
      visualize.colour(np.array([[1, value]]))
    assert str(error.value) == (
        'label {}: expected a class in 0..31'.format(value))

  def test_refuses_a_batch(self):
    with pytest.raises(InputError) as error:
      visualize.colour(np.zeros([1, 2, 2], int))
    assert str(error.value) == (
        'labels of shape [1, 2, 2]: expected [height, width]')


class TestOverlay(object):

  def test_blends_and_leaves_the_ignored_class_as_it_is(self):
    blend = visualize.overlay(
        gray(100), np.array([[0, 1], [2, 3]]), opacity=0.25)
    assert blend.dtype == np.uint8
    # 0.75 * 100 + 0.25 * colour: sky's red is 76.5, rounded to even.
    np.testing.assert_array_equal(
        blend, [[(100, 100, 100), (105, 105, 105)],
                [(120, 105, 105), (76, 132, 132)]])

  def test_float_image_out_of_range_is_clipped(self):
    image = gray(0).astype(np.float32) + [-3.0, 128.6, 300.0]
    blend = visualize.overlay(image, np.zeros([2, 2], int))
    np.testing.assert_array_equal(blend[1, 1], [0, 129, 255])

  def test_refuses_unequal_sizes(self):
    with pytest.raises(InputError) as error:
      visualize.overlay(gray(1, 2, 3), np.zeros([2, 2], int))
    assert str(error.value) == (
        'image of shape [2, 3, 3]: expected [2, 2, 3], for labels of shape '
        '[2, 2]')


class TestLegend(object):

  def test_one_swatch_a_class_in_order(self):
    picture = visualize.legend([3, 1, 1], width=300)
    assert picture.size == (300, 26)
    # Squares of 12 pixels, 8 pixels in; the next entry is 112 pixels on.
    assert picture.getpixel((7, 0)) == (255, 255, 255)
    assert picture.getpixel((8, 0)) == WALL
    assert picture.getpixel((19, 11)) == WALL
    assert picture.getpixel((20, 11)) == (255, 255, 255)
    assert picture.getpixel((120, 0)) == SKY

  def test_wraps_to_the_width(self):
    picture = visualize.legend([1, 2, 3], width=232)
    assert picture.size == (232, 2 * 18 + 8)
    assert picture.getpixel((120, 0)) == BUILDING
    assert picture.getpixel((8, 18)) == SKY

  def test_names_are_written(self):
    pixels = np.asarray(visualize.legend([25], width=120))
    beside_the_swatch = pixels[:18, 24:]
    assert (beside_the_swatch < 128).any()


class TestPredictionSheet(object):

  def test_image_label_and_prediction_side_by_side(self):
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

  @pytest.mark.parametrize('images, labels', [(0, 0), (2, 1)])
  def test_refuses_nothing_and_unequal_numbers(self, images, labels):
    with pytest.raises(InputError) as error:
      visualize.prediction_sheet(
          [gray(1)] * images, [np.zeros([2, 2], int)] * labels,
          [np.zeros([2, 2], int)] * labels)
    assert str(error.value) == (
        '{0} images, {1} labels, {1} predictions: expected as many of each, '
        'and at least one'.format(images, labels))

  def test_prediction_of_another_size_is_refused(self):
    with pytest.raises(InputError, match='image of shape'):
      visualize.prediction_sheet(
          [gray(1)], [np.zeros([2, 2], int)], [np.zeros([3, 3], int)])


class TestConfusionMatrix(object):

  def test_cells_are_as_dark_as_their_share_of_the_row(self):
    matrix = np.array([[0, 0, 0], [0, 60, 20], [0, 0, 5]])
    picture = visualize.confusion_matrix(matrix, ['other', 'wall', 'house'])
    # The corner of a cell, where nothing is written.
    def corner(row, column):
      return picture.getpixel((108 + 20 * column, 44 + 20 * row))

    white, full = (255, 255, 255), (8, 81, 156)
    assert corner(2, 2) == full
    # 255 - 0.75 * 247, 255 - 0.75 * 174, 255 - 0.75 * 99
    assert corner(1, 1) == (70, 124, 181)
    assert corner(1, 2) == (193, 212, 230)
    assert {corner(0, column) for column in range(3)} == {white}
    assert corner(2, 1) == corner(1, 0) == white

  def test_names_and_numbers_are_written(self):
    pictures = [np.array(visualize.confusion_matrix(
        np.array(matrix), names)) for matrix, names in (
            ([[5, 0], [0, 5]], ['other', 'wall']),
            ([[5, 0], [0, 5]], ['other', 'sea']),
            ([[3, 2], [0, 5]], ['other', 'wall']))]
    left = slice(0, 100)
    assert (pictures[0][:, left] != pictures[1][:, left]).any()
    np.testing.assert_array_equal(pictures[0][:, left], pictures[2][:, left])
    # The middle of a cell, where its number is.
    assert len(np.unique(pictures[2][44:63, 128:147].reshape(-1, 3),
                         axis=0)) > 1


class TestSave(object):

  def test_writes_one_whole_file(self, tmp_path):
    path = tmp_path / 'sheet.png'
    visualize.save(str(path), Image.new('RGB', (3, 2), SKY))
    with Image.open(str(path)) as picture:
      assert picture.format == 'PNG'
      assert picture.size == (3, 2)
      assert picture.getpixel((2, 1)) == SKY
    assert os.listdir(str(tmp_path)) == ['sheet.png']

  def test_failure_leaves_the_old_file_and_nothing_else(self, tmp_path):
    path = tmp_path / 'sheet.png'
    path.write_bytes(b'old')

    class Broken(object):
      def save(self, name, format):
        with open(name, 'wb') as out:
          out.write(b'half')
        raise OSError('disk full')

    with pytest.raises(OSError):
      visualize.save(str(path), Broken())
    assert path.read_bytes() == b'old'
    assert os.listdir(str(tmp_path)) == ['sheet.png']


def test_painting_by_rows_is_painting_at_once(monkeypatch):
  random = np.random.RandomState(0)
  pixels = random.randint(0, 256, [600, 3, 3]).astype(np.uint8)
  labels = random.randint(0, 32, [600, 3])
  by_rows = visualize.overlay(pixels, labels, 0.3)
  monkeypatch.setattr(visualize, '_ROWS', 600)
  np.testing.assert_array_equal(
      visualize.overlay(pixels, labels, 0.3), by_rows)
