"""Two models, tensor by tensor: the same weights, rounded, or others?

A value that is stored in 8 bits stands for all that are within half a step of
it. So two weights are told apart only where they are further from each other
than half a step of each.
"""
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from deeplab.inspection import contents as contents_lib

EQUAL = 'equal'
ROUNDED = 'equal but for rounding'
OTHER = 'different'
# What float32 arithmetic makes of folding: of the largest weight of a channel;
# of the largest bias of a layer, as biases are differences.
_FLOAT_TOLERANCE = 1e-5
# A channel whose largest weight is below it gives its bias and nothing else.
NEAR_ZERO = 1e-6


class Channel(NamedTuple):
  """An output channel whose stored weights differ."""
  number: int
  # Number of weights that differ.
  differing: int
  # Largest difference, in steps.
  steps: int
  # Largest real weight of both.
  largest: float
  # What a step means, in either.
  scales: Tuple[float, float]


class ValuesDifference(NamedTuple):
  """Weights, or biases, of a layer in two models."""
  verdict: str
  number: int
  # Stored values that differ; of values in float, real ones.
  differing: int
  # Largest difference of stored values; None: not both are stored in 8 bits.
  steps: Optional[int]
  # Largest difference of real values, and of all together: root of the sum of
  # squares, relative to that of the first model.
  largest: float
  relative: float
  # Values that are further apart than rounding explains.
  beyond: int
  # Where stored values differ.
  channels: List[Channel]


class LayerDifference(NamedTuple):
  """A layer in two models."""
  weights: ValuesDifference
  biases: ValuesDifference
  # What outputs are rounded to, in either.
  outputs: Tuple[Optional[contents_lib.Range], Optional[contents_lib.Range]]


class Difference(NamedTuple):
  """Two models."""
  # By scope, of the layers that both have in one shape.
  layers: Dict[str, LayerDifference]
  # Layers that only one has, or that have other shapes.
  unmatched: List[str]

  @property
  def verdict(self) -> str:
    """EQUAL, ROUNDED or OTHER: what holds for the weights of all layers."""
    verdicts = {layer.weights.verdict for layer in self.layers.values()}
    if self.unmatched or OTHER in verdicts:
      return OTHER
    return ROUNDED if ROUNDED in verdicts else EQUAL

  def total(self, name: str) -> int:
    """Returns the sum of a field over the weights of all layers."""
    return sum(getattr(layer.weights, name) for layer in self.layers.values())

  @property
  def steps(self) -> Optional[int]:
    """Largest difference of stored weights; None: not stored in both."""
    steps = [layer.weights.steps for layer in self.layers.values()
             if layer.weights.steps is not None]
    return max(steps) if steps else None


def between(first: contents_lib.Contents,
            second: contents_lib.Contents) -> Difference:
  """Compares two models, layer by layer."""
  layers = {}
  unmatched = sorted(set(first.layers) ^ set(second.layers))
  for name, layer in first.layers.items():
    other = second.layers.get(name)
    if other is None:
      continue
    if layer.weights.real.shape != other.weights.real.shape:
      unmatched.append(name)
      continue
    layers[name] = LayerDifference(
        _of_values(layer.weights, other.weights),
        _of_values(layer.biases, other.biases), (layer.output, other.output))
  return Difference(layers, unmatched)


def _of_values(first: contents_lib.Values,
               second: contents_lib.Values) -> ValuesDifference:
  apart = np.abs(first.real - second.real)
  beyond = int(np.count_nonzero(
      apart > _rounding(first) + _rounding(second)))
  stored = None
  if first.quantized and second.quantized and first.dtype == second.dtype:
    stored = np.abs(first.quantized.stored - second.quantized.stored)
  differing = int(np.count_nonzero(apart if stored is None else stored))
  norm = float(np.sqrt(np.sum(first.real ** 2)))
  distance = float(np.sqrt(np.sum(apart ** 2)))
  return ValuesDifference(
      OTHER if beyond else ROUNDED if differing else EQUAL,
      apart.size, differing,
      None if stored is None else int(stored.max()),
      float(apart.max()), distance / norm if norm else float(distance > 0),
      beyond, [] if stored is None else _channels(stored, first, second))


def _rounding(values):
  """Returns how far a real value may be from what is there, by channel."""
  largest = np.abs(values.real).max()
  if values.real.ndim > 1:
    largest = _by_channel(np.abs(values.real)).max(axis=0)
  tolerance = _FLOAT_TOLERANCE * largest
  if values.quantized is not None:
    tolerance = tolerance + 0.5 * values.quantized.scales
  return tolerance


def _by_channel(values):
  return values.reshape(-1, values.shape[-1])


def _channels(stored, first, second):
  """Returns the Channels in which stored values differ."""
  stored = _by_channel(stored)
  largest = np.maximum(*[_by_channel(np.abs(values.real)).max(axis=0)
                         for values in (first, second)])
  scales = [np.broadcast_to(values.quantized.scales, largest.shape)
            for values in (first, second)]
  return [
      Channel(int(index), int(np.count_nonzero(stored[:, index])),
              int(stored[:, index].max()), float(largest[index]),
              (float(scales[0][index]), float(scales[1][index])))
      for index in np.flatnonzero(stored.any(axis=0))]


def to_json(difference: Difference) -> Dict[str, Any]:
  """Returns a difference as a dict that json can write."""
  return {
      'verdict': difference.verdict,
      'weights': difference.total('number'),
      'differing': difference.total('differing'),
      'beyond_rounding': difference.total('beyond'),
      'steps': difference.steps, 'unmatched': difference.unmatched,
      'layers': {
          name: {'weights': _as_json(layer.weights),
                 'biases': _as_json(layer.biases),
                 'outputs': [output and dict(output._asdict())
                             for output in layer.outputs]}
          for name, layer in difference.layers.items()}}


def _as_json(values):
  return dict(values._asdict(), channels=[
      dict(channel._asdict()) for channel in values.channels])
