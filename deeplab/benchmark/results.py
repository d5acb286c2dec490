"""Results as tables and JSON: medians, ratios, goals, the machine."""
import datetime
import os
import platform
import statistics
import subprocess
from typing import Any, Dict, List, Sequence

from deeplab import machine as machine_lib
from deeplab.benchmark import cases as cases_lib
from deeplab.benchmark import driver

_MEBIBYTE = 2.0 ** 20
_GIBIBYTE = 2.0 ** 30


# --- Ratios ----------------------------------------------------------------


def ratio(numerator: driver.Result, denominator: driver.Result,
          quantity: str = 'seconds') -> float:
  """Compares two results: the median of the ratios of their rounds.

  Args:
    numerator: driver.Result.
    denominator: driver.Result.
    quantity: 'seconds' or 'peak_bytes'.
  """
  if quantity == 'peak_bytes':
    return numerator.peak_bytes / denominator.peak_bytes
  return statistics.median(
      one / other for one, other in zip(numerator.seconds,
                                        denominator.seconds))


def goals_of(results: Sequence[driver.Result]) -> List[Dict[str, Any]]:
  """Holds results against cases.GOALS.

  Args:
    results: list of driver.Result.

  Returns:
    List of dicts: 'goal', 'wanted' (text), 'ratio' (float, or None where it
    was not measured), 'met' (bool or None), 'reason' (text; '' where it is met,
    or nothing is known).
  """
  measured = {}
  for result in results:
    if not result.error:
      measured[result.case.key] = result
      # What a goal asks of the one environment that was measured.
      measured['{}/*/{}'.format(result.case.group, result.case.name)] = result
  found = []
  for goal in cases_lib.GOALS:
    value = met = None
    case, against = measured.get(goal.case), measured.get(goal.against)
    if case and against:
      if goal.sense == 'under':
        value = ratio(case, against, goal.quantity)
        met = value < goal.bound
      else:
        value = ratio(against, case, goal.quantity)
        met = value >= goal.bound
    found.append({
        'goal': goal.text, 'ratio': value, 'met': met,
        'wanted': '{} {:g} x'.format(goal.sense, goal.bound),
        'reason': goal.reason if met is False else ''})
  return found


# --- The machine -----------------------------------------------------------


def machine() -> Dict[str, str]:
  """Describes the machine and the state of the suite."""
  gpus, _ = machine_lib.gpus()
  return {
      'processor': machine_lib.processor(),
      'vector extensions': ', '.join(
          machine_lib.vector_extensions()) or 'unknown',
      'cores': str(os.cpu_count()),
      'memory': '{:.0f} GiB'.format(machine_lib.memory_bytes() / _GIBIBYTE),
      'GPU': ', '.join(gpu.name for gpu in gpus) or 'none',
      'system': platform.platform(),
      'date': datetime.date.today().isoformat(),
      'commit': _commit(),
  }


def _commit():
  """The commit that is measured, and whether there are changes to it."""
  root = os.path.dirname(os.path.dirname(os.path.dirname(
      os.path.abspath(__file__))))
  try:
    commit, changes = (
        subprocess.check_output(
            ['git', '-C', root] + arguments, universal_newlines=True,
            stderr=subprocess.DEVNULL).strip()
        for arguments in (['rev-parse', '--short', 'HEAD'],
                          ['status', '--porcelain', '-uno']))
  except (OSError, subprocess.CalledProcessError):
    return 'unknown'
  return commit + (' with changes' if changes else '')


# --- JSON ------------------------------------------------------------------


def as_json(
    benchmark: driver.Benchmark, *, command: Sequence[str], rounds: int,
    sizes: cases_lib.Sizes, minutes: float) -> Dict[str, Any]:
  """Makes a dict of all that is known about a run.

  Args:
    benchmark: driver.Benchmark that has run.
    command: the command line, without the program.
    rounds: how often each case was measured.
    sizes: cases.Sizes.
    minutes: how long the run took.
  """
  return {
      'command': command, 'rounds': rounds, 'sizes': dict(sizes._asdict()),
      'minutes': minutes, 'machine': machine(),
      'environments': benchmark.versions,
      'cases': [_case_as_json(result) for result in benchmark.results],
      'goals': goals_of(benchmark.results),
  }


