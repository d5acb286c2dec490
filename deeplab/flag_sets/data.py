"""Flags of the scripts that make records and images."""
import functools
import os

from deeplab import contract
from deeplab import options
from deeplab.cli import flags
from deeplab.flag_sets import shared

flags.disclaim_key_flags()


def define_build_flags(flag_values):
  """Defines the flags of build_ade20k_data.py."""
  source = './ADE20K/ADEChallengeData2016'
  for split, folder in (('train', 'training'), ('val', 'validation')):
    flags.DEFINE_string(
        '{}_image_folder'.format(split), '{}/images/{}'.format(source, folder),
        'Folder with the {} images.'.format(folder), flag_values=flag_values)
    flags.DEFINE_string(
        '{}_image_label_folder'.format(split),
        '{}/annotations/{}'.format(source, folder),
        'Folder with the {} labels.'.format(folder), flag_values=flag_values)
  flags.DEFINE_string(
      'output_dir', './ADE20K/tfrecord', 'Folder for the TFRecord shards.',
      flag_values=flag_values)
  # Deviates: the reference's default, png, is not the format of ADE20K, and
  # was written into the records without being looked at.
  flags.DEFINE_enum(
      'image_format', None, ['jpg', 'jpeg', 'png'],
      'Refuse images of another format. Not given: accept all.',
      flag_values=flag_values)
  flags.DEFINE_enum(
      'label_format', 'png', ['png'],
      'Format of the labels; kept for compatibility, as there is only one.',
      flag_values=flag_values)
  flags.DEFINE_integer(
      'shuffle_seed', 0, 'Seed of the order in which pairs are stored.',
      flag_values=flag_values)
  flags.DEFINE_boolean(
      'skip_bad', False,
      'Leave out pairs that cannot be used, instead of refusing them all.',
      flag_values=flag_values)
  flags.DEFINE_boolean(
      'palette_labels', False,
      'Take the indices of palette labels as class ids.',
      flag_values=flag_values)
  flags.DEFINE_integer(
      'num_workers', 0,
      'Threads that check pairs; 0: one for each processor.',
      flag_values=flag_values)


def build_options(flag_values):
  """Makes a list of options.BuildOptions, one a split, from build flags.

  A split is left out where none of its flags is given, its default image
  folder does not exist, and the other split was asked for by flags.
  """
  folders = {split: ['{}_image_folder'.format(split),
                     '{}_image_label_folder'.format(split)]
             for split in contract.SPLITS}
  given = {split for split, names in folders.items()
           if any(flag_values[name].present for name in names)}
  wanted = [split for split, names in folders.items()
            if not given or split in given or
            os.path.isdir(flag_values[names[0]].value)]
  return [
      options.BuildOptions(
          split=split,
          image_folder=flag_values[folders[split][0]].value,
          label_folder=flag_values[folders[split][1]].value,
          output_dir=flag_values.output_dir,
          image_format=flag_values.image_format,
          palette_labels=flag_values.palette_labels,
          skip_bad=flag_values.skip_bad,
          shuffle_seed=flag_values.shuffle_seed,
          num_workers=flag_values.num_workers).validate()
      for split in wanted]


def define_synthetic_flags(flag_values):
  """Defines the flags of scripts/make_synthetic_ade20k.py."""
  flags.DEFINE_string(
      'output_dir', './synthetic',
      'Folder in which ADEChallengeData2016 is made.', flag_values=flag_values)
  flags.DEFINE_integer(
      'train_images', 40, 'Number of training pairs.', flag_values=flag_values)
  flags.DEFINE_integer(
      'val_images', 8, 'Number of validation pairs.', flag_values=flag_values)
  flags.DEFINE_integer(
      'size', 320, 'Longer side of the images, in pixels.',
      flag_values=flag_values)
  flags.DEFINE_integer(
      'seed', 0, 'Seed; the same seed makes the same pictures.',
      upper_bound=2 ** 32 - 1, flag_values=flag_values)


def define_preprocessed_flags(flag_values):
  """Defines the flags of gen_preprocessed_data.py."""
  shared.define_input_flags(
      flag_values, split_flag='eval_split', split='val',
      batch_flag='eval_batch_size', batch_size=1, crop_flag='eval_crop_size')
  # Deviates: the reference takes 1 whatever the flag says.
  flag_values.set_default('resize_factor', 1)
  define = functools.partial(shared.define_flag, flag_values)
  define('string', 'preprocessed_dataset_dir', None,
         'Folder in which images/ and annotations/ are made.')
  define('string', 'image_list', None,
         'File with the names of the only images to take, one a line, such as '
         'checkpoints/post_train_quant/ptq.txt; img_N is the one on line N, '
         'counted from 0.')
  define('string', 'manifest', None,
         'File for one more copy of manifest.json, which says which image of '
         'the data set each img_N is.')
  define('boolean', 'overwrite', False,
         'Replace the images that an earlier run wrote there.')
  define('integer', 'num_workers', 0,
         'Threads that write images; 0: one for each processor.')


def preprocessed_options(flag_values):
  """Makes (DatasetOptions, PreprocessOptions, PreprocessedOptions)."""
  shared.require(flag_values, 'dataset_dir', 'preprocessed_dataset_dir')
  return (
      options.DatasetOptions(
          dataset_dir=flag_values.dataset_dir, split=flag_values.eval_split,
          batch_size=flag_values.eval_batch_size).validate(),
      options.PreprocessOptions(
          crop_size=shared.size(flag_values, 'eval_crop_size'),
          **shared.given(flag_values, shared.RESIZE_FIELDS)).validate(),
      options.PreprocessedOptions(
          output_dir=flag_values.preprocessed_dataset_dir,
          **shared.given(flag_values, (
              'image_list', 'manifest', 'overwrite',
              'num_workers'))).validate())
