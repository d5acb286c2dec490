"""Tests the samples, counts and statistics of model comparisons."""
import json

import numpy as np
from PIL import Image
import pytest

from deeplab.cli import script_flags
from deeplab.config import label_map as label_maps
from deeplab.config import options as options_lib
from deeplab.data import png_folder
from deeplab.errors import InputError
from deeplab.models import interface
from deeplab.storage import files
from deeplab.tools.comparison import counts as counts_lib
from deeplab.tools.comparison import drawing
from deeplab.tools.comparison import samples as samples_lib
from deeplab.tools.comparison import statistics
from tests import flag_groups
from tests import record_sets
from tests import small_models

SIZE = (9, 12)


def options_of(**given):
  return options_lib.ComparisonOptions(output_dir='o', **given)


class Fake(interface.Predictor):
  """A model whose answer to image i is item i of a list."""

  def __init__(self, *answers):
    self.description = 'a model'
    self._answers = list(answers)

  def predict(self, images):
    return np.full(images.shape[:3], 0, np.int32) + self._answers.pop(0)

  def close(self):
    pass


def samples_of(*labels, size=(2, 3)):
  """Returns samples of 4x4 pixels; the image has `size`, a label one class."""
  images = [
      samples_lib.Sample(
          'image {}'.format(number), np.zeros([4, 4, 3], np.float32), size,
          None if label is None else np.full([4, 4], label, np.int32))
      for number, label in enumerate(labels)]
  return samples_lib.Samples(
      iter(images), len(images), labels[0] is not None, 's', 'g')


def counted(*models, labels, **arguments):
  return counts_lib.count(
      [Fake(*answers) for answers in models], samples_of(*labels),
      **dict({'most_different': 10}, **arguments))


# --- Samples ---------------------------------------------------------------


def test_records_are_read_as_in_evaluation(tmp_path):
  record_sets.write(tmp_path / 'val-00000-of-00001.tfrecord',
                    [record_sets.example(number) for number in range(3)])
  found = samples_lib.read(options_of(dataset_dir=str(tmp_path)), SIZE)
  assert found.has_labels and found.number == 3
  assert found.geometry == 'resized to 9..9, factor 1, padded to 9x12'
  images = list(found.images)
  assert [image.name for image in images] == [
      'image_0.jpg', 'image_1.jpg', 'image_2.jpg']
  # The longer side of 6x8 pixels becomes 9.
  assert images[0].size == (6, 9) and images[0].image.shape == SIZE + (3,)
  assert (images[0].label[:6, :9] == 1).all()
  assert images[0].label.sum() == 6 * 9
  few = samples_lib.read(
      options_of(dataset_dir=str(tmp_path), max_images=2), SIZE)
  assert few.number == 2
  assert few.source == 'val of {}, the first 2 of 3 images'.format(tmp_path)


@pytest.fixture
def folder(tmp_path):
  """Writes a preprocessed pair with an image of 5x7 in 9x12 pixels."""
  image = np.full(SIZE + (3,), 127, np.uint8)
  image[:5, :7] = 10
  image[4, :7] = 127  # taken for padding
  for name, pixels in (('images', image),
                       ('annotations', np.full(SIZE, 2, np.uint8))):
    (tmp_path / name).mkdir()
    Image.fromarray(pixels).save(str(tmp_path / name / 'img_0.png'))
  return str(tmp_path)


def test_padding_of_png_folders_is_left_out(folder):
  found = samples_lib.read(options_of(test_dir=folder), SIZE)
  image, = found.images
  assert image.size == (4, 7)
  assert image.image.dtype == np.float32 and image.label[0, 0] == 2
  assert found.geometry == '9x12 pixels'


def test_labels_use_the_classes_of_the_models(folder, tmp_path):
  own, other = small_models.OWN, small_models.OTHER
  given = options_of(test_dir=folder)
  assert samples_lib.read(given, SIZE, own).label_map == own
  files.write_json(png_folder.manifest_path(folder),
                   label_maps.json_entry(own))
  # Models without a label map are assumed to match.
  assert samples_lib.read(given, SIZE).label_map == own
  with pytest.raises(InputError) as error:
    samples_lib.read(given, SIZE, other)
  assert str(error.value) == (
      '{}: id 2 is 1 built, but 2 a <way> by the models; expected the same '
      'classes'.format(png_folder.manifest_path(folder)))
  record_sets.write(tmp_path / 'val-00000-of-00001.tfrecord',
                    [record_sets.example(0)])
  given = options_of(dataset_dir=str(tmp_path))
  assert samples_lib.read(given, SIZE, own).label_map == own
  shard = {'name': 'val-00000-of-00001.tfrecord', 'records': 1, 'sha256': '',
           'bytes': (tmp_path / 'val-00000-of-00001.tfrecord').stat().st_size}
  files.write_json(
      str(tmp_path / 'val.json'),
      {'split': 'val', 'pairs': 1, 'shards': [shard],
       'label_map': other.to_json()})
  with pytest.raises(InputError, match='2 a <way>, but 1 built by the network'):
    samples_lib.read(given, SIZE, own)


