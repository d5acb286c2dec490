"""The flags of every script, in one table.

A script names its entry and gets its options as keyword arguments:

    def main(options, eval_options): ...
    if __name__ == '__main__':
      runner.run(main, script_flags.TFLITE_EVAL)

The table lists the options of each script, names and defaults that differ from
the options' own, and fields without a flag. It needs no TensorFlow.
"""
import os
from typing import List, Tuple

from absl import flags

from deeplab import constants
from deeplab.cli.option_flags import Group
from deeplab.cli.option_flags import Script
from deeplab.cli.option_flags import make
from deeplab.cli.option_flags import value_of
from deeplab.config import fields
from deeplab.config import options as options_lib
from deeplab.errors import InputError
from deeplab.system import environment

# Makes flags belong to the script that requests them, also in --help.
flags.disclaim_key_flags()

# --- Shared by several scripts ---------------------------------------------


def _only(name, value, text):
  """Defines a flag with only one value, which documented commands use."""
  return lambda flag_values: flags.DEFINE_enum(
      name, value, [value], text, flag_values=flag_values)


def _texts(name, text):
  """Defines a repeated flag of texts."""
  return lambda flag_values: flags.DEFINE_multi_string(
      name, None, text, flag_values=flag_values)


_RANDOM_SCALING = (
    'min_scale_factor', 'max_scale_factor', 'scale_factor_step_size')
# A label map decides these.
_CLASSES = ('num_classes', 'label_map')
_TEST_DIR = {'test_dir': './preprocessed/images'}
_EVAL_CROP_SIZE = {'crop_size': 'eval_crop_size'}


def _input(prefix, split, *, training=False, **defaults):
  """Returns the groups that select the images to read and their size."""
  names = {field: '{}_{}'.format(prefix, field)
           for field in ('split', 'batch_size', 'crop_size')}
  defaults['split'] = split
  return {
      'dataset_options': Group(
          options_lib.DatasetOptions, names, defaults,
          without=() if training else ('seed',)),
      'preprocess_options': Group(
          options_lib.PreprocessOptions, names, defaults,
          without=() if training else _RANDOM_SCALING)}


# --- Records and images ----------------------------------------------------


def _build_group(split, folder):
  source = './ADE20K/ADEChallengeData2016/{}/' + folder
    # Deviates: the reference's default of image_format is png, which is not
    # ADE20K's format; it was written into the records without a check.
  return Group(
      options_lib.BuildOptions,
      names={'image_folder': split + '_image_folder',
             'label_folder': split + '_image_label_folder'},
      defaults={'image_folder': source.format('images'),
                'label_folder': source.format('annotations'),
                'output_dir': './ADE20K/tfrecord'},
      given={'split': split}, mention=split + '_{}')


def _build_splits(flag_values, groups):
  """Makes the options of each split.

  A split is left out if none of its flags is given, its default image folder
  does not exist, and flags ask for the other split.
  """
  folders = {split: [flag_values[name] for name in group.names.values()]
             for split, group in groups.items()}
  given = {split for split, found in folders.items()
           if any(flag.present for flag in found)}
  return {'splits': [
      make(flag_values, groups[split])
      for split, (image_folder, _) in folders.items()
      if not given or split in given or
      os.path.isdir(image_folder.value or '')]}


BUILD = Script(
    {split: _build_group(split, folder) for split, folder in zip(
        constants.SPLITS, ('training', 'validation'))},
    environments=('tf1', 'tf2', 'modern'), make=_build_splits, define=_only(
        'label_format', 'png', 'Format of the labels; kept for compatibility, '
        'as there is only one.'))

SYNTHETIC = Script({
    'options': Group(options_lib.SyntheticOptions, {'long_side': 'size'})})

# Deviates: the reference always uses a factor of 1 and ignores the flag.
PREPROCESSED = Script(
    dict(_input('eval', 'val', resize_factor=1), options=Group(
        options_lib.PreprocessedOptions,
        {'output_dir': 'preprocessed_dataset_dir'})),
    environments=('tf1', 'tf2', 'modern'))

# --- Training, evaluation and export ---------------------------------------


TRAIN = Script(
    dict({'options': Group(options_lib.TrainOptions)},
         **_input('train', 'train', training=True, batch_size=8),
         distribution_options=Group(options_lib.DistributionOptions),
         model_options=Group(
             options_lib.ModelOptions, {'crop_size': 'train_crop_size'},
             without=_CLASSES)),
    environments=('tf1', 'modern'), define=_only(
        'dataset', 'ade20k', 'Name of the data set, which sets classes and the '
        'ignored label.'))

