"""Computes scores, differences, and bootstrap intervals.

Each draw resamples the images with replacement and computes everything again.
An interval holds 95 % of the draws. A draw uses the same images for all models,
so that hard images do not hide a difference between two models.

Results are dicts and lists, as in comparison.json. An interval is a dict of
'value', 'low' and 'high'; None: it cannot be computed.
"""
import math
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from deeplab.config import label_map as label_maps
from deeplab.evaluation import metrics
from deeplab.tools.comparison import counts as counts_lib

# The scalar fields of metrics.Scores, and their names.
SCORES = {
    'miou': 'mIoU', 'miou_kept_classes': 'mIoU, kept',
    'miou_mlperf_app': 'mIoU, app', 'pixel_accuracy': 'pixel accuracy',
    'mean_class_accuracy': 'class accuracy'}
DIFFERENCES = 'difference_to_the_first'
SHARE = 'share_of_miou_difference'
_IMAGES_NEEDED = 'images_needed_for_0_002'
_PERCENTS = (2.5, 97.5)
# With fewer images, intervals are unreliable.
FEW_IMAGES = 30
# A typical difference of mIoU between the published figures; then, in standard
# deviations, half an interval, and the margin for a power of 80 %.
_FINE_DIFFERENCE = 0.002
_HALF_INTERVAL, _MARGIN = 1.96, 0.84
_LEAST_DIFFERENCE = 1e-9
# Classes that a finding names.
_MOST_DRIVERS = 3
# Draws computed at a time.
_BLOCK = 64


def compute(counts: counts_lib.Counts, names: Sequence[str], *,
            resamples: int, seed: int) -> Dict[str, Any]:
  """Computes all numbers.

  Args:
    counts: counts of at least one image.
    names: names of the models; differences are to the first one.
    resamples: number of draws.
    seed: seed of the draws.

  Returns:
    Dict for JSON; without 'scores' if the images have no labels.
  """
  number, pixels = len(counts.names), counts.pixels
  draws = np.random.RandomState(seed).multinomial(
      number, np.full([number], 1.0 / number), size=resamples)

  def share(counted):
    return _interval(counted.sum() / pixels.sum(),
                     draws.dot(counted) / draws.dot(pixels), number)

  scores = {}
  if counts.matrices is not None:
    scores = {'scores': _scores(counts.matrices, names, draws,
                                counts.label_map)}
  agreement = {name: share(counts.agreeing[:, model])
               for model, name in enumerate(names)}
  return dict({
      'images': number,
      'findings': [
          _finding(name, names[0], agreement[name]['value'],
                   scores['scores'][name] if scores else None, number)
          for name in names[1:]],
      'reliability': _reliability(number, scores.get('scores', {})),
      'all_agree': share(pixels - counts.differing),
      'agreement': agreement,
      'by_image': [_of_image(index, counts, names) for index in range(number)],
  }, **scores, **label_maps.json_entry(counts.label_map))


def _interval(value, drawn, images):
  """Returns an interval from the values of the draws."""
  drawn = np.asarray(drawn, np.float64)
  drawn = drawn[~np.isnan(drawn)]
  low = high = None
  if images > 1 and drawn.size and not math.isnan(value):
    low, high = map(float, np.percentile(drawn, _PERCENTS))
  return {'value': _finite(float(value)), 'low': low, 'high': high}


def _finite(value):
  return None if math.isnan(value) else value


def _of_image(index, counts, names):
  content = {
      'name': counts.names[index], 'pixels': int(counts.pixels[index]),
      'differing': counts.differing[index] / float(counts.pixels[index])}
  if counts.matrices is not None:
    content['pixel_accuracy'] = {
        name: _finite(metrics.scores(matrix).pixel_accuracy)
        for name, matrix in zip(names, counts.matrices[index])}
  return content


def _scores(matrices, names, draws, label_map):
  """Returns the scores of each model; matrices are [N, M, C, C]."""
  whole = matrices.sum(axis=0, dtype=np.int64)
  values = [_all_scores(matrix) for matrix in whole]
  drawn = [_drawn_scores(matrices[:, model], draws)
           for model in range(len(names))]
  found = {}
  for model, name in enumerate(names):
    scores, differences = (
        [_interval(value, of_draws, len(matrices))
         for value, of_draws in zip(all_values, all_draws.T)]
        for all_values, all_draws in (
            (values[model], drawn[model]),
            (values[model] - values[0], drawn[model] - drawn[0])))
    found[name] = dict(
        zip(SCORES, scores),
        classes=[
            {'id': index, 'name': class_name,
             'pixels': int(whole[model][index].sum()), 'iou': iou,
             'iou_difference': difference, SHARE: share}
            for index, (class_name, iou, difference, share) in enumerate(zip(
                label_map.names, scores[len(SCORES):],
                differences[len(SCORES):], _shares(whole[0], whole[model])))],
        confusion_matrix=whole[model].tolist())
    found[name][DIFFERENCES] = dict(zip(SCORES, differences))
    # mIoU is the first score.
    found[name][_IMAGES_NEEDED] = _images_needed(
        (drawn[model] - drawn[0])[:, 0], len(matrices))
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


