"""Measures TFLite inference."""
import numpy as np

from deeplab.models import interpreters
from deeplab.tools.benchmark import cases


def predict(sizes: cases.Sizes, paths: cases.Paths, *, model: str,
            threads: int) -> cases.Measured:
  """Measures inference on one image; model is 'float', 'ptq' or 'qat'."""
  predictor = interpreters.TflitePredictor(
      paths(model + '.tflite'), num_threads=threads)
  image = np.random.RandomState(0).uniform(
      0, 255, [1, sizes.side, sizes.side, 3]).astype(np.uint8)
  predictor.predict(image)
  return (cases.seconds_each(lambda: predictor.predict(image), sizes.seconds),
          predictor.interpreter_text)
