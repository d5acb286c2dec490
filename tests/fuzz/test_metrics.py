"""Compares scores with counting one pixel after the other."""
import math

from hypothesis import strategies
import numpy as np

from deeplab.evaluation import metrics
from tests import fuzz


@strategies.composite
def pictures(draw):
  """Draws (labels, predictions, number of classes, ignored label)."""
  classes = draw(strategies.integers(1, 6))
  ignored = draw(strategies.sampled_from([0, classes - 1, 255]))
  any_class = strategies.integers(0, classes - 1)
  pixels = draw(strategies.lists(strategies.tuples(
      any_class | strategies.just(ignored), any_class), max_size=60))
  labels, predictions = [list(column) for column in zip(*pixels)] or ([], [])
  return labels, predictions, classes, ignored


def mean(values):
  return sum(values) / len(values) if values else float('nan')


def same(first, second):
  return first == second or math.isclose(first, second, abs_tol=1e-12) or (
      math.isnan(first) and math.isnan(second))


@fuzz.given(pictures(), examples=150)
def test_scores(drawn):
  labels, predictions, classes, ignored = drawn
  matrix = metrics.confusion_matrix(
      np.array(labels, np.int32), np.array(predictions, np.int32), classes,
      ignored)
  scores = metrics.scores(matrix, ignored)

  counted = [pair for pair in zip(labels, predictions) if pair[0] != ignored]
  iou, recall, kept = {}, [], []
  for number in range(classes):
    hits = sum(pair == (number, number) for pair in counted)
    union = sum(number in pair for pair in counted)
    labelled = sum(pair[0] == number for pair in counted)
    for predicted in range(classes):
      assert matrix[number, predicted] == sum(
          pair == (number, predicted) for pair in counted)
    if union:
      iou[number] = hits / union
    if labelled:
      recall.append(hits / labelled)
      assert same(scores.per_class_iou[number], iou[number])
    else:
      assert math.isnan(scores.per_class_iou[number])
    if number != ignored:
      kept.append(iou.get(number, 0.0))
  assert same(scores.miou, mean(list(iou.values())))
  assert same(scores.miou_kept_classes, mean(
      [value for number, value in iou.items() if number != ignored]))
  assert same(scores.miou_mlperf_app,
              mean(kept) if counted else float('nan'))
  assert same(scores.pixel_accuracy, mean(
      [float(label == prediction) for label, prediction in counted]))
  assert same(scores.mean_class_accuracy, mean(recall))