LAUNCH = Script({'options': Group(options_lib.LaunchOptions)})

EVAL = Script(
    dict({'watch_options': Group(options_lib.CheckpointEvalOptions, {
        'interval_secs': 'eval_interval_secs',
        'max_evaluations': 'max_number_of_evaluations',
        'timeout_secs': 'eval_timeout_secs'})},
         **_input('eval', 'val'),
         options=Group(options_lib.EvalOptions),
         model_options=Group(options_lib.ModelOptions, _EVAL_CROP_SIZE,
                             without=_CLASSES)),
    environments=('tf1', 'modern'))

EVAL_PB = Script(
    dict({'graph_options': Group(options_lib.GraphEvalOptions, {'path': 'pb'})},
         **_input('eval', 'val'), options=Group(options_lib.EvalOptions)),
    environments=('tf1', 'tf2', 'modern'))


def _export_arguments(flag_values, groups):
  crop_size = _export_crop_size(flag_values)
  classes = flag_values['num_classes']
  return {
      'options': make(
          flag_values, groups['options'],
          preprocessing=make(flag_values, groups['preprocessing'],
                              crop_size=crop_size),
          num_classes=classes.value if classes.present else None),
      'model_options': make(flag_values, groups['model_options'],
                             crop_size=crop_size)}


def _export_crop_size(flag_values):
  """Returns the crop size, which either of two flags sets."""
  definition = fields.definitions(options_lib.ModelOptions)['crop_size']
  size, named_as_in_training = (
      definition.checked(value_of(flag_values[name], definition))
      if flag_values[name].value is not None else None
      for name in ('crop_size', 'train_crop_size'))
  if named_as_in_training is None:
    return size
  if flag_values['crop_size'].present and size != named_as_in_training:
    raise InputError(
        '--train_crop_size={},{} and --crop_size={},{}: expected the same, or '
        'one of them'.format(*(named_as_in_training + size)))
  return named_as_in_training


# The documented command gives the crop size as --train_crop_size, which the
# reference's script does not have; its own flag is --crop_size.
# Deviates: the reference has 21 classes and stride 8, unlike this model.
EXPORT = Script(
    {'options': Group(options_lib.ExportOptions, {'formats': 'format'},
                      without=('preprocessing', 'num_classes')),
     'preprocessing': Group(
         options_lib.PreprocessOptions, {'crop_size': 'train_crop_size'},
         {'crop_size': None}, without=_RANDOM_SCALING),
     'model_options': Group(
         options_lib.ModelOptions, without=('label_map',))},
    environments=('tf1', 'modern'), make=_export_arguments)

# --- TFLite files and reports ----------------------------------------------


def _conversion_options(flag_values, groups):
  made = make(flag_values, groups['options'])
  if flag_values['quantized_input_stats'].present and (
      made.mode != options_lib.QUANTIZATION_AWARE):
    raise InputError(
        '--quantized_input_stats={}: has no effect with --mode={}; drop '
        'it'.format(','.join(flag_values.quantized_input_stats), made.mode))
  return {'options': made}


POST_TRAINING_QUANT = Script(
    {'options': Group(options_lib.CalibrationOptions)},
    environments=('tf2', 'modern'))

CONVERT_TFLITE = Script(
    {'options': Group(options_lib.ConversionOptions)},
    environments=('tf1', 'modern'), make=_conversion_options)

TFLITE_EVAL = Script(
    {'options': Group(options_lib.TfliteEvalOptions, defaults=dict(
        _TEST_DIR, net_file='./checkpoints/float/freeze.tflite')),
     'eval_options': Group(
         options_lib.EvalOptions, without=('eval_logdir',))},
    environments=('tf2', 'modern', environment.TFLITE))

REBUILD = Script({'options': Group(options_lib.RebuildOptions)},
                 environments=('tf1', 'tf2', 'modern'))


def _stages(flag_values, unused_groups):
  """Returns main's argument: a list of (stage, path)."""
  if not flag_values.report:
    raise InputError('--report is required: STAGE=FILE, for each line')
  found = []
  for given in flag_values.report:
    stage, separator, path = given.partition('=')
    if not (stage and separator and path):
      raise InputError('--report={}: expected STAGE=FILE, for example '
                       "--report='frozen graph=pb.json'".format(given))
    found.append((stage, path))
  return {'stages': found}


