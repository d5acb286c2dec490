"""Tests pictures of any shape and colour type."""
import numpy as np
from PIL import Image
import pytest

from deeplab.data import pictures
from deeplab.errors import InputError

RANDOM = np.random.RandomState(0)
PIXELS = RANDOM.randint(0, 256, [5, 7, 3]).astype(np.uint8)


def save(path, image, **options):
  if not isinstance(image, Image.Image):
    image = Image.fromarray(image)
  image.save(str(path), **options)
  return str(path)


def with_orientation(number):
  exif = Image.Exif()
  exif[0x0112] = number
  return exif


# --- Reading ---------------------------------------------------------------


def test_gray_of_any_depth_becomes_rgb(tmp_path):
  gray = PIXELS[..., 0]
  for name, image in (('8', gray), ('16', gray.astype(np.uint16) * 256 + 7),
                      ('alpha', np.dstack([gray, gray // 2]))):
    read = pictures.read(save(tmp_path / (name + '.png'), image))
    np.testing.assert_array_equal(read, np.dstack([gray] * 3), name)
  bits = gray > 128
  read = pictures.read(save(tmp_path / '1.png', bits))
  np.testing.assert_array_equal(read, np.dstack([255 * bits] * 3))


def test_colours_are_kept_and_transparency_is_dropped(tmp_path):
  alpha = RANDOM.randint(0, 256, [5, 7, 1]).astype(np.uint8)
  rgba = np.concatenate([PIXELS, alpha], axis=2)
  palette = Image.fromarray(PIXELS[:2, :2]).convert(
      'P', palette=Image.ADAPTIVE, colors=4)
  for name, image, expected in (
      ('rgb', PIXELS, PIXELS), ('rgba', rgba, PIXELS),
      ('palette', palette, np.asarray(palette.convert('RGB')))):
    read = pictures.read(save(tmp_path / (name + '.png'), image))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, expected, name)


def test_transparency_of_a_palette_is_dropped(tmp_path):
  palette = Image.fromarray(PIXELS[:2, :2]).convert(
      'P', palette=Image.ADAPTIVE, colors=4)
  path = save(tmp_path / 'x.png', palette, transparency=bytes([0, 9]))
  np.testing.assert_array_equal(
      pictures.read(path), np.asarray(palette.convert('RGB')))


def test_cmyk(tmp_path):
  flat = Image.fromarray(np.full([8, 8, 3], (200, 100, 50), np.uint8))
  read = pictures.read(save(tmp_path / 'x.jpg', flat.convert('CMYK')))
  assert np.abs(read.astype(int) - (200, 100, 50)).max() <= 3


# Displayed pixels of rows [[1, 2], [3, 4]], by EXIF orientation.
SEEN = {1: [[1, 2], [3, 4]], 2: [[2, 1], [4, 3]], 3: [[4, 3], [2, 1]],
        4: [[3, 4], [1, 2]], 5: [[1, 3], [2, 4]], 6: [[3, 1], [4, 2]],
        7: [[4, 2], [3, 1]], 8: [[2, 4], [1, 3]], 9: [[1, 2], [3, 4]]}


@pytest.mark.parametrize('number', sorted(SEEN))
def test_the_exif_orientation_is_applied(tmp_path, number):
  stored = np.array(SEEN[1], np.uint8) * 50
  path = save(tmp_path / 'x.png', stored, exif=with_orientation(number))
  np.testing.assert_array_equal(
      pictures.read(path)[..., 0], np.array(SEEN[number]) * 50)
  np.testing.assert_array_equal(
      pictures.read(path, exif_rotation=False)[..., 0], stored)


def test_invalid_exif_data_are_ignored(tmp_path):
  path = save(tmp_path / 'x.jpg', PIXELS, exif=b'Exif\0\0MM\0*\xff\xff\xff\xff')
  assert pictures.read(path).shape == PIXELS.shape


def test_bad_pictures_are_refused(tmp_path):
  good = save(tmp_path / 'b.png', PIXELS)
  bad = tmp_path / 'a.png'
  bad.write_bytes(b'GIF89a')
  paths = pictures.list_pictures(str(tmp_path))
  assert paths == [str(bad), good]
  with pytest.raises(InputError) as error:
    pictures.check(paths)
  assert str(error.value) == (
      '1 of 2 pictures cannot be used: a.png: is neither JPEG nor PNG')
  assert pictures.check(paths, skip_bad=True) == (
      [good], ['a.png: is neither JPEG nor PNG'])
  with pytest.raises(InputError):
    pictures.check([str(bad)], skip_bad=True)
  with pytest.raises(InputError) as error:
    pictures.list_pictures(str(tmp_path / 'none'), 'given')
  assert str(error.value) == 'given={}: no such file or folder'.format(
      tmp_path / 'none')


# --- Fitting ---------------------------------------------------------------


@pytest.mark.parametrize('size, fitted', [
    ((10, 20), (16, 33)), ((20, 10), (33, 16)), ((1, 90), (1, 33)),
    ((90, 1), (33, 1)), ((1, 1), (33, 33)), ((33, 33), (33, 33))])
def test_any_shape_is_fitted(size, fitted):
  picture = np.full(size + (3,), 50, np.uint8)
  with pictures.Fitter((33, 65)) as fitter:
    found = fitter.fit(picture)
  assert found.size == fitted
  assert found.image.shape == (33, 65, 3) and found.image.dtype == np.float32
  height, width = fitted
  np.testing.assert_allclose(found.image[:height, :width], 50, atol=1e-4)
  assert (found.image[height:] == 127.5).all()
  assert (found.image[:, width:] == 127.5).all()


def test_labels_are_mapped_back_to_the_picture():
  """Covers a larger picture, a smaller one and one of a single row."""
  labels = np.zeros([33, 33], np.int32)
  labels[:4, :5] = np.arange(20).reshape(4, 5)
  np.testing.assert_array_equal(
      pictures.labels_as_seen(labels, (4, 5), (7, 9))[::2, ::2], labels[:4, :5])
  np.testing.assert_array_equal(
      pictures.labels_as_seen(labels, (4, 5), (2, 2)),
      [[labels[0, 0], labels[0, 4]], [labels[3, 0], labels[3, 4]]])
  row = pictures.labels_as_seen(labels, (1, 5), (1, 5))
  assert row.dtype == np.uint8
  np.testing.assert_array_equal(row, labels[:1, :5])
