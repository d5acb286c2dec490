"""What several groups of flags are made of."""
import functools

from deeplab import contract
from deeplab import options
from deeplab.cli import flags
from deeplab.errors import InputError

flags.disclaim_key_flags()

# Fields of PreprocessOptions that are flags of the same name.
RESIZE_FIELDS = ('min_resize_value', 'max_resize_value', 'resize_factor')


def define_flag(flag_values, kind, name, default, *args):
  """Defines one flag; kind is the end of absl's DEFINE_ function."""
  getattr(flags, 'DEFINE_' + kind)(
      name, default, *args, flag_values=flag_values)


def require(flag_values, *names):
  """Refuses a command line without one of these flags.

  Raises:
    InputError: naming the first that is missing.
  """
  for name in names:
    if not flag_values[name].value:
      raise InputError('--{} is required'.format(name))


def integers(flag_values, name):
  """Returns a list flag's value as a tuple of int.

  Raises:
    InputError: where an element is no integer.
  """
  try:
    return tuple(int(element) for element in flag_values[name].value or ())
  except ValueError:
    raise InputError('--{}={}: expected integers, separated by commas'.format(
        name, ','.join(flag_values[name].value)))


def size(flag_values, name):
  """Returns a list flag's value as (height, width).

  Raises:
    InputError: where it is not two positive integers.
  """
  given = ','.join(str(side) for side in flag_values[name].value)
  try:
    height, width = integers(flag_values, name)
  except (InputError, ValueError):
    height = width = 0
  if min(height, width) < 1:
    raise InputError('--{}={}: expected HEIGHT,WIDTH, for example '
                     '512,512'.format(name, given))
  return height, width


def given(flag_values, names):
  """Returns a dict of the values of flags, which are named like fields."""
  return {name: flag_values[name].value for name in names}


def define_resize_flags(flag_values):
  """Defines how images are resized before they are padded to the crop."""
  define = functools.partial(define_flag, flag_values)
  define('integer', 'min_resize_value', None,
         'Wanted length of the shorter side, in pixels; none: no resizing.')
  define('integer', 'max_resize_value', None,
         'Largest length of the longer side, in pixels.')
  define('integer', 'resize_factor', None,
         'Resized sides are multiples of this, plus one.')


def define_input_flags(flag_values, *, split_flag, split, batch_flag,
                       batch_size, crop_flag):
  """Defines where images come from: folder, split, batch, crop, resizing."""
  define = functools.partial(define_flag, flag_values)
  define('string', 'dataset_dir', None, 'Folder with the TFRecord shards.')
  define('enum', split_flag, split, list(contract.SPLITS), 'Split to read.')
  define('integer', batch_flag, batch_size, 'Images in a batch.')
  # Deviates: 513 in the reference, with which its own evaluation fails.
  define('list', crop_flag, ['512', '512'],
         'HEIGHT,WIDTH of the input of the network, in pixels.')
  define_resize_flags(flag_values)


def define_report_flags(define):
  """Defines what becomes of the scores, in every evaluation."""
  define('string', 'report_json', None,
         'File for the report: scores, confusion matrix, circumstances.')
  define('string', 'vis_dir', None,
         'Folder for a picture of images, labels and predictions.')
  define('integer', 'vis_images', options.EvalOptions().vis_images,
         'Number of images on that picture.')
