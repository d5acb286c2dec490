"""Flags of the scripts that make records and images."""
import os
from typing import List, Tuple

from deeplab import contract
from deeplab import options
from deeplab.cli import flags
from deeplab.flag_sets import shared

flags.disclaim_key_flags()


def _folder_flags(split):
  """Returns a dict from field of BuildOptions to the flag of a split."""
  return {'image_folder': '{}_image_folder'.format(split),
          'label_folder': '{}_image_label_folder'.format(split)}


def define_build_flags(flag_values: flags.FlagValues) -> None:
  """Defines the flags of build_ade20k_data.py."""
  source = './ADE20K/ADEChallengeData2016/{}/{}'
  for split, folder in (('train', 'training'), ('val', 'validation')):
    shared.define(
        flag_values, options.BuildOptions, names=_folder_flags(split),
        only=_folder_flags(split), mention=split + '_{}',
        defaults={'image_folder': source.format('images', folder),
                  'label_folder': source.format('annotations', folder)})
  # Deviates: the reference's default of image_format, png, is not the format
  # of ADE20K, and was written into the records without being looked at.
  shared.define(
      flag_values, options.BuildOptions,
      without=('split', 'image_folder', 'label_folder'),
      defaults={'output_dir': './ADE20K/tfrecord'})
  flags.DEFINE_enum(
      'label_format', 'png', ['png'],
      'Format of the labels; kept for compatibility, as there is only one.',
      flag_values=flag_values)


def build_options(flag_values: flags.FlagValues) -> List[options.BuildOptions]:
  """Makes the options of each split, from build flags.

  A split is left out where none of its flags is given, its default image
  folder does not exist, and the other split was asked for by flags.
  """
  folders = {split: {field: flag_values[name]
                     for field, name in _folder_flags(split).items()}
             for split in contract.SPLITS}
  given = {split for split, found in folders.items()
           if any(flag.present for flag in found.values())}
  return [
      shared.make(flag_values, options.BuildOptions, split=split, **{
          field: flag.value for field, flag in found.items()})
      for split, found in folders.items()
      if not given or split in given or
      os.path.isdir(found['image_folder'].value or '')]


def define_synthetic_flags(flag_values: flags.FlagValues) -> None:
  """Defines the flags of scripts/make_synthetic_ade20k.py."""
  shared.define(flag_values, options.SyntheticOptions,
                names={'long_side': 'size'})


def synthetic_options(
    flag_values: flags.FlagValues) -> options.SyntheticOptions:
  """Makes the options of scripts/make_synthetic_ade20k.py."""
  return shared.make(flag_values, options.SyntheticOptions)


def define_preprocessed_flags(flag_values: flags.FlagValues) -> None:
  """Defines the flags of gen_preprocessed_data.py."""
  # Deviates: the reference takes a factor of 1 whatever the flag says.
  shared.define_input_flags(
      flag_values, prefix='eval', split='val', resize_factor=1)
  shared.define(flag_values, options.PreprocessedOptions,
                names={'output_dir': 'preprocessed_dataset_dir'})


def preprocessed_options(
    flag_values: flags.FlagValues
) -> Tuple[options.DatasetOptions, options.PreprocessOptions,
           options.PreprocessedOptions]:
  """Makes what is read, what becomes of it, and what is written."""
  return (shared.make(flag_values, options.DatasetOptions),
          shared.make(flag_values, options.PreprocessOptions),
          shared.make(flag_values, options.PreprocessedOptions))
