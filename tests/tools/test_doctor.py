"""Tests scripts/doctor.py: its findings and recommended commands."""
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from deeplab.data import download
from deeplab.system import environment
from deeplab.system import hardware
from deeplab.tools import doctor
from tests import readme
from tests import scripts

H100 = hardware.Gpu('NVIDIA H100', '535.104.05', '81559 MiB', '9.0')
T4 = hardware.Gpu('Tesla T4', '450.51.06', '15109 MiB', '')
NO_PYTHON = ('-', '-', '-')
PYTHON_37 = ('3.7.16', '3.7', '/usr/bin/python3.7')


@pytest.fixture
def root(tmp_path, monkeypatch):
  """A repository whose setup.sh prints states.txt, without a GPU."""
  root = tmp_path / 'repository'
  (root / 'scripts').mkdir(parents=True)
  (root / 'checkpoints').mkdir()
  (root / 'scripts' / 'setup.sh').write_text(
      'cat "$(dirname "$0")/states.txt"')
  monkeypatch.setattr(
      download, 'ADE20K_PAIRS', {'training': 2, 'validation': 1})
  monkeypatch.setattr(download, 'published', lambda: {
      'float/' + name: hashlib.sha1(
          b'blob %d\0' % len(content) + content).hexdigest()
      for name, content in (('a', b'published'), ('b', b'other'))})
  say(root, tf1=('missing',) + NO_PYTHON, tf2=('missing',) + NO_PYTHON,
      modern=('missing', '-', '3.11', '/usr/bin/python3.11'))
  return root


def say(root, **states):
  """Sets the states that setup.sh prints: (state, python, base, its path)."""
  (root / 'scripts' / 'states.txt').write_text(''.join(
      '\t'.join((name, state[0], '2.0') + state[1:] + ('3.9',)) + '\n'
      for name, state in states.items()))


@pytest.fixture
def examine(root, monkeypatch):
  monkeypatch.setattr(hardware, 'gpus', lambda: ([], 'none'))
  monkeypatch.setattr(hardware, 'vector_extensions', lambda: ['avx'])

  def examined(data=root / 'ADE20K'):
    return doctor.examine(str(root), str(data), str(root / 'checkpoints'))

  return examined


def commands_of(findings):
  """Returns the first word of each command, and what setup.sh creates."""
  commands = [step['command'].split(' ') for step in findings['steps']]
  return [' '.join(words[:2 if 'setup.sh' in words[0] else 1])
          for words in commands]


# --- The whole script ------------------------------------------------------


@pytest.mark.slow
def test_runs_on_a_python_without_packages():
  done = subprocess.run(
      [sys.executable, '-I', '-S', os.path.join(
          scripts.REPOSITORY, 'scripts', 'doctor.py'), '--json'],
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
      timeout=scripts.TIMEOUT_SECS)
  assert done.stderr == ''
  content = json.loads(done.stdout)
  assert done.returncode == (0 if content['usable'] else 1)
  found = content['sections']['environments']
  assert list(found) == list(environment.ENVIRONMENTS)
  for name, text in found.items():
    pinned = readme.read('requirements-{}.txt'.format(name))
    assert 'tensorflow=={}\n'.format(
        re.match('TensorFlow (.*?): ', text).group(1)) in pinned
  assert content['sections']['ADE20K in ADE20K']['images/training'].endswith(
      ' of 20210 files')
  assert content['sections']['machine']['processor']


def test_refuses_unknown_folders_and_flags():
  for argument, words in (
      ('--data=nowhere', '--data=nowhere: no such folder'),
      ('--checkpoints=nowhere', '--checkpoints=nowhere: no such folder'),
      ('--jsn', 'unrecognized arguments: --jsn')):
    assert words in scripts.refusal('scripts/doctor.py', argument)


def test_the_page_on_troubleshooting_starts_with_doctor(tmp_path):
  shell = readme.Shell(tmp_path)
  printed = shell.finished(shell.start_documented(
      'troubleshooting.md', 'python3 scripts/doctor.py'), status=None)
  assert printed.startswith('machine\n')
  assert '\nnext, in {}\n  1. '.format(scripts.REPOSITORY) in printed


# --- Environments and the machine ------------------------------------------


def test_a_machine_with_one_python_can_make_an_environment(examine):
  findings = examine()
  assert findings['usable'] and findings['problems'] == []
  assert commands_of(findings) == [
      './scripts/setup.sh modern', './scripts/demo.sh',
      './scripts/fetch_checkpoints.sh', './download_and_convert_ade20k.sh',
      '.venvs/modern/bin/python']
  page = doctor.page(findings, 'here')
  assert re.search('tf1 +TensorFlow 2.0: not made yet; found no Python 3.9',
                   page)
  assert '; can be made with /usr/bin/python3.11\n' in page
  assert page.endswith('\nthis machine can run the suite once an environment '
                       'is made; none is usable now')
  assert len(page.splitlines()) < 60