def test_pictures_have_no_labels(tmp_path):
  Image.fromarray(np.full([6, 3, 3], 50, np.uint8)).save(
      str(tmp_path / 'a.png'))
  found = samples_lib.read(options_of(pictures=str(tmp_path)), SIZE)
  image, = found.images
  assert not found.has_labels and image.label is None
  assert image.size == (9, 4) and image.name == 'a.png'


@pytest.mark.parametrize('given, said', [
    ({}, 'nowhere'),
    ({'pictures': 'p', 'test_dir': 't'}, 'test_dir and pictures')])
def test_exactly_one_source_of_images_is_required(given, said):
  with pytest.raises(InputError) as error:
    samples_lib.check(options_of(**given))
  assert str(error.value) == (
      'images from {}; expected one of dataset_dir, test_dir and '
      'pictures'.format(said))


# --- Counts ----------------------------------------------------------------


def test_padding_is_not_counted():
  half = np.array([[[3, 3, 4, 9]]])  # 2 of 3 columns are class 3
  counts = counted([3, 5], [half, 5], labels=(3, 5))
  np.testing.assert_array_equal(counts.pixels, [6, 6])
  np.testing.assert_array_equal(counts.differing, [2, 0])
  np.testing.assert_array_equal(counts.agreeing[0], [6, 4])
  assert counts.matrices.sum() == 4 * 6
  assert counts.matrices[0, 1, 3, 3] == 4 and counts.matrices[0, 1, 3, 4] == 2


def test_label_0_is_not_counted():
  assert counted([0], [1], labels=(0,)).matrices.sum() == 0


def test_the_most_different_images_are_kept():
  rows = [np.array([[1] * n + [2] * (4 - n)]) for n in (3, 0, 2, 0)]
  counts = counted([1] * 4, rows, labels=[None] * 4, most_different=3)
  assert counts.matrices is None
  assert [shown.name for shown in counts.shown] == [
      'image 1', 'image 3', 'image 2']
  assert counts.shown[0].differing == 1
  assert counts.shown[0].image.shape == (2, 3, 3)
  assert counted([1], [2], labels=[1], most_different=0).shown == []


def test_predictions_outside_the_classes_are_refused():
  with pytest.raises(InputError) as error:
    counted([1], [40], labels=(1,))
  assert str(error.value) == 'a model: prediction 40: expected a class in 0..31'


# --- Statistics ------------------------------------------------------------


def computed(*models, labels, resamples=200, seed=0):
  """Returns the numbers of models called a, b and c."""
  return statistics.compute(
      counted(*models, labels=labels), 'abc'[:len(models)],
      resamples=resamples, seed=seed)


def test_scores_and_differences_over_all_images():
  """Of 4 images, the first model labels 3 correctly, the second 1."""
  found = computed([1, 2, 3, 5], [1, 1, 1, 1], labels=(1, 2, 3, 4))
  first, second = found['scores']['a'], found['scores']['b']
  assert first['pixel_accuracy']['value'] == 0.75
  assert second['pixel_accuracy']['value'] == 0.25
  difference = second[statistics.DIFFERENCES]['pixel_accuracy']
  assert difference['value'] == -0.5
  assert first[statistics.DIFFERENCES]['miou'] == {
      'value': 0, 'low': 0, 'high': 0}
  assert second['classes'][2]['iou_difference']['value'] == -1
  assert second['classes'][1]['iou']['value'] == 0.25
  assert second['classes'][1]['name'] == 'wall'
  assert first['classes'][7]['iou'] == {
      'value': None, 'low': None, 'high': None}
  assert first['confusion_matrix'][4][5] == 6
  assert found['agreement']['b']['value'] == 0.25
  assert found['all_agree']['value'] == 0.25
  assert found['agreement']['a'] == {'value': 1, 'low': 1, 'high': 1}
  json.dumps(found, allow_nan=False)


