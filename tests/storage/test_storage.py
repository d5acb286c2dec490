"""Tests remote paths with ram://, TensorFlow's file system in memory."""
import json
import os
import sys
import uuid

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from deeplab.checkpoints import compatibility
from deeplab.checkpoints import find
from deeplab.checkpoints import read
from deeplab.checkpoints import restore as restore_lib
from deeplab.checkpoints import saver
from deeplab.cli import runner
from deeplab.cli import script_flags
from deeplab.config import options as options_lib
from deeplab.data import builder
from deeplab.data import dataset
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.evaluation import evaluate
from deeplab.evaluation import report as report_lib
from deeplab.evaluation import tensorboard
from deeplab.models import interface
from deeplab.storage import checked_read
from deeplab.storage import files
from deeplab.storage import locks
from deeplab.storage import remote
from tests import flag_groups
from tests import record_sets

SIZE = (6, 8)
CROP = options_lib.PreprocessOptions(crop_size=SIZE)
modern = pytest.mark.modern


@pytest.fixture
def ram():
  """A folder in memory for one test."""
  folder = 'ram://{}'.format(uuid.uuid4().hex)
  remote.make_folder(folder)
  return folder


def all_in(folder):
  """Returns a dict from name to bytes of the files in a remote folder."""
  found = {}
  for name in remote.names_in(folder):
    path = os.path.join(folder, name)
    if remote.is_file(path):
      found[name] = checked_read.read(path, path, 'a file')
  return found


# --- Paths -----------------------------------------------------------------


@pytest.mark.parametrize('path, expected', [
    ('gs://bucket/name', True), ('s3://b/n', True), ('C:/folder', False),
    ('/a/b', False), ('a://', True), ('1://a', False), ('a/b://c', False),
    ('', False)])
def test_remote_and_local_paths(path, expected):
  assert remote.is_remote(path) is expected
  assert remote.absolute(path) == (
      path if expected else os.path.abspath(path))


@modern
def test_remote_files_behave_like_local_ones(ram):
  path = ram + '/inner/file'
  for ask in (remote.exists, remote.is_file, remote.is_folder):
    assert not ask(path)
  for act in (remote.size, remote.remove):
    with pytest.raises(FileNotFoundError) as missing:
      act(path)
    assert missing.value.filename == path
  with pytest.raises(FileNotFoundError), remote.reading(path) as source:
    source.read()
  with pytest.raises(FileNotFoundError):
    remote.names_in(ram + '/none')
  files.write_bytes(path, b'first, and longer')
  files.write_bytes(path, b'second')
  assert checked_read.read(path, path, 'a file') == b'second'
  assert (remote.size(path), remote.names_in(ram)) == (6, ['inner'])
  assert remote.exists(path) and remote.is_file(path)
  assert remote.is_folder(ram + '/inner') and not remote.is_file(
      ram + '/inner')
  assert files.sha256_of(path) == (
      '16367aacb67a4a017c8da8ab95682ccb390863780f7114dda0a0e0c55644c7c4')
  with pytest.raises(OSError), locks.exclusive(ram):
    pass


@modern
def test_an_unfinished_file_is_not_uploaded(ram):
  files.write_bytes(ram + '/file', b'older')
  with pytest.raises(ValueError):
    with files.replacing(ram + '/file') as (temporary,):
      with open(temporary, 'wb') as out:
        out.write(b'begun')
      raise ValueError
  assert all_in(ram) == {'file': b'older'}
  assert not os.path.exists(temporary)


@modern
def test_the_first_upload_that_fails_is_named(ram, monkeypatch):
  upload = remote.upload

  def second_fails(source, path):
    if path.endswith('b'):
      raise OSError(5, 'no more room', path)
    upload(source, path)

  monkeypatch.setattr(remote, 'upload', second_fails)
  with pytest.raises(OSError) as failed:
    files.write_all({ram + '/a': b'1', ram + '/b': b'2', ram + '/c': b'3'})
  assert 'of 3 files, these are new: {}/a'.format(ram) in failed.value.strerror
  assert all_in(ram) == {'a': b'1'}


# --- Refusals --------------------------------------------------------------


