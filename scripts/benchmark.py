r"""Benchmarks the suite in several environments.

    .venvs/tf1/bin/python scripts/benchmark.py \
      --environments=tf1,tf2,modern \
      --output_json=benchmarks.json --output_md=BENCHMARKS.md

Add --only=float_step,evaluation to measure some groups only, --list to list
them, --quick to check in a few minutes that everything works. An environment
that is not in .venvs is skipped; NAME=PYTHON names its interpreter. Files are
made in a temporary folder, from painted pictures and random weights: no data
set and no checkpoint is needed. Do not use the machine meanwhile. It needs no
TensorFlow itself.
"""
import os
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from deeplab.cli import option_flags  # found through the line above
from deeplab.cli import runner
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.storage import checked_read
from deeplab.storage import files
from deeplab.tools.benchmark import cases
from deeplab.tools.benchmark import driver
from deeplab.tools.benchmark import results

_MOST_ROUNDS = 1000


def define_flags(flag_values):
  for define, name, default, text in (
      (runner.flags.DEFINE_list, 'environments', list(cases.ENVIRONMENTS),
       'Environments to measure in, as in .venvs; or NAME=PYTHON.'),
      (runner.flags.DEFINE_list, 'only', [],
       'Groups of cases to measure; none: all.'),
      (runner.flags.DEFINE_integer, 'rounds', None,
       'How often each case is measured; not given: 3, or 1 with --quick.'),
      (runner.flags.DEFINE_boolean, 'quick', False,
       'Measure next to nothing, to try the script.'),
      (runner.flags.DEFINE_boolean, 'list', False,
       'List groups and cases, and measure nothing.'),
      (runner.flags.DEFINE_string, 'output_json', None,
       'File for settings and measurements.'),
      (runner.flags.DEFINE_string, 'output_md', None,
       'File for the same as Markdown.')):
    define(name, default, text, flag_values=flag_values)


SCRIPT = option_flags.Script(
    define=define_flags,
    make=lambda flag_values, unused_groups: {'flag_values': flag_values})


def main(flag_values):
  groups = driver.find_groups(flag_values.only)
  if flag_values.list:
    for group in groups:
      for case in cases.cases_of(group, cases.ENVIRONMENTS):
        print(case.key)
    return
  rounds = flag_values.rounds
  if rounds is None:
    rounds = 1 if flag_values.quick else 3
  if not 1 <= rounds <= _MOST_ROUNDS:
    raise InputError('--rounds={}: expected a whole number from 1 to {}'.format(
        rounds, _MOST_ROUNDS))
  pythons = driver.find_pythons(flag_values.environments)
  for flag, ours in (('output_json', checked_read.json_with('cases', 'goals')),
                     ('output_md', None)):
    path = flag_values[flag].value
    if path:
      files.check_outputs(option(flag, path), path, ours=ours)
  measure(flag_values, groups, pythons, rounds)


def measure(flag_values, groups, pythons, rounds):
  """Runs the groups; writes and prints their results."""
  sizes = cases.QUICK if flag_values.quick else cases.Sizes()
  started = time.time()
  with tempfile.TemporaryDirectory(prefix='benchmark-') as folder:
    machine = driver.Machine(pythons, sizes, folder)
    found = driver.run(machine, groups, list(pythons), rounds)
  # The paths of the outputs do not matter to readers.
  command = [word for word in sys.argv[1:] if not word.startswith('--output_')]
  content = results.as_json(
      found, machine.versions, command=command, rounds=rounds, sizes=sizes,
      minutes=(time.time() - started) / 60)
  if flag_values.output_json:
    files.write_json(flag_values.output_json, content)
  if flag_values.output_md:
    files.write_text(flag_values.output_md,
                     results.as_markdown(content, found))
  print(results.tables(content, found))
  failed = sum(result.error is not None for result in found)
  print('{} cases in {:.1f} minutes, {} failed'.format(
      len(found), content['minutes'], failed))
  if failed:
    sys.exit(1)


if __name__ == '__main__':
  runner.run(main, SCRIPT)
