"""Scores, differences, and intervals from the bootstrap.

Images are drawn from the sample with replacement, as many as it has, and
everything is computed again. An interval holds 95 of 100 such draws. Each draw
has the same images for all models, so that hard images do not hide a difference
between two models.
"""
import math
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from deeplab import label_map as label_maps
from deeplab import metrics
from deeplab.comparison import counts as counts_lib

# The scores of metrics.Scores that are one number.
SCORES = ('miou', 'miou_kept_classes', 'miou_mlperf_app', 'pixel_accuracy',
          'mean_class_accuracy')
_PERCENTS = (2.5, 97.5)
# With fewer images not even the interval can be trusted.
FEW_IMAGES = 30
# A difference of mIoU as between the published figures. In standard deviations:
# half of an interval, and the margin that makes it clear in 80 of 100 samples.
_FINE_DIFFERENCE = 0.002
_HALF_INTERVAL, _MARGIN = 1.96, 0.84
# Draws that are computed at a time.
_BLOCK = 64


class Interval(NamedTuple):
  """A number with what 95 of 100 draws of images give for it."""
  value: float
  # Both NaN: one image, or nothing to compute it from.
  low: float
  high: float

  @property
  def is_clear(self) -> bool:
    """Whether the interval lies on one side of 0."""
    return self.low > 0 or self.high < 0


class ModelScores(NamedTuple):
  """Of one model; differences are to the first one."""
  scores: Dict[str, Interval]
  differences: Dict[str, Interval]
  # By class; NaN: no labelled pixel.
  iou: List[Interval]
  iou_differences: List[Interval]
  # int64 [C, C].
  matrix: np.ndarray
  # Number of images with which a difference of mIoU of 0.002 would be clear in
  # 80 of 100 samples; None: this sample does not tell.
  images_needed: Optional[int]


class Statistics(NamedTuple):
  """Of a comparison."""
  images: int
  # Share of pixels on which all models agree.
  all_agree: Interval
  # By pair of models: share of pixels on which both agree.
  agreement: List[List[Interval]]
  # None: no labels.
  models: Optional[List[ModelScores]]
  # A sentence or two about the sample.
  reliability: str


def compute(counts: counts_lib.Counts, *, resamples: int,
            seed: int) -> Statistics:
  """Computes all statistics of counts.

  Args:
    counts: of at least one image.
    resamples: number of draws.
    seed: of the draws.
  """
  number = len(counts.names)
  draws = np.random.RandomState(seed).multinomial(
      number, np.full([number], 1.0 / number), size=resamples)
  count = counts.agreeing.shape[1]
  agreement = [
      [_share(counts.agreeing[:, one, other], counts.pixels, draws)
       for other in range(count)] for one in range(count)]
  models = None
  if counts.matrices is not None:
    models = _models(counts.matrices, draws)
  return Statistics(
      number, _share(counts.pixels - counts.differing, counts.pixels, draws),
      agreement, models, _reliability(number, models))


def _share(part, whole, draws):
  """Returns the Interval of sum(part) / sum(whole), both int64 [N]."""
  return _interval(
      part.sum() / whole.sum(), draws.dot(part) / draws.dot(whole), draws)


def _interval(value, drawn, draws):
  """Returns an Interval; `drawn` are the values of the draws."""
  drawn = np.asarray(drawn, np.float64)
  drawn = drawn[~np.isnan(drawn)]
  if draws.shape[1] < 2 or not drawn.size or math.isnan(value):
    return Interval(float(value), float('nan'), float('nan'))
  low, high = np.percentile(drawn, _PERCENTS)
  return Interval(float(value), float(low), float(high))


def _models(matrices, draws):
  """Returns the ModelScores of each model; matrices are [N, M, C, C]."""
  whole = matrices.sum(axis=0, dtype=np.int64)
  values = [_all_scores(matrix) for matrix in whole]
  drawn = [_drawn_scores(matrices[:, model], draws)
           for model in range(len(whole))]
  found = []
  for model, matrix in enumerate(whole):
    scores, differences = (
        [_interval(value, of_draws, draws)
         for value, of_draws in zip(all_values, all_draws.T)]
        for all_values, all_draws in (
            (values[model], drawn[model]),
            (values[model] - values[0], drawn[model] - drawn[0])))
    found.append(ModelScores(
        dict(zip(SCORES, scores)), dict(zip(SCORES, differences)),
        scores[len(SCORES):], differences[len(SCORES):], matrix,
        _images_needed((drawn[model] - drawn[0])[:, SCORES.index('miou')],
                       draws)))
  return found


def _all_scores(matrix):
  """Returns the SCORES of a confusion matrix and each class's IoU."""
  scores = metrics.scores(matrix)
  return np.array([getattr(scores, name) for name in SCORES] +
                  list(scores.per_class_iou))


