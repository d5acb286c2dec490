"""From options to everything that can be said of a model, or of two."""
import os
from typing import Any, Dict, List, NamedTuple, Optional

from deeplab import any_model
from deeplab import files
from deeplab import options as options_lib
from deeplab import report
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.inspection import contents as contents_lib
from deeplab.inspection import difference as difference_lib
from deeplab.inspection import text
from deeplab.nets import structure


class Result(NamedTuple):
  """What was found."""
  # For people.
  lines: List[str]
  # As in the JSON file.
  numbers: Dict[str, Any]


def inspect(options: options_lib.InspectionOptions,
            cost_options: Optional[options_lib.QuantizationCostOptions] = None
            ) -> Result:
  """Looks into a model, and compares it with another one if there is one.

  Args:
    options: InspectionOptions.
    cost_options: which images to measure the cost of quantization on; None: do
      not measure it.

  Returns:
    What was found; it is written too, where that is asked for.

  Raises:
    InputError: a model or images that cannot be used.
  """
  model = any_model.find(options.model)
  other = any_model.find(options.other, 'other') if options.other else None
  if cost_options and model.kind != report.FROZEN_GRAPH:
    raise InputError('{}: is a {}; expected a frozen graph in float, with {}',
                     option('model', options.model), model.kind,
                     option('dataset_dir'))
  if options.report_json:
    files.check_outputs(option('report_json', options.report_json),
                      options.report_json, example='model.json')
  first = contents_lib.read(model, options.crop_size)
  lines = text.of_contents(first)
  numbers: Dict[str, Any] = {'model': contents_lib.to_json(first)}
  if other:
    second = contents_lib.read(other, options.crop_size)
    difference = difference_lib.between(first, second)
    lines += ['', '{} and {}:'.format(model.path, other.path)]
    names = _names(model.path, other.path)
    # Weights can be compared all the same: one may have begun as the other.
    lines += text.of_classes(
        any_model.label_map_of(model), any_model.label_map_of(other), *names)
    lines += text.of_difference(difference, *names)
    numbers.update(other=contents_lib.to_json(second),
                   difference=difference_lib.to_json(difference))
  if cost_options:
    from deeplab.inspection import debugger
    costs = debugger.by_layer(
        debugger.measure(cost_options), structure.of(first.options))
    lines += [''] + text.of_costs(costs)
    numbers['costs'] = debugger.to_json(costs)
  if options.report_json:
    files.write_json(options.report_json, numbers)
  return Result(lines, numbers)


def _names(first, second):
  """Returns what to call two files: their names, unless these are the same."""
  names = [os.path.basename(path) for path in (first, second)]
  return names if names[0] != names[1] else ['the first', 'the second']
