"""What every opened model offers, and the kinds of model files.

Needs no TensorFlow.
"""
import contextlib
from typing import Optional, Tuple

import numpy as np

# Kinds of model files, as reports name them.
CHECKPOINT = 'checkpoint'
FROZEN_GRAPH = 'frozen graph'
SAVED_MODEL = 'SavedModel'
ONNX = 'ONNX file'
TFLITE = 'tflite'


class Predictor(contextlib.AbstractContextManager):
  """An opened model, which labels images until it is closed.

  Attributes:
    description: path of the model: a checkpoint's prefix, or a file.
    input_size: (height, width) of the images that it takes, in pixels.
    runtime: name of the interpreter, for people.
    num_classes: number of classes of the model; None: not known.
  """

  description = ''
  input_size: Tuple[int, int] = (0, 0)
  runtime = ''
  num_classes: Optional[int] = None

  def predict(self, images: np.ndarray) -> np.ndarray:
    """Labels images.

    Args:
      images: [batch, height, width, 3] float32 RGB in [0, 255].

    Returns:
      [batch, height, width] int32, classes.
    """
    return self.predict_prepared(self.prepare(images))

  def prepare(self, images: np.ndarray) -> np.ndarray:
    """Converts images to what predict_prepared takes; not timed by LoadGen."""
    return images

  def predict_prepared(self, inputs: np.ndarray) -> np.ndarray:
    """Labels images that `prepare` has converted."""
    raise NotImplementedError

  def close(self) -> None:
    """Frees the model."""
    raise NotImplementedError

  def __exit__(self, *unused_exception):
    self.close()