@modern
def test_unknown_file_systems_are_refused():
  for act in (remote.exists, remote.is_folder, remote.size):
    with pytest.raises(OSError, match='not implemented') as refused:
      act('foo://x/y')
    assert refused.value.filename == 'foo://x/y'


def test_without_tensorflow_only_local_paths_work(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'tensorflow.compat.v1', None)
  with pytest.raises(InputError, match='gs://b/n: a remote path needs Tensor'):
    remote.exists('gs://b/n')
  files.write_bytes(str(tmp_path / 'file'), b'abc')
  assert remote.names_in(str(tmp_path)) == ['file']
  assert remote.size(str(tmp_path / 'file')) == 3


@pytest.mark.parametrize('script, flag', [
    ('eval_pb.py', '--pb=gs://b/x'),
    ('build_ade20k_data.py', '--val_image_folder=gs://b/x')])
def test_scripts_refuse_remote_paths_for_local_inputs(script, flag):
  values = runner.flags.FlagValues()
  with pytest.raises(InputError, match='expected a local path; copy the files '
                     'to this machine first') as refused:
    flag_groups.parsed(script, *flag_groups.REQUIRED[script] + [flag],
                       flag_values=values)
    script_flags.SCRIPTS[script].arguments(values)
  assert runner.in_flags(refused.value, values).startswith(flag + ': ')


@modern
def test_an_unreachable_store_is_not_a_missing_folder(ram, monkeypatch):
  def unavailable(*unused, **options):
    raise tf.errors.UnavailableError(None, None, 'no\nhost')

  for name in ('stat', 'exists', 'listdir'):
    monkeypatch.setattr(tf.io.gfile, name, unavailable)
  for act in (remote.is_folder, remote.exists, remote.names_in,
              remote.state):
    with pytest.raises(OSError, match='no host') as failed:
      act(ram)
    assert failed.value.filename == ram


# --- Records ---------------------------------------------------------------


def build(folder, output, **more):
  for kind in ('images', 'labels'):
    (folder / kind).mkdir(exist_ok=True)
  for number in range(5):
    (folder / 'images' / 'p{}.jpg'.format(number)).write_bytes(
        record_sets.picture(number))
    (folder / 'labels' / 'p{}.png'.format(number)).write_bytes(
        record_sets.label(1 + number))
  return builder.build([options_lib.BuildOptions(
      split='val', image_folder=str(folder / 'images'),
      label_folder=str(folder / 'labels'), output_dir=str(output),
      num_workers=1, **more)])


def batches_of(folder, **more):
  return dataset.Batches(
      options_lib.DatasetOptions(str(folder), 'val', **more), CROP)


@modern
def test_records_are_built_and_read_remotely(ram, tmp_path):
  build(tmp_path, ram)
  local = tmp_path / 'local'
  build(tmp_path, local)
  assert all_in(ram) == {path.name: path.read_bytes()
                         for path in local.iterdir()}
  for found, wanted in zip(batches_of(ram, verify_records=True),
                           batches_of(local)):
    assert found['filename'] == wanted['filename']
    np.testing.assert_array_equal(found['image'], wanted['image'])
  path = os.path.join(ram, 'val-00000-of-00004.tfrecord')
  assert any(tf.io.tf_record_iterator(path))



@modern
def test_an_incomplete_remote_set_is_refused(ram, tmp_path, monkeypatch):
  build(tmp_path, ram)
  path = os.path.join(ram, 'val-00001-of-00004.tfrecord')
  content = checked_read.read(path, path, 'a shard')
  files.write_bytes(path, content[:-1])
  with pytest.raises(InputError, match='record 0 is cut short'):
    batches_of(ram)
  assert batches_of(ram, on_bad_record='skip').num_skipped == 1
  remote.remove(path)
  with pytest.raises(InputError, match='val-00001-of-00004.tfrecord missing'):
    batches_of(ram)
  # A build that is killed while it publishes leaves its marker.
  upload = remote.upload

  def killed(source, name):
    if name == path:
      raise KeyboardInterrupt
    upload(source, name)

  monkeypatch.setattr(remote, 'upload', killed)
  with pytest.raises(KeyboardInterrupt):
    build(tmp_path, ram, shuffle_seed=3)
  with pytest.raises(InputError, match='the build of val was not finished'):
    batches_of(ram)
  monkeypatch.undo()
  build(tmp_path, ram, shuffle_seed=3)
  assert batches_of(ram).num_images == 5
  with pytest.raises(InputError, match='no such folder'):
    batches_of(ram + '/none')


