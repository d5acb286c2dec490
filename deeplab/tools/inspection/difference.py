"""Compares two models tensor by tensor.

A value stored in 8 bits represents all values within half a step. So two
weights differ only if their distance exceeds the sum of their half steps. A
weight that is NaN differs from every weight.
"""
from typing import Any, Dict

import numpy as np

from deeplab.tools.inspection import contents as contents_lib

EQUAL = 'equal'
ROUNDED = 'equal but for rounding'
OTHER = 'different'
# Error of folding batch norm in float32, relative to the largest weight of a
# channel or, because biases are differences, the largest bias of a layer.
_FLOAT_TOLERANCE = 1e-5
# Scales of activations with a smaller relative difference are equal.
_SAME_SCALE = 1e-3


def between(first: contents_lib.Contents,
            second: contents_lib.Contents) -> Dict[str, Any]:
  """Compares two models, layer by layer and activation by activation.

  Returns:
    Dict for JSON. 'verdict': verdict on the weights of all layers. 'layers':
    'weights' and 'biases' of each layer that both have in the same shape, see
    _of_values. 'weights', 'differing', 'beyond_rounding', 'not_finite': their
    sums over all weights. 'steps': their maximum, or None. 'unmatched': layers
    in only one model, or with different shapes. 'activations': 'compared',
    their number; 'differing', both Ranges, by name.
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
  ranges = {name: (one, second.activations[name])
            for name, one in first.activations.items()
            if name in second.activations}
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
      'activations': {
          'compared': len(ranges),
          'differing': {name: [one._asdict() for one in both]
                        for name, both in ranges.items()
                        if not _same_range(*both)}}}


def _of_values(first, second):
  """Compares weights, or biases, of a layer in two models.

  Args:
    first: contents.Values.
    second: contents.Values.

  Returns:
    Dict of 'verdict'; 'number' of values; 'differing', the number of values
    whose stored (for float, real) values differ; 'steps', the largest
    difference of stored values (None: not both are stored in 8 bits);
    'relative', the Euclidean norm of the differences, relative to the norm of
    the first model's values; 'beyond', the number of values that differ by more
    than rounding; 'not_finite', the number of values that are NaN or infinite
    in a model.
  """
  with np.errstate(invalid='ignore'):
    apart = np.abs(first.real - second.real)
    # The comparison is negated so that NaN counts as different.
    beyond = int(np.count_nonzero(
        ~(apart <= _rounding(first) + _rounding(second))))
  norm, distance = (float(np.linalg.norm(values))
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
      'relative': contents_lib.finite(
          distance / norm if norm else float(distance > 0)),
      'beyond': beyond,
      'not_finite': int(np.count_nonzero(~np.isfinite(apart)))}


def _rounding(values):
  """Returns the largest rounding error: by channel for weights."""
  axes = tuple(range(max(1, values.real.ndim - 1)))
  tolerance = _FLOAT_TOLERANCE * np.abs(values.real).max(axis=axes)
  return tolerance if values.scales is None else (
      tolerance + 0.5 * values.scales)


def _same_range(first, second):
  """Compares scales and zero points, relative to the type's minimum."""
  zero_points = {one.zero_point - np.iinfo(one.dtype).min
                 for one in (first, second)}
  return len(zero_points) == 1 and np.isclose(
      first.scale, second.scale, rtol=_SAME_SCALE, atol=0)
