"""Flags of the hand-over to MLPerf, and of the way to its numbers."""
from typing import Tuple

from deeplab import options
from deeplab.cli import flags
from deeplab.flag_sets import shared

flags.disclaim_key_flags()

_DEFAULTS = {'test_dir': './preprocessed/images'}


def define_loadgen_flags(flag_values: flags.FlagValues) -> None:
  """Defines the flags of scripts/loadgen.py."""
  # Other numbers than the modes have are for tests.
  shared.define(flag_values, options.LoadgenOptions, defaults=_DEFAULTS,
                without=('min_queries', 'min_seconds'))


def loadgen_options(
    flag_values: flags.FlagValues) -> options.LoadgenOptions:
  """Makes the options of scripts/loadgen.py."""
  return shared.make(flag_values, options.LoadgenOptions)


def define_score_log_flags(flag_values: flags.FlagValues) -> None:
  """Defines the flags of scripts/score_accuracy_log.py."""
  shared.define(flag_values, options.AccuracyLogOptions, defaults=_DEFAULTS)
  shared.define(flag_values, options.EvalOptions, only=('report_json',))


def score_log_options(
    flag_values: flags.FlagValues
) -> Tuple[options.AccuracyLogOptions, options.EvalOptions]:
  """Makes what is scored, and what becomes of the scores."""
  return (shared.make(flag_values, options.AccuracyLogOptions),
          shared.make(flag_values, options.EvalOptions))


def define_reproduce_flags(flag_values: flags.FlagValues) -> None:
  """Defines the flags of scripts/reproduce.py."""
  shared.define(flag_values, options.ReproduceOptions)


def reproduce_options(
    flag_values: flags.FlagValues) -> options.ReproduceOptions:
  """Makes the options of scripts/reproduce.py."""
  return shared.make(flag_values, options.ReproduceOptions)