# --- Checkpoints, reports, events ------------------------------------------


@modern
def test_checkpoints_are_saved_and_read_remotely(ram, monkeypatch):
  with tf.Graph().as_default(), tf.Session() as session:
    variable = tf.get_variable('v', initializer=[1.0, 2.0])
    keeper = saver.Keeper(ram, max_to_keep=2)
    session.run(tf.global_variables_initializer())
    for step in (1, 2, 3):
      keeper.save(session, step)
    assert sorted(remote.names_in(ram)) == ['checkpoint'] + [
        'model.ckpt-{}.{}'.format(step, ending) for step in (2, 3)
        for ending in ('data-00000-of-00001', 'index', 'meta')]
    assert find.listed(ram) == ['model.ckpt-2', 'model.ckpt-3']
    prefix = find.find(ram, 'checkpoint_dir')
    assert prefix == ram + '/model.ckpt-3'
    assert find.find(prefix + '.index', 'c') == prefix
    assert read.variables_in(prefix) == {'v': [2]}
    session.run(variable.assign([0.0, 0.0]))
    restore_lib.restorer([variable])(session, prefix)
    assert session.run(variable).tolist() == [1.0, 2.0]
    # A damaged checkpoint is skipped for the one before it.
    data = prefix + '.data-00000-of-00001'
    files.write_bytes(data, checked_read.read(data, data, 'data')[:-1])
    assert find.find(ram, 'c') == ram + '/model.ckpt-2'
    resumed = saver.Keeper(ram, max_to_keep=2, resumed=ram + '/model.ckpt-2')
    assert resumed.newest == 'model.ckpt-2'
    # A save that fails keeps the older checkpoints.
    session.run(variable.assign([np.nan, 0.0]))
    with pytest.raises(InputError, match='model.ckpt-9: cannot be saved'):
      resumed.save(session, 9)
    assert not [name for name in remote.names_in(ram) if '-9' in name]
  with pytest.raises(InputError, match='no checkpoint there'):
    find.find(ram + '/model.ckpt-8', 'c')
  model = options_lib.ModelOptions()
  compatibility.write_options(ram, model, optimizer='adam')
  assert compatibility.read_options(ram)[:2] == (model, 'adam')
  # Options are in the folder itself, not above it. ram:// takes the start of a
  # name for a folder, so the prefix of a checkpoint cannot be tested.
  for path in (ram, ram + '/model.ckpt-9', ram + '/model.ckpt-9.index'):
    assert compatibility.label_map_of(path) == model.classes
  assert compatibility.label_map_of('ram://none/model') is None


@modern
def test_reports_and_events_are_written_remotely(ram, tmp_path, capsys):
  build(tmp_path, tmp_path / 'data')

  class Ones(interface.Predictor):
    description = 'model'

    def predict(self, images):
      return np.ones(images.shape[:3], np.int32)

  report_json = ram + '/reports/all.json'
  options = options_lib.EvalOptions(report_json=report_json)
  report_lib.check_outputs(options)
  batches = dataset.Batches(options_lib.DatasetOptions(
      str(tmp_path / 'data'), 'val'), CROP)
  whole = evaluate.evaluate(
      Ones(), batches, CROP, options, kind=interface.CHECKPOINT, step=3)
  assert whole.images == 5
  found = all_in(ram + '/reports')
  assert json.loads(found['all.json'].decode())['images'] == 5
  log = ram + '/log'
  files.check_folder(option('eval_logdir', log), log)
  evaluate.write_events(log, whole)
  with tensorboard.Writer(log) as writer:
    writer.add(1, summary=tf.Summary())
  steps = [[event.step for event in tf.train.summary_iterator(
      os.path.join(log, name))] for name in sorted(remote.names_in(log))
           if 'tfevents' in name]
  assert steps == [[0, 3], [0, 1]]
