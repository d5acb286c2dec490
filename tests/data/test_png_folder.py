"""Tests reading folders of preprocessed pairs."""
import json
import os

import numpy as np
from PIL import Image
import pytest

from deeplab.data import png_folder
from deeplab.errors import InputError

pytestmark = [pytest.mark.tf1, pytest.mark.modern]
SIZE = (6, 8)  # height, width


class Folder:
  """FOLDER/images and FOLDER/annotations."""

  def __init__(self, path):
    self.path = str(path)
    self.images = path / 'images'
    self.annotations = path / 'annotations'
    for folder in (self.images, self.annotations):
      folder.mkdir()

  def add(self, name='img_0', image=(1, 2, 3), label=5, size=SIZE):
    self.add_image(name, np.full(size + (3,), image, np.uint8))
    self.add_label(name, np.full(size, label, np.uint8))

  def add_image(self, name, array, mode=None):
    Image.fromarray(array, mode).save(str(self.images / name) + '.png')

  def add_label(self, name, array, mode=None):
    Image.fromarray(array, mode).save(str(self.annotations / name) + '.png')

  def pairs(self):
    return png_folder.list_pairs(self.path).pairs


@pytest.fixture
def folder(tmp_path):
  return Folder(tmp_path)


def refusal(function, *arguments):
  with pytest.raises(InputError) as caught:
    function(*arguments)
  assert '\n' not in str(caught.value)
  return str(caught.value)


# --- Listing ---------------------------------------------------------------


def test_images_are_sorted_by_number(folder):
  for number in (10, 9, 2, 0, 100):
    folder.add('img_{}'.format(number))
  (folder.images / 'a.JPG').write_bytes(b'')
  names = [os.path.basename(path) for path in png_folder.image_paths(
      folder.path, 'dataset_dir')]
  assert names == ['a.JPG', 'img_0.png', 'img_2.png', 'img_9.png',
                   'img_10.png', 'img_100.png']


def test_the_images_folder_or_its_parent_can_be_given(folder):
  folder.add('img_0')
  expected = [str(folder.images / 'img_0.png')]
  for given in (folder.path, str(folder.images), str(folder.images) + os.sep):
    assert png_folder.image_paths(given, 'dataset_dir') == expected


def test_pairs_are_matched_by_name_and_other_files_are_counted(folder):
  for name in ('img_1', 'a.b', 'img_0'):
    folder.add(name)
  folder.add_label('img_7', np.zeros(SIZE, np.uint8))
  folder.add_label('img_8', np.zeros(SIZE, np.uint8))
  (folder.images / 'notes.txt').write_text('x')
  (folder.images / '.DS_Store').write_text('x')
  (folder.annotations / 'notes.txt').write_text('x')
  listing = png_folder.list_pairs(folder.path)
  assert [pair.name for pair in listing.pairs] == [
      'a.b.png', 'img_0.png', 'img_1.png']
  for pair in listing.pairs:
    assert pair.image_path == str(folder.images / pair.name)
    assert pair.label_path == str(folder.annotations / pair.name)
  assert (listing.ignored, listing.unused) == (1, 2)


def test_annotations_may_be_in_another_folder(folder, tmp_path):
  folder.add('img_0')
  folder.annotations.rename(tmp_path / 'elsewhere')
  pairs = png_folder.list_pairs(
      str(folder.images), str(tmp_path / 'elsewhere')).pairs
  assert pairs[0].label_path == str(tmp_path / 'elsewhere' / 'img_0.png')


def test_images_without_annotation_are_named(folder):
  for number in range(6):
    folder.add('img_{}'.format(number))
  for number in (1, 2, 3, 5):
    (folder.annotations / 'img_{}.png'.format(number)).unlink()
  assert refusal(folder.pairs) == (
      '4 of 6 images without annotation in val_label_dir={}: img_1.png, '
      'img_2.png, img_3.png, and 1 more'.format(folder.annotations))


def test_two_images_with_one_annotation_are_refused(folder):
  folder.add('img_0')
  Image.new('RGB', SIZE[::-1]).save(str(folder.images / 'img_0.jpg'))
  assert refusal(folder.pairs) == (
      '2 images share an annotation with another one: img_0.jpg, img_0.png')


def test_bad_folders_are_refused(folder, tmp_path):
  listing = png_folder.list_pairs
  assert refusal(listing, '/no/such') == (
      'test_dir=/no/such: no such folder; gen_preprocessed_data.py makes one')
  (folder.images / 'notes.txt').write_text('x')
  assert refusal(listing, folder.path) == (
      'no images in test_dir={} (1 other files)'.format(folder.images))
  folder.add('img_0')
  assert refusal(listing, folder.path, '/no/such') == (
      'val_label_dir=/no/such: no such folder')
  assert 'another folder than the images' in refusal(
      listing, folder.path, str(folder.images))


@pytest.mark.parametrize('given', ['', 'images'])
def test_an_unfinished_folder_is_refused(folder, tmp_path, given):
  folder.add('img_0')
  (tmp_path / 'INCOMPLETE').write_text('')
  assert refusal(png_folder.image_paths, str(tmp_path / given),
                 'dataset_dir') == (
      'dataset_dir={}: gen_preprocessed_data.py did not finish writing it; '
      'run that again with overwrite'.format(folder.images))


