"""Kills scripts, and fills or write-protects their disk.

Each script is killed at calls that change a folder (see tests.faults) and at
random moments. Readers must then see the old result, the new one or a one-line
error. The same command must then give what an undisturbed run gives.
DEEPLAB_FAULT_KILLS=20 kills each script 20 times in both ways, not once;
`pytest -s` prints the outcomes.
"""
import collections
import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from typing import Any, Callable, Dict, NamedTuple, Tuple

import pytest
import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab.checkpoints import find
from deeplab.checkpoints import read
from deeplab.config import options
from deeplab.data import png_folder
from deeplab.data import splits
from deeplab.data import synthetic
from deeplab.errors import InputError
from tests import faults
from tests import scripts

pytestmark = pytest.mark.extended

KILLS = int(os.environ.get('DEEPLAB_FAULT_KILLS', '1'))
CROP = 33
SHARED_SIZE = ['--min_resize_value={}'.format(CROP),
               '--max_resize_value={}'.format(CROP), '--resize_factor=16']
MODEL = ['--depth_multiplier=0.25', '--aspp_convs_filters=8',
         '--decoder_filters=8', '--decoder_output_stride=4',
         '--output_stride=8']


class Case(NamedTuple):
  """A script and its results in its working folder."""
  # The script and its arguments.
  words: Tuple[str, ...]
  # Function that maps the folder to a dict of what readers see, one value for
  # files that are published together. Raises InputError if readers refuse.
  read: Callable[[Any], Dict[str, Any]]
  # A script to run there first; (): none.
  older: Tuple[str, ...] = ()
  # Arguments to add for a run that produces all other values of `read`.
  all_states: Tuple[str, ...] = ()
  # Part of the error of a run that finds everything done.
  refusal: str = ''
  # Pattern of names that differ in every run.
  own_names: str = 'nothing'


# --- Inputs ----------------------------------------------------------------


class Inputs:
  """Small inputs, made when they are first needed."""

  def __init__(self, folder):
    self._folder = folder

  def _made(self, name, make):
    path = self._folder / name
    if not path.exists():
      make(path)
    return str(path)

  def pairs(self, seed):
    """Returns a data set with 5 training and 2 validation pairs."""
    return os.path.join(self._made('pairs{}'.format(seed), lambda path: (
        synthetic.make_dataset(options.SyntheticOptions(
            output_dir=str(path), train_images=5, val_images=2, long_side=64,
            seed=seed)))), synthetic.DATASET_FOLDER)

  def records(self):
    return self._made('records', lambda path: scripts.run(
        'build_ade20k_data.py', *build_words(self, 1)[1:-1],
        '--output_dir={}'.format(path)))


@pytest.fixture(scope='module')
def inputs(tmp_path_factory):
  return Inputs(tmp_path_factory.mktemp('inputs'))


# --- Cases -----------------------------------------------------------------


def sha1(path):
  return hashlib.sha1(path.read_bytes()).hexdigest() if path.exists() else None


def build_words(inputs, seed):
  pairs = inputs.pairs(seed)
  return ('build_ade20k_data.py',) + tuple(
      '--{}_image{}_folder={}'.format(
          split, part, os.path.join(pairs, kind, long))
      for split, long in (('train', 'training'), ('val', 'validation'))
      for part, kind in (('', 'images'), ('_label', 'annotations'))) + (
          '--output_dir=out',)


def records_in(folder):
  """Returns hashes of the records of both splits, as readers find them."""
  found = []
  for name in constants.SPLITS:
    split = splits.open_split(options.DatasetOptions(
        dataset_dir=str(folder), split=name, verify_records=True))
    found += [hashlib.sha1(data).hexdigest() for path in split.paths
              for data in tf.io.tf_record_iterator(path)]
  return found


def build(inputs):
  return Case(build_words(inputs, 1),
              lambda folder: {'records': records_in(folder / 'out')},
              older=build_words(inputs, 2))


def gen_words(inputs, crop):
  return ('gen_preprocessed_data.py', '--dataset_dir=' + inputs.records(),
          '--eval_split=train', '--preprocessed_dataset_dir=out',
          '--overwrite', '--eval_crop_size={0},{0}'.format(crop),
          '--min_resize_value={}'.format(crop),
          '--max_resize_value={}'.format(crop))


def images_in(folder):
  out = folder / 'out'
  return {'images': (
      [sha1(out / 'images' / os.path.basename(path))
       for path in png_folder.image_paths(str(out), 'test_dir')],
      [sha1(path) for path in sorted((out / 'annotations').iterdir())],
      png_folder.read_manifest(str(out)))}


def gen(inputs):
  return Case(gen_words(inputs, 49), images_in, older=gen_words(inputs, 33))


def train_words(inputs, steps, *more):
  return ('train.py', '--dataset_dir=' + inputs.records(), '--seed=1',
          '--training_number_of_steps={}'.format(steps),
          '--train_batch_size=2',
          '--train_crop_size={0},{0}'.format(CROP), '--save_interval_secs=0',
          '--fine_tune_batch_norm=False', '--save_summaries_secs=1000',
          *SHARED_SIZE, *MODEL, *more, '--train_logdir=log')


