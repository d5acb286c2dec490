"""Tests scripts/visualize.py: overlays and refusals."""
import json
import os

import numpy as np
from PIL import Image
import pytest

from deeplab.config import label_map as label_maps
from deeplab.config import options as options_lib
from deeplab.errors import InputError
from deeplab.evaluation import visualize
from deeplab.tools import overlays
from tests import scripts
from tests import small_models

SKY, GRASS = 3, 10
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


@pytest.fixture
def model(tmp_path):
  """Labels red as other, green as grass and blue as sky."""
  return small_models.write_graph(tmp_path / 'x.pb', classes=(0, GRASS, SKY),
                                  num_classes=32)


def picture(path, size=(40, 20)):
  """Saves a picture, sky above grass."""
  pixels = np.full(size + (3,), GREEN, np.uint8)
  pixels[:size[0] // 2] = BLUE
  Image.fromarray(pixels).save(str(path))
  return pixels


def make(model, given, tmp_path, **options):
  return overlays.make(options_lib.OverlayOptions(
      model=model, pictures=str(given), output_dir=str(tmp_path / 'made'),
      **options))


def pixels_of(path):
  return np.asarray(Image.open(str(path)))


def test_overlay_and_labels_have_the_size_of_the_picture(model, tmp_path):
  pixels = picture(tmp_path / 'a.png')
  result = make(model, tmp_path / 'a.png', tmp_path, save_labels=True,
                opacity=0.5)
  assert result.overlays == [str(tmp_path / 'made' / 'a.png.overlay.png')]
  labels = pixels_of(tmp_path / 'made' / 'a.png.labels.png')
  assert labels.shape == (40, 20)
  # Near the border, labels come from a smaller picture.
  assert (labels[:18] == SKY).all() and (labels[22:] == GRASS).all()
  made = pixels_of(result.overlays[0])
  np.testing.assert_array_equal(
      made[:40, :20], visualize.overlay(pixels, labels, 0.5))
  # The legend has white, and both classes as they look on gray.
  below = {tuple(pixel) for pixel in made[40:].reshape(-1, 3)}
  assert {visualize.shade(SKY, 0.5), visualize.shade(GRASS, 0.5),
          (255, 255, 255)} <= below
  assert (made[:40, 20:] == 255).all()
  assert {entry['name'] for entry in result.summary['pictures'][0]['classes']
          } == {'sky', 'grass'}
  assert sum(entry['share'] for entry in result.summary['pictures'][0][
      'classes']) == pytest.approx(1)


def test_own_classes_have_their_names_and_colours(tmp_path):
  own = small_models.OWN
  path = tmp_path / 'own.pb'
  model = small_models.write_graph(path)
  small_models.describe(path, own)
  pixels = picture(tmp_path / 'a.png')
  result = make(model, tmp_path / 'a.png', tmp_path, save_labels=True)
  labels = pixels_of(tmp_path / 'made' / 'a.png.labels.png')
  made = pixels_of(result.overlays[0])
  np.testing.assert_array_equal(
      made[:40, :20], visualize.overlay(pixels, labels, label_map=own))
  np.testing.assert_array_equal(
      made[48:], np.asarray(visualize.legend([1, 2], 240, own)))
  assert {(entry['id'], entry['name'])
          for entry in result.summary['pictures'][0]['classes']
          } == {(1, 'built'), (2, 'a <way>')}
  assert label_maps.from_json(result.summary['label_map']) == own


@pytest.mark.parametrize('size', [(1, 90), (90, 1), (700, 31)])
def test_without_a_legend_an_overlay_has_the_size_of_the_picture(
    model, tmp_path, size):
  picture(tmp_path / 'a.png', size)
  result = make(model, tmp_path / 'a.png', tmp_path, legend=False)
  assert pixels_of(result.overlays[0]).shape == size + (3,)


def test_the_legend_of_a_large_picture_has_larger_letters(model, tmp_path):
  heights = []
  for width in (1100, 2500):
    picture(tmp_path / 'a.png', (4, width))
    made = pixels_of(make(model, tmp_path / 'a.png', tmp_path).overlays[0])
    assert made.shape[1] == width
    heights.append(made.shape[0] - 4)
  assert heights[1] == 3 * heights[0]


def test_the_script_handles_a_folder(model, tmp_path):
  (tmp_path / 'given').mkdir()
  for name in ('a.png', 'b.jpg'):
    picture(tmp_path / 'given' / name)
  (tmp_path / 'given' / 'c.jpg').write_bytes(b'text')
  arguments = ['--model=' + model, '--pictures={}'.format(tmp_path / 'given'),
               '--output_dir={}'.format(tmp_path / 'made')]
  line = scripts.refusal('scripts/visualize.py', *arguments)
  assert line.endswith('1 of 3 pictures cannot be used: c.jpg: is neither '
                       'JPEG nor PNG')
  assert os.listdir(str(tmp_path / 'made')) == []
  done = scripts.run('scripts/visualize.py', '--skip_bad', *arguments)
  assert 'a.png.overlay.png: 40x20, ' in done.stdout
  assert '2 pictures by {}'.format(model) in done.stdout
  assert sorted(os.listdir(str(tmp_path / 'made'))) == [
      'a.png.overlay.png', 'b.jpg.overlay.png', 'overlays.json']
  with open(str(tmp_path / 'made' / 'overlays.json')) as content:
    summary = json.load(content)
  assert summary['kind'] == 'frozen graph'
  assert summary['left_out'] == ['c.jpg: is neither JPEG nor PNG']
  assert [entry['fitted_to'] for entry in summary['pictures']] == 2 * [[33, 16]]


def test_bad_sizes_folders_and_files_are_refused(model, tmp_path):
  (tmp_path / 'in').mkdir()
  picture(tmp_path / 'in' / 'a.png')
  with pytest.raises(InputError, match='crop_size=65,65'):
    make(model, tmp_path / 'in', tmp_path, crop_size=(65, 65))
  with pytest.raises(InputError, match='is a folder of pictures'):
    overlays.make(options_lib.OverlayOptions(
        model=model, pictures=str(tmp_path / 'in'),
        output_dir=str(tmp_path / 'in')))
  # Overlays of an earlier run are replaced, but not other files.
  for _ in range(2):
    make(model, tmp_path / 'in', tmp_path)
  os.remove(str(tmp_path / 'made' / 'overlays.json'))
  with pytest.raises(InputError, match='holds a.png.overlay.png, which no'):
    make(model, tmp_path / 'in', tmp_path)


def test_a_subfolder_images_is_used_and_logged(
    model, tmp_path, caplog):
  (tmp_path / 'in' / 'images').mkdir(parents=True)
  picture(tmp_path / 'in' / 'images' / 'a.png')
  make(model, tmp_path / 'in', tmp_path)
  assert 'using the pictures in {}'.format(
      tmp_path / 'in' / 'images') in caplog.text
