"""Checks what this machine can run, and suggests the next commands.

scripts/setup.sh lists the environments. Needs only Python 3.6 and no package.
"""
import ctypes
import glob
import os
import re
import shlex
import shutil
import subprocess
import sys
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from deeplab import constants
from deeplab import errors
from deeplab.data import download
from deeplab.system import environment
from deeplab.system import hardware
from deeplab.system import memory

_GIB = 2 ** 30
# States of an environment, from scripts/setup.sh, in words.
_STATES = {
    'ready': 'ready',
    'untested': 'ready, but for what tests need',
    'outdated': 'not usable: unfinished, moved, or made for other requirements',
    'missing': 'not made yet'}
_SETUP_SECONDS = 120
# With less memory, training at the documented size is killed.
_LEAST_MEMORY = 4 * _GIB
_VERIFIED = 'verified'

# Fields of a line of scripts/setup.sh --state. 'tensorflow': the version that
# the environment has or would have. 'python': its Python version ('-': none
# runs). 'base', 'base_path': the Python to build it from ('-': none found).
# 'wanted': a description of the Python versions allowed.
_FIELDS = ('name', 'state', 'tensorflow', 'python', 'base', 'base_path',
           'wanted')
# Findings are dicts and lists, as printed by --json.
Findings = Dict[str, Any]


def examine(root: str, data_dir: str, published_dir: str) -> Findings:
  """Examines this machine; takes some seconds.

  Args:
    root: the repository.
    data_dir: folder with ADE20K or its TFRecords.
    published_dir: folder of the published files.

  Returns:
    Dict of 'sections' (texts by name, by title), 'problems' (a line for each),
    'usable' (whether the suite runs here after the steps), 'runs' (whether it
    does now) and 'steps' (from next_steps).

  Raises:
    InputError: the repository lacks its list of published files.
  """
  environments, problem = environments_of(root)
  gpus, no_gpu = hardware.gpus()
  available = memory.available_bytes()
  problems = ([problem] if problem else []) + _obstacles()
  usable = not problems and any(
      found['runs'] or found['base'] != '-' for found in environments)
  if available is not None and available < _LEAST_MEMORY:
    problems.append('{:.1f} GiB of memory available: training wants {:.1f} GiB '
                    'or more'.format(available / _GIB, _LEAST_MEMORY / _GIB))
  gpu = {found['name']: gpu_of(root, found, gpus, no_gpu or '')[1]
         for found in environments}
  data = data_set(data_dir)
  published = download.state_of_published(published_dir)
  damaged = {name: 'DAMAGED' for name, state in published.items()
             if state not in (_VERIFIED, 'missing')}
  verified = list(published.values()).count(_VERIFIED)
  return {
      'sections': {
          'machine': dict(hardware.describe(), **{
              'free disk': '{:.1f} GB'.format(data.free_bytes / 1e9)}),
          'environments': {found['name']: _environment_text(found)
                           for found in environments},
          'GPU, by environment': gpu,
          'ADE20K in ' + data_dir: {
              name: '{} of {} files'.format(*count)
              for name, count in data.counts.items()},
          'published models': dict(damaged, verified='{} of {} files'.format(
              verified, len(published)))},
      'problems': problems, 'usable': usable,
      'runs': any(found['runs'] for found in environments),
      'steps': next_steps(environments, gpu, data,
                          verified == len(published)) if usable else [
                              {'why': 'get what is missing; this says how',
                               'command': './scripts/setup.sh all'}]}


def _obstacles():
  """Returns why the suite cannot run on this machine: a line for each."""
  extensions, found = hardware.vector_extensions(), []
  if sys.platform != 'linux':
    found.append('the system is {}: the suite is for Linux'.format(
        sys.platform))
  if extensions and 'avx' not in extensions:
    found.append('the processor has no AVX: TensorFlow cannot start')
  return found