def test_manifest(folder, tmp_path):
  assert png_folder.read_manifest(folder.path) == {}
  path = tmp_path / 'manifest.json'
  path.write_text(json.dumps({'split': 'val'}))
  assert png_folder.read_manifest(folder.path) == {'split': 'val'}
  for content in ('{"split"', '3', '[' * 10 ** 5, '{"geometry": 3}',
                  '{"images": 3}', '{"images": [{"name": 3}]}'):
    path.write_text(content)
    message = refusal(png_folder.read_manifest, folder.path)
    assert message.startswith(str(path) + ': ')
    assert 'the manifest that gen_preprocessed_data.py writes' in message


def test_a_folder_must_match_its_manifest(folder, tmp_path):
  for name in ('img_0', 'img_2', 'img_10'):
    folder.add(name)
  path = tmp_path / 'manifest.json'
  path.write_text(json.dumps({'images': [
      {'name': 'img_{}.png'.format(number)} for number in (0, 1, 2, 3)]}))
  assert refusal(png_folder.list_pairs, str(folder.images)) == (
      '{}: lists 4 images, but the folder lacks img_1.png, img_3.png and has '
      'also img_10.png; run gen_preprocessed_data.py again, or remove '
      'manifest.json if this is on purpose'.format(path))
  os.rename(str(folder.images), str(tmp_path / 'some'))
  assert len(png_folder.list_pairs(
      str(tmp_path / 'some'), str(folder.annotations)).pairs) == 3


# --- Checking and reading --------------------------------------------------


def check(folder, size=SIZE):
  return png_folder.check(folder.pairs(), size)


def test_read_pair(folder):
  image = np.random.RandomState(0).randint(0, 256, SIZE + (3,)).astype(np.uint8)
  label = np.resize(np.array([0, 1, 31, 32, 150], np.uint8), SIZE)
  folder.add_image('img_0', image)
  folder.add_label('img_0', label)
  folder.add('img_1')
  # Labels above 31 are allowed, but counted.
  assert check(folder) == np.count_nonzero(label > 31)
  found_image, found_label = png_folder.read_pair(folder.pairs()[0])
  np.testing.assert_array_equal(found_image, image)
  assert found_image.dtype == np.uint8
  np.testing.assert_array_equal(
      found_label, np.resize([0, 1, 31, 0, 0], SIZE))
  assert found_label.dtype == np.int32


@pytest.mark.parametrize('values', [[0], [32], [0, 150]])
def test_a_folder_without_labelled_pixels_is_refused(folder, values):
  folder.add('img_0')
  folder.add_label('img_0', np.resize(np.array(values, np.uint8), SIZE))
  assert refusal(check, folder) == (
      'no annotation of 1 holds a class id of 1..31')
  folder.add('img_1')
  assert check(folder) == np.count_nonzero(np.array(values) > 31) * (
      SIZE[0] * SIZE[1] // len(values))


def replace(make):
  """Returns a function that removes a file and makes something else."""
  def make_instead(path):
    os.remove(path)
    make(path)
  return make_instead


def cut(path):
  os.truncate(path, os.path.getsize(path) - 20)


def save(array, mode=None):
  return lambda path: Image.fromarray(array, mode).save(path)


# Folder of the file to damage, the damage, and the problem.
BAD = [
    (kind, spoil, 'img_1.png: ' + problem)
    for kind in ('images', 'annotations') for spoil, problem in (
        (replace(os.mkdir), 'is a folder; expected an image'),
        (replace(os.mkfifo), 'is a device or a pipe; expected an image'),
        (replace(lambda path: os.symlink('gone', path)),
         'no such file; expected an image'),
        (cut, 'truncated PNG'),
        (lambda path: open(path, 'w').close(), 'empty file'))
] + [
    ('images', save(np.zeros((7, 8, 3), np.uint8)),
     'img_1.png is 7x8; the model takes 6x8 (height x width)'),
    ('images', save(np.zeros(SIZE + (4,), np.uint8)),
     'img_1.png is RGBA; expected RGB'),
    ('annotations', save(np.ones([6, 9], np.uint8)),
     'img_1: image 8x6, label 9x6'),
] + [
    ('annotations', save(array, mode), 'annotations/img_1.png is {}; expected '
     'one channel of class ids 0..31'.format(mode))
    for mode, array in (('RGB', np.zeros(SIZE + (3,), np.uint8)),
                        ('P', np.ones(SIZE, np.uint8)),
                        ('LA', np.ones(SIZE + (2,), np.uint8)))]


@pytest.mark.parametrize('kind, spoil, problem', BAD,
                         ids=[problem for _, _, problem in BAD])
def test_a_bad_pair_is_named_with_the_reason(
    folder, kind, spoil, problem):
  folder.add('img_0')
  folder.add('img_1')
  spoil(os.path.join(folder.path, kind, 'img_1.png'))
  message = refusal(check, folder)
  assert message.startswith('1 of 2 pairs cannot be used: ')
  assert problem in message
