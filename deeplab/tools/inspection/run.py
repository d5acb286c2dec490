"""Describes a model, or compares two, as lines and JSON."""
import os
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import numpy as np

from deeplab.config import label_map as label_maps_lib
from deeplab.config import options as options_lib
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.errors import some_of
from deeplab.models import open_model
from deeplab.storage import checked_read
from deeplab.storage import files
from deeplab.tools.inspection import activations
from deeplab.tools.inspection import contents as contents_lib
from deeplab.tools.inspection import difference as difference_lib

# Most lines and classes to list; all are in the JSON.
_MOST_LINES, _MOST_CLASSES = 12, 10


class Result(NamedTuple):
  """Findings."""
  # Human-readable.
  lines: List[str]
  # Content of the JSON file.
  numbers: Dict[str, Any]


def inspect(options: options_lib.InspectionOptions) -> Result:
  """Describes a model, and compares it with another one if given.

  Args:
    options: the models, images and output.

  Returns:
    The findings; they are also written if the options say so.

  Raises:
    InputError: a model or an image cannot be used.
  """
  model = open_model.find(options.model)
  other = open_model.find(options.other, 'other') if options.other else None
  if options.report_json:
    files.check_outputs(
        option('report_json', options.report_json), options.report_json,
        inputs=(options.model, options.other, options.test_dir),
        ours=checked_read.json_with('model.layers'), example='model.json')
  first = _read(model, options)
  lines = of_contents(first)
  numbers: Dict[str, Any] = {'model': contents_lib.to_json(first)}
  if other:
    second = _read(other, options)
    difference = difference_lib.between(first, second)
    names = [os.path.basename(one.path) for one in (model, other)]
    if names[0] == names[1]:
      names = ['the first', 'the second']
    lines += ['', '{} and {}:'.format(model.path, other.path)]
    lines += _of_classes(model, other, names)
    lines += of_difference(difference, *names)
    lines += of_clipping(second)
    numbers.update(other=contents_lib.to_json(second), difference=difference)
  if options.report_json:
    files.write_json(options.report_json, numbers)
  return Result(lines, numbers)


def _read(model, options):
  """Returns Contents, with shares of clipped values if images are given."""
  found = contents_lib.read(model, options.crop_size)
  if options.test_dir and found.clipping:
    found = found._replace(clipping=tuple(activations.measure(
        found.clipping, model.path, options.test_dir, options.sample_num)))
  return found


# --- Lines -----------------------------------------------------------------


def of_contents(contents: contents_lib.Contents) -> List[str]:
  """Describes a model: a line for each layer, then sums."""
  layers, options = contents.layers, contents.options
  width = max(len(name) for name in layers)
  lines = ['{:<{}}  {:<9}  {:>11}  {:>10}  {:>10}  {:<25}  {}'.format(
      'layer', width, 'kind', 'output', 'parameters', 'M mult-add', 'weights',
      'output range')]
  for name, layer in layers.items():
    output, convolution = contents.activations.get(name), layer.convolution
    lines.append('{:<{}}  {:<9}  {:>11}  {:>10,}  {:>10.1f}  {:<25}  {}'.format(
        name, width, 'depthwise' if 'DEPTHWISE' in convolution.kind else 'conv',
        'x'.join(map(str, convolution.output_shape)), layer.parameters,
        convolution.multiply_adds / 1e6, _weights(layer.weights),
        'float' if output is None else '{} {}, step {:.4g}'.format(
            output.dtype, _ends(output), output.scale)))
  lines += [
      '', '{} {}, {:,} bytes'.format(
          contents.model.kind, contents.model.path, contents.size_bytes),
      '  {} layers, {:,} parameters, {:.2f} billion multiply-adds at '
      '{}x{}'.format(
          len(layers), sum(layer.parameters for layer in layers.values()),
          sum(layer.convolution.multiply_adds
              for layer in layers.values()) / 1e9, *options.crop_size),
      '  {} classes, output stride {}, decoder at {}{}'.format(
          options.num_classes, options.output_stride,
          ','.join(map(str, options.decoder_output_stride)) or 'none',
          ', quantization-aware' if options.is_quantized else '')]
  if options.label_map:
    lines.append('  classes: ' + some_of(
        options.label_map.names[1:], limit=_MOST_CLASSES))
  lines.append('  ' + ', '.join(
      '{} {}'.format(count, name)
      for name, count in sorted(contents.counts.items())))
  return lines + of_clipping(contents)