def test_without_any_python_setup_is_recommended(root, examine):
  say(root, tf1=('missing',) + NO_PYTHON, modern=('outdated',) + NO_PYTHON)
  findings = examine()
  assert not findings['usable']
  assert commands_of(findings) == ['./scripts/setup.sh all']
  assert doctor.page(findings, '').endswith(
      'this machine cannot run the suite as it is')


@pytest.mark.parametrize('states, first', [
    (('missing', 'outdated', 'missing'), ['./scripts/setup.sh all']),
    (('ready', 'outdated', 'ready'), ['./scripts/setup.sh tf2']),
    (('ready', 'ready', 'untested'), ['./scripts/setup.sh modern']),
    (('ready', 'ready', 'ready'), [])])
def test_missing_environments_are_recommended(root, examine, states, first):
  say(root, **{name: (state,) + PYTHON_37 for name, state in zip(
      environment.ENVIRONMENTS, states)})
  findings = examine()
  assert findings['usable']
  assert commands_of(findings)[:len(first) + 1] == first + [
      './scripts/demo.sh']
  page = doctor.page(findings, '')
  assert page.endswith('\nthis machine can run the suite' + (
      '' if 'ready' in states else
      ' once an environment is made; none is usable now'))
  assert ('TensorFlow 2.0: ready (Python 3.7.16)' in page) == (
      'ready' in states)


def test_errors_of_setup_are_reported(root, examine):
  (root / 'scripts' / 'setup.sh').write_text(
      'echo "ERROR setup.sh: DEEPLAB_PYTHON=x: bad" >&2; exit 2')
  findings = examine()
  assert not findings['usable']
  assert findings['problems'] == ['ERROR setup.sh: DEEPLAB_PYTHON=x: bad']
  assert '\nproblems\n  ERROR setup.sh' in doctor.page(findings, '')


def test_too_little_memory_and_a_missing_avx_are_reported(examine, monkeypatch):
  monkeypatch.setattr(doctor.memory, 'available_bytes', lambda: 2 ** 30)
  findings = examine()
  assert findings['usable']
  assert findings['problems'] == [
      '1.0 GiB of memory available: training wants 4.0 GiB or more']
  monkeypatch.setattr(hardware, 'vector_extensions', lambda: ['sse4_2'])
  findings = examine()
  assert not findings['usable'] and 'has no AVX' in findings['problems'][0]


# --- GPUs ------------------------------------------------------------------


@pytest.mark.parametrize('name, gpus, library, words', [
    ('tf1', [H100], None, 'is built without CUDA'),
    ('tf2', [], None, 'no GPU (); one needs CUDA 10.1, driver 418.39 or newer'),
    ('tf2', [H100], None,
     'has no kernels for NVIDIA H100 (compute capability 9.0)'),
    ('modern', [T4], None, 'driver 450.51.06 is too old; needs CUDA 12.5, '
     'driver 525.60.13 or newer'),
    ('modern', [H100], None, 'the libraries of CUDA 12.5 are not installed'),
    ('tf2', [T4], 'libcudart.so.10.1', 'uses Tesla T4'),
    ('modern', [H100], 'libcudart.so.12', 'uses NVIDIA H100'),
    ('modern', [H100], 'package', 'uses NVIDIA H100')])
def test_use_of_a_gpu_by_each_environment(
    tmp_path, monkeypatch, name, gpus, library, words):
  def load(asked):
    if asked != library:
      raise OSError

  monkeypatch.setattr(doctor.ctypes, 'CDLL', load)
  if library == 'package':
    (tmp_path / '.venvs/modern/lib/python3.11/site-packages/nvidia'
     / 'cuda_runtime').mkdir(parents=True)
  uses, why = doctor.gpu_of(str(tmp_path), {
      'name': name, 'tensorflow': '2.0'}, gpus)
  assert words in why and uses == (library is not None)


def test_cuda_is_recommended_if_it_is_missing(root, examine, monkeypatch):
  monkeypatch.setattr(hardware, 'gpus', lambda: ([H100], None))
  monkeypatch.setattr(doctor, '_has_cuda', lambda *_: False)
  step = examine()['steps'][1]
  assert step['command'] == ('.venvs/modern/bin/python -m pip install '
                          "'tensorflow[and-cuda]==2.0'")


@pytest.mark.parametrize('answer, expected', [
    ('echo "NVIDIA H100, 535.104.05, 81559 MiB, 9.0"', ([H100], None)),
    ('case "$1" in *compute_cap*) echo "no such field"; exit 2;; esac; '
     'echo "Tesla T4, 450.51.06, 15109 MiB"', ([T4], None)),
    ('echo "NVIDIA-SMI has failed"; exit 9',
     ([], 'nvidia-smi: NVIDIA-SMI has failed')),
    (None, ([], 'nvidia-smi is not there'))])
def test_gpus(tmp_path, monkeypatch, answer, expected):
  if answer:
    tool = tmp_path / 'nvidia-smi'
    tool.write_text('#!{}\n{}\n'.format(shutil.which('bash'), answer))
    tool.chmod(0o755)
  monkeypatch.setenv('PATH', str(tmp_path))
  assert hardware.gpus() == expected


