"""The interface of opened models, and the kinds of model files.

Needs no TensorFlow.
"""
import contextlib
from typing import Any, Dict, Optional, Tuple

import numpy as np

from deeplab.models import metadata

# Kinds of model files, as reports name them.
CHECKPOINT = 'checkpoint'
FROZEN_GRAPH = 'frozen graph'
SAVED_MODEL = 'SavedModel'
ONNX = 'ONNX file'
TFLITE = 'tflite'

# Precisions of networks in float.
FLOAT32 = 'float32'
FAKE_QUANTIZED = 'float32, rounded to 8 bits by fake quantization'


class Predictor(contextlib.AbstractContextManager):
  """An opened model that labels images.

  Attributes:
    description: path of the model: a checkpoint prefix, or a file.
    input_size: (height, width) of its input, in pixels.
    runtime: human-readable name of the interpreter.
    num_classes: number of classes of the model; None: unknown.
    precision: types of the weights and activations, human-readable.
  """

  description = ''
  input_size: Tuple[int, int] = (0, 0)
  runtime = ''
  num_classes: Optional[int] = None
  precision = FLOAT32

  @property
  def input_contract(self) -> Dict[str, Any]:
    """The model's input, from metadata.input_contract."""
    return metadata.input_contract(self.input_size)

  def predict(self, images: np.ndarray) -> np.ndarray:
    """Labels images.

    Args:
      images: [batch, height, width, 3] float32 or uint8 RGB in [0, 255].

    Returns:
      [batch, height, width] int32 classes.
    """
    return self.predict_prepared(self.prepare(images))

  def prepare(self, images: np.ndarray) -> np.ndarray:
    """Converts images for predict_prepared; LoadGen does not time this."""
    return images

  def predict_prepared(self, inputs: np.ndarray) -> np.ndarray:
    """Labels images that `prepare` converted."""
    raise NotImplementedError

  def close(self) -> None:
    """Frees the model."""
    raise NotImplementedError

  def __exit__(self, *unused_exception):
    self.close()
