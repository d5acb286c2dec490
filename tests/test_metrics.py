"""Scores against hand-worked matrices."""
import numpy as np
import pytest

from deeplab import metrics
from deeplab.errors import InputError

NAN = float('nan')


def all_classes(pixels_per_class):
  """Returns labels with each class 1..31 on the same number of pixels."""
  return np.repeat(np.arange(1, 32), pixels_per_class).astype(np.uint8)


class TestConfusionMatrix(object):

  def test_rows_are_labels_and_columns_predictions(self):
    labels = np.array([[1, 1, 2], [2, 2, 0]], np.uint8)
    predictions = np.array([[1, 2, 2], [0, 2, 1]], np.int32)
    matrix = metrics.confusion_matrix(labels, predictions, 3, 0)
    assert matrix.dtype == np.int64
    np.testing.assert_array_equal(
        matrix, [[0, 0, 0],
                 [0, 1, 1],
                 [1, 0, 2]])

  def test_large_classes_do_not_overflow_uint8(self):
    labels = np.full((2, 3), 31, np.uint8)
    matrix = metrics.confusion_matrix(labels, labels)
    assert matrix[31, 31] == 6
    assert matrix.sum() == 6

  def test_ignore_label_outside_the_classes(self):
    labels = np.array([0, 1, 255], np.uint8)
    matrix = metrics.confusion_matrix(labels, np.array([0, 0, 1]), 2, 255)
    np.testing.assert_array_equal(matrix, [[1, 0], [1, 0]])

  def test_nothing_labelled_counts_nothing(self):
    labels = np.zeros([4, 4], np.uint8)
    matrix = metrics.confusion_matrix(labels, np.ones([4, 4], np.int32), 3, 0)
    np.testing.assert_array_equal(matrix, np.zeros([3, 3]))

  @pytest.mark.parametrize('label, prediction, message', [
      (32, 1, 'label 32: expected a class in 0..31'),
      (1, 32, 'prediction 32: expected a class in 0..31'),
      (1, -1, 'prediction -1: expected a class in 0..31'),
      (-2, 1, 'label -2: expected a class in 0..31'),
      # Where the label is ignored, the prediction must be a class all the same.
      (0, 150, 'prediction 150: expected a class in 0..31'),
  ])
  def test_refuses_what_is_no_class(self, label, prediction, message):
    with pytest.raises(InputError) as error:
      metrics.confusion_matrix(
          np.array([label, 5]), np.array([prediction, 5]))
    assert str(error.value) == message

  def test_refuses_unequal_shapes(self):
    with pytest.raises(InputError) as error:
      metrics.confusion_matrix(np.zeros([2, 3], int), np.zeros([3, 2], int))
    assert str(error.value) == (
        'labels of shape [2, 3], predictions of shape [3, 2]: expected the '
        'same')

  def test_refuses_floats(self):
    with pytest.raises(InputError) as error:
      metrics.confusion_matrix(np.ones([2], int), np.ones([2], np.float32))
    assert str(error.value) == 'predictions of type float32: expected integers'


class TestScores(object):

  def test_hand_worked_matrix(self):
    # Class 0 is ignored and twice predicted; class 3 is predicted but nowhere
    # labelled; class 4 occurs nowhere.
    matrix = np.array([[0, 0, 0, 0, 0],
                       [2, 6, 0, 0, 0],
                       [0, 2, 4, 2, 0],
                       [0, 0, 0, 0, 0],
                       [0, 0, 0, 0, 0]])
    # IoU: 0: 0/2; 1: 6/(8 + 8 - 6) = 0.6; 2: 4/(8 + 4 - 4) = 0.5; 3: 0/2.
    scores = metrics.scores(matrix)
    assert scores.miou == pytest.approx(1.1 / 4)
    assert scores.miou_kept_classes == pytest.approx(1.1 / 3)
    assert scores.miou_mlperf_app == pytest.approx(1.1 / 4)
    assert scores.pixel_accuracy == pytest.approx(10 / 16)
    assert scores.mean_class_accuracy == pytest.approx((6 / 8 + 4 / 8) / 2)
    np.testing.assert_allclose(
        scores.per_class_iou, [NAN, 0.6, 0.5, NAN, NAN])

  def test_conventions_agree_on_a_perfect_prediction(self):
    labels = all_classes(100)
    scores = metrics.scores(metrics.confusion_matrix(labels, labels))
    assert scores.miou == 1
    assert scores.miou_kept_classes == 1
    assert scores.miou_mlperf_app == 1

  def test_one_labelled_pixel_predicted_0_moves_the_headline(self):
    labels = all_classes(100)
    predictions = labels.copy()
    predictions[0] = 0  # one pixel of class 1, whose IoU becomes 0.99
    scores = metrics.scores(metrics.confusion_matrix(labels, predictions))
    assert scores.miou == pytest.approx(30.99 / 32)
    assert scores.miou_kept_classes == pytest.approx(30.99 / 31)
    assert scores.miou_mlperf_app == pytest.approx(30.99 / 31)

  def test_absent_classes_count_as_0_in_the_app_alone(self):
    labels = np.array([1, 1, 2, 2])
    scores = metrics.scores(metrics.confusion_matrix(labels, labels))
    assert scores.miou == 1
    assert scores.miou_kept_classes == 1
    assert scores.miou_mlperf_app == pytest.approx(2 / 31)

  def test_predictions_on_ignored_pixels_do_not_count(self):
    labels = np.array([1, 1, 0, 0])
    scores = metrics.scores(
        metrics.confusion_matrix(labels, np.array([1, 1, 1, 7])))
    assert scores.miou == 1
    assert scores.per_class_iou[1] == 1

  def test_no_data_has_no_score(self):
    scores = metrics.scores(np.zeros([3, 3], np.int64))
    assert all(np.isnan(score).all() for score in scores)

  def test_reference_numbers_follow_the_headline_rule(self):
    # The reference's class scores of its float checkpoint on two images, as
    # pixels of 1e9: their headline has nine classes, one of them predicted but
    # nowhere labelled.
    ious = {1: 0.169824988, 2: 0.83865273, 3: 0.977712929, 5: 0.43963331,
            7: 0.0, 10: 0.899512887, 14: 0.00196850393, 18: 0.273405701}
    matrix = np.zeros([32, 32], np.int64)
    for index, iou in ious.items():
      # All that is missed of a class is predicted as class 0, so that its IoU
      # is its share of correct pixels.
      matrix[index, index] = round(iou * 10**9)
      matrix[index, 0] = 10**9 - matrix[index, index]
    scores = metrics.scores(matrix)
    assert scores.miou == pytest.approx(0.400079042, abs=1e-7)
