"""Counts a confusion matrix over a split, for any model.

`count` counts batches one after the other. Workers in other processes call
`count_batch`, and `total` adds up their results. Needs no TensorFlow.
"""
import time
from typing import (
  TYPE_CHECKING,
  Any,
  Dict,
  Iterable,
  List,
  Mapping,
  NamedTuple,
  Optional,
  Tuple,
)

import numpy as np

from deeplab import constants
from deeplab.errors import InputError
from deeplab.errors import some_of
from deeplab.evaluation import metrics
from deeplab.models import interface
from deeplab.system import progress

if TYPE_CHECKING:
  # This module must not import TensorFlow when it runs.
  from deeplab.data import dataset


class Counts(NamedTuple):
  """The counts of a batch, or of a pass over a split."""
  # int64 [num_classes, num_classes], rows are labels.
  matrix: np.ndarray
  images: int
  # Arrays of the first images, for report.publish.
  samples: Dict[str, List[np.ndarray]]
  # Seconds of a pass, from the first image to the last.
  seconds: float = 0.0
  # Milliseconds an image in the model, for each batch.
  model_ms: Tuple[float, ...] = ()

  @property
  def median_ms(self) -> Optional[float]:
    """The median of model_ms; the first batch may include set-up."""
    return float(np.median(self.model_ms)) if self.model_ms else None


def count(predictor: interface.Predictor, batches: 'dataset.Batches', *,
          num_classes: int = constants.NUM_CLASSES, keep: int = 0) -> Counts:
  """Counts batches one after the other.

  Args:
    predictor: the model.
    batches: the batches to count.
    num_classes: number of classes, the ignored one included.
    keep: number of images to keep, with labels and predictions.

  Raises:
    InputError: the predictor returns labels that are no classes.
  """
  def counted():
    wanted = keep
    for batch in batches:
      counts = count_batch(
          predictor, batch, num_classes=num_classes, keep=wanted)
      wanted = max(0, wanted - counts.images)
      yield counts

  return total(
      counted(), num_images=batches.num_images, num_classes=num_classes)


def count_batch(
    predictor: interface.Predictor, batch: Mapping[str, Any], *,
    num_classes: int = constants.NUM_CLASSES, keep: int = 0) -> Counts:
  """Counts one batch; arguments and errors as in `count`.

  Args:
    predictor: the model.
    batch: 'image', the predictor's input; 'label', integer [batch, height,
      width]; and 'filename', a list of str.
    num_classes: number of classes, the ignored one included.
    keep: number of images to keep, with labels and predictions.
  """
  started = time.perf_counter()
  predictions = predictor.predict(batch['image'])
  model_ms = 1000 * (time.perf_counter() - started) / len(predictions)
  try:
    matrix = metrics.confusion_matrix(
        batch['label'], predictions, num_classes)
  except InputError as error:
    raise InputError('{}: {}'.format(some_of(batch['filename']), error))
  return Counts(matrix, len(predictions), {
      'images': list(batch['image'][:keep].astype(np.uint8)),
      'labels': list(batch['label'][:keep]),
      'predictions': list(predictions[:keep])}, model_ms=(model_ms,))


def total(counts: Iterable[Counts], *, num_images: int,
          num_classes: int = constants.NUM_CLASSES) -> Counts:
  """Adds up the Counts of batches, and shows progress.

  Args:
    counts: Counts of the batches, in the order of the images.
    num_images: number of images in all batches.
    num_classes: number of classes, the ignored one included.

  Returns:
    The sum; its seconds are the time until the last batch arrived.
  """
  matrix = np.zeros([num_classes, num_classes], np.int64)
  samples: Dict[str, List[np.ndarray]] = {
      'images': [], 'labels': [], 'predictions': []}
  images = 0
  model_ms: List[float] = []
  started = time.time()
  with progress.Bar(num_images, 'evaluating', unit='image') as bar:
    for each in counts:
      matrix += each.matrix
      for name, arrays in each.samples.items():
        samples[name] += arrays
      images += each.images
      model_ms += each.model_ms
      bar.update(each.images)
  return Counts(
      matrix, images, samples, time.time() - started, tuple(model_ms))
