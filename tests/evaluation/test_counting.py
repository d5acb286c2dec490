"""Tests one pass over a split: sums, samples, errors and closing."""
import numpy as np
import pytest

from deeplab.errors import InputError
from deeplab.evaluation import counting
from deeplab.models import interface

pytestmark = [pytest.mark.tf1, pytest.mark.tf2, pytest.mark.modern]


class FirstChannel(interface.Predictor):
  """Labels each pixel with its red value."""

  is_closed = False

  def predict(self, images):
    return images[..., 0].astype(np.int32)

  def close(self):
    self.is_closed = True


class Batches:
  """Batches of two from images 1 to 5; each has one value and label 1."""

  num_images = 5

  def __iter__(self):
    for values in ((1, 2), (3, 4), (5,)):
      yield {
          'image': np.array([np.full([2, 3, 3], value, np.float32)
                             for value in values]),
          'label': np.ones([len(values), 2, 3], np.int32),
          'filename': ['{}.jpg'.format(value) for value in values]}


def test_a_pass_sums_its_batches():
  counts = counting.count(FirstChannel(), Batches(), num_classes=6)
  expected = np.zeros([6, 6], int)
  expected[1, 1:] = 6
  np.testing.assert_array_equal(counts.matrix, expected)
  assert counts.images == 5
  assert counts.samples == {'images': [], 'labels': [], 'predictions': []}


@pytest.mark.parametrize('keep', [1, 3, 9])
def test_the_first_images_are_kept(keep):
  samples = counting.count(
      FirstChannel(), Batches(), num_classes=6, keep=keep).samples
  expected = [1, 2, 3, 4, 5][:keep]
  assert [image[0, 0, 0] for image in samples['images']] == expected
  assert all(image.dtype == np.uint8 for image in samples['images'])
  assert [labels[0, 0] for labels in samples['predictions']] == expected
  assert [labels[0, 0] for labels in samples['labels']] == [1] * len(expected)


def test_labels_outside_the_classes_are_refused_with_image_names():
  with pytest.raises(InputError, match='^3.jpg, 4.jpg: prediction 4'):
    with FirstChannel() as predictor:
      counting.count(predictor, Batches(), num_classes=4)
  assert predictor.is_closed
