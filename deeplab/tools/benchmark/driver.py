"""Runs each measurement in a new process; the cases of a group take turns.

So a temporary slowdown of the machine affects all compared cases, and each case
has its own peak memory.
"""
import json
import logging
import os
import statistics
import subprocess
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.system import environment
from deeplab.tools.benchmark import cases as cases_lib

_LOG = logging.getLogger(__name__)
_WORKER = os.path.join(os.path.dirname(os.path.realpath(__file__)), 'worker.py')


class WorkError(Exception):
  """A worker failed; the message is its last printed line."""


class Result(NamedTuple):
  """The measurements of a cases.Case."""
  group: str
  name: str
  environment: str
  item: str
  # For each item, by round; empty if the case failed.
  seconds: List[float]
  # Maximum of all rounds.
  peak_bytes: int = 0
  detail: str = ''
  # Why there is no result, or None.
  error: Optional[str] = None

  @property
  def median(self) -> Optional[float]:
    """Median of the rounds in seconds for each item; None: failed."""
    return statistics.median(self.seconds) if self.seconds else None


class Benchmark:
  """A run of cases in environments.

  Attributes:
    versions: dict from environment to dict from package to version.
    results: list of Result.
  """

  def __init__(self, *, pythons: Dict[str, str], sizes: cases_lib.Sizes,
               rounds: int, folder: str):
    """Prepares a run.

    Args:
      pythons: dict from environment to its interpreter.
      sizes: cases.Sizes.
      rounds: number of measurements of each case.
      folder: existing folder for all files.
    """
    self._pythons, self._sizes = pythons, sizes
    self._rounds, self._folder = rounds, folder
    self._made: List[str] = []
    self.versions: Dict[str, Dict[str, str]] = {}
    self.results: List[Result] = []

  def run(self, groups: Sequence[cases_lib.Group]) -> None:
    """Measures groups one after the other; fills `results`."""
    for group in groups:
      cases = cases_lib.cases_of(group, self._pythons)
      try:
        for name in group.files if cases else ():
          self._make_file(name)
      except WorkError as error:
        _LOG.warning('%s: left out: %s', group.name, error)
      else:
        self.results += self._measure(
            cases, min(self._rounds, group.most_rounds or self._rounds))

  def _make_file(self, name):
    """Makes one of cases.FILES, once; raises WorkError if that fails."""
    if name in self._made:
      return
    work, settings, environments = cases_lib.FILES[name]
    able = [each for each in environments if each in self._pythons]
    if not able:
      raise WorkError('the {} can be made in {} alone'.format(
          name, ' or '.join(environments)))
    self.work(able[0], work, settings)
    self._made.append(name)
    _LOG.info('%s: made in %s', name, able[0])

  def _measure(self, cases, rounds):
    """Measures cases in turn; returns their Results."""
    results = [Result(case.group, case.name, case.environment, case.item, [])
               for case in cases]
    for number in range(rounds):
      for place, case in enumerate(cases):
        result = results[place]
        if result.error:
          continue
        try:
          answer = self.work(case.environment, case.work, case.settings)
        except WorkError as error:
          _LOG.warning('%s: failed: %s', case.key, error)
          results[place] = result._replace(seconds=[], error=str(error))
          continue
        _LOG.info('%s, round %d: %.4g s/%s', case.key, number + 1,
                  answer['seconds'], case.item)
        results[place] = result._replace(
            seconds=result.seconds + [answer['seconds']],
            peak_bytes=max(result.peak_bytes, answer['peak_bytes']),
            detail=answer['detail'])
    return results

  def work(self, environment: str, work: str,
           settings: Dict[str, Any]) -> Dict[str, Any]:
    """Runs a work in a new process.

    Args:
      environment: environment of the interpreter.
      work: such as 'network.forward'; see cases.
      settings: keyword arguments for it.

    Returns:
      Dict with 'seconds', 'detail', 'peak_bytes' and 'versions'.

    Raises:
      WorkError: the process failed.
    """
    job = {'work': work, 'settings': settings, 'folder': self._folder,
           'sizes': self._sizes._asdict()}
    log_path, answer_path = (
        os.path.join(self._folder, name) for name in ('log.txt', 'answer.json'))
    with open(log_path, 'wb') as log:
      status = subprocess.call(
          [self._pythons[environment], _WORKER, json.dumps(job), answer_path],
          stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    if status:
      with open(log_path, encoding='utf-8', errors='replace') as printed:
        lines = ['ended with status {}'.format(status),
                 *filter(None, map(str.strip, printed))]
      raise WorkError(lines[-1])
    with open(answer_path) as content:
      answer = json.load(content)
    self.versions[environment] = answer['versions']
    return answer


# --- Environments ----------------------------------------------------------


def find_pythons(wanted: Sequence[str]) -> Dict[str, str]:
  """Finds the interpreters of environments; logs missing ones.

  Args:
    wanted: list of names, or NAME=PYTHON for an interpreter elsewhere.

  Returns:
    Dict from name to path.

  Raises:
    InputError: an unknown name, or none of them found.
  """
  found = {}
  for given in wanted:
    name, unused_separator, path = given.partition('=')
    if name not in cases_lib.ENVIRONMENTS:
      raise InputError(
          '{}: unknown environment {}; expected some of {}',
          option('environments', wanted), name or '""',
          ','.join(cases_lib.ENVIRONMENTS))
    path = path or os.path.join(
        environment.REPOSITORY, '.venvs', name, 'bin', 'python')
    if os.path.exists(path):
      found[name] = path
    else:
      _LOG.warning('left out: %s (%s: no such file)', name, path)
  if not found:
    raise InputError(
        '{}: none found; run ./scripts/setup.sh {}',
        option('environments', wanted),
        wanted[0] if wanted else cases_lib.ENVIRONMENTS[0])
  return found


def find_groups(names: Sequence[str]) -> List[cases_lib.Group]:
  """Returns the named cases.Groups; without names, all.

  Raises:
    InputError: an unknown name.
  """
  known = {group.name: group for group in cases_lib.GROUPS}
  for name in names:
    if name not in known:
      raise InputError('{}: unknown group {}; expected some of {}',
                       option('only', names), name or '""', ','.join(known))
  return [group for name, group in known.items()
          if not names or name in names]
