"""What was found in models, in lines of text for people."""
from typing import List, Optional

import numpy as np

from deeplab import label_map as label_maps
from deeplab.errors import some_of
from deeplab.inspection import contents as contents_lib
from deeplab.inspection import debugger
from deeplab.inspection import difference as difference_lib

# Channels, layers and classes that are listed; all are in the JSON.
_MOST_CHANNELS, _MOST_LAYERS, _MOST_CLASSES = 12, 10, 10
# Relative change of a step from which outputs are rounded otherwise.
_SAME_SCALE = 1e-3


def of_contents(contents: contents_lib.Contents) -> List[str]:
  """Describes a model: a line for each layer, then sums."""
  layers = contents.layers
  width = max(len(name) for name in layers)
  lines = ['{:<{}}  {:<9}  {:>11}  {:>10}  {:>10}  {:<25}  {}'.format(
      'layer', width, 'kind', 'output', 'parameters', 'M mult-add', 'weights',
      'output range')]
  for name, layer in layers.items():
    lines.append('{:<{}}  {:<9}  {:>11}  {:>10,}  {:>10.1f}  {:<25}  {}'.format(
        name, width, 'depthwise' if 'DEPTHWISE' in layer.kind else 'conv',
        'x'.join(map(str, layer.output_shape)), layer.parameters,
        layer.multiply_adds / 1e6, _weights(layer.weights),
        _range(layer.output)))
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
      '  ' + _counts(contents.counts),
      '  tensors: ' + _counts(contents.types)]


def _own_classes(label_map):
  """Names classes that are not ADE20K's."""
  return [] if label_map is None else [
      '  classes: ' + some_of(label_map.names[1:], limit=_MOST_CLASSES)]


def _counts(counts):
  return ', '.join('{} {}'.format(count, name)
                   for name, count in sorted(counts.items()))


def _weights(values):
  if values.quantized is None:
    return '{} {:+.3g}..{:+.3g}'.format(
        values.dtype, values.real.min(), values.real.max())
  scales = values.quantized.scales
  return '{} step {:.3g}{}'.format(
      values.dtype, scales.min(),
      '..{:.3g}'.format(scales.max()) if scales.size > 1 else '')


def _range(output: Optional[contents_lib.Range]):
  if output is None:
    return 'float'
  return '{} {:.4g}..{:.4g}, step {:.4g}'.format(
      output.dtype, output.low, output.high, output.scale)


def of_difference(difference: difference_lib.Difference, first: str,
                  second: str) -> List[str]:
  """Describes what two models have in common.

  Args:
    difference: between them.
    first: what to call the first one.
    second: what to call the second one.
  """
  lines = [_judgement(difference)]
  if difference.unmatched:
    lines.append('not in both: ' + ', '.join(difference.unmatched))
  differing = [(name, layer.weights) for name, layer
               in difference.layers.items() if layer.weights.channels]
  channels = [(name, channel) for name, weights in differing
              for channel in weights.channels]
  if channels:
    lines += _of_channels(channels, first, second)
  elif difference.verdict == difference_lib.OTHER:
    lines += _of_layers(difference)
  return lines + _of_outputs(difference, first, second)


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
  number, differing, beyond = (
      difference.total(name) for name in ('number', 'differing', 'beyond'))
  if difference.verdict == difference_lib.EQUAL:
    return 'the same weights: all {:,} are equal'.format(number)
  stored = '' if difference.steps is None else (
      ' as stored, by up to {} steps'.format(difference.steps))
  if difference.verdict == difference_lib.ROUNDED:
    return ('the same weights but for rounding: {:,} of {:,} differ{}, none by '
            'more than half a step of each'.format(differing, number, stored))
  return ('other weights: {:,} of {:,} differ{}, {:,} of them by more than '
          'rounding'.format(differing, number, stored, beyond))


def _of_channels(channels, first, second):
  """Describes channels whose stored weights differ."""
  near_zero = sum(channel.largest < difference_lib.NEAR_ZERO
                  for _, channel in channels)
  lines = ['in {} output channels, of which {} have no weight above {:g}: they '
           'give their bias and nothing else'.format(
               len(channels), near_zero, difference_lib.NEAR_ZERO)]
  width = max(len(name) for name, _ in channels)
  lines.append('  {:<{}}  {:>7}  {:>9}  {:>5}  {:>14}  step in {}, {}'.format(
      'layer', width, 'channel', 'differing', 'steps', 'largest weight', first,
      second))
  for name, channel in channels[:_MOST_CHANNELS]:
    lines.append('  {:<{}}  {:>7}  {:>9}  {:>5}  {:>14.3g}  {:.4g}, {:.4g}'
                 .format(name, width, channel.number, channel.differing,
                         channel.steps, channel.largest, *channel.scales))
  return lines + _more(len(channels) - _MOST_CHANNELS)


def _more(number):
  return ['  and {} more'.format(number)] if number > 0 else []


def _of_layers(difference):
  """Describes the layers whose weights are the furthest apart."""
  apart = sorted(
      ((layer.weights.relative, name)
       for name, layer in difference.layers.items()), reverse=True)
  lines = ['furthest apart, relative to all weights of the layer:']
  lines += ['  {:<60} {:.4f}'.format(name, relative)
            for relative, name in apart[:_MOST_LAYERS]]
  return lines + _more(len(apart) - _MOST_LAYERS)


def _of_outputs(difference, first, second):
  """Describes layers whose outputs are rounded otherwise."""
  found = [
      (name, *layer.outputs) for name, layer in difference.layers.items()
      if layer.outputs[0] and layer.outputs[1] and (
          layer.outputs[0].dtype == layer.outputs[1].dtype) and not np.isclose(
              layer.outputs[0].scale, layer.outputs[1].scale,
              rtol=_SAME_SCALE, atol=0)]
  if not found:
    return []
  width = max(len(name) for name, _, _ in found)
  lines = ['outputs of {} layers are rounded otherwise: step in {}, {}'.format(
      len(found), first, second)]
  lines += ['  {:<{}}  {:.4g}, {:.4g}'.format(name, width, one.scale, two.scale)
            for name, one, two in found[:_MOST_CHANNELS]]
  return lines + _more(len(found) - _MOST_CHANNELS)


def of_costs(costs: List[debugger.Cost]) -> List[str]:
  """Describes what quantization costs each layer."""
  width = max(len(cost.name) for cost in costs)
  lines = ['{:<{}}  {:<17}  {:>9}  {:>6}  {:>6}  {:>7}'.format(
      'error in steps of', width, 'kind', 'step', 'all', 'mean', 'largest')]
  lines += ['{:<{}}  {:<17}  {:>9.4g}  {:>6.2f}  {:>+6.2f}  {:>7.1f}'.format(
      cost.name, width, cost.kind, cost.scale, cost.error, cost.bias,
      cost.largest) for cost in costs]
  worst = sorted(costs, key=lambda cost: -cost.error)[:3]
  return lines + [
      '', '{:.2f} is a perfect rounding; the largest are those of {}'.format(
          debugger.PERFECT, ', '.join('{} ({:.2f})'.format(
              cost.name, cost.error) for cost in worst))]
