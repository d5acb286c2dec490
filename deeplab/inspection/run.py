"""From options to a description of a model, or of two."""
import os
from typing import Any, Dict, List, NamedTuple

from deeplab import any_model
from deeplab import files
from deeplab import options as options_lib
from deeplab.errors import option
from deeplab.inspection import activations
from deeplab.inspection import contents as contents_lib
from deeplab.inspection import difference as difference_lib
from deeplab.inspection import text


class Result(NamedTuple):
  """Findings."""
  # Human-readable.
  lines: List[str]
  # As in the JSON file.
  numbers: Dict[str, Any]


def inspect(options: options_lib.InspectionOptions) -> Result:
  """Looks into a model, and compares it with another one if there is one.

  Args:
    options: InspectionOptions.

  Returns:
    The findings; they are also written, if the options ask for it.

  Raises:
    InputError: a model or images that cannot be used.
  """
  model = any_model.find(options.model)
  other = any_model.find(options.other, 'other') if options.other else None
  if options.report_json:
    files.check_outputs(
        option('report_json', options.report_json), options.report_json,
        inputs=(options.model, options.other, options.test_dir),
        ours=files.json_with('model.layers'), example='model.json')
  first = _read(model, options)
  lines = text.of_contents(first)
  numbers: Dict[str, Any] = {'model': contents_lib.to_json(first)}
  if other:
    second = _read(other, options)
    difference = difference_lib.between(first, second)
    names = _names(model.path, other.path)
    lines += ['', '{} and {}:'.format(model.path, other.path)]
    # Weights can be compared all the same: one may have begun as the other.
    lines += text.of_classes(
        any_model.label_map_of(model), any_model.label_map_of(other), *names)
    lines += text.of_difference(difference, *names)
    lines += text.of_clipping(second)
    numbers.update(other=contents_lib.to_json(second),
                   difference=difference_lib.to_json(difference))
  if options.report_json:
    files.write_json(options.report_json, numbers)
  return Result(lines, numbers)


def _read(model, options):
  """Returns Contents, with shares of clipped values if there are images."""
  found = contents_lib.read(model, options.crop_size)
  if options.test_dir and found.clipping:
    found = found._replace(clipping=tuple(activations.measure(
        found.clipping, model.path, options.test_dir, options.sample_num)))
  return found


def _names(first, second):
  """Returns what to call two files: their names, unless these are the same."""
  names = [os.path.basename(path) for path in (first, second)]
  return names if names[0] != names[1] else ['the first', 'the second']
