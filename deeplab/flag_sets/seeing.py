"""Flags of the scripts that show what models do."""
from deeplab import options
from deeplab.cli import flags
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
