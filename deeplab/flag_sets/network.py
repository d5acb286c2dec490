"""Flags of training, evaluation and export."""
from typing import Any, Dict

from deeplab import fields
from deeplab import options
from deeplab.cli import flags
from deeplab.errors import InputError
from deeplab.flag_sets import shared

flags.disclaim_key_flags()

# What a label map decides.
_CLASSES = ('num_classes', 'label_map')


# --- Training -----------------------------------------------------------------


def define_train_flags(flag_values: flags.FlagValues) -> None:
  """Defines the flags of train.py."""
  shared.define_input_flags(
      flag_values, prefix='train', split='train', batch_size=8)
  flags.DEFINE_enum(
      'dataset', 'ade20k', ['ade20k'],
      'Name of the data set, which sets classes and the ignored label.',
      flag_values=flag_values)
  shared.define(flag_values, options.PreprocessOptions,
                only=shared.RANDOM_SCALING)
  shared.define(flag_values, options.TrainOptions)
  shared.define(flag_values, options.DatasetOptions, only=('seed',))
  shared.define(flag_values, options.DistributionOptions)
  shared.define(flag_values, options.ModelOptions, without=_CLASSES,
                names={'crop_size': 'train_crop_size'})


def train_options(flag_values: flags.FlagValues) -> Dict[str, Any]:
  """Makes the keyword arguments of training.train from train flags."""
  return {
      'options': shared.make(flag_values, options.TrainOptions),
      'dataset_options': shared.make(flag_values, options.DatasetOptions),
      'preprocess_options': shared.make(
          flag_values, options.PreprocessOptions),
      'model_options': shared.make(flag_values, options.ModelOptions),
      'distribution_options': shared.make(
          flag_values, options.DistributionOptions),
  }


def define_launch_flags(flag_values: flags.FlagValues) -> None:
  """Defines the flags of scripts/launch_local.py."""
  shared.define(flag_values, options.LaunchOptions)


def launch_options(flag_values: flags.FlagValues) -> options.LaunchOptions:
  """Makes the options of scripts/launch_local.py."""
  return shared.make(flag_values, options.LaunchOptions)


# --- Evaluation ---------------------------------------------------------------


def _eval_options(flag_values):
  """Makes the keyword arguments that both evaluations share."""
  return {
      'dataset_options': shared.make(flag_values, options.DatasetOptions),
      'preprocess_options': shared.make(
          flag_values, options.PreprocessOptions),
      'options': shared.make(flag_values, options.EvalOptions),
  }


def define_eval_flags(flag_values: flags.FlagValues) -> None:
  """Defines the flags of eval.py."""
  shared.define_input_flags(flag_values, prefix='eval', split='val')
  shared.define(flag_values, options.EvalOptions)
  shared.define(flag_values, options.CheckpointEvalOptions, names={
      'interval_secs': 'eval_interval_secs',
      'max_evaluations': 'max_number_of_evaluations',
      'timeout_secs': 'eval_timeout_secs'})
  shared.define(flag_values, options.ModelOptions, without=_CLASSES,
                names={'crop_size': 'eval_crop_size'})


def eval_options(flag_values: flags.FlagValues) -> Dict[str, Any]:
  """Makes the keyword arguments of evaluation.evaluate_checkpoints."""
  watch_options = shared.make(flag_values, options.CheckpointEvalOptions)
  return dict(
      _eval_options(flag_values), watch_options=watch_options,
      model_options=shared.make(flag_values, options.ModelOptions))


def define_eval_pb_flags(flag_values: flags.FlagValues) -> None:
  """Defines the flags of eval_pb.py."""
  shared.define_input_flags(flag_values, prefix='eval', split='val')
  shared.define(flag_values, options.EvalOptions)
  shared.define(flag_values, options.GraphEvalOptions, names={'path': 'pb'})


def eval_pb_options(flag_values: flags.FlagValues) -> Dict[str, Any]:
  """Makes the keyword arguments of evaluation.evaluate_frozen_graph."""
  graph_options = shared.make(flag_values, options.GraphEvalOptions)
  return dict(_eval_options(flag_values), graph_options=graph_options)


# --- Export -------------------------------------------------------------------


def define_export_flags(flag_values: flags.FlagValues) -> None:
  """Defines the flags of export_model.py."""
  shared.define(flag_values, options.ExportOptions,
                without=('preprocessing', 'num_classes'),
                names={'formats': 'format'})
  # The documented command gives the crop size by this name, which the reference
  # does not have; its own comes with the model, below.
  shared.define(flag_values, options.PreprocessOptions,
                names={'crop_size': 'train_crop_size'},
                defaults={'crop_size': None}, without=shared.RANDOM_SCALING)
  # Deviates: 21 classes and stride 8 in the reference, not this model's.
  shared.define(flag_values, options.ModelOptions, without=('label_map',))


def export_options(flag_values: flags.FlagValues) -> Dict[str, Any]:
  """Makes the keyword arguments of export.export from export flags."""
  crop_size = _export_crop_size(flag_values)
  preprocessing = shared.make(
      flag_values, options.PreprocessOptions, crop_size=crop_size)
  classes = flag_values['num_classes']
  return {
      'options': shared.make(
          flag_values, options.ExportOptions, preprocessing=preprocessing,
          num_classes=classes.value if classes.present else None),
      'model_options': shared.make(
          flag_values, options.ModelOptions, crop_size=crop_size),
  }


def _export_crop_size(flag_values):
  """Returns the size that one of two flags gives, or both."""
  definition = fields.definitions(options.ModelOptions)['crop_size']
  size, named_as_in_training = (
      definition.checked(shared.value_of(flag_values[name], definition))
      if flag_values[name].value is not None else None
      for name in ('crop_size', 'train_crop_size'))
  if named_as_in_training is None:
    return size
  if flag_values['crop_size'].present and size != named_as_in_training:
    raise InputError(
        '--train_crop_size={},{} and --crop_size={},{}: expected the same, or '
        'one of them'.format(*(named_as_in_training + size)))
  return named_as_in_training
