"""Two models, tensor by tensor: the same weights, rounded, or others?

A value that is stored in 8 bits stands for all that are within half a step of
it. So two weights are told apart only if they are further from each other than
half a step of each. A weight that is not a number equals no other one.
"""
from typing import Any, Dict

import numpy as np

from deeplab.tools.inspection import contents as contents_lib

EQUAL = 'equal'
ROUNDED = 'equal but for rounding'
OTHER = 'different'
# Error of folding batch norm in float32: relative to the largest weight of a
# channel, or to the largest bias of a layer, because biases are differences.
_FLOAT_TOLERANCE = 1e-5
# Scales of activations that differ by less, relatively, are equal.
_SAME_SCALE = 1e-3


def between(first: contents_lib.Contents,
            second: contents_lib.Contents) -> Dict[str, Any]:
  """Compares two models, layer by layer and activation by activation.

  Returns:
    Dict for JSON. 'verdict': what holds for the weights of all layers.
    'layers': 'weights' and 'biases' of each layer that both have in one shape,
    see _of_values. 'weights', 'differing', 'beyond_rounding', 'not_finite':
    sums of these over all weights. 'steps': their largest, or None.
    'unmatched': layers that only one has, or that have other shapes.
    'activations': 'compared', their number; 'differing', the Ranges of both, by
    name; 'unmatched', those that only one of two files of a kind has.
  """
  layers = {
      name: {field: _of_values(getattr(layer, field),
                               getattr(second.layers[name], field))
             for field in ('weights', 'biases')}
      for name, layer in first.layers.items()
      if name in second.layers and layer.weights.real.shape ==
      second.layers[name].weights.real.shape}
  weights = [layer['weights'] for layer in layers.values()]
  unmatched = sorted(
      set(first.layers).union(second.layers).difference(layers))
  verdicts = {one['verdict'] for one in weights}
  return {
      'verdict': (OTHER if unmatched or OTHER in verdicts else
                  ROUNDED if ROUNDED in verdicts else EQUAL),
      'weights': sum(one['number'] for one in weights),
      'differing': sum(one['differing'] for one in weights),
      'beyond_rounding': sum(one['beyond'] for one in weights),
      'not_finite': sum(one['not_finite'] for one in weights),
      'steps': max((one['steps'] for one in weights
                    if one['steps'] is not None), default=None),
      'unmatched': unmatched, 'layers': layers,
      'activations': _of_activations(first, second)}


def _of_activations(first, second):
  of_first, of_second = first.activations, second.activations
  # Checkpoints and graphs do not name the activations that copy another one.
  comparable = first.model.kind == second.model.kind and of_first and of_second
  both = {name: (one, of_second[name]) for name, one in of_first.items()
          if name in of_second}
  return {
      'compared': len(both),
      'unmatched': sorted(set(of_first) ^ set(of_second)) if comparable else [],
      'differing': {name: [one._asdict() for one in ranges]
                    for name, ranges in both.items()
                    if not _same_range(*ranges)}}


def _of_values(first, second):
  """Compares weights, or biases, of a layer in two models.

  Args:
    first: contents.Values.
    second: contents.Values.

  Returns:
    Dict of 'verdict'; 'number' of values; 'differing', the number of values
    whose stored form differs, or, in float, the real one; 'steps', the largest
    difference of stored values (None: not both are stored in 8 bits);
    'largest', that of real values; 'relative', the root of the sum of the
    squares of differences, relative to that of the first model's values;
    'beyond', the number of values that are further apart than rounding
    explains; 'not_finite', of those that are NaN or infinite in a model.
  """
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
  return {
      'verdict': OTHER if beyond else ROUNDED if differing else EQUAL,
      'number': apart.size, 'differing': differing,
      'steps': None if steps is None else int(steps.max()),
      'largest': contents_lib.finite(apart.max()),
      'relative': contents_lib.finite(
          distance / norm if norm else float(distance > 0)),
      'beyond': beyond,
      'not_finite': int(np.count_nonzero(~np.isfinite(apart)))}


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
