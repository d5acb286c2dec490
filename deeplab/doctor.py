"""What this machine can run of the suite, and the command to run next.

scripts/setup.sh says which environments there are. Needs no package, and no
more than Python 3.6.
"""
import ctypes
import glob
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from deeplab import contract
from deeplab import environment
from deeplab import errors
from deeplab import inputs
from deeplab import machine
from deeplab import memory
from deeplab.data import download

_GIB = 2 ** 30
# States of an environment, of scripts/setup.sh.
READY, UNTESTED, OUTDATED, MISSING = 'ready', 'untested', 'outdated', 'missing'
_STATE_TEXTS = {
    READY: 'ready',
    UNTESTED: 'ready, but for what tests need',
    OUTDATED: 'not usable: unfinished, moved, or made for other requirements',
    MISSING: 'not made yet'}
_SETUP_SECONDS = 120
# Training at the documented size is killed below it.
_LEAST_MEMORY = 4 * _GIB
_VERIFIED = 'verified'


class Environment(NamedTuple):
  """A line of scripts/setup.sh --state."""
  name: str
  # READY, UNTESTED, OUTDATED or MISSING.
  state: str
  # The TensorFlow that it has, or would have.
  tensorflow: str
  # Version of its Python; '-': there is none that runs.
  python: str
  # Version and path of the Python to make it from; '-': none found.
  base: str
  base_path: str
  # The versions of Python that would do, in words.
  wanted: str

  @property
  def runs(self) -> bool:
    """Whether scripts run in it."""
    return self.state in (READY, UNTESTED)


class DataSet(NamedTuple):
  """State of ADE20K in a folder."""
  folder: str
  # By 'images/training' and so on: (files found, files expected).
  counts: Dict[str, Tuple[int, int]]
  has_pairs: bool
  # Where TFRecords are, or would be.
  records_dir: str
  # By split: such as '3 pairs in 4 shards'.
  records: Dict[str, str]
  has_records: bool
  # Bytes that downloading, unpacking and converting would add.
  missing_bytes: float
  free_bytes: int


class Step(NamedTuple):
  """What to do."""
  why: str
  # For bash, in the repository's folder.
  command: str


class Findings(NamedTuple):
  """Everything on the page."""
  machine: Dict[str, str]
  # One line each: what keeps something from running.
  problems: List[str]
  environments: List[Environment]
  # By environment: whether it would use the GPU, and why or why not.
  gpu: Dict[str, Tuple[bool, str]]
  data: DataSet
  # By path of a published file: 'verified', 'missing' or 'another file'.
  published: Dict[str, str]
  steps: List[Step]
  # Whether the suite runs here, once the steps are done.
  usable: bool


def examine(root: str, data_dir: str, published_dir: str) -> Findings:
  """Examines this machine; takes some seconds.

  Args:
    root: the repository.
    data_dir: folder of ADE20K, or of its TFRecords.
    published_dir: folder of the published files.

  Raises:
    InputError: the repository lacks its list of published files.
  """
  environments, problem = environments_of(root)
  gpus, no_gpu = machine.gpus()
  extensions = machine.vector_extensions()
  available = memory.available_bytes()
  problems = [problem] if problem else []
  if sys.platform != 'linux':
    problems.append(
        'the system is {}: the suite is for Linux'.format(sys.platform))
  if extensions and 'avx' not in extensions:
    problems.append('the processor has no AVX: TensorFlow cannot start')
  usable = not problems and any(
      found.runs or found.base != '-' for found in environments)
  if available is not None and available < _LEAST_MEMORY:
    problems.append('{} of memory available: training wants {} or more'.format(
        _gib(available), _gib(_LEAST_MEMORY)))
  data = data_set(data_dir)
  facts = {
      'system': '{}, Python {}'.format(
          platform.platform(), platform.python_version()),
      'processor': machine.processor(),
      'cores': '{}, {} usable by this process'.format(
          os.cpu_count(), machine.usable_cores()),
      'vectors': ', '.join(extensions) or 'not known',
      'memory': _gib(machine.memory_bytes()) + (
          '' if available is None else ', {} available'.format(
              _gib(available))),
      'disk': '{:.1f} GB free for {}'.format(
          data.free_bytes / 1e9, data.folder),
      'GPU': '; '.join('{} ({}, driver {}{})'.format(
          gpu.name, gpu.memory, gpu.driver, gpu.capability and
          ', compute capability ' + gpu.capability) for gpu in gpus) or
             'none: {}'.format(no_gpu)}
  findings = Findings(
      facts, problems, environments,
      {found.name: gpu_of(root, found, gpus) for found in environments}, data,
      download.state_of_published(published_dir), [], usable)
  return findings._replace(steps=next_steps(findings))


