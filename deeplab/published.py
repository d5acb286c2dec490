"""The published scores of the reference's files, recognized by their content.

Needs no TensorFlow.
"""
import hashlib
import os
from typing import Dict, Mapping, Sequence, Tuple

_FOLDER = os.path.join(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))), 'checkpoints')
_SUMS = os.path.join(_FOLDER, 'git-blob-sha1.txt')
# Number of validation images that all figures were measured on.
IMAGES = 2000

# From a path below checkpoints/ (a checkpoint's index) to scores by their name
# in metrics.Scores. If there are two values, the reference states both.
# miou_mlperf_app was measured on a device, the others on x86.
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


def checksums() -> Dict[str, str]:
  """Returns the Git blob SHA-1 of each published file, by its path."""
  with open(_SUMS, encoding='utf-8') as lines:
    return {path: checksum for checksum, path in (
        line.split() for line in lines if line.strip() and line[0] != '#')}


def blob_sha1(content: bytes) -> str:
  """Returns the checksum of `git hash-object` for this content."""
  return hashlib.sha1(
      'blob {}\0'.format(len(content)).encode() + content).hexdigest()


def figures_of(path: str) -> Mapping[str, Tuple[float, ...]]:
  """Returns the published figures of a model; {} for any other file.

  Args:
    path: a file, or a checkpoint's prefix.
  """
  for name in (path + '.index', path):
    if os.path.isfile(name):
      with open(name, 'rb') as content:
        found = blob_sha1(content.read())
      return next((FIGURES[file] for file, checksum in checksums().items()
                   if checksum == found and file in FIGURES), {})
  return {}


def text_of(values: Sequence[float]) -> str:
  """Returns figures as text, such as '0.5501 / 0.5509'."""
  return ' / '.join('{:.4f}'.format(value) for value in values)