def newest_checkpoint_in(folder):
  return variables_in(find.find(str(folder / 'log'), 'train_logdir'))


def variables_in(prefix):
  reader = tf.train.NewCheckpointReader(prefix)
  digest = hashlib.sha1()
  for name in sorted(reader.get_variable_to_shape_map()):
    digest.update(reader.get_tensor(name).tobytes())
  return {'newest': (read.step_of(prefix), digest.hexdigest())}


def every_checkpoint_in(folder):
  for path in (folder / 'log').glob('*.index'):
    yield variables_in(str(path.with_suffix('')))


def train(inputs):
  return Case(
      train_words(inputs, 5, '--max_checkpoints_to_keep=2'),
      newest_checkpoint_in,
      older=train_words(inputs, 2, '--max_checkpoints_to_keep=2'),
      all_states=('--max_checkpoints_to_keep=9',),
      # A graph contains the position in the data at which its run began.
      refusal='already at step 5', own_names=r'log/(events\.out\.|.*\.meta$)')


CASES = {'build': build, 'gen': gen, 'train': train}


# --- Runs ------------------------------------------------------------------


@pytest.fixture(scope='module')
def injector(tmp_path_factory):
  """A faults.Injector, or None if there is no compiler."""
  root = tmp_path_factory.getbasetemp()
  return faults.Injector(tmp_path_factory.mktemp('injector'), root) if (
      faults.Injector.is_possible()) else None


class Prepared:
  """A case with its start folder and the result of an undisturbed run.

  Attributes:
    case: the Case.
    template: pathlib.Path of the folder before a run.
    untouched: faults.contents of the folder after an undisturbed run.
    calls: list of the calls of an undisturbed run; see faults.Injector.
    seconds: duration of that run.
    size: bytes of its files.
  """

  def __init__(self, case, folder, injector):
    self.case = case
    self._injector = injector
    self._folder = folder
    self._count = 0
    self.template = folder / 'template'
    self.template.mkdir()
    if case.older:
      self.finished(self.template, words=case.older)
    after = self.copy()
    started = time.time()
    with self.counting():
      self.finished(after)
    self.seconds = time.time() - started
    self.calls = injector.calls() if injector else []
    self.untouched = self.contents(after)
    self.size = sum(os.path.getsize(str(path)) for path in after.rglob('*'))
    self._allowed = collections.defaultdict(list)
    self._new = self._noted(after)
    if case.older or case.read is not newest_checkpoint_in:
      self._old = self._noted(self.template)
    if case.all_states:
      everything = self.copy()
      self.finished(everything, words=case.words + case.all_states)
      for seen in every_checkpoint_in(everything):
        self._allow(seen)

  def _noted(self, folder):
    seen = self.case.read(folder)
    self._allow(seen)
    return seen

  def _allow(self, seen):
    for name, value in seen.items():
      self._allowed[name].append(value)

  def counting(self, kill_at=0):
    return (self._injector.counting(kill_at) if self._injector
            else contextlib.ExitStack())

  def copy(self, parent=None):
    """Returns a new copy of the template."""
    self._count += 1
    folder = (parent or self._folder) / 'run{}'.format(self._count)
    shutil.copytree(str(self.template), str(folder))
    return folder

  def start(self, folder, words=None):
    with environ(self._injector.environ if self._injector else {}):
      return scripts.start(*(words or self.case.words), cwd=str(folder),
                           is_shallow=True)

  def finished(self, folder, words=None):
    process = self.start(folder, words)
    output, errors = scripts.output_of(process)
    assert process.returncode == 0, output + errors

  def contents(self, folder):
    """Returns a folder's contents, without files that differ in every run."""
    return {name: content for name, content in faults.contents(folder).items()
            if not re.match(self.case.own_names, name)}

  def look(self, folder):
    """Returns what readers see: 'old', 'new', 'between' or 'refused'."""
    try:
      seen = self.case.read(folder)
    except InputError as error:
      assert str(error)
      return 'refused'
    for name, value in seen.items():
      assert value in self._allowed[name], name
    return 'new' if seen == self._new else (
        'old' if seen == self._old else 'between')

  def _files(self, folder):
    return {name: content for name, content in self.contents(folder).items()
            if content is not None}

  def kill_at(self, folder, number):
    """Runs until a call, counted from 1, and is killed there."""
    with self.counting(kill_at=number):
      process = self.start(folder)
      output, errors = scripts.output_of(process)
    assert process.returncode == -signal.SIGKILL, output + errors

  def kill_after(self, folder, seconds):
    """Runs for some time, or to the end if that comes first."""
    process = self.start(folder)
    with contextlib.suppress(subprocess.TimeoutExpired):
      process.wait(timeout=seconds)
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, signal.SIGKILL)
    scripts.output_of(process)

  def failure(self, folder):
    """Runs the script, which may fail; returns the error line, or ''.

    If it fails, the folder must be unchanged.
    """
    before = self.look(folder), self._files(folder)
    process = self.start(folder)
    output, errors = scripts.output_of(process)
    assert 'Traceback' not in errors
    if not process.returncode:
      assert self.contents(folder) == self.untouched
      return ''
    assert process.returncode > 0, output + errors
    lines = [line for line in errors.splitlines() if line.startswith('ERROR')]
    assert len(lines) == 1, errors
    assert '.deeplab-' not in lines[0]  # the name of a temporary file
    after = self.look(folder), self._files(folder)
    assert after == before
    return lines[0]

  def check_rerun(self, folder, seen):
    """Runs again; the folder must then equal that of an undisturbed run.

    Args:
      folder: folder in which a run was killed or failed.
      seen: result of `look` there.
    """
    process = self.start(folder)
    output, errors = scripts.output_of(process)
    if process.returncode == 2 and seen == 'new' and self.case.refusal:
      # Only the state file was missing, or old checkpoints were left. Readers
      # do without the file, and the next save removes the checkpoints.
      assert self.case.refusal in errors
      assert not [name for name in self.contents(folder)
                  if re.search(r'\.deeplab-|\.tmp|tempstate', name)]
    else:
      assert process.returncode == 0, output + errors
      assert self.contents(folder) == self.untouched
    assert self.look(folder) == 'new'
    shutil.rmtree(str(folder))


