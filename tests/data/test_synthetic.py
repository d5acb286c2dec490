"""Tests the synthetic data set and its script."""
import os
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

from deeplab import constants
from deeplab.config.options import SyntheticOptions
from deeplab.data import synthetic
from deeplab.errors import InputError
from deeplab.system import environment
from tests import scripts

SCRIPT = 'scripts/make_synthetic_ade20k.py'


def paint(folder, val_images=1, long_side=64, **fields):
  return synthetic.make_dataset(SyntheticOptions(
      output_dir=str(folder), val_images=val_images, long_side=long_side,
      **fields))


def scenes(count, long_side=96):
  return [synthetic.paint_scene(np.random.RandomState(seed), long_side)
          for seed in range(count)]


def listing(folder):
  return sorted(
      os.path.relpath(os.path.join(parent, name), str(folder))
      for parent, _, names in os.walk(str(folder)) for name in names)


def test_layout_matches_ade20k(tmp_path):
  folder = paint(tmp_path, train_images=2)
  assert folder == str(tmp_path / 'ADEChallengeData2016')
  assert listing(folder) == [
      'annotations/training/ADE_train_00000001.png',
      'annotations/training/ADE_train_00000002.png',
      'annotations/validation/ADE_val_00000001.png',
      'images/training/ADE_train_00000001.jpg',
      'images/training/ADE_train_00000002.jpg',
      'images/validation/ADE_val_00000001.jpg', 'synthetic.txt']
  label = Image.open(os.path.join(
      folder, 'annotations/training/ADE_train_00000001.png'))
  image = Image.open(os.path.join(
      folder, 'images/training/ADE_train_00000001.jpg'))
  assert (label.mode, image.mode) == ('L', 'RGB')
  assert label.size == image.size
  assert os.listdir(str(tmp_path)) == ['ADEChallengeData2016']


def test_scenes_have_different_shapes_and_all_labels():
  painted = scenes(40)
  shapes = {label.shape for _, label in painted}
  assert any(height > width for height, width in shapes)
  assert any(height < width for height, width in shapes)
  assert {max(shape) for shape in shapes} == {96}
  found = set(np.unique(np.concatenate(
      [label.ravel() for _, label in painted])))
  assert found >= {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 15, 17, 21, 23, 33, 37}
  assert max(found) <= constants.LARGEST_LABEL_ON_DISK


def test_classes_differ_in_colour():
  # Most pixels are nearest to the mean colour of their class.
  painted = scenes(16)
  pixels = np.concatenate([image.reshape(-1, 3) for image, _ in painted])
  labels = np.concatenate([label.ravel() for _, label in painted])
  classes = [value for value in np.unique(labels) if 0 < value < 32]
  kept = np.isin(labels, classes)
  means = np.stack([pixels[labels == value].mean(axis=0)
                    for value in classes])
  distances = ((pixels[kept][:, np.newaxis].astype(np.float32) - means) ** 2
               ).sum(axis=2)
  guesses = np.array(classes)[distances.argmin(axis=1)]
  assert (guesses == labels[kept]).mean() > 0.9


def test_a_picture_depends_only_on_seed_and_number(tmp_path):
  few = paint(tmp_path / 'few', train_images=1)
  many = paint(tmp_path / 'many', train_images=3)
  other = paint(tmp_path / 'other', seed=1, train_images=1)

  def contents(folder, name='images/training/ADE_train_00000001.jpg'):
    with open(os.path.join(folder, name), 'rb') as source:
      return source.read()

  assert contents(few) == contents(many)
  assert contents(few) != contents(other)
  assert contents(few) != contents(
      few, 'images/validation/ADE_val_00000001.jpg')


def test_replaces_only_its_own_data_set(tmp_path):
  for count in (3, 1):
    folder = paint(tmp_path, train_images=count)
  assert len(os.listdir(os.path.join(folder, 'images/training'))) == 1

  os.remove(os.path.join(folder, 'synthetic.txt'))
  before = listing(tmp_path)
  with pytest.raises(InputError, match='is no synthetic data set'):
    paint(tmp_path, train_images=1)
  assert listing(tmp_path) == before


def test_script_uses_every_flag(tmp_path):
  result = scripts.run(
      SCRIPT, '--output_dir=out', '--train_images=2', '--val_images=1',
      '--size=80', '--seed=5', cwd=str(tmp_path))
  assert result.stdout == ('2 training and 1 validation pairs in '
                           'out/ADEChallengeData2016\n')
  image, _ = synthetic.paint_scene(np.random.RandomState([5, 0, 2]), 80)
  written = Image.open(str(
      tmp_path / 'out/ADEChallengeData2016/images/training/'
      'ADE_train_00000002.jpg'))
  assert written.size == image.shape[1::-1]
  assert np.abs(np.asarray(written, np.float32) - image).mean() < 12


def test_script_needs_no_tensorflow(monkeypatch):
  monkeypatch.setattr(environment, 'tensorflow_version', lambda: None)
  assert environment.problem_with(()) is None
  assert 'needs TensorFlow 1.15' in environment.problem_with(('tf1',))
  imports = subprocess.run(
      [sys.executable, '-c', 'import sys; import deeplab.data.synthetic; '
       'import deeplab.cli.script_flags; print("tensorflow" in sys.modules)'],
      cwd=scripts.REPOSITORY, stdout=subprocess.PIPE, universal_newlines=True,
      timeout=120)
  assert imports.stdout == 'False\n'


def test_foreign_files_in_a_data_set_are_kept(tmp_path):
  folder = paint(tmp_path, train_images=2)
  for name in ('notes', 'images/training/mine.jpg'):
    with open(os.path.join(folder, name), 'w') as out:
      out.write('mine')
  paint(tmp_path, train_images=1)
  assert sorted(os.listdir(os.path.join(folder, 'images/training'))) == [
      'ADE_train_00000001.jpg', 'mine.jpg']
  assert 'notes' in os.listdir(folder)