def _case_as_json(result):
  case = result.case
  return {
      'group': case.group, 'name': case.name, 'environment': case.environment,
      'item': case.item, 'seconds': result.seconds,
      'median': None if result.error else result.median,
      'peak_bytes': result.peak_bytes, 'detail': result.detail,
      'error': result.error}


# --- Text ------------------------------------------------------------------


def tables(content: Dict[str, Any], results: Sequence[driver.Result]) -> str:
  """Writes goals and measurements as Markdown, aligned to be read as it is.

  Args:
    content: dict, as from as_json.
    results: list of driver.Result, of the same run.
  """
  blocks = ['## Goals', _table(
      ['goal', 'wanted', 'measured', 'met'],
      [[goal['goal'], goal['wanted'], _text(goal['ratio'], '{:.3g} x'),
        {True: 'yes', False: 'NO', None: '-'}[goal['met']]]
       for goal in content['goals']])]
  blocks += ['Not met, {}: {}.'.format(goal['goal'], goal['reason'])
             for goal in content['goals'] if goal['reason']]
  for group in cases_lib.GROUPS:
    of_group = [result for result in results
                if result.case.group == group.name]
    if of_group:
      blocks += ['## ' + group.title, _group_table(group, of_group)]
  return '\n\n'.join(blocks) + '\n'


def _group_table(group, results):
  """One line a case; the first one that was measured is the measure."""
  measured = [result for result in results if not result.error]
  rows = []
  for result in results:
    case = result.case
    row = [case.name + (', ' + result.detail if result.detail else ''),
           case.environment]
    if result.error:
      rows.append(row + ['failed'] + ['-'] * 4)
      continue
    spread = max(result.seconds) - min(result.seconds)
    rows.append(row + [
        '{:.4g}'.format(result.median),
        '{:.0f} %'.format(100 * spread / result.median),
        '{:.4g}'.format(1 / result.median),
        '{:.3g} x'.format(ratio(measured[0], result)),
        '{:.0f} MiB'.format(result.peak_bytes / _MEBIBYTE)])
  return _table(['case', 'environment', 's/' + group.item, 'spread',
                 group.item + '/s', 'as fast as the first', 'peak memory'],
                rows)


def _text(value, form):
  return '-' if value is None else form.format(value)


def _table(header, rows):
  """A Markdown table with columns of one width."""
  widths = [max(len(row[column]) for row in [header] + rows)
            for column in range(len(header))]
  lines = [header, ['-' * width for width in widths]] + rows
  return '\n'.join(
      '| ' + ' | '.join(cell.ljust(width)
                        for cell, width in zip(line, widths)) + ' |'
      for line in lines)


def as_markdown(content: Dict[str, Any],
                results: Sequence[driver.Result]) -> str:
  """The whole of BENCHMARKS.md; arguments as for `tables`."""
  lines = ['# Benchmarks', '',
           'Generated by `python scripts/benchmark.py{}`; not to be '
           'edited.'.format(''.join(' ' + word for word in content['command'])),
           '']
  lines += ['- {}: {}'.format(name, value)
            for name, value in content['machine'].items()]
  lines += ['- {}: {}'.format(name, ', '.join(
      '{} {}'.format(*item) for item in versions.items()))
            for name, versions in content['environments'].items()]
  lines += ['- sizes: {}'.format(', '.join(
      '{} {}'.format(name.replace('_', ' '), value)
      for name, value in content['sizes'].items()))]
  lines += [
      '- duration: {:.0f} minutes, {} rounds'.format(
          content['minutes'], content['rounds']), '',
      'Each case ran in a process of its own; those of a table took turns, '
      'round by round. Times are medians of the rounds, the spread is from the '
      'fastest round to the slowest, ratios are medians of the ratios of '
      'rounds. Peak memory is the resident set of the largest process.', '']
  return '\n'.join(lines) + '\n' + tables(content, results)
