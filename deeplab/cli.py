"""Running a script: strict parsing, the right environment, clear errors.

A script defines its flags, turns them into options and makes one call:

    def define_flags(flag_values): ...
    def main(flag_values): ...
    if __name__ == '__main__':
      cli.run(main, define_flags, environments=('tf1',))

An unknown flag or a stray word is refused, with the nearest flag. Bad input
becomes one line on standard error and exit status 2; where the library names an
option, that line, and the log, name the flag. This module and flag_sets are the
only ones that know absl.
"""
import difflib
import faulthandler
import sys
from typing import Callable, List, Optional, Sequence, cast

from deeplab import environment
from deeplab import errors
from deeplab import quiet
from deeplab import streams
from deeplab import tf_texts
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


# --- Parsing ---------------------------------------------------------------


def parse(define_flags: Callable[[flags.FlagValues], None], argv: List[str],
          flag_values: Optional[flags.FlagValues] = None) -> flags.FlagValues:
  """Parses a command line strictly.

  Args:
    define_flags: function that defines the script's flags on a FlagValues.
    argv: the first is the program's name.
    flag_values: what they are defined on; None: a new one.

  Returns:
    The FlagValues.

  Raises:
    InputError: unknown flag, stray word, bad value or missing required flag.
  """
  flag_values = flags.FlagValues() if flag_values is None else flag_values
  define_flags(flag_values)
  flag_values.set_gnu_getopt(True)
  try:
    argv = argv[:1] + _with_flag_files(argv[1:], flag_values)
    _refuse_undefok(argv[1:])
    rest = flag_values(argv)[1:]
  except flags.UnrecognizedFlagError as error:
    raise InputError(_unknown_flag(error.flagname, flag_values))
  except flags.Error as error:
    raise InputError(_plain(str(error)))
  if rest:
    raise InputError(_stray_word(rest[0], argv))
  return flag_values


def _with_flag_files(arguments, flag_values):
  """Returns arguments with those of files in place of --flagfile."""
  try:
    return flag_values.read_flags_from_files(arguments)
  except flags.CantOpenFlagFileError as error:
    # absl's own text begins with 'ERROR::'.
    reason = cast(OSError, error.__context__)
    raise InputError('--flagfile={}: {}'.format(
        reason.filename, reason.strerror))
  except UnicodeDecodeError as error:
    raise InputError('--flagfile: not a text file ({})'.format(error))


def _refuse_undefok(arguments):
  """Refuses absl's flag that lets unknown flags pass."""
  for argument in arguments:
    name, _, value = argument.lstrip('-').partition('=')
    if argument.startswith('-') and name == 'undefok':
      raise InputError('--undefok={}: unknown flags are always refused; leave '
                       'both out'.format(value))


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


# --- From options to flags -------------------------------------------------


def in_flags(
    message: errors.Message, flag_values: flags.FlagValues) -> str:
  """Returns a message's text with the flags in place of the options.

  Args:
    message: such as an InputError.
    flag_values: parsed.
  """
  return message.shown(lambda option: _as_flag(option, flag_values))


def _as_flag(option, flag_values):
  """Says the flag that sets an option, as one writes it.

  Where several do, the one that was given; where none does, it is another
  script's.
  """
  found = [flag for flag in map(flag_values.__getitem__, flag_values)
           if option.name in getattr(flag, 'sets', {}).values()]
  found.sort(key=lambda flag: not flag.present)
  name = found[0].name if found else option.name
  if option.text is None:
    return '--' + name
  values = [option.text]
  if found and isinstance(found[0], flags.MultiFlag):
    values = option.text.split(',')
  return ' '.join('--{}={}'.format(name, value) for value in values)


def _with_flags(record):
  """Puts flags in place of the options in a line of the log; keeps it."""
  if isinstance(record.args, tuple):
    record.args = tuple(
        _as_flag(value, flags.FLAGS) if isinstance(value, errors.Option)
        else value for value in record.args)
  return True


# --- Running ---------------------------------------------------------------


def run(main: Callable[[flags.FlagValues], None],
        define_flags: Callable[[flags.FlagValues], None], *,
        environments: Sequence[str], argv: Optional[List[str]] = None) -> None:
  """Runs a script: parses, checks the environment, reports input errors.

  Args:
    main: function of one argument, the parsed FlagValues. Modules that need
      TensorFlow are imported inside it, after the environment is known.
    define_flags: function that defines the script's flags on a FlagValues.
    environments: names from environment.ENVIRONMENTS that the script runs in,
      the one to recommend first, and environment.TFLITE where any TFLite
      interpreter will do; empty where it needs no TensorFlow.
    argv: command line; None: sys.argv.
  """
  argv = sys.argv if argv is None else argv
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
      environment.refuse(in_flags(error, flags.FLAGS))
    return arguments[:1]

  def guarded(unused_argv):
    problem = environment.problem_with(environments)
    if problem:
      environment.refuse(problem)
    environment.pool_memory()
    if environment.address_space_limit() is not None:
      # That the memory is out is said in a line. Where all threads are does not
      # matter then.
      faulthandler.disable()
    quiet.silence_tensorflow(verbose=flags.FLAGS.tf_warnings)
    logging.use_absl_handler()
    logging.get_absl_handler().addFilter(_with_flags)
    if not flags.FLAGS['verbosity'].present:
      logging.set_verbosity(logging.INFO)
    try:
      main(flags.FLAGS)
      # Now, where it can still be said what could not be shown.
      sys.stdout.flush()
    except KeyboardInterrupt:
      sys.stderr.write('interrupted\n')
      # As shells report a program that SIGINT ended: 128 + 2.
      sys.exit(130)
    except Exception as error:
      if flags.FLAGS.debug or not _is_reportable(error):
        raise
      environment.refuse(_reason(error) or type(error).__name__)

  try:
    with streams.checked():
      app.run(guarded, argv=argv, flags_parser=parse_argv)
  except streams.OutputError as error:  # of --help
    environment.refuse(errors.of_system(error))


def _is_reportable(error):
  """Whether an error is the input's, the machine's or TensorFlow's."""
  return isinstance(error, (InputError, OSError, MemoryError)) or (
      _is_tensorflows(error))


def _is_tensorflows(error):
  return type(error).__module__.split('.')[0].startswith('tensorflow')


def _reason(error):
  if isinstance(error, InputError):
    return in_flags(error, flags.FLAGS)
  if isinstance(error, streams.OutputError):
    return '{}; not shown: {}'.format(errors.of_system(error), error.text)
  if isinstance(error, OSError):
    return errors.of_system(error)
  if isinstance(error, MemoryError):
    return 'out of memory {}'.format(error).strip()
  return tf_texts.message(error)
