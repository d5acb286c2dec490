"""Published scores of the reference's files, looked up by checksum.

Needs no TensorFlow.
"""
import os
from typing import Dict, Mapping, Sequence, Tuple

from deeplab.data import download

# Number of validation images in all figures.
IMAGES = 2000

# Maps paths below checkpoints/ (a checkpoint's index) to scores named as in
# metrics.Scores. Two values: the reference states both. miou_mlperf_app was
# measured on a device, the others on x86.
FIGURES: Dict[str, Dict[str, Tuple[float, ...]]] = {
    'float/model.ckpt-200000.index': {'miou': (0.5528,)},
    'float/freeze.pb': {'miou': (0.5528,)},
    'float/freeze.tflite': {'miou_mlperf_app': (0.5501, 0.5509)},
    'quantize_aware_training/model.ckpt-100000.index': {'miou': (0.5553,)},
    'quantize_aware_training/freeze.pb': {'miou': (0.5553,)},
    'quantize_aware_training/freeze_qat.tflite': {
        'miou_kept_classes': (0.5483,), 'miou_mlperf_app': (0.5467,)},
    'post_train_quant/freeze_ptq.tflite': {
        'miou_kept_classes': (0.5469,), 'miou_mlperf_app': (0.5401, 0.5412)},
}


def figures_of(path: str) -> Mapping[str, Tuple[float, ...]]:
  """Returns the published figures of a model; {} for any other file.

  Args:
    path: a file, or a checkpoint prefix.
  """
  for name in (path + '.index', path):
    if os.path.isfile(name):
      found = download.blob_sha1_of(name)
      return next((FIGURES[file] for file, checksum in
                   download.published().items()
                   if checksum == found and file in FIGURES), {})
  return {}


def text_of(values: Sequence[float]) -> str:
  """Returns figures as text, such as '0.5501 / 0.5509'."""
  return ' / '.join('{:.4f}'.format(value) for value in values)
