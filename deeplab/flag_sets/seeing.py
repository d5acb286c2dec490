"""Flags of the scripts that show what models do."""
import os
from typing import List, Optional, Tuple

from deeplab import options
from deeplab.cli import flags
from deeplab.errors import InputError
from deeplab.flag_sets import shared

flags.disclaim_key_flags()

_NAMES = {'crop_size': 'eval_crop_size'}


def define_visualize_flags(flag_values: flags.FlagValues) -> None:
  """Defines the flags of scripts/visualize.py."""
  shared.define(flag_values, options.OverlayOptions, names=_NAMES)


def visualize_options(
    flag_values: flags.FlagValues) -> options.OverlayOptions:
  """Makes the options of scripts/visualize.py."""
  return shared.make(flag_values, options.OverlayOptions)


def define_compare_flags(flag_values: flags.FlagValues) -> None:
  """Defines the flags of scripts/compare_models.py."""
  flags.DEFINE_multi_string(
      'model', None,
      'NAME=PATH, or PATH alone: a checkpoint, a frozen graph or a TFLite '
      'file; given twice or more. Others are compared with the first.',
      flag_values=flag_values)
  shared.define(flag_values, options.ComparisonOptions, names=dict(
      _NAMES, split='eval_split', test_dir='preprocessed_dataset_dir'))


def compare_options(
    flag_values: flags.FlagValues
) -> Tuple[List[Tuple[str, str]], options.ComparisonOptions]:
  """Makes (name, path) of each model, and the options of compare_models.py."""
  return (_named_models(flag_values.model or []),
          shared.make(flag_values, options.ComparisonOptions))


def _named_models(given):
  """Returns (name, path) of each --model; names are different ones."""
  if len(given) < 2:
    raise InputError('--model is required twice or more: NAME=PATH, for '
                     'example --model=float=freeze.tflite')
  models: List[Tuple[str, str]] = []
  for text in given:
    name, separator, path = text.partition('=')
    # A path may have the sign in it.
    if not separator or os.path.exists(text):
      name, path = os.path.basename(os.path.normpath(text)), text
    if not (name and path):
      raise InputError('--model={}: expected NAME=PATH'.format(text))
    if name in dict(models):
      raise InputError('--model={}: another model is called {}; give NAME=PATH '
                       'with another name'.format(text, name))
    models.append((name, path))
  return models


def define_inspect_flags(flag_values: flags.FlagValues) -> None:
  """Defines the flags of scripts/inspect_model.py."""
  shared.define(flag_values, options.InspectionOptions, names=dict(
      _NAMES, other='other_model'))
  shared.define(flag_values, options.QuantizationCostOptions,
                names={'graph_def': 'model', 'dataset_dir': 'calibration_dir'},
                without=('input_node', 'output_node'))


def inspect_options(
    flag_values: flags.FlagValues
) -> Tuple[options.InspectionOptions,
           Optional[options.QuantizationCostOptions]]:
  """Makes the options of scripts/inspect_model.py."""
  costs = None
  if flag_values.calibration_dir:
    costs = shared.make(flag_values, options.QuantizationCostOptions)
  elif flag_values['sample_num'].present:
    raise InputError('--sample_num={}: has no effect without '
                     '--calibration_dir; drop it'.format(
                         flag_values.sample_num))
  return shared.make(flag_values, options.InspectionOptions), costs