def _shares(first, other):
  """Returns each class's share of a difference of mIoU; None: there is none.

  They sum up to 1. A class that counts for only one model contributes its
  distance from the mean.
  """
  mean = metrics.scores(first).miou
  parts = []
  for matrix in (first, other):
    counts = (matrix.sum(axis=0) + matrix.sum(axis=1)) > 0
    iou = np.nan_to_num(metrics.scores(matrix).per_class_iou)
    parts.append(counts * (iou - mean) / max(1, counts.sum()))
  change = parts[1] - parts[0]
  total = change.sum()
  # A smaller difference is an error of rounding.
  return ((change / total).tolist() if abs(total) > _LEAST_DIFFERENCE
          else [None] * len(change))


def _finding(name, first, agreement, scores, images):
  """Returns a sentence about a model and the first one, by their names.

  `scores` are the model's; None: there are no labels.
  """
  agree = 'on {:.2f} % of the pixels.'.format(100 * agreement)
  difference = scores and scores[DIFFERENCES]['miou']
  if not difference or difference['value'] is None:
    return '{} and {} agree {}'.format(name, first, agree)
  change = difference['value']
  drivers = sorted([one for one in scores['classes'] if (one[SHARE] or 0) > 0],
                   key=lambda one: -one[SHARE])
  driven = ', '.join(
      '{} ({:.0f} % of it)'.format(one['name'], 100 * one[SHARE])
      for one in drivers[:_MOST_DRIVERS])
  return '{} has {} {} ({}){}; they agree {}'.format(
      name, '{:.4f} {} mIoU than'.format(
          abs(change), 'more' if change > 0 else 'less')
      if driven else 'the same mIoU as', first, verdict(difference, images),
      ', driven by ' + driven if driven else '', agree)


def _images_needed(differences, images):
  """Returns the number of images that resolve a fine difference, or None."""
  spread = float(np.nanstd(differences))
  if images < FEW_IMAGES or not spread:
    return None
  return int(math.ceil(images * (
      (_HALF_INTERVAL + _MARGIN) * spread / _FINE_DIFFERENCE) ** 2))


def _reliability(images, scores):
  """Returns a note on the reliability of a sample of this size."""
  if images < 2:
    return ('One image: these numbers describe this image and not the models. '
            'There is no interval.')
  if images < FEW_IMAGES:
    return ('{} images are noise: scores and differences hold for these images '
            'alone, and even the intervals are too narrow. Take {} or more to '
            'judge models by; the published figures are of '
            '2000.'.format(images, FEW_IMAGES))
  text = '{} images: an interval holds 95 of 100 draws of them.'.format(images)
  needed = max((model[_IMAGES_NEEDED] or 0 for model in scores.values()),
               default=0)
  if needed:
    text += (' To tell a difference of {} mIoU from none, in 80 of 100 such '
             'samples, takes about {} images.'.format(_FINE_DIFFERENCE, needed))
  return text


def verdict(difference: Dict[str, Optional[float]], images: int) -> str:
  """Returns a short interpretation of a difference to the first model.

  Args:
    difference: an interval.
    images: number of images.
  """
  low, high = difference['low'], difference['high']
  if images < FEW_IMAGES:
    return 'too few images'
  if low is None or high is None:
    return 'no interval'
  return 'better' if low > 0 else 'worse' if high < 0 else 'not told apart'


def confusions(matrix: Sequence[Sequence[int]], most: int = 10
               ) -> List[Tuple[int, int, int, float]]:
  """Finds the most frequent confusions.

  Args:
    matrix: [C, C], rows are labels.
    most: maximum number of results.

  Returns:
    (label, prediction, pixels, share of the label's pixels), most pixels first.
  """
  wrong = np.array(matrix)
  np.fill_diagonal(wrong, 0)
  order = np.argsort(-wrong, axis=None, kind='stable')[:most]
  found = zip(*np.unravel_index(order, wrong.shape))
  return [
      (int(label), int(prediction), int(wrong[label, prediction]),
       wrong[label, prediction] / float(sum(matrix[label])))
      for label, prediction in found if wrong[label, prediction]]
