"""Counts predictions of models image by image."""
from typing import List, NamedTuple, Optional, Sequence

import numpy as np

from deeplab import constants
from deeplab.config import label_map as label_maps
from deeplab.errors import InputError
from deeplab.evaluation import metrics
from deeplab.models import interface
from deeplab.system import progress
from deeplab.tools.comparison import samples as samples_lib


class Shown(NamedTuple):
  """An image with its label and all predictions, without padding."""
  name: str
  # Share of the pixels on which the models differ.
  differing: float
  # [height, width, 3] uint8 RGB.
  image: np.ndarray
  # [height, width] integer; None: no labels.
  label: Optional[np.ndarray]
  # int32 [height, width], one for each model.
  predictions: List[np.ndarray]


class Counts(NamedTuple):
  """Counts of all images; M models, C classes, N images."""
  names: List[str]
  # int64 [N]: number of pixels without padding.
  pixels: np.ndarray
  # int64 [N, M]: pixels on which a model agrees with the first one.
  agreeing: np.ndarray
  # int64 [N]: pixels on which not all models agree.
  differing: np.ndarray
  # int32 [N, M, C, C], rows are labels; None: no labels.
  matrices: Optional[np.ndarray]
  # Images that differ most, the largest difference first.
  shown: List[Shown]
  label_map: label_maps.LabelMap = label_maps.ADE20K


def count(predictors: Sequence[interface.Predictor],
          samples: samples_lib.Samples, *, most_different: int) -> Counts:
  """Labels all images with all models; shows progress.

  Args:
    predictors: at least two.
    samples: the images.
    most_different: number of images to keep with their predictions.

  Raises:
    InputError: a model returns labels that are no classes.
  """
  number, models = samples.number, len(predictors)
  classes = samples.label_map.num_classes
  names: List[str] = []
  pixels = np.zeros([number], np.int64)
  agreeing = np.zeros([number, models], np.int64)
  differing = np.zeros([number], np.int64)
  matrices = (np.zeros([number, models, classes, classes], np.int32)
              if samples.has_labels else None)
  kept: List[Shown] = []
  with progress.Bar(number, 'comparing', unit='image') as bar:
    for index, sample in zip(range(number), samples.images):
      shown = _labelled(sample, predictors)
      names.append(sample.name)
      pixels[index] = shown.predictions[0].size
      differing[index] = int(round(shown.differing * pixels[index]))
      for one, prediction in enumerate(shown.predictions):
        agreeing[index, one] = np.count_nonzero(
            prediction == shown.predictions[0])
        if matrices is not None:
          matrices[index, one] = _matrix(
              shown.label, prediction, predictors[one], classes)
      # The sort is stable: the first of equal images stays.
      kept = sorted(kept + [shown], key=lambda one: -one.differing)
      kept = kept[:most_different]
      bar.update()
  return Counts(names, pixels, agreeing, differing, matrices, kept,
                samples.label_map)


def _labelled(sample, predictors):
  """Labels an image with all models; returns a Shown."""
  height, width = sample.size
  predictions = [
      predictor.predict(sample.image[np.newaxis])[0][:height, :width]
      for predictor in predictors]
  same = np.all([one == predictions[0] for one in predictions], axis=0)
  return Shown(
      sample.name, 1.0 - float(same.mean()),
      sample.image[:height, :width].astype(np.uint8),
      None if sample.label is None else sample.label[:height, :width],
      predictions)


def _matrix(labels, predictions, predictor, num_classes):
  try:
    return metrics.confusion_matrix(
        labels, predictions, num_classes, ignore_label=constants.IGNORE_LABEL)
  except InputError as error:
    raise InputError('{}: {}', predictor.description, error)