def test_a_finding_names_the_classes_behind_a_difference_of_miou():
  """The second model labels one of the two images of class 3 as class 1.

  IoUs of classes 1, 2 and 3 are 1, 1, 1 and 2/3, 1, 1/2.
  """
  labels = [1, 1, 2, 2, 3, 3]
  found = computed(labels, [1, 1, 2, 2, 3, 1], labels=labels)
  assert found['findings'] == [
      'b has 0.2778 less mIoU than a (too few images), driven by sky (60 % of '
      'it), wall (40 % of it); they agree on 83.33 % of the pixels.']
  assert [one['share_of_miou_difference']
          for one in found['scores']['b']['classes'][:5]] == pytest.approx(
              [0, 0.4, 0, 0.6, 0])
  # Only the second model predicts class 9: IoU 1, against 2/3 and 0.
  found = computed([1], [np.array([[[1, 1, 9, 9]]])], labels=[1])
  assert 'driven by windowpane (75 % of it), wall' in found['findings'][0]
  shares = [one['share_of_miou_difference']
            for one in found['scores']['b']['classes']]
  assert sum(shares) == pytest.approx(1) and shares[9] == pytest.approx(0.75)
  assert computed([1], [1], [2], labels=[1])['findings'][0] == (
      'b has the same mIoU as a (too few images); they agree on 100.00 % of '
      'the pixels.')
  assert computed([1], [2], labels=[None])['findings'] == [
      'b and a agree on 0.00 % of the pixels.']


def test_numbers_of_each_image():
  found = computed([1, 1], [1, 2], labels=[1, 0])
  assert found['by_image'][1] == {
      'name': 'image 1', 'pixels': 6, 'differing': 1,
      'pixel_accuracy': {'a': None, 'b': None}}
  assert 'scores' not in computed([1], [1], labels=[None])


def test_intervals_come_from_resampling_images():
  """With images that are right or wrong at random, it is the binomial one."""
  answers = [1] * 50 + [2] * 50
  found = computed([1] * 100, answers, labels=[1] * 100, resamples=2000)
  second = found['scores']['b']
  accuracy = second['pixel_accuracy']
  assert accuracy['value'] == 0.5
  assert accuracy['low'] == pytest.approx(0.5 - 1.96 * 0.05, abs=0.015)
  assert accuracy['high'] == pytest.approx(0.5 + 1.96 * 0.05, abs=0.015)
  assert statistics.verdict(
      second[statistics.DIFFERENCES]['miou'], 100) == 'worse'
  # For two classes, one of them never correct, and a power of 80 %.
  needed = second['images_needed_for_0_002']
  assert needed == pytest.approx(
      (1.96 + 0.84) ** 2 * 0.025 ** 2 * 100 / 0.002 ** 2, rel=0.1)
  assert found['reliability'].endswith('about {} images.'.format(needed))


def test_models_are_resampled_with_the_same_images():
  """If a model differs equally on every image, its interval is a point."""
  hard = [1, 2] * 20
  second = computed(hard, hard, labels=[1] * 40)['scores']['b']
  assert second[statistics.DIFFERENCES]['miou'] == {
      'value': 0, 'low': 0, 'high': 0}
  assert second['miou']['high'] > second['miou']['low']
  assert second['images_needed_for_0_002'] is None


def test_equal_seeds_give_equal_intervals():
  first, again, other = (
      computed([1] * 9, [1, 2, 3] * 3, seed=seed, labels=[1] * 9, resamples=20)
      for seed in (1, 1, 2))
  assert first == again != other


def test_few_images_are_reported_as_noise():
  found = computed([1, 1], [1, 2], labels=[1, 1])
  assert found['reliability'].startswith('2 images are noise: ')
  second = found['scores']['b']
  assert statistics.verdict(
      second[statistics.DIFFERENCES]['miou'], 2) == 'too few images'
  assert second['images_needed_for_0_002'] is None
  alone = computed([1], [2], labels=[1])
  assert alone['reliability'].startswith('One image: ')
  assert alone['scores']['a']['miou']['low'] is None


@pytest.mark.parametrize('low, high, expected', [
    (0.05, 0.2, 'better'), (-0.2, -0.01, 'worse'),
    (-0.01, 0.2, 'not told apart'), (None, None, 'no interval')])