@contextlib.contextmanager
def environ(variables):
  before = dict(os.environ)
  os.environ.update(variables)
  try:
    yield
  finally:
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope='module')
def prepared(inputs, injector, tmp_path_factory):
  """Returns a function that maps the name of a case to its Prepared."""
  found = {}

  def prepare(name):
    if name not in found:
      found[name] = Prepared(
          CASES[name](inputs), tmp_path_factory.mktemp(name), injector)
    return found[name]
  return prepare


@pytest.fixture(scope='module', params=sorted(CASES))
def one(request, prepared):
  return prepared(request.param)


def drawn_calls(one):
  """Draws calls to kill at: renames first, then the others."""
  numbers = list(range(1, len(one.calls) + 1))
  random.Random(1).shuffle(numbers)
  numbers.sort(key=lambda number: not (
      one.calls[number - 1][0].startswith('rename')))
  return numbers[:KILLS]


def report(request, outcomes):
  """Prints the outcomes, for pytest -s."""
  print('{}: {}'.format(request.node.name, dict(collections.Counter(outcomes))))


# --- Kills -----------------------------------------------------------------


def test_a_run_after_a_kill_completes_the_result(one, request):
  """Kills twice: at a call, and at some moment of the next run."""
  draws = random.Random(2)
  outcomes = []
  numbers = drawn_calls(one)
  for number in numbers + [0] * (KILLS - len(numbers)):
    folder = one.copy()
    for kill in ([one.kill_at] if number else []) + [one.kill_after]:
      kill(folder, number if kill == one.kill_at else draws.uniform(
          0, one.seconds))
      outcomes.append(one.look(folder))
    one.check_rerun(folder, outcomes[-1])
  report(request, outcomes)


# --- The disk --------------------------------------------------------------


def test_a_run_that_cannot_write_changes_nothing(one, tmp_path, request):
  """The disk is read-only, then full, then fills up during the run."""
  lines = []
  with faults.disk(tmp_path, 4 * one.size + (1 << 20)) as disk:
    if disk is None:
      pytest.skip('nothing may be mounted here')
    folder = one.copy(tmp_path)
    with disk.read_only():
      lines.append(one.failure(folder))
    for left in (0, one.size // 2):
      with disk.full_but_for(left):
        lines.append(one.failure(folder))
    assert all(lines[:2])
    one.check_rerun(folder, one.look(folder))
  report(request, lines)


# --- A trainer that removes checkpoints ------------------------------------


def test_eval_runs_beside_a_trainer_that_removes_checkpoints(inputs, tmp_path):
  trainer = scripts.start(
      *train_words(inputs, 10 ** 6, '--max_checkpoints_to_keep=1'),
      cwd=str(tmp_path), is_shallow=True)
  try:
    while not (tmp_path / 'log' / 'checkpoint').exists():
      assert trainer.poll() is None
      time.sleep(0.1)
    done = scripts.run(
        'eval.py', '--dataset_dir=' + inputs.records(), '--checkpoint_dir=log',
        '--eval_crop_size={0},{0}'.format(CROP), *SHARED_SIZE, *MODEL,
        '--max_number_of_evaluations=3', '--eval_interval_secs=0',
        '--eval_logdir=eval', '--report_json=report.json', cwd=str(tmp_path),
        is_shallow=True)
    assert trainer.poll() is None
  finally:
    trainer.terminate()
    output, errors = scripts.output_of(trainer, timeout=60)
  assert trainer.returncode in (0, 128 + signal.SIGTERM), output + errors
  assert 'Traceback' not in done.stderr + errors
  report = json.loads((tmp_path / 'report.json').read_text())
  assert 0 <= report['miou'] <= 1
  steps = [int(path.name.split('-')[1])
           for path in (tmp_path / 'eval').glob('evaluated-*.json')]
  assert len(set(steps)) == 3
  left, = (tmp_path / 'log').glob('*.index')
  assert read.step_of(str(left.with_suffix(''))) > max(steps)
