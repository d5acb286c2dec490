"""Runs each measurement in a new process; the cases of a group take turns.

So a temporary slowdown of the machine affects all compared cases, and each case
has its own peak memory.
"""
import json
import logging
import os
import subprocess
from typing import Any, Dict, List, Sequence, Set

from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.system import environment
from deeplab.system import hardware
from deeplab.tools.benchmark import cases as cases_lib

_LOG = logging.getLogger(__name__)
_WORKER = os.path.join(os.path.dirname(os.path.realpath(__file__)), 'worker.py')


class WorkError(Exception):
  """A worker failed; the message is its last printed line."""


class Machine:
  """Runs works in processes of their own.

  Attributes:
    versions: dict from environment to versions of its packages.
  """

  def __init__(self, pythons: Dict[str, str], sizes: cases_lib.Sizes,
               folder: str):
    """Takes interpreters by environment, and a folder for all files."""
    self._pythons, self._sizes, self._folder = pythons, sizes, folder
    self.versions: Dict[str, str] = {}

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


def run(machine: Machine, groups: Sequence[cases_lib.Group],
        environments: Sequence[str], rounds: int) -> List[cases_lib.Case]:
  """Measures the cases of each group in turn, round by round."""
  measured: List[cases_lib.Case] = []
  made: Set[str] = set()
  for group in groups:
    cases = cases_lib.cases_of(group, environments)
    try:
      for name in group.files if cases else ():
        if name not in made:
          _make_file(machine, name, environments)
          made.add(name)
    except WorkError as error:
      _LOG.warning('%s: left out: %s', group.name, error)
      continue
    for number in range(rounds):
      cases = [case if case.error else _measured(machine, case, number)
               for case in cases]
    measured += cases
  return measured


def _make_file(machine, name, environments):
  """Makes one of cases.FILES; raises WorkError if that fails."""
  work, settings, wanted = cases_lib.FILES[name]
  able = [each for each in wanted if each in environments]
  if not able:
    raise WorkError('the {} can be made in {} alone'.format(
        name, ' or '.join(wanted)))
  machine.work(able[0], work, settings)
  _LOG.info('%s: made in %s', name, able[0])


def _measured(machine, case, number):
  """Returns a Case with the results of another round."""
  try:
    answer = machine.work(case.environment, case.work, case.settings)
  except WorkError as error:
    _LOG.warning('%s: failed: %s', case.key, error)
    return case._replace(seconds=(), error=str(error))
  _LOG.info('%s, round %d: %.4g s', case.key, number + 1, answer['seconds'])
  return case._replace(
      seconds=case.seconds + (answer['seconds'],), detail=answer['detail'],
      peak_bytes=max(case.peak_bytes, answer['peak_bytes']))


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
    _check_known(option('environments', wanted), 'environment', name,
                 cases_lib.ENVIRONMENTS)
    path = path or environment.python_of(name)
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
  """Returns the named cases.Groups; without names, all that can run here.

  Raises:
    InputError: an unknown name.
  """
  for name in names:
    _check_known(option('only', names), 'group', name,
                 [group.name for group in cases_lib.GROUPS])
  has_gpu = bool(hardware.gpus()[0])
  return [group for group in cases_lib.GROUPS if group.name in names or
          not names and (has_gpu or group.name != cases_lib.GPU)]


def _check_known(given, kind, name, known):
  if name not in known:
    raise InputError('{}: unknown {} {}; expected some of {}', given, kind,
                     name or '""', ','.join(known))
