"""What this machine can run of the suite, and what to do next.

Facts are gathered where they are known: of environments by scripts/setup.sh, of
the data set by the script that downloads it, of the published files by the list
of their checksums. Needs no package, and no more than Python 3.6.
"""
import ctypes
import glob
import json
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
from deeplab import machine
from deeplab import memory
from deeplab.data import download

_GIB = 2 ** 30
_DOWNLOAD = 'download_and_convert_ade20k.sh'
# States of an environment, of scripts/setup.sh.
READY, UNTESTED, OUTDATED, MISSING = 'ready', 'untested', 'outdated', 'missing'
_STATE_TEXTS = {
    READY: 'ready',
    UNTESTED: 'ready, but for what tests need',
    OUTDATED: 'not usable: unfinished, moved, or made for other requirements',
    MISSING: 'not made yet'}
# Folders of ADE20K by split, and the pattern of their files.
_FOLDERS = {'training': 'train', 'validation': 'val'}
_FILES = {'images': '.jpg', 'annotations': '.png'}
# Memory below which training at the documented size is killed.
_LEAST_MEMORY = 4 * _GIB


class Environment(NamedTuple):
  """One of environment.ENVIRONMENTS, as scripts/setup.sh --state says."""
  name: str
  # READY, UNTESTED, OUTDATED or MISSING.
  state: str
  # The TensorFlow that it has, or would have.
  tensorflow: str
  # Version of its Python; '-': there is none that runs.
  python: str
  # Version and path of the Python that it would be made from; '-': none found.
  base: str
  base_path: str
  # The versions that would do, in words.
  wanted: str

  @property
  def runs(self) -> bool:
    """Whether scripts run in it."""
    return self.state in (READY, UNTESTED)


class DataSet(NamedTuple):
  """What there is of ADE20K in a folder."""
  folder: str
  # By 'images/training' and so on: (files found, files expected).
  counts: Dict[str, Tuple[int, int]]
  # Where TFRecords are, or would be.
  records_dir: str
  # By split: (pairs that its description names, or None; shards; complete).
  records: Dict[str, Tuple[Optional[int], int, bool]]
  # Bytes that downloading, unpacking and converting would take from here on.
  missing_bytes: float
  free_bytes: int

  @property
  def has_pairs(self) -> bool:
    """Whether all images and labels are there."""
    return all(found == wanted for found, wanted in self.counts.values())

  @property
  def has_records(self) -> bool:
    """Whether both splits are there as TFRecords."""
    return all(complete for _, _, complete in self.records.values())


class Published(NamedTuple):
  """The published files, held against their checksums."""
  folder: str
  verified: List[str]
  missing: List[str]
  # There, but another content.
  damaged: List[str]


class Step(NamedTuple):
  """What to do."""
  why: str
  # For bash, in the repository's folder.
  command: str


class Findings(NamedTuple):
  """All that was found."""
  # By name, in the order of the page.
  machine: Dict[str, str]
  # One line each: what keeps something from running.
  problems: List[str]
  environments: List[Environment]
  # By environment: whether it would use the GPU, and why or why not.
  gpu: Dict[str, Tuple[bool, str]]
  data: DataSet
  published: Published
  steps: List[Step]
  # Whether anything of the suite runs here, once the steps are done.
  usable: bool


# --- Gathering -------------------------------------------------------------


def examine(root: str, data_dir: str, published_dir: str) -> Findings:
  """Finds out all that there is to know; takes some seconds.

  Args:
    root: the repository.
    data_dir: folder of ADE20K, or the one that the download is in.
    published_dir: folder with the published files.

  Returns:
    Findings.

  Raises:
    InputError: the repository lacks what is asked there.
  """
  environments, problem = environments_of(root)
  gpus, no_gpu = machine.gpus()
  extensions = machine.vector_extensions()
  available = memory.available_bytes()
  blocking = ([problem] if problem else []) + _blocking(extensions)
  problems = list(blocking)
  if available is not None and available < _LEAST_MEMORY:
    problems.append('{} of memory available: training wants {} or more'.format(
        _gib(available), _gib(_LEAST_MEMORY)))
  data = data_set(data_dir)
  published = published_files(root, published_dir)
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
  usable = not blocking and any(
      found.runs or found.base != '-' for found in environments)
  findings = Findings(
      machine=facts, problems=problems, environments=environments,
      gpu={found.name: gpu_of(root, found, gpus) for found in environments},
      data=data, published=published, steps=[], usable=usable)
  return findings._replace(steps=next_steps(findings))


def _blocking(extensions):
  """Returns what keeps TensorFlow from running here at all, a line each."""
  if sys.platform != 'linux':
    return ['the system is {}: the suite is for Linux'.format(sys.platform)]
  if extensions and 'avx' not in extensions:
    return ['the processor has no AVX: TensorFlow cannot start']
  return []