def test_verdicts(low, high, expected):
  assert statistics.verdict({'low': low, 'high': high}, 30) == expected


def test_confusions_are_listed_by_pixels():
  matrix = np.zeros([4, 4], int)
  matrix[1] = [2, 10, 5, 3]
  matrix[2, 3] = 4
  assert statistics.confusions(matrix, most=3) == [
      (1, 2, 5, 0.25), (2, 3, 4, 1.0), (1, 3, 3, 0.15)]
  assert statistics.confusions(np.eye(4, dtype=int)) == []


def test_counts_and_numbers_use_the_classes_of_the_models():
  own = small_models.OWN
  counts = counts_lib.count(
      [Fake(1), Fake(2)], samples_of(1)._replace(label_map=own),
      most_different=1)
  assert counts.matrices.shape == (1, 2, 3, 3)
  content = statistics.compute(counts, ['a', 'b'], resamples=10, seed=0)
  assert [entry['name'] for entry in content['scores']['b']['classes']] == list(
      own.names)
  assert label_maps.from_json(content['label_map']) == own
  with pytest.raises(InputError, match=r'a model: prediction 3: .* 0\.\.2'):
    counts_lib.count([Fake(1), Fake(3)], samples_of(1)._replace(label_map=own),
                     most_different=1)


# --- Pictures --------------------------------------------------------------


def test_a_difference_map_shows_which_model_is_right():
  shown = counts_lib.Shown(
      'x', 0.5, np.full([1, 5, 3], 100, np.uint8),
      np.array([[1, 1, 1, 0, 1]]),
      [np.array([[1, 1, 2, 1, 5]]), np.array([[1, 2, 1, 2, 6]])])
  same = int(100 * 0.45 + 120)
  np.testing.assert_array_equal(drawing.difference_map(shown, 1)[0], [
      (same,) * 3, drawing.FIRST_RIGHT, drawing.OTHER_RIGHT, drawing.DIFFERENT,
      drawing.NONE_RIGHT])
  unlabelled = drawing.difference_map(shown._replace(label=None), 1)[0]
  np.testing.assert_array_equal(unlabelled[1:], [drawing.DIFFERENT] * 4)
  assert drawing.classes_shown([shown]) == [1, 2, 5, 6]


def test_panels_of_an_image():
  image = np.full([4, 6, 3], 100, np.uint8)
  labels = np.full([4, 6], 1)
  shown = counts_lib.Shown('x', 0.0, image, labels, [labels] * 3)
  found = drawing.panels(shown, ['a', 'b', 'c'])
  assert [title for title, _ in found] == [
      'image', 'label', 'a', 'b', 'c', 'b against a', 'c against a']
  unlabelled = drawing.panels(shown._replace(label=None), ['a', 'b', 'c'])
  assert [title for title, _ in unlabelled][:2] == ['image', 'a']


@pytest.mark.parametrize('size, expected', [
    ((512, 1024), (256, 128)), ((900, 10), (4, 384)), ((1, 4000), (256, 1)),
    ((20, 30), (30, 20))])
def test_thumbnails_of_any_shape(size, expected):
  uri, found = drawing.thumbnail(np.zeros(size + (3,), np.uint8))
  assert found == expected
  assert uri.startswith('data:image/jpeg;base64,/9j/')


# --- Flags -----------------------------------------------------------------


def models_of(*given):
  return script_flags.COMPARE.arguments(flag_groups.parsed(
      'scripts/compare_models.py', '--output_dir=o', '--pictures=p',
      *['--model=' + text for text in given]))['models']


def test_names_of_models(tmp_path):
  odd = str(tmp_path / 'a=b')
  open(odd, 'w').close()
  assert models_of('x=some/file', 'folder/y.pb/', odd) == [
      ('x', 'some/file'), ('y.pb', 'folder/y.pb/'), ('a=b', odd)]


@pytest.mark.parametrize('given, problem', [
    (['a=b'], 'is required twice or more'),
    (['a=b', '=c'], '--model==c: expected NAME=PATH'),
    (['a=b', 'c='], '--model=c=: expected NAME=PATH'),
    (['x/a.pb', 'y/a.pb'], '--model=y/a.pb: another model is called a.pb')])
def test_ambiguous_names_of_models_are_refused(given, problem):
  with pytest.raises(InputError, match=problem):
    models_of(*given)


