"""Base class for predictors of exported models, whatever their format.

Inputs are in [-1, 1]; the batch size is usually fixed. Needs no TensorFlow.
"""
from typing import Optional, Sequence, Tuple, cast

import numpy as np

from deeplab import constants
from deeplab.errors import InputError
from deeplab.models import interface


class ExportedPredictor(interface.Predictor):
  """Pads batches and scales inputs; subclasses run the model."""

  def __init__(self, path: str, shape: Optional[Sequence[Optional[int]]],
               is_quantized: bool):
    """Checks the input.

    Args:
      path: the file or folder.
      shape: shape of the input; None: unknown rank. A None side is dynamic.
      is_quantized: whether the model rounds to 8 bits.

    Raises:
      InputError: the input is not a batch of images of a fixed size.
    """
    self.description = path
    shape = list(shape or ())
    if len(shape) != 4 or None in shape[1:] or shape[3] != constants.CHANNELS:
      raise InputError(
          '{}: input is {}, expected [batch, height, width, 3]'.format(
              path, 'x'.join(map(str, shape)) or 'of no fixed size'))
    self.input_size = cast(Tuple[int, int], tuple(shape[1:3]))
    self._batch_size = shape[0]
    if is_quantized:
      self.precision = interface.FAKE_QUANTIZED

  def _run(self, inputs: np.ndarray) -> np.ndarray:
    """Returns integer labels of a batch of the model's own size.

    Args:
      inputs: [batch, height, width, 3] float32 RGB in [-1, 1].
    """
    raise NotImplementedError

  def prepare(self, images: np.ndarray) -> np.ndarray:
    """Returns images in [-1, 1]."""
    return constants.scale_to_model_range(images.astype(np.float32, copy=False))

  def predict_prepared(self, inputs: np.ndarray) -> np.ndarray:
    """Returns int32 labels of prepared images."""
    size = self._batch_size or len(inputs)
    # A short last batch is padded with its last image.
    padded = np.concatenate(
        [inputs] + [inputs[-1:]] * (-len(inputs) % size))
    outputs = [self._run(padded[start:start + size])
               for start in range(0, len(padded), size)]
    # ArgMax may return int64 in files from other tools.
    return np.concatenate(outputs)[:len(inputs)].astype(np.int32)