def environments_of(root: str) -> Tuple[List[Environment], Optional[str]]:
  """Asks scripts/setup.sh.

  Returns:
    (environments, its error or None).
  """
  try:
    done = subprocess.run(
        ['bash', os.path.join(root, 'scripts', 'setup.sh'), '--state'],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        universal_newlines=True, timeout=_SETUP_SECONDS)
  except subprocess.TimeoutExpired as error:
    return [], str(error)
  except OSError as error:
    return [], errors.of_system(error)
  if done.returncode:
    return [], done.stderr.strip().split('\n')[0]
  return [Environment(*line.split('\t'))
          for line in done.stdout.splitlines()], None


def gpu_of(root: str, found: Environment,
           gpus: List[machine.Gpu]) -> Tuple[bool, str]:
  """Says whether an environment would use the first GPU.

  Args:
    root: the repository.
    found: the environment.
    gpus: of machine.gpus.

  Returns:
    (whether it would, why or why not).
  """
  cuda = environment.CUDA[found.name]
  if cuda is None:
    return False, 'TensorFlow {} is built without CUDA: processor only'.format(
        found.tensorflow)
  needs = 'CUDA {}, driver {} or newer'.format(
      cuda.version, '.'.join(map(str, cuda.driver)))
  if not gpus:
    return False, 'no GPU; one needs ' + needs
  gpu = gpus[0]
  if _numbers(gpu.driver) < cuda.driver:
    return False, 'driver {} is too old; needs {}'.format(gpu.driver, needs)
  capability = _numbers(gpu.capability)
  if capability and not (
      cuda.first <= capability and (
          cuda.last is None or capability <= cuda.last)):
    return False, 'has no kernels for {} (compute capability {})'.format(
        gpu.name, gpu.capability)
  if not _has_cuda(root, found.name, cuda.version):
    return False, 'the libraries of CUDA {} are not installed'.format(
        cuda.version)
  return True, 'uses {}'.format(gpu.name)


def _has_cuda(root, name, version):
  """Whether TensorFlow would find CUDA: as packages, or on the system."""
  if glob.glob(os.path.join(root, '.venvs', name, 'lib', 'python*',
                            'site-packages', 'nvidia', 'cuda_runtime')):
    return True
  libraries = ['libcudart.so.' + version]
  if not version.startswith('10.'):
    libraries.append('libcudart.so.' + version.split('.')[0])
  for library in libraries:
    try:
      ctypes.CDLL(library)
      return True
    except OSError:
      pass
  return False


def data_set(folder: str) -> DataSet:
  """Counts the files of ADE20K.

  Args:
    folder: ADE20K as the download makes it, its pairs, or TFRecords.
  """
  inner = os.path.join(folder, download.DATA)
  pairs = inner if os.path.isdir(inner) else folder
  counts = {}
  for split, expected in download.ADE20K_PAIRS.items():
    for kind, ending in (('images', '.jpg'), ('annotations', '.png')):
      name = '{}/{}'.format(kind, split)
      counts[name] = (len(glob.glob(os.path.join(
          glob.escape(pairs), kind, split, '*' + ending))), expected)
  has_pairs = all(found == expected for found, expected in counts.values())
  records_dir = folder if glob.glob(os.path.join(
      glob.escape(folder), '*-*.tfrecord')) else os.path.join(
          folder, download.RECORDS)
  records = {split: _records(records_dir, split) for split in contract.SPLITS}
  has_records = all(complete for _, complete in records.values())
  has_archive = os.path.isfile(os.path.join(folder, download.ZIP))
  existing = os.path.abspath(folder)
  while not os.path.isdir(existing):
    existing = os.path.dirname(existing)
  return DataSet(
      folder, counts, has_pairs, records_dir,
      {split: text for split, (text, _) in records.items()}, has_records,
      download.ADE20K_BYTES * [
          has_archive or has_pairs, has_pairs, has_records].count(False),
      shutil.disk_usage(existing).free)


def _records(folder, split):
  """Returns (text, whether all shards and their description are there)."""
  shards = sum(os.path.isfile(os.path.join(
      folder, contract.shard_name(split, index)))
               for index in range(contract.NUM_SHARDS))
  path = os.path.join(folder, contract.description_name(split))
  try:
    pairs = inputs.read_json(path, path, 'a description')['pairs']
  except (errors.InputError, OSError, LookupError, TypeError):
    pairs = None
  if not isinstance(pairs, int):
    pairs = None
  if pairs is not None and shards == contract.NUM_SHARDS and (
      not os.path.exists(
          os.path.join(folder, contract.incomplete_name(split)))):
    return '{} pairs in {} shards'.format(pairs, shards), True
  if not shards and pairs is None:
    return 'none', False
  return 'incomplete: {} of {} shards{}'.format(
      shards, contract.NUM_SHARDS,
      ', without a description' if pairs is None else ''), False