def environments_of(root: str) -> Tuple[List[Environment], Optional[str]]:
  """Asks scripts/setup.sh.

  Returns:
    (environments, what it complains of or None).
  """
  try:
    done = subprocess.run(
        ['bash', os.path.join(root, 'scripts', 'setup.sh'), '--state'],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        universal_newlines=True)
  except OSError as error:
    return [], errors.of_system(error)
  if done.returncode:
    return [], done.stderr.strip().split('\n')[0]
  return [Environment(*line.split('\t'))
          for line in done.stdout.splitlines()], None


def gpu_of(root: str, found: Environment,
           gpus: List[machine.Gpu]) -> Tuple[bool, str]:
  """Says whether an environment would use a GPU.

  Args:
    root: the repository.
    found: the environment.
    gpus: of machine.gpus; the first one decides.

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
  libraries = ['libcudart.so.' + version, 'libcudart.so.' + version.split(
      '.')[0]]
  for library in libraries[:1] if version.startswith('10.') else libraries:
    try:
      ctypes.CDLL(library)
      return True
    except OSError:
      pass
  return False


def data_set(folder: str) -> DataSet:
  """Counts what there is of ADE20K.

  Args:
    folder: ADE20K, or the folder of that script's outputs.
  """
  inner = os.path.join(folder, download.DATA)
  pairs = inner if os.path.isdir(inner) else folder
  counts = {
      '{}/{}'.format(kind, split): (
          _count(os.path.join(pairs, kind, split), ending),
          download.ADE20K_PAIRS[split])
      for split in _FOLDERS for kind, ending in _FILES.items()}
  # A folder of records that somebody made elsewhere is one, too.
  has_shards = any(glob.glob(os.path.join(
      folder, split + '-*.tfrecord')) for split in contract.SPLITS)
  records_dir = folder if has_shards else os.path.join(folder, download.RECORDS)
  records = {split: _records(records_dir, split) for split in contract.SPLITS}
  result = DataSet(
      folder=folder, counts=counts, records_dir=records_dir, records=records,
      missing_bytes=0,
      free_bytes=shutil.disk_usage(_existing(folder)).free)
  has_archive = os.path.isfile(os.path.join(folder, download.ZIP))
  missing = [has_archive or result.has_pairs, result.has_pairs,
             result.has_records].count(False)
  return result._replace(missing_bytes=missing * download.ADE20K_BYTES)


def _count(folder, ending):
  try:
    return sum(name.endswith(ending) for name in os.listdir(folder))
  except OSError:
    return 0


def _records(folder, split):
  """Returns (pairs described or None, shards there, whether that is all)."""
  shards = sum(os.path.isfile(os.path.join(
      folder, contract.shard_name(split, index)))
               for index in range(contract.NUM_SHARDS))
  try:
    with open(os.path.join(folder, contract.description_name(split)),
              encoding='utf-8') as description:
      pairs = int(json.load(description)['pairs'])
  except (OSError, ValueError, KeyError, TypeError):
    pairs = None
  return pairs, shards, (
      pairs is not None and shards == contract.NUM_SHARDS and
      not os.path.exists(os.path.join(folder, contract.incomplete_name(split))))


def published_files(root: str, folder: str) -> Published:
  """Holds the published files against the list of their checksums.

  Args:
    root: the repository, which has the list.
    folder: where the files are, as in checkpoints/ of the repository.
  """
  found = Published(folder, [], [], [])
  for name, checksum in download.published(os.path.join(
      root, 'checkpoints', 'git-blob-sha1.txt')).items():
    path = os.path.join(folder, name)
    if not os.path.isfile(path):
      found.missing.append(name)
    elif download.blob_sha1_of(path) == checksum:
      found.verified.append(name)
    else:
      found.damaged.append(name)
  return found


# --- What to do ------------------------------------------------------------


def next_steps(findings: Findings) -> List[Step]:
  """Returns what to do, in order; commands are for the repository's folder."""
  if not findings.usable:
    return [Step(
        'get what is missing; this says how', './scripts/setup.sh all')]
  steps = []
  makeable = [found.name for found in findings.environments
              if not found.runs and found.base != '-']
  running = [found.name for found in findings.environments if found.runs]
  if makeable:
    every = len(makeable) == len(findings.environments)
    steps += [Step('make the environment' + ('s' if every else ' ' + name),
                   './scripts/setup.sh ' + ('all' if every else name))
              for name in (['all'] if every else makeable)]
  for found in findings.environments:
    if found.state == UNTESTED:
      steps.append(Step('install what tests need into ' + found.name,
                        './scripts/setup.sh ' + found.name))
  steps += _gpu_steps(findings)
  steps.append(Step('try every step on painted images; no data set needed',
                    './scripts/demo.sh'))
  published, data = findings.published, findings.data
  if published.missing or published.damaged:
    steps.append(Step('get the published models, verified',
                      './scripts/fetch_checkpoints.sh'))
  if not data.has_records:
    steps.append(Step(
        'get ADE20K and make TFRecords of it: {:.1f} GB more, {:.1f} GB are '
        'free{}'.format(data.missing_bytes / 1e9, data.free_bytes / 1e9,
                        '' if data.missing_bytes < data.free_bytes else
                        ': TOO LITTLE'), './' + _DOWNLOAD))
  # Those that evaluate checkpoints; before any is made, the first one.
  names = [name for name in running or makeable if name != 'tf2'] or ['tf1']
  steps.append(Step(
      'evaluate the published float checkpoint',
      '.venvs/{}/bin/python eval.py --checkpoint_dir=checkpoints/float '
      '--max_number_of_evaluations=1 --dataset_dir={} --eval_logdir=log '
      '--min_resize_value=512 --max_resize_value=512 --resize_factor=16 '
      '--output_stride=16 --decoder_output_stride=4'.format(
          names[0], shlex.quote(data.records_dir))))
  return steps