STAGE_TABLE = Script(make=_stages, define=_texts(
    'report', 'STAGE=FILE: a line of the table, and the --report_json file it '
    'is read from; given once for each line.'))

MERGE = Script(
    {'options': Group(options_lib.MergeOptions)},
    define=_texts('report', 'The --report_json file of a shard; each word that '
                  'is no flag is one.'),
    make=lambda flag_values, groups: {
        'reports': flag_values.report or [],
        'options': make(flag_values, groups['options'])},
    words='report')

# --- Looking into models ---------------------------------------------------


def _comparison(flag_values, groups):
  return {'models': _named_models(flag_values.model or []),
          'options': make(flag_values, groups['options'])}


def _named_models(given):
  """Returns (name, path) of each --model; the names are unique."""
  if len(given) < 2:
    raise InputError('--model is required twice or more: NAME=PATH, for '
                     'example --model=float=freeze.tflite')
  models: List[Tuple[str, str]] = []
  for text in given:
    name, separator, path = text.partition('=')
    # A path may contain '='.
    if not separator or os.path.exists(text):
      name, path = os.path.basename(os.path.normpath(text)), text
    if not (name and path):
      raise InputError('--model={}: expected NAME=PATH'.format(text))
    if name in dict(models):
      raise InputError('--model={}: another model is called {}; give NAME=PATH '
                       'with another name'.format(text, name))
    models.append((name, path))
  return models


VISUALIZE = Script(
    {'options': Group(options_lib.OverlayOptions, _EVAL_CROP_SIZE)},
    environments=('tf1', 'tf2', 'modern'))

COMPARE = Script(
    {'options': Group(options_lib.ComparisonOptions, dict(
        _EVAL_CROP_SIZE, split='eval_split',
        test_dir='preprocessed_dataset_dir'))},
    environments=('modern',), make=_comparison, define=_texts(
        'model', 'NAME=PATH, or PATH alone: a checkpoint, a frozen graph or a '
        'TFLite file; given twice or more. Others are compared with the '
        'first.'))

INSPECT = Script(
    {'options': Group(options_lib.InspectionOptions, dict(
        _EVAL_CROP_SIZE, other='other_model',
        test_dir='preprocessed_dataset_dir'))},
    environments=('tf1', 'tf2', 'modern'))

# --- MLPerf ----------------------------------------------------------------

# Only tests need numbers of queries other than the modes'.
LOADGEN = Script(
    {'options': Group(options_lib.LoadgenOptions, defaults=_TEST_DIR,
                      without=('min_queries', 'min_seconds'))},
    environments=('tf2', 'modern', environment.TFLITE))

SCORE_LOG = Script({
    'options': Group(options_lib.AccuracyLogOptions, defaults=_TEST_DIR),
    'eval_options': Group(options_lib.EvalOptions, without=set(
        fields.definitions(options_lib.EvalOptions)) - {'report_json'})})

REPRODUCE = Script({'options': Group(options_lib.ReproduceOptions)})

# By path relative to the repository; scripts/benchmark.py defines its own.
SCRIPTS = {
    'build_ade20k_data.py': BUILD,
    'gen_preprocessed_data.py': PREPROCESSED,
    'train.py': TRAIN,
    'eval.py': EVAL,
    'export_model.py': EXPORT,
    'eval_pb.py': EVAL_PB,
    'post_training_quant.py': POST_TRAINING_QUANT,
    'segmentation_inference_eval_seg_tflite.py': TFLITE_EVAL,
    'scripts/compare_models.py': COMPARE,
    'scripts/convert_tflite.py': CONVERT_TFLITE,
    'scripts/inspect_model.py': INSPECT,
    'scripts/launch_local.py': LAUNCH,
    'scripts/loadgen.py': LOADGEN,
    'scripts/make_synthetic_ade20k.py': SYNTHETIC,
    'scripts/merge_reports.py': MERGE,
    'scripts/rebuild_checkpoint.py': REBUILD,
    'scripts/reproduce.py': REPRODUCE,
    'scripts/score_accuracy_log.py': SCORE_LOG,
    'scripts/stage_table.py': STAGE_TABLE,
    'scripts/visualize.py': VISUALIZE,
}

# Fields of text; most hold a path.
TEXT_FIELDS = frozenset(
    field for script in SCRIPTS.values() for group in script.groups.values()
    for field, definition in fields.definitions(group.options).items()
    if definition.kind is str and not definition.choices)
