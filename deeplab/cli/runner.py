"""Runs a script: parses flags, checks the environment, reports errors.

A script names its entry in deeplab.cli.script_flags and makes one call:

    def main(options): ...
    if __name__ == '__main__':
      runner.run(main, script_flags.REBUILD)

An unknown flag or a stray word is refused, with the nearest flag's name. Bad
input becomes one line on standard error and exit status 2. Options in that line
and in the log appear as flags. Only deeplab.cli imports absl.
"""
import difflib
import faulthandler
import os
import signal
import sys
from typing import Callable, List, Optional, cast

from deeplab import errors
from deeplab.errors import InputError
from deeplab.system import environment
from deeplab.system import signals
from deeplab.system import silence
from deeplab.system import streams
from deeplab.system import tf_errors

try:
  from absl import app
  from absl import flags
  from absl import logging
except ImportError:
  environment.refuse(
      'needs the package absl-py (none found for {}); run ./scripts/setup.sh '
      'tf1, then use .venvs/tf1/bin/python'.format(sys.executable))

from deeplab.cli import option_flags  # needs absl
from deeplab.cli import script_flags

# Options to lower if memory runs out.
_MEMORY = ('batch_size', 'crop_size', 'num_workers', 'vis_images')
_STOPPED = ('stopped by {}; files with their final names are complete, '
            'temporary files are removed')

# Flags of tensorflow/models that this suite lacks, and their replacement.
_CLASSES_COME_FROM = (
    'drop it: classes come from build_ade20k_data.py --label_map; see '
    'docs/own_data.md')
_SCALES_ELSEWHERE = (
    'export_model.py --inference_scales=0.5,1.0 --add_flipped_images, then '
    'eval_pb.py, evaluate several scales and mirrored images (docs/exports.md)')
_FLAGS_ELSEWHERE = {
    'model_variant': 'drop it: the network is always MobileNetV2',
    'num_classes': _CLASSES_COME_FROM,
    'ignore_label': _CLASSES_COME_FROM,
    'eval_scales': _SCALES_ELSEWHERE,
    'add_flipped_images': _SCALES_ELSEWHERE,
}

_NO_FLAGS = option_flags.Script()

flags.disclaim_key_flags()


# --- Parsing ---------------------------------------------------------------


def parse(script: option_flags.Script, argv: List[str],
          flag_values: flags.FlagValues) -> None:
  """Parses a command line strictly.

  Args:
    script: its command line.
    argv: begins with the program's name.
    flag_values: with the script's flags; see Script.define_flags.

  Raises:
    InputError: unknown flag, stray word, bad value or missing required flag.
  """
  flag_values.set_gnu_getopt(True)
  try:
    argv = argv[:1] + _with_flag_files(argv[1:], flag_values)
    _refuse_undefok(argv[1:])
    rest = flag_values(argv)[1:]
  except flags.UnrecognizedFlagError as error:
    raise InputError(_unknown_flag(error.flagname, flag_values))
  except flags.Error as error:
    message = errors.one_line(str(error))
    if message.startswith('flag --dataset='):
      message += '; ' + _CLASSES_COME_FROM
    raise InputError(message)
  if script.words:
    words = flag_values[script.words]
    words.value = (words.value or []) + rest
  elif rest:
    raise InputError(_stray_word(rest[0], argv))


def _with_flag_files(arguments, flag_values):
  """Replaces --flagfile with the arguments in the file."""
  try:
    return flag_values.read_flags_from_files(arguments)
  except flags.CantOpenFlagFileError as error:
    # absl's own text begins with 'ERROR::'.
    reason = cast(OSError, error.__context__)
    raise InputError('--flagfile={}'.format(errors.of_system(reason)))
  except ValueError as error:
    raise InputError('--flagfile: not a text file ({})'.format(error))


def _refuse_undefok(arguments):
  """Refuses --undefok, absl's flag that permits unknown flags."""
  for argument in arguments:
    name, _, value = argument.lstrip('-').partition('=')
    if argument.startswith('-') and name == 'undefok':
      raise InputError('--undefok={}: unknown flags are always refused; leave '
                       'both out'.format(value))


def _unknown_flag(name, flag_values):
  message = 'unknown flag --{}'.format(name)
  if name in _FLAGS_ELSEWHERE:
    return '{}; {}'.format(message, _FLAGS_ELSEWHERE[name])
  near = difflib.get_close_matches(name, list(flag_values), n=1, cutoff=0.5)
  return message + ('; did you mean --{}?'.format(near[0]) if near else '')


def _stray_word(word, argv):
  message = 'stray argument "{}"'.format(word)
  position = argv.index(word)
  if word.startswith('=') or position + 1 < len(argv) and (
      argv[position + 1] == '='):
    return message + ': write --flag=value, without spaces'
  return message + ': every argument is a --flag=value'


# --- From options to flags -------------------------------------------------


def in_flags(
    message: errors.Message, flag_values: flags.FlagValues) -> str:
  """Returns a message's text with flags in place of options.

  Args:
    message: such as an InputError.
    flag_values: parsed.
  """
  return message.shown(lambda option: _as_flag(option, flag_values))


