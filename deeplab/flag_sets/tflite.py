"""Flags of what makes and reads TFLite files, and of what reads reports."""
from typing import List, Tuple

from deeplab import options
from deeplab.cli import flags
from deeplab.errors import InputError
from deeplab.flag_sets import shared

flags.disclaim_key_flags()


def define_post_training_quant_flags(flag_values: flags.FlagValues) -> None:
  """Defines the flags of post_training_quant.py."""
  shared.define(flag_values, options.CalibrationOptions)


def post_training_quant_options(
    flag_values: flags.FlagValues) -> options.CalibrationOptions:
  """Makes the options of post_training_quant.py."""
  return shared.make(flag_values, options.CalibrationOptions)


def define_convert_tflite_flags(flag_values: flags.FlagValues) -> None:
  """Defines the flags of scripts/convert_tflite.py."""
  shared.define(flag_values, options.ConversionOptions)


def convert_tflite_options(
    flag_values: flags.FlagValues) -> options.ConversionOptions:
  """Makes the options of scripts/convert_tflite.py."""
  made = shared.make(flag_values, options.ConversionOptions)
  if flag_values['quantized_input_stats'].present and (
      made.mode != options.QUANTIZATION_AWARE):
    raise InputError('--quantized_input_stats={}: has no effect with '
                     '--mode={}; drop it'.format(
                         ','.join(flag_values.quantized_input_stats),
                         made.mode))
  return made


def define_tflite_eval_flags(flag_values: flags.FlagValues) -> None:
  """Defines the flags of segmentation_inference_eval_seg_tflite.py."""
  shared.define(flag_values, options.TfliteEvalOptions, defaults={
      'net_file': './checkpoints/float/freeze.tflite',
      'test_dir': './preprocessed/images'})
  shared.define(flag_values, options.EvalOptions, without=('eval_logdir',))


def tflite_eval_options(
    flag_values: flags.FlagValues
) -> Tuple[options.TfliteEvalOptions, options.EvalOptions]:
  """Makes what is evaluated, and what becomes of the scores."""
  return (shared.make(flag_values, options.TfliteEvalOptions),
          shared.make(flag_values, options.EvalOptions))


def define_rebuild_flags(flag_values: flags.FlagValues) -> None:
  """Defines the flags of scripts/rebuild_checkpoint.py."""
  shared.define(flag_values, options.RebuildOptions)


def rebuild_options(
    flag_values: flags.FlagValues) -> options.RebuildOptions:
  """Makes the options of scripts/rebuild_checkpoint.py."""
  return shared.make(flag_values, options.RebuildOptions)


def define_stage_table_flags(flag_values: flags.FlagValues) -> None:
  """Defines the flags of scripts/stage_table.py."""
  flags.DEFINE_multi_string(
      'report', None,
      'STAGE=FILE: a line of the table, and the --report_json file it is '
      'read from; given once for each line.', flag_values=flag_values)


def stages(flag_values: flags.FlagValues) -> List[Tuple[str, str]]:
  """Makes a list of (stage, path) from the flags of stage_table.py."""
  if not flag_values.report:
    raise InputError('--report is required: STAGE=FILE, for each line')
  found = []
  for given in flag_values.report:
    stage, separator, path = given.partition('=')
    if not (stage and separator and path):
      raise InputError('--report={}: expected STAGE=FILE, for example '
                       "--report='frozen graph=pb.json'".format(given))
    found.append((stage, path))
  return found


def define_merge_flags(flag_values: flags.FlagValues) -> None:
  """Defines the flags of scripts/merge_reports.py."""
  flags.DEFINE_multi_string(
      'report', None,
      'The --report_json file of a part; each word that is no flag is one too.',
      flag_values=flag_values)
  shared.define(flag_values, options.MergeOptions)


def merge_options(
    flag_values: flags.FlagValues) -> Tuple[List[str], options.MergeOptions]:
  """Makes the paths of the reports, and where the sum goes."""
  return (flag_values.report or [],
          shared.make(flag_values, options.MergeOptions))
