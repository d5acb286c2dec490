"""Two models, tensor by tensor: the same weights, rounded, or others?

A value that is stored in 8 bits stands for all that are within half a step of
it. So two weights are told apart only if they are further from each other than
half a step of each. A weight that is not a number equals no other one.
"""
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from deeplab.inspection import activations as activations_lib
from deeplab.inspection import contents as contents_lib

EQUAL = 'equal'
ROUNDED = 'equal but for rounding'
OTHER = 'different'
# Error of folding batch norm in float32: relative to the largest weight of a
# channel, or to the largest bias of a layer, because biases are differences.
_FLOAT_TOLERANCE = 1e-5
# Scales of activations that differ by less, relatively, are equal.
_SAME_SCALE = 1e-3


class ValuesDifference(NamedTuple):
  """Weights, or biases, of a layer in two models."""
  verdict: str
  number: int
  # Number of values whose stored form differs, or, in float, the real one.
  differing: int
  # Largest difference of stored values; None: not both are stored in 8 bits.
  steps: Optional[int]
  # Largest difference of real values, and the root of the sum of their squares
  # relative to that of the first model's values.
  largest: float
  relative: float
  # Number of values that are further apart than rounding explains.
  beyond: int
  # Number of values that are NaN or infinite in one of the models.
  not_finite: int


class Difference(NamedTuple):
  """Two models."""
  # By scope: the layers that both have in one shape.
  weights: Dict[str, ValuesDifference]
  biases: Dict[str, ValuesDifference]
  # Layers that only one has, or that have other shapes.
  unmatched: List[str]
  # Layers whose biases differ by more than rounding.
  other_biases: List[str]
  # Number of activations that both models quantize, and those of them that have
  # another scale or zero point, by name.
  activations: int
  other_activations: Dict[
      str, Tuple[activations_lib.Range, activations_lib.Range]]
  # Quantized activations that only one of two files of a kind has.
  unmatched_activations: List[str]

  @property
  def verdict(self) -> str:
    """EQUAL, ROUNDED or OTHER: what holds for the weights of all layers."""
    verdicts = {one.verdict for one in self.weights.values()}
    if self.unmatched or OTHER in verdicts:
      return OTHER
    return ROUNDED if ROUNDED in verdicts else EQUAL

  def total(self, name: str) -> int:
    """Returns the sum of a field over the weights of all layers."""
    return sum(getattr(one, name) for one in self.weights.values())

  @property
  def steps(self) -> Optional[int]:
    """Largest difference of stored weights; None: not stored in both."""
    return max((one.steps for one in self.weights.values()
                if one.steps is not None), default=None)


def between(first: contents_lib.Contents,
            second: contents_lib.Contents) -> Difference:
  """Compares two models, layer by layer and activation by activation."""
  shared = [name for name, layer in first.layers.items()
            if name in second.layers and layer.weights.real.shape ==
            second.layers[name].weights.real.shape]
  weights, biases = (
      {name: _of_values(getattr(first.layers[name], field),
                        getattr(second.layers[name], field))
       for name in shared} for field in ('weights', 'biases'))
  of_first, of_second = first.activations, second.activations
  # Checkpoints and graphs do not name the activations that copy another one.
  comparable = first.model.kind == second.model.kind and of_first and of_second
  both = {name: (one, of_second[name]) for name, one in of_first.items()
          if name in of_second}
  return Difference(
      weights, biases,
      sorted(set(first.layers).union(second.layers).difference(shared)),
      [name for name, one in biases.items() if one.verdict == OTHER],
      len(both), {name: ranges for name, ranges in both.items()
                  if not _same_range(*ranges)},
      sorted(set(of_first) ^ set(of_second)) if comparable else [])


def _of_values(first: contents_lib.Values,
               second: contents_lib.Values) -> ValuesDifference:
  with np.errstate(invalid='ignore'):
    apart = np.abs(first.real - second.real)
    # NaN is not within any distance.
    beyond = int(np.count_nonzero(
        ~(apart <= _rounding(first) + _rounding(second))))
    norm, distance = (float(np.sqrt(np.sum(values ** 2)))
                      for values in (first.real, apart))
  steps = None
  if first.stored is not None and second.stored is not None and (
      first.dtype == second.dtype):
    steps = np.abs(first.stored - second.stored)
  differing = int(np.count_nonzero(apart if steps is None else steps))
  return ValuesDifference(
      OTHER if beyond else ROUNDED if differing else EQUAL,
      apart.size, differing, None if steps is None else int(steps.max()),
      float(apart.max()), distance / norm if norm else float(distance > 0),
      beyond, int(np.count_nonzero(~np.isfinite(apart))))


def _rounding(values):
  """Returns how far a real value may be from the stored one, by channel."""
  largest = np.abs(values.real)
  if largest.ndim > 1:
    largest = largest.reshape(-1, largest.shape[-1])
  else:
    largest = largest[:, np.newaxis]
  tolerance = _FLOAT_TOLERANCE * largest.max(axis=0)
  return tolerance if values.scales is None else (
      tolerance + 0.5 * values.scales)


def _same_range(first, second):
  """Compares scale and zero point; a zero point counts from the type's end."""
  zero_points = {one.zero_point - np.iinfo(one.dtype).min
                 for one in (first, second)}
  return len(zero_points) == 1 and np.isclose(
      first.scale, second.scale, rtol=_SAME_SCALE, atol=0)


def to_json(difference: Difference) -> Dict[str, Any]:
  """Returns a difference as a dict that json can write."""
  return {
      'verdict': difference.verdict,
      'weights': difference.total('number'),
      'differing': difference.total('differing'),
      'beyond_rounding': difference.total('beyond'),
      'steps': difference.steps, 'unmatched': difference.unmatched,
      'layers': {
          name: {'weights': _as_json(weights),
                 'biases': _as_json(difference.biases[name])}
          for name, weights in difference.weights.items()},
      'activations': {
          'compared': difference.activations,
          'unmatched': difference.unmatched_activations,
          'differing': {
              name: [one._asdict() for one in ranges]
              for name, ranges in difference.other_activations.items()}}}


def _as_json(values):
  return dict(values._asdict(),
              largest=contents_lib.finite(values.largest),
              relative=contents_lib.finite(values.relative))