def environments_of(
    root: str) -> Tuple[List[Dict[str, Any]], Optional[str]]:
  """Reads the environments from scripts/setup.sh.

  Returns:
    (environments, error or None). Environments are dicts of _FIELDS and 'runs',
    whether scripts run in it.
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
  environments: List[Dict[str, Any]] = [
      dict(zip(_FIELDS, line.split('\t')))
      for line in done.stdout.splitlines()]
  for found in environments:
    found['runs'] = found['state'] in ('ready', 'untested')
  return environments, None


def gpu_of(root: str, found: Dict[str, Any], gpus: List[hardware.Gpu],
           no_gpu: str = '') -> Tuple[bool, str]:
  """Checks whether an environment would use the first GPU.

  Args:
    root: the repository.
    found: the environment.
    gpus: from hardware.gpus.
    no_gpu: why there is none.

  Returns:
    (whether it would, reason).
  """
  cuda = environment.CUDA[found['name']]
  if cuda is None:
    return False, 'TensorFlow {} is built without CUDA: processor only'.format(
        found['tensorflow'])
  needs = 'CUDA {}, driver {} or newer'.format(
      cuda.version, '.'.join(map(str, cuda.driver)))
  if not gpus:
    return False, 'no GPU ({}); one needs {}'.format(no_gpu, needs)
  gpu = gpus[0]
  if _numbers(gpu.driver) < cuda.driver:
    return False, 'driver {} is too old; needs {}'.format(gpu.driver, needs)
  capability = _numbers(gpu.capability)
  if capability and not (
      cuda.first <= capability and (
          cuda.last is None or capability <= cuda.last)):
    return False, 'has no kernels for {} (compute capability {})'.format(
        gpu.name, gpu.capability)
  if not _has_cuda(root, found['name'], cuda.version):
    return False, 'the libraries of CUDA {} are not installed'.format(
        cuda.version)
  return True, 'uses {}'.format(gpu.name)


def _has_cuda(root, name, version):
  """Returns whether TensorFlow would find CUDA in packages or on the system."""
  if glob.glob(os.path.join(root, '.venvs', name, 'lib', 'python*',
                            'site-packages', 'nvidia', 'cuda_runtime')):
    return True
  for ending in (version, version.split('.')[0]):
    try:
      ctypes.CDLL('libcudart.so.' + ending)
      return True
    except OSError:
      pass
  return False


class DataSet(NamedTuple):
  """The parts of ADE20K that were found."""
  # Numbers of files found and expected, by 'images/training' and so on, and by
  # 'train records'.
  counts: Dict[str, Tuple[int, int]]
  has_pairs: bool
  has_records: bool
  # Folder for TFRecords.
  records_dir: str
  # Disk space needed to download, unpack and convert, and what is free.
  missing_bytes: float
  free_bytes: int


def data_set(folder: str) -> DataSet:
  """Counts the files in a folder of the download, of pairs, or of TFRecords."""
  def count(*pattern):
    return len(glob.glob(os.path.join(*pattern)))

  escaped = glob.escape(folder)
  pairs = os.path.join(escaped, download.DATA) if (
      os.path.isdir(os.path.join(folder, download.DATA))) else escaped
  counts = {
      '{}/{}'.format(kind, split): (
          count(pairs, kind, split, '*' + ending), expected)
      for split, expected in download.ADE20K_PAIRS.items()
      for kind, ending in (('images', '.jpg'), ('annotations', '.png'))}
  records_dir = folder if count(escaped, '*-*.tfrecord') else os.path.join(
      folder, download.RECORDS)
  records = {split + ' records': _records(records_dir, split)
             for split in constants.SPLITS}
  has_pairs, has_records = (
      all(found == expected for found, expected in each.values())
      for each in (counts, records))
  has_archive = os.path.isfile(os.path.join(folder, download.ZIP))
  existing = os.path.abspath(folder)
  while not os.path.isdir(existing):
    existing = os.path.dirname(existing)
  return DataSet(
      dict(counts, **records), has_pairs, has_records, records_dir,
      download.ADE20K_BYTES * [
          has_archive or has_pairs, has_pairs, has_records].count(False),
      shutil.disk_usage(existing).free)


def _records(folder, split):
  """Returns the numbers of files of a split found, 0 if unusable, and expected.

  They are the shards and their description.
  """
  names = [constants.shard_name(split, index)
           for index in range(constants.NUM_SHARDS)]
  names.append(constants.description_name(split))
  if os.path.exists(os.path.join(folder, constants.incomplete_name(split))):
    return 0, len(names)
  return sum(os.path.isfile(os.path.join(folder, name))
             for name in names), len(names)


def next_steps(environments: List[Dict[str, Any]], gpu: Dict[str, str],
               data: DataSet, has_published: bool) -> List[Dict[str, str]]:
  """Returns the next steps in order: dicts of 'why' and 'command'.

  The commands are for bash, in the repository's folder.
  """
  steps: List[Dict[str, str]] = []

  def add(why, command):
    steps.append({'why': why, 'command': command})

  makeable = [found['name'] for found in environments
              if not found['runs'] and found['base'] != '-']
  running = [found['name'] for found in environments if found['runs']]
  if len(makeable) == len(environments):
    add('make the environments', './scripts/setup.sh all')
  else:
    for name in makeable:
      add('make the environment ' + name, './scripts/setup.sh ' + name)
  for found in environments:
    name = found['name']
    if found['state'] == 'untested':
      add('install what tests need into ' + name, './scripts/setup.sh ' + name)
    if name == 'modern' and 'not installed' in gpu[name]:
      add('add CUDA to modern', '.venvs/modern/bin/python -m pip install '
          "'tensorflow[and-cuda]=={}'".format(found['tensorflow']))
  add('try every step on painted images; no data set needed',
      './scripts/demo.sh')
  if not has_published:
    add('get the published models, verified', './scripts/fetch_checkpoints.sh')
  if not data.has_records:
    add('get ADE20K and make TFRecords of it: {:.1f} GB more, {:.1f} GB are '
        'free{}'.format(
            data.missing_bytes / 1e9, data.free_bytes / 1e9,
            '' if data.missing_bytes < data.free_bytes else ': TOO LITTLE'),
        './download_and_convert_ade20k.sh')
  # The tf2 environment does not evaluate checkpoints.
  names = [name for name in running or makeable if name != 'tf2'] or ['tf1']
  add('evaluate the published float checkpoint',
      '.venvs/{}/bin/python eval.py --checkpoint_dir=checkpoints/float '
      '--max_number_of_evaluations=1 --dataset_dir={} --eval_logdir=log '
      '--min_resize_value=512 --max_resize_value=512 --resize_factor=16 '
      '--output_stride=16 --decoder_output_stride=4'.format(
          names[0], shlex.quote(data.records_dir)))
  return steps


def page(findings: Findings, root: str) -> str:
  """Returns the findings as human-readable text without a final newline.

  Args:
    findings: from examine.
    root: the repository, where the commands run.
  """
  lines = []
  for title, rows in findings['sections'].items():
    lines += [title] + [
        '  {:<22} {}'.format(*row) for row in rows.items()] + ['']
  if findings['problems']:
    lines += ['problems'] + [
        '  ' + text for text in findings['problems']] + ['']
  lines.append('next, in ' + root)
  for number, step in enumerate(findings['steps'], 1):
    lines += ['  {}. {}:'.format(number, step['why']),
              '     ' + step['command']]
  return '\n'.join(lines + ['', 'this machine ' + (
      'cannot run the suite as it is' if not findings['usable'] else
      'can run the suite' if findings['runs'] else
      'can run the suite once an environment is made; none is usable now')])


def _environment_text(found):
  text = 'TensorFlow {}: {}'.format(
      found['tensorflow'], _STATES[found['state']])
  if found['runs']:
    return '{} (Python {})'.format(text, found['python'])
  if found['base'] == '-':
    return '{}; found no Python {}'.format(text, found['wanted'])
  return '{}; can be made with {}'.format(text, found['base_path'])


def _numbers(version):
  """Parses '535.104.05' to (535, 104, 5); (): no version."""
  return tuple(map(int, re.findall(r'\d+', version)))