def _as_flag(option, flag_values):
  """Returns the flag that sets an option, as users write it.

  If several flags set it, a flag on the command line is preferred. Shared code
  may name a path by an option of another script: then a flag with that value is
  returned, or only the path.
  """
  ours = list(map(flag_values.__getitem__, flag_values))
  found = [flag for flag in ours
           if option.name in getattr(flag, 'sets', {}).values()]
  if not found and option.text and option.name in script_flags.TEXT_FIELDS:
    found = [flag for flag in ours if flag.value == option.text]
    if not found:
      return option.text
  found.sort(key=lambda flag: not flag.present)
  name = found[0].name if found else option.name
  return '--' + name + ('' if option.text is None else '=' + option.text)


def _in_log(record):
  """Replaces options with flags, as a log filter."""
  if isinstance(record.args, tuple):
    record.args = tuple(map(_logged, record.args))
  return True


def _logged(value):
  if isinstance(value, errors.Option):
    value = _as_flag(value, flags.FLAGS)
  return errors.printable(value) if isinstance(value, str) else value


# --- Errors ----------------------------------------------------------------


def reason_of(
    error: Exception, flag_values: flags.FlagValues) -> Optional[str]:
  """Returns the message about an error; None if it is a bug of the suite.

  Args:
    error: raised by a script's main.
    flag_values: parsed.
  """
  if isinstance(error, InputError):
    return in_flags(error, flag_values)
  if isinstance(error, streams.OutputError):
    return '{}; not shown: {}'.format(
        errors.of_system(error), errors.one_line(error.text))
  if isinstance(error, MemoryError) or _is_tensorflows(error) and (
      tf_errors.is_out_of_memory(error)):
    return _out_of_memory(flag_values)
  if _is_tensorflows(error):
    return tf_errors.message(error) or type(error).__name__
  if isinstance(error, OSError):
    return errors.of_system(
        error, lambda path: _path_in_flags(path, flag_values))
  if isinstance(error, UnicodeEncodeError):
    return '{}: not a name in {}, and no other can be used here'.format(
        _path_in_flags(error.object, flag_values), error.encoding.upper())
  return None


def _path_in_flags(path, flag_values):
  """Returns a path as the flag that gives it, or gives a folder it is in."""
  wanted = os.path.abspath(path)
  found = []
  for flag in map(flag_values.__getitem__, flag_values):
    if hasattr(flag, 'sets') and not isinstance(flag, flags.EnumFlag) and (
        isinstance(flag.value, str) and flag.value):
      given = os.path.abspath(flag.value)
      if (wanted + os.sep).startswith(given.rstrip(os.sep) + os.sep):
        found.append((len(given), flag.present, flag.name, flag.value))
  if not found:
    return path
  # The innermost folder, if several flags give one.
  length, _, name, value = max(found)
  if length == len(wanted):
    return '--{}={}'.format(name, path)
  return '{} (in --{}={})'.format(path, name, value)


def _out_of_memory(flag_values):
  """Returns a message that names the flags to lower."""
  lower = sorted(
      '--' + name for name in flag_values
      if any(field in _MEMORY for _, field in getattr(
          flag_values[name], 'sets', ())))
  return 'out of memory' + (
      '; lower one of {}'.format(', '.join(lower)) if lower else '')


def _is_tensorflows(error):
  return type(error).__module__.split('.')[0].startswith('tensorflow')


# --- Running ---------------------------------------------------------------


def _define_common_flags():
  app.define_help_flags()
  flags.DEFINE_boolean(
      'tf_warnings', False,
      "Print TensorFlow's own warnings and deprecation notices too.")
  flags.DEFINE_boolean(
      'debug', False, 'Print the whole traceback of an input error.')


def run(main: Callable[..., None],
        script: option_flags.Script = _NO_FLAGS,
        argv: Optional[List[str]] = None) -> None:
  """Runs a script: parses flags, checks the environment, reports input errors.

  Args:
    main: function of the script's options. It imports modules that need
      TensorFlow itself, after the environment was checked.
    script: its command line.
    argv: command line; None: sys.argv.
  """
  argv = sys.argv if argv is None else argv
  _define_common_flags()
  script.define_flags(flags.FLAGS)

  def parse_argv(arguments):
    try:
      parse(script, arguments, flags.FLAGS)
    except InputError as error:
      environment.refuse(in_flags(error, flags.FLAGS))
    return arguments[:1]

  def guarded(unused_argv):
    problem = environment.problem_with(script.environments)
    if problem:
      environment.refuse(problem)
    environment.prepare_tensorflow()
    if environment.address_space_limit() is not None:
      # One line reports that memory ran out; stacks of all threads do not help.
      faulthandler.disable()
    logging.use_absl_handler()
    logging.get_absl_handler().addFilter(_in_log)
    if not flags.FLAGS['verbosity'].present:
      logging.set_verbosity(logging.INFO)
    try:
      arguments = script.arguments(flags.FLAGS)
      if not flags.FLAGS.tf_warnings:
        silence.silence_tensorflow()
        if script.needs_tensorflow:
          silence.import_tensorflow()
      main(**arguments)
      # A failure here can still be reported.
      sys.stdout.flush()
    except Exception as error:
      reason = None if flags.FLAGS.debug else reason_of(error, flags.FLAGS)
      if reason is None:
        raise
      environment.refuse(reason)

  try:
    with signals.Request(), streams.checked():
      app.run(guarded, argv=argv, flags_parser=parse_argv)
  except streams.OutputError as error:  # of --help
    environment.refuse(errors.of_system(error))
  except signals.Stopped as stopped:
    environment.refuse(_STOPPED.format(stopped.name), stopped.status)
  except KeyboardInterrupt:  # the second Ctrl-C
    environment.refuse(_STOPPED.format('SIGINT'), 128 + signal.SIGINT)
