"""What quantization costs each layer, by TensorFlow's QuantizationDebugger.

Each layer is run in 8 bits and in float on the same float input, so that an
error shows where it is made, not where it arrives. A perfect rounding is off by
less than half a step: 0.29 steps on average (the deviation of even values
between -1/2 and 1/2).
"""
import csv
import io
import logging
from typing import Any, Dict, List, NamedTuple
import warnings

import tensorflow as tf

from deeplab import options as options_lib
from deeplab import quiet
from deeplab import tf_texts
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.lite import conversion
from deeplab.lite import layers as layers_lib
from deeplab.nets import structure

_LOG = logging.getLogger(__name__)
_WANTED = '2.21'
# Deviation of the error of a perfect rounding, in steps.
PERFECT = 12 ** -0.5


class Cost(NamedTuple):
  """What 8 bits cost an operator, over all values of all images."""
  # Scope of the layer, or the tensor's name where it is of none.
  name: str
  kind: str
  values: int
  # What a step of its output means.
  scale: float
  # Root of the mean square of the error, its mean, its largest, in steps.
  error: float
  bias: float
  largest: float


def measure(options: options_lib.QuantizationCostOptions) -> List[Cost]:
  """Quantizes a graph and measures every operator of it.

  Args:
    options: QuantizationCostOptions.

  Returns:
    In the order in which they run.

  Raises:
    InputError: this TensorFlow has no such debugger, or the graph or images
      cannot be used.
  """
  if not tf.__version__.startswith(_WANTED):
    raise InputError(
        '{}: QuantizationDebugger needs TensorFlow {} (found {}); run '
        './scripts/setup.sh modern, then use .venvs/modern/bin/python',
        option('dataset_dir', options.dataset_dir), _WANTED, tf.__version__)
  converter, paths = conversion.calibrating_converter(options)
  _LOG.info('quantizing, and measuring on %d images', len(paths))
  try:
    with quiet.without_notices(), warnings.catch_warnings():
      # Its interpreter says that it has moved to LiteRT.
      warnings.simplefilter('ignore')
      debugger = tf.lite.experimental.QuantizationDebugger(
          converter=converter,
          debug_dataset=lambda: conversion.representative_data(paths))
      debugger.run()
  except InputError:
    raise
  except Exception as error:  # the converter's own has no public name
    raise InputError('{}: TensorFlow {} cannot quantize this graph: {}'.format(
        options.graph_def, tf.__version__, tf_texts.why_not_converted(error)))
  table = io.StringIO()
  debugger.layer_statistics_dump(table)
  table.seek(0)
  return [_cost(row) for row in csv.DictReader(table)]


def _cost(row: Dict[str, str]) -> Cost:
  scale = float(row['scale'])
  return Cost(
      row['tensor_name'], row['op_name'], int(float(row['num_elements'])),
      scale, float(row['mean_squared_error']) ** 0.5 / scale,
      float(row['mean_error']) / scale, float(row['max_abs_error']) / scale)


def by_layer(costs: List[Cost], network: structure.Structure) -> List[Cost]:
  """Gives costs the names of layers, where they are of one."""
  found = []
  for cost in costs:
    layer = network.layer_of(cost.name)
    if layer is None or cost.kind not in layers_lib.CONVOLUTIONS:
      layer = cost.name.split(';')[0]
    found.append(cost._replace(name=layer))
  return found


def to_json(costs: List[Cost]) -> List[Dict[str, Any]]:
  """Returns costs as json can write them."""
  return [dict(cost._asdict()) for cost in costs]
