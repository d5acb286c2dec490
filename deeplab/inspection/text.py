"""Human-readable lines about models."""
from typing import List, Optional

import numpy as np

from deeplab import label_map as label_maps
from deeplab.errors import some_of
from deeplab.inspection import contents as contents_lib
from deeplab.inspection import difference as difference_lib

# Lines and classes that are listed; all are in the JSON.
_MOST_LINES, _MOST_CLASSES = 12, 10


def of_contents(contents: contents_lib.Contents) -> List[str]:
  """Describes a model: a line for each layer, then sums."""
  layers = contents.layers
  width = max(len(name) for name in layers)
  lines = ['{:<{}}  {:<9}  {:>11}  {:>10}  {:>10}  {:<25}  {}'.format(
      'layer', width, 'kind', 'output', 'parameters', 'M mult-add', 'weights',
      'output range')]
  for name, layer in layers.items():
    output = contents.activations.get(name)
    lines.append('{:<{}}  {:<9}  {:>11}  {:>10,}  {:>10.1f}  {:<25}  {}'.format(
        name, width, 'depthwise' if 'DEPTHWISE' in layer.kind else 'conv',
        'x'.join(map(str, layer.output_shape)), layer.parameters,
        layer.multiply_adds / 1e6, _weights(layer.weights),
        'float' if output is None else '{} {}, step {:.4g}'.format(
            output.dtype, _ends(output), output.scale)))
  values = sum(layer.parameters for layer in layers.values())
  options = contents.options
  return lines + ['', '{} {}, {:,} bytes'.format(
      contents.model.kind, contents.model.path, contents.size_bytes),
      '  {} layers, {:,} parameters, {:.2f} billion multiply-adds at '
      '{}x{}'.format(
          len(layers), values,
          sum(layer.multiply_adds for layer in layers.values()) / 1e9,
          *options.crop_size),
      '  {} classes, output stride {}, decoder at {}{}'.format(
          options.num_classes, options.output_stride,
          ','.join(map(str, options.decoder_output_stride)) or 'none',
          ', quantization-aware' if options.is_quantized else '')
  ] + _own_classes(options.label_map) + [
      '  ' + ', '.join('{} {}'.format(count, name)
                       for name, count in sorted(contents.counts.items()))
  ] + of_clipping(contents)


def _own_classes(label_map):
  """Names classes that are not ADE20K's."""
  return [] if label_map is None else [
      '  classes: ' + some_of(label_map.names[1:], limit=_MOST_CLASSES)]


def _weights(values):
  if values.scales is None:
    return '{} {:+.3g}..{:+.3g}'.format(
        values.dtype, values.real.min(), values.real.max())
  return '{} step {:.3g}{}'.format(
      values.dtype, values.scales.min(), '..{:.3g}'.format(
          values.scales.max()) if values.scales.size > 1 else '')


def of_difference(difference: difference_lib.Difference, first: str,
                  second: str) -> List[str]:
  """Describes how two models differ.

  Args:
    difference: between them.
    first: what to call the first one.
    second: what to call the second one.
  """
  lines = [_judgement(difference)]
  if difference.unmatched:
    lines.append('not in both: ' + ', '.join(difference.unmatched))
  if difference.verdict == difference_lib.OTHER:
    apart = sorted(
        ((np.nan_to_num(layer.weights.relative, nan=np.inf), name)
         for name, layer in difference.layers.items()), reverse=True)
    lines.append('furthest apart, relative to all weights of the layer:')
    lines += _first(['  {:<60} {:.4f}'.format(name, relative)
                     for relative, name in apart])
  return lines + _of_activations(difference, first, second)


def of_classes(first_map: Optional[label_maps.LabelMap],
               second_map: Optional[label_maps.LabelMap], first: str,
               second: str) -> List[str]:
  """Says where two models' classes differ; nothing where they may be the same.

  Args:
    first_map: what the first one's classes are; None: not known.
    second_map: what the second one's are.
    first: what to call the first one.
    second: what to call the second one.
  """
  problem = (label_maps.difference(first_map, second_map)
             if first_map and second_map else None)
  if not problem:
    return []
  return ['of other classes: id {} is {} in {}, {} in {}'.format(
      problem[0], problem[1], first, problem[2], second)]


def _judgement(difference):
  """Says in a line whether the weights are the same."""
  number, differing, beyond, not_finite = (
      difference.total(name)
      for name in ('number', 'differing', 'beyond', 'not_finite'))
  if difference.verdict == difference_lib.EQUAL:
    line = 'the same weights: all {:,} are equal'.format(number)
  elif difference.verdict == difference_lib.ROUNDED:
    line = ('the same weights but for rounding: {:,} of {:,} differ{}, none by '
            'more than half a step of each'.format(
                differing, number, '' if difference.steps is None else
                ' as stored, by up to {} steps'.format(difference.steps)))
  else:
    line = ('other weights: {:,} of {:,} differ, {:,} of them by more than '
            'rounding{}'.format(
                differing, number, beyond, '' if not not_finite else
                ', and {:,} are NaN or infinite'.format(not_finite)))
  changed = len(difference.differing_activations())
  if changed or difference.unmatched_activations:
    line += '; but other activations'
  return line


def _of_activations(difference, first, second):
  """Describes activations that are quantized otherwise."""
  lines = []
  if difference.unmatched_activations:
    lines = ['activations of one model only:'] + _first(
        ['  ' + name for name in difference.unmatched_activations])
  changed = difference.differing_activations()
  if changed:
    width = max(map(len, changed))
    # The largest changes of a scale first.
    changed.sort(key=lambda name: _ratio(*difference.activations[name]))
    lines.append(
        '{} of {} activations differ in scale or zero point: {}, {}'.format(
            len(changed), len(difference.activations), first, second))
    lines += _first(['  {:<{}}  {}, {}'.format(name, width, *map(
        _scale, difference.activations[name])) for name in changed])
  elif difference.activations:
    lines.append('the same scale and zero point: all {} activations'.format(
        len(difference.activations)))
  return lines


def _ratio(first, second):
  """Returns the ratio of two scales, the smaller one to the larger one."""
  low, high = sorted((first.scale, second.scale))
  return low / high if high else 1.0


def _scale(to):
  return '{:.4g} (zero point {}, up to {:.4g})'.format(
      to.scale, to.zero_point, to.high)


def of_clipping(contents: contents_lib.Contents) -> List[str]:
  """Names the outputs that are narrower than their inputs' range."""
  return [
      'CLIPPED in {}: {} ({}) holds {}, but its input {} has {}{}'.format(
          contents.model.path, one.name, one.kind, _ends(one.output),
          one.input_name, _ends(one.input), '' if one.share is None else
          ': {:.3f} % of the values are clipped'.format(100 * one.share))
      for one in contents.clipping]


def _ends(to):
  return '{:.4g}..{:.4g}'.format(to.low, to.high)


def _first(lines):
  """Returns the first lines, and how many there are more."""
  more = len(lines) - _MOST_LINES
  return lines[:_MOST_LINES] + (
      ['  and {} more'.format(more)] if more > 0 else [])
