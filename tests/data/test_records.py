"""Tests writing and finding records."""
import hashlib
import json
import os
import struct

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab.data import decoding
from deeplab.data import records
from deeplab.errors import InputError
from tests import record_sets

pytestmark = [pytest.mark.tf1, pytest.mark.tf2, pytest.mark.modern]


def example(index=0, **changes):
  """Returns the tf.train.Example of a pair of 8x6 pixels."""
  return record_sets.pair(
      'ADE_val_{:08d}.jpg'.format(index), np.zeros([6, 8, 3], np.uint8),
      np.zeros([6, 8], np.uint8), **changes)


def touch(folder, *names, content=b'x'):
  for name in names:
    (folder / name).write_bytes(content)


def shard_names(split, count):
  return [constants.shard_name(split, index, count) for index in range(count)]


# --- tf.Example ------------------------------------------------------------


def test_example_has_the_keys_that_readers_expect():
  feature = example(image_bytes=b'image', label_bytes=b'label',
                    filename='h\u00e9.jpg').features.feature
  values = {key: (list(value.bytes_list.value) or
                  list(value.int64_list.value))
            for key, value in feature.items()}
  assert values == {
      'image/encoded': [b'image'], 'image/filename': [b'h\xc3\xa9.jpg'],
      'image/format': [b'png'], 'image/height': [6], 'image/width': [8],
      'image/channels': [3], 'image/segmentation/class/encoded': [b'label'],
      'image/segmentation/class/format': [b'png']}


def parse(serialized):
  """Parses inside tf.data, as readers do."""
  with tf.Graph().as_default(), tf.Session() as session:
    data = tf.data.Dataset.from_tensors(serialized).map(decoding.parse_example)
    return session.run(tf.data.make_one_shot_iterator(data).get_next())


def test_parse_example_inverts_make_example():
  assert parse(example(7, image_bytes=b'a\0', label_bytes=b'\0')
               .SerializeToString()) == {
                   'image_encoded': b'a\0', 'label_encoded': b'\0',
                   'filename': b'ADE_val_00000007.jpg'}


def test_parse_example_needs_only_image_and_label():
  bare = example(image_bytes=b'a', label_bytes=b'b')
  for key in list(bare.features.feature):
    if not key.endswith('encoded'):
      del bare.features.feature[key]
  assert parse(bare.SerializeToString())['filename'] == b''


# --- Writing ---------------------------------------------------------------


def test_write_shards_replaces_the_older_set_of_its_split(tmp_path):
  touch(tmp_path, *shard_names('val', 2) + shard_names('train', 2))
  touch(tmp_path, 'val-00000-of-00004', 'val-notes.txt')
  paths = record_sets.write_shards(
      output_dir=str(tmp_path), split='val',
      shards=[[example(0), example(1)], [], [example(2)], []])
  assert paths == [str(tmp_path / name) for name in shard_names('val', 4)]
  assert [records.tally(path)[1:] for path in paths] == [
      (2, ''), (0, ''), (1, ''), (0, '')]
  assert sorted(os.listdir(str(tmp_path))) == sorted(
      shard_names('train', 2) + shard_names('val', 4) +
      ['val-notes.txt', 'val.json'])


@pytest.mark.parametrize('error, message', [
    (OSError(28, 'No space left on device'), 'disk full writing val-00001-of'),
    (tf.errors.ResourceExhaustedError(None, None, 'x'),
     'disk full writing val-00001-of'),
    (OSError(5, 'Input/output error'), 'Input/output error'),
])
def test_write_shards_cleans_up_after_a_failure(tmp_path, error, message):
  def failing():
    yield example(1)
    raise error

  old = shard_names('val', 2)
  touch(tmp_path, *old, content=b'old')
  with pytest.raises(InputError, match=message):
    record_sets.write_shards(output_dir=str(tmp_path), split='val',
                         shards=[[example(0)], failing()])
  assert sorted(os.listdir(str(tmp_path))) == old
  assert (tmp_path / old[1]).read_bytes() == b'old'


# --- Finding ---------------------------------------------------------------


def test_records_are_counted_by_their_lengths(tmp_path):
  lengths = [0, 1, 255, 256, 50001]
  path = record_sets.write(tmp_path / 'x', map(bytes, lengths))
  size = sum(lengths) + 5 * 16
  assert records.tally(path) == (size, 5, '')
  for cut in (1, 4, 5, 50001, 50004, 50012):
    os.truncate(path, size - cut)
    assert records.tally(path)[1:] == (4, 'is cut short')


@pytest.mark.parametrize('length, problem', [
    (2 ** 64 - 1, 'is cut short'), (2 ** 33, 'is cut short'),
    (200, 'is cut short'), (2 ** 30 + 1, 'has 1073741825 bytes; expected at '
                            'most 1073741824')])
def test_invalid_lengths_are_refused(tmp_path, length, problem):
  with open(str(tmp_path / 'x'), 'wb') as shard:
    shard.write(struct.pack('<Q', length))
    shard.truncate(length + 16 if 'bytes' in problem else 108)
  assert records.tally(str(tmp_path / 'x'))[1:] == (0, problem)


def test_find_shards_sorts_and_ignores_other_files(tmp_path):
  names = shard_names('val', 3)
  touch(tmp_path, *reversed(names))
  touch(tmp_path, 'val-notes.txt', 'train-00000-of-00004.tfrecord',
        'val-00000-of-00003.tfrecord.17.tmp', 'xval-00000-of-00004.tfrecord')
  assert records.find_shards(str(tmp_path), 'val') == [
      str(tmp_path / name) for name in names]


