"""Tests publishing of splits with kills and full disks."""
import functools
import os
import resource
import shutil

import pytest
import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab.config.options import DatasetOptions
from deeplab.data import records
from deeplab.data import splits
from deeplab.errors import InputError
from deeplab.storage import files
from deeplab.storage import locks
from tests import record_sets


def example(number):
  """Returns a record that is never decoded."""
  return records.make_example(
      image_bytes=b'image', label_bytes=b'label', image_format='jpeg',
      label_format='png', filename=str(number), height=1, width=1)


def contents(folder, number):
  """Returns two splits whose records all contain the number."""
  return [records.Content(str(folder), split, [
      [example(number)], [example(number), example(number)]])
          for split in constants.SPLITS]


def names_in(folder, split):
  """Returns the file names that a reader sees, or 'refused'."""
  try:
    found = splits.open_split(DatasetOptions(str(folder), split))
  except InputError as error:
    assert 'run build_ade20k_data.py' in str(error)
    return 'refused'
  return {example.features.feature[constants.KEY_FILENAME]
          .bytes_list.value[0].decode()
          for path in found.paths
          for example in map(tf.train.Example.FromString,
                             tf.io.tf_record_iterator(path))}


def killed_at(monkeypatch, number, function):
  """Kills a forked process at its change `number`, without any cleanup.

  Returns whether the process made so many changes.
  """
  child = os.fork()
  if child:
    return os.WEXITSTATUS(os.waitpid(child, 0)[1]) == 9
  status = 1
  try:
    left = [number]

    def counted(change):
      def change_or_end(*arguments, **options):
        left[0] -= 1
        if not left[0]:
          os._exit(9)
        return change(*arguments, **options)
      return change_or_end

    for name in ('replace', 'remove', 'rmdir', 'mkdir'):
      monkeypatch.setattr(os, name, counted(getattr(os, name)))
    function()
    status = 0
  finally:
    os._exit(status)


def nothing_there(unused_folder):
  pass


def older_set(folder):
  records.write_splits(contents(folder, 1))


def older_set_without_description(folder):
  older_set(folder)
  for split in constants.SPLITS:
    os.remove(str(folder / (split + '.json')))


def older_set_of_three(folder):
  for split in constants.SPLITS:
    record_sets.write_shards(
        output_dir=str(folder), split=split,
        shards=[[example(1)], [example(1)], [example(1)]])


@pytest.mark.slow
@pytest.mark.parametrize('prepare', [
    nothing_there, older_set, older_set_without_description,
    older_set_of_three])
def test_after_a_kill_readers_see_one_set_or_refuse(
    tmp_path, monkeypatch, prepare):
  # Syncing would take most of the time.
  monkeypatch.setattr(files, '_sync', lambda paths: None)
  new, old = {'2'}, {'1'}
  expected = tmp_path / 'expected'
  expected.mkdir()
  records.write_splits(contents(expected, 2))
  seen = []
  for number in range(1, 100):
    folder = tmp_path / str(number)
    folder.mkdir()
    prepare(folder)
    killed = killed_at(monkeypatch, number, functools.partial(
        records.write_splits, contents(folder, 2)))
    seen.append(tuple(names_in(folder, split) for split in constants.SPLITS))
    # A second run completes the set, and leaves nothing else.
    records.write_splits(contents(folder, 2))
    assert folder_content(folder) == folder_content(expected)
    shutil.rmtree(str(folder))
    if not killed:
      break
  before = 'refused' if prepare is nothing_there else old
  # Never one old and one new split if both can be read.
  for train, val in seen:
    assert 'refused' in (train, val) or train == val
    for one in (train, val):
      assert one in (before, 'refused', new)
  assert seen[0] == (before, before) and seen[-1] == (new, new)
  assert ('refused', 'refused') in seen[1:-1] and len(seen) > 10


def folder_content(folder):
  found = {}
  for name in os.listdir(str(folder)):
    with open(str(folder / name), 'rb') as source:
      found[name] = source.read()
  return found


@pytest.mark.parametrize('name', [
    'train-00001-of-00002.tfrecord', 'val-00000-of-00002.tfrecord',
    'val.json'])
def test_a_failed_rename_leaves_the_set_marked(tmp_path, monkeypatch, name):
  older_set(tmp_path)
  replace = os.replace

  def failing(source, target):
    if os.path.basename(target) == name:
      raise OSError(5, 'Input/output error', source, None, target)
    replace(source, target)

  monkeypatch.setattr(os, 'replace', failing)
  with pytest.raises(InputError, match='{}: Input/output error.*; train and '
                     'val left marked as unfinished; run build'.format(name)):
    records.write_splits(contents(tmp_path, 2))
  monkeypatch.undo()
  assert names_in(tmp_path, 'val') == names_in(tmp_path, 'train') == 'refused'


def test_without_a_marker_the_older_set_is_kept(
    tmp_path, monkeypatch):
  older_set(tmp_path)
  before = folder_content(tmp_path)
  replacing = files.replacing

  def failing(*paths):
    if paths[-1].endswith('val.INCOMPLETE'):
      raise OSError(28, 'No space left on device', paths[-1])
    return replacing(*paths)

  monkeypatch.setattr(files, 'replacing', failing)
  with pytest.raises(InputError, match='disk full writing val.INCOMPLETE; '
                     'temporary files removed, nothing published'):
    records.write_splits(contents(tmp_path, 2))
  assert folder_content(tmp_path) == before


def test_two_runs_cannot_publish_in_one_folder_at_once(tmp_path):
  with locks.exclusive(str(tmp_path)):
    with pytest.raises(InputError, match='another run writes there'):
      records.write_splits(contents(tmp_path, 2))
  assert not os.listdir(str(tmp_path))


def test_a_failed_write_keeps_the_older_set(tmp_path, monkeypatch):
  """TensorFlow reports this error; a full disk has another number."""
  older_set(tmp_path)
  before = folder_content(tmp_path)
  large = contents(tmp_path, 2)
  large[1].shards[1].extend([example('x' * 1000)] * 100)
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (20000, limits[1]))
  try:
    with pytest.raises(InputError) as caught:
      records.write_splits(large)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert str(caught.value) == (
      '{}/val-00001-of-00002.tfrecord: File too large; temporary files '
      'removed, nothing published'.format(tmp_path))
  assert folder_content(tmp_path) == before


def test_a_shard_with_missing_bytes_is_noticed(tmp_path, monkeypatch):
  class Losing(tf.io.TFRecordWriter):
    def close(self):
      super().close()
      os.truncate(os.fsdecode(self.path), 20)

    def __exit__(self, *unused):
      self.close()

  def make(path):
    writer = Losing(path)
    writer.path = path
    return writer

  monkeypatch.setattr(tf.io, 'TFRecordWriter', make)
  with pytest.raises(InputError, match='train-00000-of-00002.tfrecord: not all '
                     'bytes arrived; .* nothing published'):
    records.write_splits(contents(tmp_path, 2))
  assert not os.listdir(str(tmp_path))
