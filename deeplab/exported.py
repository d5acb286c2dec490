"""A predictor (see `counting`) of what export_model.py makes, in any format.

All take images in [-1, 1], in a batch of fixed size as a rule. Needs no
TensorFlow.
"""
from typing import Optional, Sequence, Tuple, cast

import numpy as np

from deeplab import contract
from deeplab import counting
from deeplab.errors import InputError
from deeplab.errors import option


class ExportedPredictor(counting.Predictor):
  """What the formats share; a class for each runs it."""

  def __init__(self, path: str, shape: Optional[Sequence[Optional[int]]],
               crop_size: Optional[Tuple[int, int]]):
    """Checks the input.

    Args:
      path: the file or folder.
      shape: of its input; None: of unknown rank. A side of None is open.
      crop_size: (height, width) of the images it will get; None: whatever it
        takes.

    Raises:
      InputError: where it takes no such images.
    """
    self.description = path
    shape = list(shape or ())
    wanted = [None] + list(crop_size or (None, None)) + [contract.CHANNELS]
    # Only the batch can be open, to be of a known size.
    if len(shape) != len(wanted) or None in shape[1:] or any(
        side not in (expected, None) for side, expected in zip(shape, wanted)
        if expected is not None):
      raise InputError(
          '{}: input is {}, {}', path,
          'x'.join(map(str, shape)) or 'of no fixed size',
          option('crop_size', crop_size) if crop_size else
          'expected [batch, height, width, 3]')
    self.input_size = cast(Tuple[int, int], tuple(shape[1:3]))
    self._batch_size = shape[0]

  def _run(self, inputs: np.ndarray) -> np.ndarray:
    """Returns integer labels of a batch of the size that the model takes.

    Args:
      inputs: [batch, height, width, 3] float32 RGB in [-1, 1].
    """
    raise NotImplementedError

  def predict(self, images: np.ndarray) -> np.ndarray:
    """Returns int32 labels of images; see counting.Predictor."""
    return self.predict_prepared(self.prepare(images))

  def prepare(self, images: np.ndarray) -> np.ndarray:
    """Returns images in [-1, 1]; see counting.Predictor."""
    return contract.scale_to_model_range(images)

  def predict_prepared(self, inputs: np.ndarray) -> np.ndarray:
    """Returns int32 labels of such images; see counting.Predictor."""
    size = self._batch_size or len(inputs)
    # The last batch may be short: its last image fills it.
    padded = np.concatenate(
        [inputs] + [inputs[-1:]] * (-len(inputs) % size))
    outputs = [self._run(padded[start:start + size])
               for start in range(0, len(padded), size)]
    # An ArgMax that another tool exported may give int64.
    return np.concatenate(outputs)[:len(inputs)].astype(np.int32)