def test_find_shards_accepts_short_names_and_empty_shards(tmp_path):
  touch(tmp_path, 'val-00000-of-00002')
  touch(tmp_path, 'val-00001-of-00002', content=b'')
  assert records.find_shards(str(tmp_path), 'val') == [
      str(tmp_path / 'val-0000{}-of-00002'.format(index)) for index in (0, 1)]


@pytest.mark.parametrize('names, message', [
    ([], r'no val-\*-of-\*.tfrecord in .* \(found: nothing\); run '
     'build_ade20k_data.py'),
    (shard_names('train', 4) + ['val-notes.txt'],
     r'found: train-00000-of-00004.tfrecord, .* and 2 more'),
    (shard_names('val', 4)[:2] + shard_names('val', 4)[3:],
     ': val-00002-of-00004.tfrecord missing'),
    (shard_names('val', 4) + shard_names('val', 2),
     'val-00000-of-00002.tfrecord, val-00001-of-00002.tfrecord not of the set '
     'of 4 shards; remove what is not, or run build'),
    (shard_names('val', 2) + ['val-00001-of-00002'],
     'val-00001-of-00002 not of the set of 2 shards'),
    (shard_names('val', 4) + ['val-00007-of-00004.tfrecord'],
     'val-00007-of-00004.tfrecord not of the set of 4 shards'),
    (['val-00000-of-00000.tfrecord'],
     'val-00000-of-00000.tfrecord not of the set of 0 shards'),
])
def test_find_shards_refuses_incomplete_sets(tmp_path, names, message):
  touch(tmp_path, *names)
  with pytest.raises(InputError, match=message):
    records.find_shards(str(tmp_path), 'val')


def test_find_shards_refuses_shards_without_records(tmp_path):
  touch(tmp_path, *shard_names('val', 4), content=b'')
  with pytest.raises(InputError, match=r'val has 0 records .*\(4 empty shards'):
    records.find_shards(str(tmp_path), 'val')
  with pytest.raises(InputError, match='dataset_dir=.*no: no such folder'):
    records.find_shards(str(tmp_path / 'no'), 'val')


@pytest.mark.parametrize('make', [
    lambda path: path.mkdir(), lambda path: os.mkfifo(str(path)),
    lambda path: path.symlink_to('nowhere')], ids=['folder', 'pipe', 'link'])
def test_find_shards_refuses_names_that_are_not_files(tmp_path, make):
  touch(tmp_path, *shard_names('val', 2)[:1])
  make(tmp_path / shard_names('val', 2)[1])
  with pytest.raises(InputError, match='val-00001-of-00002.tfrecord: expected a'
                     ' file'):
    records.find_shards(str(tmp_path), 'val')


# --- Sets with a description -----------------------------------------------


def build_val(folder):
  return record_sets.write_shards(
      output_dir=str(folder), split='val',
      shards=[[example(0), example(1)], [], [example(2)]])


def test_a_description_lists_the_shards(tmp_path):
  paths = build_val(tmp_path)
  content = json.loads((tmp_path / 'val.json').read_text())
  assert (content['split'], content['pairs']) == ('val', 3)
  assert [shard['records'] for shard in content['shards']] == [2, 0, 1]
  for path, shard in zip(paths, content['shards']):
    with open(path, 'rb') as source:
      data = source.read()
    assert shard == {
        'name': os.path.basename(path), 'records': shard['records'],
        'bytes': len(data), 'sha256': hashlib.sha256(data).hexdigest()}


def test_shards_outside_the_description_are_named(tmp_path):
  build_val(tmp_path)
  touch(tmp_path, 'val-00007-of-00003.tfrecord', 'val-00000-of-00009')
  with pytest.raises(InputError, match='val-00000-of-00009, val-00007-of-00003.'
                     'tfrecord not of the set that val.json describes'):
    records.find_shards(str(tmp_path), 'val')


def test_a_missing_shard_of_the_description_is_named(tmp_path):
  os.remove(build_val(tmp_path)[1])
  with pytest.raises(InputError, match='val-00001-of-00003.tfrecord missing'):
    records.find_shards(str(tmp_path), 'val')


def changed(**changes):
  return lambda content: json.dumps(dict(content, **changes))


@pytest.mark.parametrize('spoil', [
    lambda _: '', lambda _: '3',
    lambda _: '[' * 100000, lambda _: b'\xff\xfe'.decode('latin-1'),
    changed(split='train'), changed(pairs=1e400), changed(pairs=True),
    changed(pairs=4), changed(shards='x'), changed(shards=[{}]),
    lambda content: changed(shards=content['shards'][:2])(content),
    lambda content: changed(shards=content['shards'] * 2)(content),
    lambda content: json.dumps(content).replace('val-00000', '../val-00000'),
    lambda content: json.dumps(content).replace('ords": 2', 'ords": .5'),
    lambda content: json.dumps(content)[:-9],
])
def test_damaged_descriptions_are_named(tmp_path, spoil):
  build_val(tmp_path)
  path = tmp_path / 'val.json'
  path.write_text(spoil(json.loads(path.read_text())), encoding='latin-1')
  with pytest.raises(InputError) as caught:
    records.find_shards(str(tmp_path), 'val')
  assert str(caught.value) == (
      '{}: damaged; run build_ade20k_data.py again, which writes it'.format(
          path))