def next_steps(findings: Findings) -> List[Step]:
  """Returns what to do, in order; commands are for the repository's folder."""
  if not findings.usable:
    return [Step(
        'get what is missing; this says how', './scripts/setup.sh all')]
  steps = []
  makeable = [found.name for found in findings.environments
              if not found.runs and found.base != '-']
  running = [found.name for found in findings.environments if found.runs]
  if len(makeable) == len(findings.environments):
    steps.append(Step('make the environments', './scripts/setup.sh all'))
  else:
    steps += [Step('make the environment ' + name, './scripts/setup.sh ' + name)
              for name in makeable]
  for found in findings.environments:
    if found.state == UNTESTED:
      steps.append(Step('install what tests need into ' + found.name,
                        './scripts/setup.sh ' + found.name))
    if found.name == 'modern' and (
        'not installed' in findings.gpu[found.name][1]):
      steps.append(Step(
          'add CUDA to modern', '.venvs/modern/bin/python -m pip install '
          "'tensorflow[and-cuda]=={}'".format(found.tensorflow)))
  steps.append(Step('try every step on painted images; no data set needed',
                    './scripts/demo.sh'))
  if set(findings.published.values()) != {_VERIFIED}:
    steps.append(Step('get the published models, verified',
                      './scripts/fetch_checkpoints.sh'))
  data = findings.data
  if not data.has_records:
    steps.append(Step(
        'get ADE20K and make TFRecords of it: {:.1f} GB more, {:.1f} GB are '
        'free{}'.format(data.missing_bytes / 1e9, data.free_bytes / 1e9,
                        '' if data.missing_bytes < data.free_bytes else
                        ': TOO LITTLE'), './download_and_convert_ade20k.sh'))
  # tf2 does not evaluate checkpoints.
  names = [name for name in running or makeable if name != 'tf2'] or ['tf1']
  steps.append(Step(
      'evaluate the published float checkpoint',
      '.venvs/{}/bin/python eval.py --checkpoint_dir=checkpoints/float '
      '--max_number_of_evaluations=1 --dataset_dir={} --eval_logdir=log '
      '--min_resize_value=512 --max_resize_value=512 --resize_factor=16 '
      '--output_stride=16 --decoder_output_stride=4'.format(
          names[0], shlex.quote(data.records_dir))))
  return steps


def page(findings: Findings, root: str) -> str:
  """Returns the findings as text for people, without a final newline.

  Args:
    findings: of examine.
    root: the repository, where the commands are to be run.
  """
  data, published = findings.data, findings.published
  verified = list(published.values()).count(_VERIFIED)
  sections = [
      ('machine', list(findings.machine.items())),
      ('environments', [(found.name, _environment_text(found))
                        for found in findings.environments]),
      ('GPU, by environment', [
          (name, why) for name, (_, why) in findings.gpu.items()]),
      ('ADE20K in ' + data.folder, [
          (name, '{} of {} files'.format(*count))
          for name, count in data.counts.items()] + [
              (name + ' records', text)
              for name, text in data.records.items()]),
      ('published models', [
          (_VERIFIED, '{} of {} files'.format(verified, len(published)))] + [
              ('DAMAGED', name) for name, state in published.items()
              if state not in (_VERIFIED, 'missing')])]
  lines = []
  for title, rows in sections:
    lines += [title] + ['  {:<22} {}'.format(*row) for row in rows] + ['']
  if findings.problems:
    lines += ['problems'] + ['  ' + text for text in findings.problems] + ['']
  lines.append('next, in ' + root)
  for number, step in enumerate(findings.steps, 1):
    lines += ['  {}. {}:'.format(number, step.why), '     ' + step.command]
  runs = any(found.runs for found in findings.environments)
  return '\n'.join(lines + ['', 'this machine ' + (
      'cannot run the suite as it is' if not findings.usable else
      'can run the suite' if runs else
      'can run the suite once an environment is made; none is usable now')])


def _environment_text(found):
  text = 'TensorFlow {}: {}'.format(
      found.tensorflow, _STATE_TEXTS[found.state])
  if found.runs:
    return '{} (Python {})'.format(text, found.python)
  if found.base == '-':
    return '{}; found no Python {}'.format(text, found.wanted)
  return '{}; can be made with {}'.format(text, found.base_path)


def to_json(findings: Findings) -> Dict[str, Any]:
  """Returns the findings as a dict that json can write."""
  return dict(
      findings._asdict(),
      environments=[dict(found._asdict(), runs=found.runs)
                    for found in findings.environments],
      data=dict(findings.data._asdict()),
      steps=[dict(step._asdict()) for step in findings.steps])


def _gib(bytes_):
  return '{:.1f} GiB'.format(bytes_ / _GIB)


def _numbers(version):
  """Returns '535.104.05' as (535, 104, 5); () if it is no version."""
  return tuple(map(int, re.findall(r'\d+', version)))