def test_a_hanging_driver_times_out(tmp_path, monkeypatch):
  """A child of nvidia-smi keeps its output open."""
  tool = tmp_path / 'nvidia-smi'
  tool.write_text('#!{}\n{} 30 &\nwait\n'.format(
      shutil.which('bash'), shutil.which('sleep')))
  tool.chmod(0o755)
  monkeypatch.setenv('PATH', str(tmp_path))
  monkeypatch.setattr(hardware, '_GPU_SECONDS', 0.1)
  gpus, why = hardware.gpus()
  assert gpus == [] and 'timed out' in why


# --- The data set and the published files ----------------------------------


def add_pairs(folder):
  for split, names in (('training', 'ab'), ('validation', 'c')):
    for kind, ending in (('images', '.jpg'), ('annotations', '.png')):
      (folder / kind / split).mkdir(parents=True)
      for name in names:
        (folder / kind / split / (name + ending)).write_text('')


def add_records(folder):
  folder.mkdir(parents=True)
  for split in ('train', 'val'):
    (folder / (split + '.json')).write_text('')
    for index in range(4):
      (folder / '{}-0000{}-of-00004.tfrecord'.format(split, index)).write_text(
          '')


def test_missing_parts_of_the_data_set_need_space(root):
  ade20k = root / 'ADE20K'

  def missing():
    return doctor.data_set(str(ade20k)).missing_bytes / 1e9

  # The download script says 0.9 GB for each of its outputs.
  assert missing() == pytest.approx(2.7)
  ade20k.mkdir()
  (ade20k / 'ADEChallengeData2016.zip').write_text('')
  assert missing() == pytest.approx(1.8)
  pairs, records = ade20k / 'ADEChallengeData2016', ade20k / 'tfrecord'
  add_pairs(pairs)
  assert missing() == pytest.approx(0.9)
  add_records(records)
  assert missing() == 0
  # A folder of pairs or of records can be given directly.
  assert doctor.data_set(str(pairs)).has_pairs
  found = doctor.data_set(str(records))
  assert found.has_records and found.records_dir == str(records)


def test_counts_of_a_complete_data_set(root, examine):
  add_pairs(root / 'ADE20K' / 'ADEChallengeData2016')
  add_records(root / 'ADE20K' / 'tfrecord')
  findings = examine()
  assert './download_and_convert_ade20k.sh' not in commands_of(findings)
  page = doctor.page(findings, '')
  assert re.search(r'images/training +2 of 2 files', page)
  assert re.search(r'val records +5 of 5 files', page)
  assert '--dataset_dir={}/ADE20K/tfrecord '.format(root) in (
      findings['steps'][-1]['command'])


@pytest.mark.parametrize('damage, found', [
    ('train-00002-of-00004.tfrecord', 4), ('train.json', 4),
    ('train.INCOMPLETE', 0)])
def test_an_incomplete_data_set_is_not_used(root, examine, damage, found):
  folder = root / 'ADE20K' / 'tfrecord'
  add_records(folder)
  if found:
    (folder / damage).unlink()
  else:
    (folder / damage).write_text('')
  findings = examine()
  assert re.search('train records +{} of 5 files$'.format(found),
                   doctor.page(findings, ''), re.M)
  assert './download_and_convert_ade20k.sh' in commands_of(findings)


def test_a_full_disk_is_reported(root, examine, monkeypatch):
  monkeypatch.setattr(doctor.shutil, 'disk_usage', lambda unused: (
      shutil._ntuple_diskusage(10 ** 10, 9 * 10 ** 9, 10 ** 9)))
  assert '2.7 GB more, 1.0 GB are free: TOO LITTLE' in doctor.page(
      examine(), '')


def test_published_files_are_verified(root, examine):
  folder = root / 'checkpoints' / 'float'
  folder.mkdir()
  (folder / 'a').write_bytes(b'published')
  assert examine()['sections']['published models'] == {
      'verified': '1 of 2 files'}
  (folder / 'b').write_bytes(b'something else')
  findings = examine()
  assert re.search('float/b +DAMAGED', doctor.page(findings, ''))
  assert './scripts/fetch_checkpoints.sh' in commands_of(findings)
  (folder / 'b').write_bytes(b'other')
  assert './scripts/fetch_checkpoints.sh' not in commands_of(examine())


# --- Recommended commands --------------------------------------------------


def test_commands_can_be_copied(examine):
  for step in examine()['steps']:
    program, *arguments = readme.words_of(step['command'])
    if program.startswith('./'):
      assert os.access(os.path.join(scripts.REPOSITORY, program), os.X_OK)
    else:
      assert {argument[2:].split('=')[0] for argument in arguments[1:]} <= (
          scripts.flags_of(arguments[0]))


def test_names_with_blanks_are_quoted(root, examine):
  command = examine(root / 'my data')['steps'][-1]['command']
  assert '--dataset_dir={}/my data/tfrecord'.format(root) in (
      readme.words_of(command))
