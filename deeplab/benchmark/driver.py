"""Runs cases: one process each, those of a group asked in turn.

The turns matter: if the machine becomes slower for a while, it does so for all
that is compared. A process of its own gives each case its own peak memory.
"""
import json
import logging
import os
import statistics
import subprocess
from typing import IO, Any, Dict, List, NamedTuple, Optional, Sequence, cast

from deeplab.benchmark import cases as cases_lib
from deeplab.errors import InputError
from deeplab.errors import option

_LOG = logging.getLogger(__name__)
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))


class WorkError(Exception):
  """A worker's work failed; the message is what it said last."""


class Result(NamedTuple):
  """What became of a case."""
  case: cases_lib.Case
  # For each item, one a round; none if the case failed.
  seconds: List[float]
  peak_bytes: int
  # What there is to know about the case: images, interpreter.
  detail: str
  # None, or why there is no result.
  error: Optional[str]

  @property
  def median(self) -> float:
    """Median of the rounds, in seconds for each item."""
    return statistics.median(self.seconds)


class Worker:
  """A process that serves one case; see `worker`."""

  def __init__(self, python: str, job: Dict[str, Any], log_path: str):
    """Starts it and has it prepare.

    Args:
      python: the environment's interpreter.
      job: as in worker._prepare.
      log_path: file for what it prints.

    Raises:
      WorkError: it cannot prepare.
    """
    self._log_path = log_path
    with open(log_path, 'wb') as log:
      self._process = subprocess.Popen(
          [python, '-c', 'import sys; sys.path.insert(0, sys.argv[1]); '
           'from deeplab.benchmark import worker; worker.main()', _ROOT],
          cwd=_ROOT, stderr=log, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
          universal_newlines=True)
    self.pid = self._process.pid
    # None only if they are no pipes.
    self._questions = cast(IO[str], self._process.stdin)
    self._answers = cast(IO[str], self._process.stdout)
    self.prepared = self.ask(json.dumps(job))

  def ask(self, line: str) -> Dict[str, Any]:
    """Sends a line and returns the answer, a dict.

    Raises:
      WorkError: the process ended instead.
    """
    answer = ''
    try:
      self._questions.write(line + '\n')
      self._questions.flush()
      answer = self._answers.readline()
    except BrokenPipeError:
      pass
    if not answer:
      self.close()
      with open(self._log_path, encoding='utf-8', errors='replace') as log:
        lines = ['ended without a word', *filter(None, map(str.strip, log))]
      raise WorkError(lines[-1])
    return json.loads(answer)

  def close(self) -> None:
    """Ends the process, however far it is."""
    self._process.kill()
    self._process.wait()
    self._answers.close()
    try:
      self._questions.close()
    except BrokenPipeError:
      pass


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
      rounds: how often each case is measured.
      folder: folder for all files; exists.
    """
    self._pythons, self._sizes = pythons, sizes
    self._rounds, self._folder = rounds, folder
    self._workers = 0
    self._made: List[str] = []
    self.versions: Dict[str, Dict[str, str]] = {}
    self.results: List[Result] = []

  def run(self, groups: Sequence[cases_lib.Group]) -> None:
    """Measures groups of cases, one after the other; fills `results`."""
    for group in groups:
      cases = cases_lib.cases_of(group, self._pythons)
      try:
        for name in cases_lib.files_for([group]) if cases else ():
          self._make_file(name)
      except WorkError as error:
        _LOG.warning('%s: left out: %s', group.name, error)
      else:
        self._run_group(group, cases)

  def _start(self, environment, work, settings):
    """Returns a Worker that has prepared its work."""
    self._workers += 1
    worker = Worker(
        self._pythons[environment], {
            'work': work, 'settings': settings, 'folder': self._folder,
            'sizes': self._sizes._asdict()},
        os.path.join(self._folder, 'log-{:03d}.txt'.format(self._workers)))
    self.versions[environment] = worker.prepared['versions']
    return worker

  def _make_file(self, name):
    """Makes one of cases.FILES, once; raises WorkError if that fails."""
    if name in self._made:
      return
    file = cases_lib.FILES[name]
    able = [each for each in file.environments if each in self._pythons]
    if not able:
      raise WorkError('the {} can be made in {} alone'.format(
          name, ' or '.join(file.environments)))
    self._start(able[0], file.work, file.settings).close()
    self._made.append(name)
    _LOG.info('%s: made in %s', name, able[0])

  def _run_group(self, group, cases):
    """Measures a group's cases in turn."""
    workers: Dict[str, Worker] = {}
    seconds: Dict[str, List[float]] = {case.key: [] for case in cases}
    peaks: Dict[str, int] = {}
    errors: Dict[str, str] = {}

    def start(case):
      workers[case.key] = self._start(
          case.environment, case.work, case.settings)

    def measure(case):
      seconds[case.key].append(workers[case.key].ask('measure')['seconds'])
      _LOG.info('%s, round %d: %.4g s/%s', case.key, len(seconds[case.key]),
                seconds[case.key][-1], group.item)

    def find_peak(case):
      peaks[case.key] = workers[case.key].ask('peak')['peak_bytes']

    rounds = min(self._rounds, group.rounds or self._rounds)
    try:
      for step in [start] + [measure] * rounds + [find_peak]:
        for case in cases:
          if case.key not in errors:
            try:
              step(case)
            except WorkError as error:
              errors[case.key] = str(error)
              _LOG.warning('%s: failed: %s', case.key, error)
    finally:
      for worker in workers.values():
        worker.close()
    self.results += [
        Result(case, [], 0, '', errors[case.key]) if case.key in errors else
        Result(case, seconds[case.key], peaks[case.key],
               workers[case.key].prepared['detail'], None) for case in cases]


# --- Environments ----------------------------------------------------------


def find_pythons(wanted: Sequence[str]) -> Dict[str, str]:
  """Finds the interpreters of environments; says which are missing.

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
    path = path or os.path.join(_ROOT, '.venvs', name, 'bin', 'python')
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
  """Returns the cases.Group of names; without names all.

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
