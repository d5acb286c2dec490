"""A predictor of an exported model, in any format.

Its input is in [-1, 1], and usually in a batch of fixed size. Needs no
TensorFlow.
"""
from typing import Optional, Sequence, Tuple, cast

import numpy as np

from deeplab import constants
from deeplab.errors import InputError
from deeplab.models import interface


class ExportedPredictor(interface.Predictor):
  """What the formats share; each has a class that runs it."""

  def __init__(self, path: str, shape: Optional[Sequence[Optional[int]]]):
    """Checks the input.

    Args:
      path: the file or folder.
      shape: of its input; None: of unknown rank. A side of None is open.

    Raises:
      InputError: it takes no images of a fixed size.
    """
    self.description = path
    shape = list(shape or ())
    if len(shape) != 4 or None in shape[1:] or shape[3] != constants.CHANNELS:
      raise InputError(
          '{}: input is {}, expected [batch, height, width, 3]'.format(
              path, 'x'.join(map(str, shape)) or 'of no fixed size'))
    self.input_size = cast(Tuple[int, int], tuple(shape[1:3]))
    self._batch_size = shape[0]

  def _run(self, inputs: np.ndarray) -> np.ndarray:
    """Returns integer labels of a batch of the size that the model takes.

    Args:
      inputs: [batch, height, width, 3] float32 RGB in [-1, 1].
    """
    raise NotImplementedError

  def prepare(self, images: np.ndarray) -> np.ndarray:
    """Returns images in [-1, 1]; see interface.Predictor."""
    return constants.scale_to_model_range(images)

  def predict_prepared(self, inputs: np.ndarray) -> np.ndarray:
    """Returns int32 labels of such images; see interface.Predictor."""
    size = self._batch_size or len(inputs)
    # The last batch may be short: its last image fills it.
    padded = np.concatenate(
        [inputs] + [inputs[-1:]] * (-len(inputs) % size))
    outputs = [self._run(padded[start:start + size])
               for start in range(0, len(padded), size)]
    # An ArgMax that another tool exported may give int64.
    return np.concatenate(outputs)[:len(inputs)].astype(np.int32)
