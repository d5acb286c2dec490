"""Tests scores on hand-worked matrices."""
import numpy as np
import pytest

from deeplab.errors import InputError
from deeplab.evaluation import metrics

NAN = float('nan')


# Labels with classes 1 to 31, 100 pixels each.
ALL = np.repeat(np.arange(1, 32), 100)


class TestConfusionMatrix:

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
    assert matrix[31, 31] == matrix.sum() == 6

  def test_ignore_label_outside_the_classes(self):
    labels = np.array([0, 1, 255], np.uint8)
    matrix = metrics.confusion_matrix(labels, np.array([0, 0, 1]), 2, 255)
    np.testing.assert_array_equal(matrix, [[1, 0], [1, 0]])

  @pytest.mark.parametrize('label, prediction, message', [
      ([32, 5], [1, 5], 'label 32: expected a class in 0..31'),
      ([-2, 5], [1, 5], 'label -2: expected a class in 0..31'),
      # A prediction must be a class even if its label is ignored.
      ([0, 5], [150, 5], 'prediction 150: expected a class in 0..31'),
      ([1, 5], [-1, 5], 'prediction -1: expected a class in 0..31'),
      ([1, 5], [[1, 5]], 'labels of shape [2], predictions of shape [1, 2]: '
       'expected the same'),
      ([1, 5], [1.0, 5.0], 'predictions of type float64: expected integers')])
  def test_refuses_values_outside_the_classes(self, label, prediction, message):
    with pytest.raises(InputError) as error:
      metrics.confusion_matrix(np.array(label), np.array(prediction))
    assert str(error.value) == message


class TestScores:

  def test_hand_worked_matrix(self):
    # Class 0 is ignored and predicted twice; class 3 is predicted but never
    # labelled; class 4 does not occur.
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

  @pytest.mark.parametrize('labels, predictions, miou, kept, app', [
      # All predictions are correct.
      (np.arange(1, 32), np.arange(1, 32), 1, 1, 1),
      # One pixel of class 1 is predicted as 0; each class has 100 pixels.
      (ALL, np.r_[0, ALL[1:]], 30.99 / 32, 30.99 / 31, 30.99 / 31),
      # Only the app counts absent classes as 0.
      ([1, 1, 2, 2], [1, 1, 2, 2], 1, 1, 2 / 31),
      # Predictions on ignored pixels do not count.
      ([1, 1, 0, 0], [1, 1, 1, 7], 1, 1, 1 / 31)])
  def test_the_three_means(self, labels, predictions, miou, kept, app):
    scores = metrics.scores(metrics.confusion_matrix(labels, predictions))
    assert scores.miou == pytest.approx(miou)
    assert scores.miou_kept_classes == pytest.approx(kept)
    assert scores.miou_mlperf_app == pytest.approx(app)

  def test_an_empty_matrix_has_no_score(self):
    scores = metrics.scores(np.zeros([3, 3], np.int64))
    assert all(np.isnan(score).all() for score in scores)

  def test_reference_numbers_follow_the_headline_rule(self):
    # The reference's IoUs of its float checkpoint on two images, as 1e9 pixels
    # per class. Its headline averages nine classes; one is predicted but never
    # labelled.
    ious = {1: 0.169824988, 2: 0.83865273, 3: 0.977712929, 5: 0.43963331,
            7: 0.0, 10: 0.899512887, 14: 0.00196850393, 18: 0.273405701}
    matrix = np.zeros([32, 32], np.int64)
    for index, iou in ious.items():
      # All missed pixels of a class are predicted as class 0, so that its IoU
      # is its share of correct pixels.
      matrix[index, index] = round(iou * 10**9)
      matrix[index, 0] = 10**9 - matrix[index, index]
    scores = metrics.scores(matrix)
    assert scores.miou == pytest.approx(0.400079042, abs=1e-7)