def differences(models: Sequence[open_model.ModelFile], names: Sequence[str],
                crop_size: Tuple[int, int]) -> List[str]:
  """Describes how the weights and scales of two models differ.

  Args:
    models: the two models; if one cannot be inspected, the line says why.
    names: their names.
    crop_size: (height, width) of a checkpoint's images.
  """
  try:
    first, second = (contents_lib.read(model, crop_size) for model in models)
  except InputError as error:
    return [str(error)]
  return of_difference(difference_lib.between(first, second), *names)


def _weights(values):
  if values.scales is None:
    return '{} {:+.3g}..{:+.3g}'.format(
        values.dtype, values.real.min(), values.real.max())
  return '{} step {:.3g}{}'.format(
      values.dtype, values.scales.min(), '..{:.3g}'.format(
          values.scales.max()) if values.scales.size > 1 else '')


def _of_classes(model, other, names):
  """Returns a line about a class that differs; []: there is none."""
  one, another = map(open_model.label_map_of, (model, other))
  found = one and another and label_maps_lib.difference(one, another)
  return ['of other classes: id {} is {} in {}, {} in {}'.format(
      found[0], found[1], names[0], found[2], names[1])] if found else []


def of_difference(difference: Dict[str, Any], first: str, second: str
                  ) -> List[str]:
  """Describes how two models differ.

  Args:
    difference: from difference.between.
    first: name of the first model.
    second: name of the second model.
  """
  lines = [_judgement(difference)]
  if difference['unmatched']:
    lines.append('not in both: ' + ', '.join(difference['unmatched']))
  if difference['verdict'] == difference_lib.OTHER:
    # None means not finite.
    apart = sorted(
        ((np.inf if layer['weights']['relative'] is None else
          layer['weights']['relative'], name)
         for name, layer in difference['layers'].items()), reverse=True)
    lines.append('furthest apart, relative to all weights of the layer:')
    lines += _first(['  {:<60} {:.4f}'.format(name, relative)
                     for relative, name in apart])
  compared, changed = (difference['activations'][name]
                       for name in ('compared', 'differing'))
  if changed:
    lines.append(
        '{} of {} activations differ in scale or zero point: {}, {}'.format(
            len(changed), compared, first, second))
    lines += _first([
        '  {:<{}}  {}'.format(name, max(map(len, changed)), ', '.join(
            '{scale:.4g} (zero point {zero_point}, up to {high:.4g})'.format(
                **to) for to in changed[name]))
        # The largest changes of a scale first.
        for name in sorted(changed, key=lambda name: _ratio(*changed[name]))])
  elif compared:
    lines.append('the same scale and zero point: all {} activations'.format(
        compared))
  return lines


def _judgement(difference):
  """Returns a line that says whether the weights are equal."""
  steps, not_finite = difference['steps'], difference['not_finite']
  line = {
      difference_lib.EQUAL: 'the same weights: all {weights:,} are equal',
      difference_lib.ROUNDED:
          'the same weights but for rounding: {differing:,} of {weights:,} '
          'differ' + ('' if steps is None else
                      ' as stored, by up to {steps} steps') +
          ', none by more than half a step of each',
      difference_lib.OTHER:
          'other weights: {differing:,} of {weights:,} differ, '
          '{beyond_rounding:,} of them by more than rounding' + (
              ', and {not_finite:,} are NaN or infinite' if not_finite else '')
  }[difference['verdict']].format(**difference)
  biases = [name for name, layer in difference['layers'].items()
            if layer['biases']['verdict'] == difference_lib.OTHER]
  if biases:
    line += '; but other biases in ' + some_of(biases)
  if difference['activations']['differing']:
    line += '; but other activations'
  return line


def _ratio(first, second):
  """Returns the ratio of the smaller to the larger of two scales."""
  low, high = sorted((first['scale'], second['scale']))
  return low / high if high else 1.0


def of_clipping(contents: contents_lib.Contents) -> List[str]:
  """Lists the operators that clip their inputs."""
  return [
      'CLIPPED in {}: {} ({}) holds {}, but its input {} has {}{}'.format(
          contents.model.path, one.name, one.kind, _ends(one.output),
          one.input_name, _ends(one.input), '' if one.share is None else
          ': {:.3f} % of the values are clipped'.format(100 * one.share))
      for one in contents.clipping]


def _ends(to):
  return '{:.4g}..{:.4g}'.format(to.low, to.high)


def _first(lines):
  """Returns the first lines, and the number of others."""
  more = len(lines) - _MOST_LINES
  return lines[:_MOST_LINES] + (
      ['  and {} more'.format(more)] if more > 0 else [])