def _drawn_scores(matrices, draws):
  """Returns _all_scores of each draw, [draws, scores]."""
  number, classes, _ = matrices.shape
  flat = matrices.reshape(number, -1).astype(np.float64)
  return np.array([
      _all_scores(matrix.reshape(classes, classes))
      for start in range(0, len(draws), _BLOCK)
      for matrix in draws[start:start + _BLOCK].astype(np.float64).dot(flat)])


def _images_needed(differences, draws):
  """Returns how many images would make a fine difference clear, or None."""
  number = draws.shape[1]
  spread = float(np.nanstd(differences))
  if number < FEW_IMAGES or not spread:
    return None
  return int(math.ceil(number * (
      (_HALF_INTERVAL + _MARGIN) * spread / _FINE_DIFFERENCE) ** 2))


def _reliability(number, models):
  """Returns a sentence or two about a sample of so many images."""
  if number < 2:
    return ('One image: these numbers describe this image and not the models. '
            'There is no interval.')
  if number < FEW_IMAGES:
    return ('{} images are noise: scores and differences hold for these images '
            'alone, and even the intervals are too narrow. Take {} or more to '
            'judge models by; the published figures are of '
            '2000.'.format(number, FEW_IMAGES))
  text = '{} images: an interval holds 95 of 100 draws of them.'.format(number)
  needed = [model.images_needed for model in (models or [])[1:]
            if model.images_needed]
  if needed:
    text += (' To tell a difference of {} mIoU from none, in 80 of 100 such '
             'samples, takes about {} images.'.format(
                 _FINE_DIFFERENCE, max(needed)))
  return text


def verdict(difference: Interval, images: int) -> str:
  """Returns in a few words what a difference to the first model means."""
  if images < FEW_IMAGES:
    return 'too few images'
  if math.isnan(difference.low):
    return 'no interval'
  if difference.is_clear:
    return 'better' if difference.value > 0 else 'worse'
  return 'not told apart'


def confusions(matrix: np.ndarray, most: int = 10
               ) -> List[Tuple[int, int, int, float]]:
  """Finds the most frequent confusions.

  Args:
    matrix: [C, C], rows are labels.
    most: number of them.

  Returns:
    (label, prediction, pixels, share of the label's pixels), most pixels first.
  """
  wrong = matrix.copy()
  np.fill_diagonal(wrong, 0)
  order = np.argsort(-wrong, axis=None, kind='stable')[:most]
  found = []
  for label, prediction in zip(*np.unravel_index(order, wrong.shape)):
    pixels = int(wrong[label, prediction])
    if pixels:
      found.append((int(label), int(prediction), pixels,
                    pixels / float(matrix[label].sum())))
  return found


def to_json(statistics: Statistics, counts: counts_lib.Counts,
            names: Sequence[str]) -> Dict[str, Any]:
  """Returns all numbers as a dict that json can write; NaN becomes None.

  Args:
    statistics: of the counts.
    counts: Counts.
    names: of the models.
  """
  content: Dict[str, Any] = {
      'images': statistics.images,
      'reliability': statistics.reliability,
      'all_agree': _as_json(statistics.all_agree),
      'agreement': {
          one: {other: _as_json(statistics.agreement[row][column])
                for column, other in enumerate(names)}
          for row, one in enumerate(names)},
      'by_image': [_image_as_json(index, counts, names)
                   for index in range(statistics.images)]}
  if statistics.models is not None:
    content['scores'] = {
        name: _model_as_json(model, counts.label_map)
        for name, model in zip(names, statistics.models)}
  return dict(content, **label_maps.json_entry(counts.label_map))


def _image_as_json(index, counts, names):
  content = {
      'name': counts.names[index], 'pixels': int(counts.pixels[index]),
      'differing': counts.differing[index] / float(counts.pixels[index])}
  if counts.matrices is not None:
    content['pixel_accuracy'] = dict(
        zip(names, pixel_accuracies(counts, index)))
  return content


def pixel_accuracies(
    counts: counts_lib.Counts, index: int) -> List[Optional[float]]:
  """Returns each model's pixel accuracy on an image; None: nothing labelled."""
  matrices = counts.matrices
  if matrices is None:
    return []
  return [_finite(metrics.scores(matrix).pixel_accuracy)
          for matrix in matrices[index]]


def _model_as_json(model, label_map):
  return dict(
      {name: _as_json(interval) for name, interval in model.scores.items()},
      difference_to_the_first={
          name: _as_json(interval)
          for name, interval in model.differences.items()},
      images_needed_for_0_002=model.images_needed,
      classes=[
          {'id': index, 'name': name,
           'pixels': int(model.matrix[index].sum()),
           'iou': _as_json(model.iou[index]),
           'iou_difference': _as_json(model.iou_differences[index])}
          for index, name in enumerate(label_map.names)],
      confusion_matrix=model.matrix.tolist())


def _as_json(interval):
  return {'value': _finite(interval.value), 'low': _finite(interval.low),
          'high': _finite(interval.high)}


def _finite(value):
  return None if math.isnan(value) else value
