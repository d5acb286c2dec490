"""Runs cases: one process each, those of a group asked in turn.

The turns matter: where the machine becomes slower for a while, it does so for
all that is compared. A process of its own gives each case its own peak memory.
"""
import json
import logging
import os
import statistics
import subprocess
import time
from typing import IO, Any, Dict, List, NamedTuple, Optional, Sequence, cast

from deeplab.benchmark import cases as cases_lib
from deeplab.errors import InputError
from deeplab.errors import option

_LOG = logging.getLogger(__name__)
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
_PATIENCE_SECS = 20


class WorkError(Exception):
  """A worker's work failed; the message is what it said last."""


class Result(NamedTuple):
  """What became of a case."""
  case: cases_lib.Case
  # For each item, one a round; none where the case failed.
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
    """Starts it.

    Args:
      python: the environment's interpreter.
      job: as in worker._prepare.
      log_path: file for what it prints.
    """
    self._log_path = log_path
    with open(log_path, 'wb') as log:
      self._process = subprocess.Popen(
          [python, '-m', 'deeplab.benchmark.worker'], cwd=_ROOT, stderr=log,
          stdin=subprocess.PIPE, stdout=subprocess.PIPE,
          universal_newlines=True)
    self.pid = self._process.pid
    # None only where they are no pipes.
    self._questions = cast(IO[str], self._process.stdin)
    self._answers = cast(IO[str], self._process.stdout)
    self.prepared = self.ask(json.dumps(job))

  def ask(self, line: str) -> Dict[str, Any]:
    """Sends a line and returns the answer, a dict.

    Raises:
      WorkError: where the process ended instead.
    """
    try:
      self._questions.write(line + '\n')
      self._questions.flush()
    except BrokenPipeError:
      pass  # nor will there be an answer
    answer = self._answers.readline()
    if not answer:
      self.close()
      raise WorkError(_last_words(self._log_path))
    return json.loads(answer)

  def close(self) -> None:
    """Ends the process, however far it is."""
    try:
      self._questions.close()
    except BrokenPipeError:
      pass  # what was left to send has no reader any more
    try:
      self._process.wait(_PATIENCE_SECS)
    except subprocess.TimeoutExpired:
      self._process.kill()
      self._process.wait()
    self._answers.close()


def _last_words(log_path):
  with open(log_path, encoding='utf-8', errors='replace') as log:
    lines = [line.strip() for line in log if line.strip()]
  return lines[-1] if lines else 'ended without a word'


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
    self._pythons = pythons
    self._sizes = sizes
    self._rounds = rounds
    self._folder = folder
    self._workers = 0
    # Why a file could not be made, by its name.
    self._failed: Dict[str, str] = {}
    self.versions: Dict[str, Dict[str, str]] = {}
    self.results: List[Result] = []

  def run(self, groups: Sequence[cases_lib.Group]) -> None:
    """Measures groups of cases, one after the other; fills `results`.

    Args:
      groups: sequence of cases.Group.
    """
    groups = [group for group in groups
              if cases_lib.cases_of(group, self._pythons)]
    for name in cases_lib.files_for(groups):
      self._make_file(name)
    for group in groups:
      missing = [self._failed[name] for name in group.files
                 if name in self._failed]
      if missing:
        _LOG.warning('%s: left out: %s', group.name, missing[0])
        continue
      self._run_group(group)

  def _start(self, environment, work, settings):
    """Returns a Worker that has prepared its work."""
    self._workers += 1
    log_path = os.path.join(
        self._folder, 'log-{:03d}.txt'.format(self._workers))
    worker = Worker(self._pythons[environment], {
        'work': work, 'settings': settings, 'folder': self._folder,
        'sizes': self._sizes._asdict()}, log_path)
    self.versions[environment] = worker.prepared['versions']
    return worker

  def _make_file(self, name):
    """Makes one of cases.FILES, or remembers why that did not work."""
    started = time.time()
    file = cases_lib.FILES[name]
    able = [each for each in file.environments if each in self._pythons]
    missing = [self._failed[source] for source in file.files
               if source in self._failed]
    if missing or not able:
      self._failed[name] = missing[0] if missing else (
          'the {} can be made in {} alone'.format(
              name, ' or '.join(file.environments)))
      return
    try:
      self._start(able[0], file.work, file.settings).close()
      _LOG.info('%s: made in %s, %.0f s', name, able[0], time.time() - started)
    except WorkError as error:
      self._failed[name] = 'the {} cannot be made in {}: {}'.format(
          name, able[0], error)

  def _run_group(self, group):
    """Measures a group's cases in turn."""
    cases = cases_lib.cases_of(group, self._pythons)
    workers: Dict[str, Worker] = {}
    seconds: Dict[str, List[float]] = {}
    errors: Dict[str, str] = {}
    try:
      for case in cases:
        try:
          workers[case.key] = self._start(
              case.environment, case.work, case.settings)
          seconds[case.key] = []
        except WorkError as error:
          errors[case.key] = str(error)
      for number in range(min(self._rounds, group.rounds or self._rounds)):
        for key, worker in list(workers.items()):
          try:
            seconds[key].append(worker.ask('measure')['seconds'])
          except WorkError as error:
            errors[key] = str(error)
            del workers[key]
            continue
          _LOG.info('%s, round %d: %.4g s/%s', key, number + 1,
                    seconds[key][-1], group.item)
      for case in cases:
        self._finish(case, workers.get(case.key), seconds.get(case.key),
                     errors.get(case.key))
    finally:
      for worker in workers.values():
        worker.close()

  def _finish(self, case, worker, seconds, error):
    """Adds a case's Result."""
    if error:
      _LOG.warning('%s: failed: %s', case.key, error)
      self.results.append(Result(case, [], 0, '', error))
      return
    self.results.append(Result(
        case, seconds, worker.ask('peak')['peak_bytes'],
        worker.prepared['detail'], None))


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
  found, missing = {}, []
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
      missing.append('{} ({}: no such file)'.format(name, path))
  if not found:
    raise InputError(
        '{}: none found; run ./scripts/setup.sh {}',
        option('environments', wanted),
        wanted[0] if wanted else cases_lib.ENVIRONMENTS[0])
  for line in missing:
    _LOG.warning('left out: %s', line)
  return found


def find_groups(names: Sequence[str]) -> List[cases_lib.Group]:
  """Returns the cases.Group of names, all where there is none.

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
