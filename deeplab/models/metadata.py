"""JSON files beside models that describe how the models were made.

    freeze.json         beside freeze.pb, freeze_saved_model/ and freeze.onnx
    model.tflite.json   beside model.tflite

A description has checksums of its model files. It is ignored if they differ.
"""
import hashlib
import os
from typing import Any, Dict, Optional, Sequence

import numpy as np

from deeplab import constants
from deeplab.config import label_map as label_maps
from deeplab.storage import checked_read
from deeplab.storage import remote

_TFLITE = '.tflite'
_KIND = 'the description that is written with a model'


def input_contract(size: Sequence[int], dtype: Any = np.float32,
                   ends: Optional[Sequence[float]] = None) -> Dict[str, Any]:
  """Returns how a picture becomes the input of a model, for JSON files.

  Args:
    size: (height, width) of the input, in pixels.
    dtype: type of the input.
    ends: values of pixels 0 and 255; None: -1 and 1 in float, else the least
      value of the type and 255 more.
  """
  dtype = np.dtype(dtype)
  if ends is None:
    least = -1 if dtype.kind == 'f' else int(np.iinfo(dtype).min)
    ends = (least, 1 if dtype.kind == 'f' else least + 255)
  return {
      'shape': [1, int(size[0]), int(size[1]), constants.CHANNELS],
      'layout': 'NHWC', 'channels': 'RGB', 'dtype': dtype.name,
      'range': list(ends),
      'resize': 'to fit, aspect ratio kept; bilinear, corners aligned',
      'padding': {'at': 'bottom and right', 'pixel': constants.PADDING_VALUE}}


def output_contract(shape: Sequence[int], dtype: Any = np.int32,
                    classes: Sequence[str] = ()) -> Dict[str, Any]:
  """Returns the output of a model, for JSON files.

  Args:
    shape: [1, height, width] of labels, or of logits with a fourth axis.
    dtype: type of the output.
    classes: their names; (): unknown.
  """
  return {
      'shape': list(shape), 'dtype': np.dtype(dtype).name,
      'value': 'class' if len(shape) == 3 else 'score of each class',
      'classes': list(classes)}


def of_graph(path: str) -> str:
  """Returns the path of the description of an exported model.

  Args:
    path: a frozen graph, a SavedModel's folder, or an ONNX file.
  """
  path = path.rstrip(os.sep)
  if path.endswith(constants.SAVED_MODEL_SUFFIX):
    return path[:-len(constants.SAVED_MODEL_SUFFIX)] + '.json'
  return os.path.splitext(path)[0] + '.json'


def of_tflite(path: str) -> str:
  """Returns the path of the description of a TFLite file."""
  return path + '.json'


def sha1(content: bytes) -> str:
  """Returns the checksum of a file in descriptions."""
  return hashlib.sha1(content).hexdigest()


def sha1_of_files(*paths: str) -> str:
  """Returns the checksum of the concatenated contents of files."""
  digest = hashlib.sha1()
  for path in paths:
    with open(path, 'rb') as content:
      digest.update(content.read())
  return digest.hexdigest()


def name_of(path: str) -> str:
  """Returns the name of a file, or of the file in a SavedModel's folder."""
  name = os.path.basename(path.rstrip(os.sep))
  if name.endswith(constants.SAVED_MODEL_SUFFIX):
    return name + '/' + constants.SAVED_MODEL_FILE
  return name


def label_map_beside(path: str) -> Optional[label_maps.LabelMap]:
  """Returns the label map in the description of a model file, or None.

  Args:
    path: the model file, or a SavedModel's folder; it need not exist.

  Raises:
    InputError: the description, or its label map, cannot be read.
  """
  described = of_tflite(path) if path.endswith(_TFLITE) else of_graph(path)
  file = os.path.join(path, constants.SAVED_MODEL_FILE) if (
      remote.is_folder(path)) else path
  if not (remote.is_file(described) and remote.is_file(file)):
    return None
  content = checked_read.read_json(described, described, _KIND)
  checksums = content.get('sha1') if isinstance(content, dict) else None
  if not isinstance(checksums, dict) or checksums.get(
      name_of(path)) != sha1(checked_read.read(file, file, 'a model')):
    return None  # It describes other files.
  model, output = content.get('model'), content.get('output')
  found = label_maps.optional_from_json(
      model if isinstance(model, dict) else content, path)
  # For ADE20K, the names are stored but not the label map.
  if found is None and isinstance(output, dict) and output.get(
      'classes') == list(constants.CLASS_NAMES):
    return label_maps.ADE20K
  return found
