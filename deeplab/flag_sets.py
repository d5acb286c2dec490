"""Groups of flags and the options made from them; the suite's only use of absl.

A script names its groups, turns flags into options and makes one call:

    def define_flags(flag_values): ...
    def main(flag_values): ...
    if __name__ == '__main__':
      flag_sets.run(main, define_flags, __doc__, environments=('tf1',))

Parsing is strict: an unknown flag or a stray word is refused, with the nearest
flag. Input errors become one line on standard error and exit status 2.
"""
import difflib
import os
import sys

from deeplab import contract
from deeplab import environment
from deeplab import options
from deeplab.errors import InputError

try:
  from absl import app
  from absl import flags
  from absl import logging
except ImportError:
  environment.refuse(
      'needs the package absl-py (none found for {}); run ./scripts/setup.sh '
      'tf1, then use .venvs/tf1/bin/python'.format(sys.executable))

# Flags belong to the script that asks for them, in --help too.
flags.disclaim_key_flags()

_USAGE_STATUS = 2


# --- Running a script ------------------------------------------------------


def parse(define_flags, argv, flag_values=None):
  """Parses a command line strictly.

  Args:
    define_flags: function that defines the script's flags on a FlagValues.
    argv: list of strings; the first is the program's name.
    flag_values: absl FlagValues; None: a new one.

  Returns:
    The FlagValues.

  Raises:
    InputError: unknown flag, stray word, bad value or missing required flag.
  """
  flag_values = flags.FlagValues() if flag_values is None else flag_values
  define_flags(flag_values)
  flag_values.set_gnu_getopt(True)
  try:
    rest = flag_values(argv)[1:]
  except flags.UnrecognizedFlagError as error:
    raise InputError(_unknown_flag(error.flagname, flag_values))
  except flags.Error as error:
    raise InputError(_plain(str(error)))
  if rest:
    raise InputError(_stray_word(rest[0], argv))
  return flag_values


def _unknown_flag(name, flag_values):
  message = 'unknown flag --{}'.format(name)
  near = difflib.get_close_matches(name, list(flag_values), n=1, cutoff=0.5)
  return message + ('; did you mean --{}?'.format(near[0]) if near else '')


def _stray_word(word, argv):
  message = 'stray argument "{}"'.format(word)
  position = argv.index(word)
  if word.startswith('=') or position + 1 < len(argv) and (
      argv[position + 1] == '='):
    return message + ': write --flag=value, without spaces'
  return message + ': every argument is a --flag=value'


def _plain(text):
  """absl's 'flag --x=y: reason' without its module prefixes, on one line."""
  return ' '.join(text.split())


def run(main, define_flags, doc, *, environments, argv=None):
  """Runs a script: parses, checks the environment, reports input errors.

  Args:
    main: function of one argument, the parsed FlagValues. Modules that need
      TensorFlow are imported inside it, after the environment is known.
    define_flags: function that defines the script's flags on a FlagValues.
    doc: the script's docstring, printed by --help.
    environments: names from environment.ENVIRONMENTS that the script runs in,
      the one to recommend first; empty where it needs no TensorFlow.
    argv: command line; None: sys.argv.
  """
  argv = sys.argv if argv is None else argv
  sys.modules['__main__'].__doc__ = doc
  app.define_help_flags()

  def define_all(flag_values):
    flags.DEFINE_boolean(
        'tf_warnings', False,
        "Print TensorFlow's own warnings and deprecation notices too.",
        flag_values=flag_values)
    flags.DEFINE_boolean(
        'debug', False, 'Print the whole traceback of an input error.',
        flag_values=flag_values)
    define_flags(flag_values)

  def parse_argv(arguments):
    try:
      parse(define_all, arguments, flags.FLAGS)
    except InputError as error:
      environment.refuse(str(error))
    return arguments[:1]

  def guarded(unused_argv):
    problem = environment.problem_with(environments)
    if problem:
      environment.refuse(problem)
    environment.quieten_tensorflow(verbose=flags.FLAGS.tf_warnings)
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    try:
      main(flags.FLAGS)
    except (InputError, OSError) as error:
      if flags.FLAGS.debug:
        raise
      environment.refuse(str(error))
    except KeyboardInterrupt:
      sys.stderr.write('interrupted\n')
      sys.exit(130)

  app.run(guarded, argv=argv, flags_parser=parse_argv)


# --- Data ------------------------------------------------------------------


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