def _gpu_steps(findings):
  for found in findings.environments:
    uses, why = findings.gpu[found.name]
    if found.name == 'modern' and not uses and 'not installed' in why:
      yield Step(
          'add CUDA to modern', '.venvs/modern/bin/python -m pip install '
          "'tensorflow[and-cuda]=={}'".format(found.tensorflow))


# --- The page --------------------------------------------------------------


def page(findings: Findings, root: str) -> str:
  """Lays the findings out for people, without a final newline.

  Args:
    findings: of examine.
    root: the repository, where the commands are to be run.
  """
  lines = ['machine']
  lines += _rows(findings.machine.items())
  lines += ['', 'environments']
  lines += _rows((found.name, _environment_text(found))
                 for found in findings.environments)
  lines += ['', 'GPU, by environment']
  lines += _rows((name, why) for name, (_, why) in findings.gpu.items())
  data = findings.data
  lines += ['', 'ADE20K in ' + data.folder]
  lines += _rows([(name, '{} of {} files'.format(*count))
                  for name, count in data.counts.items()] +
                 [(name + ' records', _records_text(*facts))
                  for name, facts in data.records.items()])
  published = findings.published
  total = sum(map(len, published[1:]))
  lines += ['', 'published models in ' + published.folder]
  lines += _rows([('verified', '{} of {} files'.format(
      len(published.verified), total))] + [
          ('DAMAGED', name) for name in published.damaged])
  if findings.problems:
    lines += ['', 'problems'] + ['  ' + text for text in findings.problems]
  lines += ['', 'next, in ' + root]
  for number, step in enumerate(findings.steps, 1):
    lines += ['  {}. {}:'.format(number, step.why), '     ' + step.command]
  lines += ['', 'this machine can run the suite' if findings.usable else
            'this machine cannot run the suite as it is']
  return '\n'.join(lines)


def _rows(items):
  return ['  {:<22} {}'.format(name, text) for name, text in items]


def _environment_text(found):
  text = 'TensorFlow {}: {}'.format(
      found.tensorflow, _STATE_TEXTS[found.state])
  if found.runs:
    return '{} (Python {})'.format(text, found.python)
  if found.base == '-':
    return '{}; found no Python {}'.format(text, found.wanted)
  return '{}; can be made with {}'.format(text, found.base_path)


def _records_text(pairs, shards, complete):
  if complete:
    return '{} pairs in {} shards'.format(pairs, shards)
  return 'none' if not shards and pairs is None else (
      'incomplete: {} of {} shards{}'.format(
          shards, contract.NUM_SHARDS, '' if pairs is not None else
          ', without a description'))


def to_json(findings: Findings) -> Dict[str, Any]:
  """Returns the findings as a dict that json can write."""
  content = dict(findings._asdict())
  content['environments'] = [dict(found._asdict(), runs=found.runs)
                             for found in findings.environments]
  content['data'] = dict(findings.data._asdict(),
                         has_pairs=findings.data.has_pairs,
                         has_records=findings.data.has_records)
  content['published'] = dict(findings.published._asdict())
  content['steps'] = [dict(step._asdict()) for step in findings.steps]
  return content


# --- Small things ----------------------------------------------------------


def _gib(bytes_):
  return '{:.1f} GiB'.format(bytes_ / _GIB)


def _numbers(version):
  """Returns '535.104.05' as (535, 104, 5); () for what is no version."""
  return tuple(map(int, re.findall(r'\d+', version)))


def _existing(folder):
  """Returns the nearest folder above a path that is there."""
  folder = os.path.abspath(folder)
  while not os.path.isdir(folder):
    folder = os.path.dirname(folder)
  return folder
