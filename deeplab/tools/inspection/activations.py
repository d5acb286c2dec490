"""Finds operators of a TFLite file that clip quantized activations.

An operator that only moves values, such as a concatenation, clips them if its
output has a narrower range than its input. An addition or a convolution
computes new values, so the ranges of its inputs say nothing about its output.
"""
from typing import List, NamedTuple, Optional, Sequence

import numpy as np

from deeplab.data import png_folder
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.models import interpreters
from deeplab.models import tflite

_QUANTIZE = 'QUANTIZE'
_MOVING = frozenset((
    _QUANTIZE, 'BATCH_TO_SPACE_ND', 'CONCATENATION', 'DEPTH_TO_SPACE',
    'MAX_POOL_2D', 'PAD', 'PADV2', 'RESHAPE', 'RESIZE_BILINEAR',
    'RESIZE_NEAREST_NEIGHBOR', 'SLICE', 'SPACE_TO_BATCH_ND', 'SPLIT',
    'SQUEEZE', 'STRIDED_SLICE', 'TRANSPOSE'))


class Range(NamedTuple):
  """Quantization of an activation."""
  dtype: str
  low: float
  high: float
  scale: float
  zero_point: int


class Clipping(NamedTuple):
  """An operator whose output has a narrower range than one of its inputs."""
  # Name of the output.
  name: str
  kind: str
  output: Range
  # Name, range and position in the file of the input, before any QUANTIZE.
  input_name: str
  input: Range
  position: int
  # Share of the input's values outside the output's range; None: not measured.
  share: Optional[float] = None


def short_name(tensor: tflite.Tensor) -> str:
  """Returns a tensor's name without the names of fused tensors."""
  return tensor.name.split(';')[0]


def range_of(tensor: tflite.Tensor) -> Optional[Range]:
  """Returns the range of an activation; None: it is not quantized."""
  if len(tensor.scales) != 1 or tensor.dtype is None or (
      tensor.data is not None):
    return None
  kind = np.iinfo(tensor.dtype)
  scale, zero_point = tensor.scales[0], tensor.zero_points[0]
  return Range(str(tensor.dtype), scale * (kind.min - zero_point),
               scale * (kind.max - zero_point), scale, zero_point)


def find_clipping(model: tflite.Model) -> List[Clipping]:
  """Finds the operators that clip their inputs by more than a step."""
  quantized_from = {
      operator.outputs[0]: operator.inputs[0] for operator in model.operators
      if operator.kind == _QUANTIZE}
  found = []
  for operator in model.operators:
    if operator.kind not in _MOVING:
      continue
    output = range_of(model.tensors[operator.outputs[0]])
    for position in operator.inputs:
      position = quantized_from.get(position, position)
      source = range_of(model.tensors[position]) if position >= 0 else None
      if output and source and _is_narrower(output, source):
        found.append(Clipping(
            short_name(model.tensors[operator.outputs[0]]), operator.kind,
            output, short_name(model.tensors[position]), source, position))
  return found


def _is_narrower(output, source):
  step = max(output.scale, source.scale)
  return (output.low > source.low + step or output.high < source.high - step)


def measure(clipping: Sequence[Clipping], path: str, test_dir: str,
            sample_num: int) -> List[Clipping]:
  """Measures the share of clipped values, with LiteRT.

  Args:
    clipping: from find_clipping.
    path: the TFLite file.
    test_dir: folder with preprocessed images.
    sample_num: number of images, from the first.

  Returns:
    The operators with their shares.

  Raises:
    InputError: LiteRT is missing, or the images do not fit.
  """
  try:
    from ai_edge_litert import interpreter as litert
  except ImportError:
    raise InputError(
        '{}: needs LiteRT, to count clipped values; run ./scripts/setup.sh '
        'modern, then use .venvs/modern/bin/python',
        option('test_dir', test_dir))
  paths = png_folder.image_paths(test_dir, 'test_dir')[:sample_num]
  predictor = interpreters.TflitePredictor(path)
  # Delegates are disabled because they would not keep the tensors.
  runner = litert.Interpreter(
      path, experimental_preserve_all_tensors=True,
      experimental_op_resolver_type=(
          litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES))
  runner.allocate_tensors()
  clipped = np.zeros([len(clipping)])
  for image_path in paths:
    image = np.asarray(
        png_folder.read_image_file(image_path, image_path))
    if image.shape != predictor.input_size + (3,):
      raise InputError('{}: shape {}, expected {}', image_path, image.shape,
                       predictor.input_size + (3,))
    runner.set_tensor(runner.get_input_details()[0]['index'],
                      predictor.prepare(image)[np.newaxis])
    runner.invoke()
    for index, one in enumerate(clipping):
      values = one.input.scale * (
          runner.get_tensor(one.position).astype(np.float64) -
          one.input.zero_point)
      half = one.output.scale / 2
      clipped[index] += np.mean(
          (values < one.output.low - half) | (values > one.output.high + half))
  return [one._replace(share=total / len(paths))
          for one, total in zip(clipping, clipped)]
