"""The confusion matrix and its scores.

All scripts use the same matrix, so equal predictions have equal scores.
"""
from typing import NamedTuple

import numpy as np

from deeplab import constants
from deeplab.errors import InputError


class Scores(NamedTuple):
  """The scores of a confusion matrix; each is in [0, 1], or NaN.

  IoU(c) = I(c) / U(c). I(c) counts the pixels of class c that are predicted c;
  U(c) counts the pixels that are labelled or predicted c. Both count only
  labelled pixels. The three means differ in the classes they count.
  """
  # Headline, eval.py's rule: the mean of IoU(c) over the classes with U(c) > 0.
  # If a labelled pixel is predicted 0, the ignored class 0 counts with IoU 0.
  miou: float
  # The TFLite script's rule: the same without the ignored class. A labelled
  # pixel predicted 0 only counts as a miss of its own class.
  miou_kept_classes: float
  # The MLPerf mobile app's rule: the sum of IoU(c) over all kept classes,
  # divided by their number, 31; a class with U(c) = 0 counts as 0.
  miou_mlperf_app: float
  # Correct labelled pixels / labelled pixels.
  pixel_accuracy: float
  # Mean of I(c) / labelled pixels of c, over the classes with a labelled pixel.
  mean_class_accuracy: float
  # [num_classes] float64, eval.py's rule for single classes: NaN for a class
  # without a labelled pixel, even if it is predicted and `miou` counts it as 0.
  # So `miou` is not the mean of these.
  per_class_iou: np.ndarray


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray,
                     num_classes: int = constants.NUM_CLASSES,
                     ignore_label: int = constants.IGNORE_LABEL) -> np.ndarray:
  """Counts pixels by label and prediction; matrices of images can be added.

  Args:
    labels: integer array of any shape, in [0, num_classes) or ignore_label.
    predictions: integer array of the same shape, in [0, num_classes).
    num_classes: number of classes, the ignored one included.
    ignore_label: pixels with this label are skipped.

  Returns:
    [num_classes, num_classes] int64, pixels; row = label, column = prediction.

  Raises:
    InputError: unequal shapes, or a value that is no class.
  """
  labels = np.asarray(labels)
  predictions = np.asarray(predictions)
  if labels.shape != predictions.shape:
    raise InputError(
        'labels of shape {}, predictions of shape {}: expected the same'.format(
            list(labels.shape), list(predictions.shape)))
  counted = labels != ignore_label
  labels = labels[counted]
  _check_classes('label', labels, num_classes)
  _check_classes('prediction', predictions, num_classes)
  # Each pair of classes has its own number, so one pass counts all pairs.
  cells = labels.astype(np.int64) * num_classes + predictions[counted]
  counts = np.bincount(cells, minlength=num_classes * num_classes)
  return counts.astype(np.int64).reshape(num_classes, num_classes)


def _check_classes(what, values, num_classes):
  if not np.issubdtype(values.dtype, np.integer):
    raise InputError('{}s of type {}: expected integers'.format(
        what, values.dtype))
  if not values.size:
    return
  for value in (values.min(), values.max()):
    if not 0 <= value < num_classes:
      raise InputError('{} {}: expected a class in 0..{}'.format(
          what, value, num_classes - 1))


def scores(matrix: np.ndarray,
           ignore_label: int = constants.IGNORE_LABEL) -> Scores:
  """Computes the scores of a confusion matrix.

  Args:
    matrix: [num_classes, num_classes] integer, from confusion_matrix.
    ignore_label: the class that two of the means exclude; it may be outside the
      range of classes.

  Returns:
    All scores. A mean over no class is NaN.
  """
  # Deviates: the reference reports a mean of 0 for no data, which looks like a
  # bad model.
  matrix = np.asarray(matrix, np.float64)
  correct = np.diag(matrix)
  labelled = matrix.sum(axis=1)
  union = labelled + matrix.sum(axis=0) - correct
  iou = _ratio(correct, union)
  kept = iou[np.arange(len(iou)) != ignore_label]
  app = np.nansum(kept) / len(kept) if matrix.any() else np.nan
  return Scores(
      miou=_mean(iou),
      miou_kept_classes=_mean(kept),
      miou_mlperf_app=float(app),
      pixel_accuracy=float(_ratio(correct.sum(), matrix.sum())),
      mean_class_accuracy=_mean(_ratio(correct, labelled)),
      per_class_iou=np.where(labelled > 0, iou, np.nan))


def _ratio(numerator, denominator):
  """Divides elementwise; NaN for a denominator of 0."""
  nothing = np.full(np.shape(denominator), np.nan)
  return np.divide(numerator, denominator, out=nothing, where=denominator > 0)


def _mean(values):
  """Returns the mean of the values that are not NaN; NaN for none."""
  values = values[~np.isnan(values)]
  return float(values.mean()) if values.size else float('nan')
