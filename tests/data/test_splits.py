"""Tests which records are read, refused and left out."""
import logging
import os
import re

import pytest
import tensorflow.compat.v1 as tf

from deeplab.config.options import DatasetOptions
from deeplab.config.options import PreprocessOptions
from deeplab.data import dataset
from deeplab.data import decoding
from deeplab.data import splits
from deeplab.errors import InputError
from tests import record_sets


def everywhere(test):
  """Runs a test on all TensorFlow versions, whose results may differ."""
  for mark in (pytest.mark.tf1, pytest.mark.tf2, pytest.mark.modern):
    test = mark(test)
  return test


REBUILD = '; rebuild this shard with build_ade20k_data.py'
SHARD = 'val-00000-of-00001.tfrecord'


def open_val(folder, **options):
  return splits.open_split(DatasetOptions(str(folder), 'val', **options))


def refusal(folder, **options):
  with pytest.raises(InputError) as caught:
    open_val(folder, **options)
  return str(caught.value)


def numbers(folder, **options):
  """Returns the numbers of the images to read; see record_sets.example."""
  batches = dataset.Batches(
      DatasetOptions(str(folder), 'val', **options),
      PreprocessOptions(crop_size=(6, 8)))
  return [int(batch['filename'][0][6:-4]) for batch in batches]


def serialized_set(folder, *shards):
  """Writes a described set of serialized examples; returns the paths."""
  return record_sets.write_shards(
      output_dir=str(folder), split='val', shards=[
          map(tf.train.Example.FromString, shard) for shard in shards])


@pytest.fixture
def described(tmp_path):
  """Paths of shards with images 0, 1, 2; none; 3, 4, 5."""
  return serialized_set(
      tmp_path, map(record_sets.example, range(3)), [],
      map(record_sets.example, range(3, 6)))


def write(folder, *serialized):
  return record_sets.write(folder / SHARD, serialized)


def assert_left_out(caplog, path, words):
  """Checks the warning about records 1, 2, ... that are left out."""
  warning, = [record.getMessage() for record in caplog.records
              if 'left out' in record.getMessage()]
  assert warning.startswith('{} records of val left out: '.format(len(words)))
  found = warning.split(path + ': record ')[1:]
  assert len(found) == len(words)
  for number, (problem, wanted) in enumerate(zip(found, words), 1):
    assert problem.startswith('{} '.format(number)) and wanted in problem


# --- Structure of a tf.Example ---------------------------------------------


def varint(number):
  out = b''
  while number > 127:
    out += bytes([number & 127 | 128])
    number >>= 7
  return out + bytes([number])


def field(tag, content):
  return bytes([tag]) + varint(len(content)) + content


def entry(key, feature):
  return field(10, field(10, key.encode()) + field(18, feature))


def with_features(**features):
  """Returns a serialized example with some features replaced by bytes."""
  example = tf.train.Example.FromString(record_sets.example())
  content = b''
  for key, feature in sorted(example.features.feature.items()):
    name = key.replace('image/', '').replace('/', '_')
    feature = features.get(name, feature.SerializeToString())
    if feature is not None:
      content += entry(key, feature)
  return field(10, content)


BYTES, FLOATS, INTEGERS = 10, 18, 26
FORMS = [
    (b'\xff\xff\xff', 'is not a tf.Example'),
    (bytes(range(128, 256)) * 9, 'is not a tf.Example'),
    (record_sets.example()[:-1], 'is not a tf.Example'),
    # TensorFlow, unlike protobuf, refuses an entry with the value first.
    (field(10, field(10, field(18, b'') + field(10, b'a'))),
     '(no name): image/encoded holds 0 values'),
    (b'', '(no name): image/encoded holds 0 values of bytes, expected 1'),
    (with_features(encoded=b''), '(image_0.jpg): image/encoded holds 0 values'),
    (with_features(segmentation_class_encoded=field(FLOATS, b'')),
     '(image_0.jpg): image/segmentation/class/encoded holds 0 values'),
    (with_features(encoded=field(BYTES, field(10, b'a') * 2)),
     '(image_0.jpg): image/encoded holds 2 values'),
]


@everywhere
@pytest.mark.slow
def test_malformed_examples_are_named_or_left_out(tmp_path, caplog):
  """TensorFlow 1.15 may crash on bytes that are not an example."""
  path = write(tmp_path, record_sets.example(0), *[
      data for data, _ in FORMS] + [record_sets.example(1)])
  with pytest.raises(InputError) as caught:
    numbers(tmp_path)
  assert str(caught.value) == '{}: record 1 {}'.format(
      path, FORMS[0][1]) + REBUILD
  assert numbers(tmp_path, on_bad_record='skip') == [0, 1]
  assert_left_out(caplog, path, [words for _, words in FORMS])


# --- Counts and checksums --------------------------------------------------


@pytest.mark.slow
def test_a_valid_set_is_read_completely(described, tmp_path):
  for options in ({}, {'verify_records': True}, {'on_bad_record': 'skip'}):
    split = open_val(tmp_path, **options)
    assert (split.num_records, split.skipped) == (6, 0)
    assert split.paths == tuple(described)
    assert numbers(tmp_path, **options) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize('options', [{}, {'on_bad_record': 'skip'}], ids=str)
@pytest.mark.parametrize('kept', [0, 1, 2])
def test_a_shard_cut_between_records_is_named(
    described, tmp_path, options, kept):
  whole = os.path.getsize(described[2])
  size = ([0] + [end + 4 for _, end in record_sets.spans(described[2])])[kept]
  record_sets.cut(described[2], size)
  assert refusal(tmp_path, **options) == (
      '{}: {} in {} bytes, but val.json says 3 in {}; run build_ade20k_data.py '
      'again'.format(described[2], [
          '0 records', '1 record', '2 records'][kept], size, whole))


def test_a_shard_of_another_build_is_named(described, tmp_path):
  other = tmp_path / 'other'
  other.mkdir()
  path = serialized_set(other, map(record_sets.example, range(4)), [], [])[0]
  os.replace(path, described[0])
  for options in ({}, {'on_bad_record': 'skip'}):
    assert 'val-00000-of-00003.tfrecord: 4 records in' in refusal(
        tmp_path, **options)


@pytest.mark.slow
def test_verify_records_compares_checksums(described, tmp_path):
  """The shard has the same size and is valid, so only its checksum differs."""
  os.replace(described[0], str(tmp_path / 'x'))
  record_sets.write(described[0], map(record_sets.example, [2, 1, 0]))
  assert os.path.getsize(described[0]) == os.path.getsize(str(tmp_path / 'x'))
  assert numbers(tmp_path)[:3] == [2, 1, 0]
  for how in ('fail', 'skip'):
    assert refusal(tmp_path, verify_records=True, on_bad_record=how) == (
        '{}: not the checksum that val.json says; run build_ade20k_data.py '
        'again'.format(described[0]))


@pytest.mark.slow
def test_sets_without_a_description_are_read_and_logged(tmp_path, caplog):
  write(tmp_path, *map(record_sets.example, range(3)))
  with caplog.at_level(logging.INFO):
    assert numbers(tmp_path, verify_records=True) == [0, 1, 2]
  assert '{} has no val.json: whether records are missing is not known'.format(
      tmp_path) in caplog.text


@pytest.mark.parametrize('compression', ['GZIP', 'ZLIB'])
def test_compressed_records_are_named(tmp_path, compression):
  path = str(tmp_path / SHARD)
  with tf.io.TFRecordWriter(path, compression) as writer:
    writer.write(record_sets.example())
  assert refusal(tmp_path) == (
      '{}: record 0 is compressed by gzip or zlib; expected TFRecords without '
      'compression: write the shards again'.format(path) + REBUILD)


# --- Damage ----------------------------------------------------------------


def damage_data(path):
  record_sets.flip(path, sum(record_sets.spans(path)[1]) // 2)


def damage_length(path):
  record_sets.flip(path, record_sets.spans(path)[1][0] - 12)


def cut_inside(path):
  record_sets.cut(path, record_sets.spans(path)[1][0] + 100)


DAMAGES = [(damage_data, 'record 1 fails its CRC'),
           (damage_length, 'record 1 fails its CRC'),
           (cut_inside, 'record 1 is cut short')]


@pytest.mark.slow
@everywhere
@pytest.mark.parametrize('damage, words', DAMAGES)
def test_damaged_records_are_named_or_left_out(
    described, tmp_path, caplog, damage, words):
  """TensorFlow reads no record of a shard after damage."""
  damage(described[0])
  message = '{}: {}'.format(described[0], words)
  assert refusal(tmp_path, verify_records=True).startswith(message)
  if damage != damage_data:  # found only when the record is read
    assert refusal(tmp_path).startswith(message)
  with pytest.raises(InputError, match=re.escape(message)):
    numbers(tmp_path)
  assert open_val(tmp_path, on_bad_record='skip').skipped == 2
  assert ('2 records of val left out: {}, so 1 record after it cannot be '
          'read'.format(message)) in caplog.text
  assert numbers(tmp_path, on_bad_record='skip') == [0, 3, 4, 5]


@pytest.mark.parametrize('damage, words', DAMAGES)
@pytest.mark.slow
def test_damaged_records_without_a_description(
    described, tmp_path, damage, words):
  os.remove(str(tmp_path / 'val.json'))
  damage(described[0])
  assert words in refusal(tmp_path, verify_records=True)
  # The number of records after the end is unknown.
  assert open_val(tmp_path, on_bad_record='skip').skipped == (
      1 if damage == cut_inside else 2)
  assert numbers(tmp_path, on_bad_record='skip') == [0, 3, 4, 5]


@everywhere
@pytest.mark.slow
def test_records_are_checked_like_files_in_the_builder(tmp_path, caplog):
  bad = [({'label_bytes': content}, words)
         for content, words in record_sets.bad_labels().values()] + [
             ({'image_bytes': content}, words) for content, words in (
                 (record_sets.picture(1)[:-40],
                  'image/encoded: truncated JPEG'),
                 (record_sets.picture(1, size=(6, 9)), 'image 9x6, label 8x6'),
                 (record_sets.picture(1, image_format='GIF'),
                  'is neither JPEG nor PNG'),
                 (record_sets.too_few_rows(), '27 of 54 bytes of pixels'))]
  path = write(tmp_path, record_sets.example(0), *[
      record_sets.example(1, **changes) for changes, _ in bad] + [
          record_sets.example(2)])
  message = refusal(tmp_path, verify_records=True)
  assert message.startswith('{}: record 1 (image_1.jpg): '.format(path))
  assert message.endswith(
      REBUILD + ' (and {} more bad ones)'.format(len(bad) - 1))
  assert numbers(tmp_path, on_bad_record='skip') == [0, 2]
  assert_left_out(caplog, path, [words for _, words in bad])


def test_a_set_without_any_good_record_is_refused(tmp_path):
  write(tmp_path, b'x', record_sets.example(0, label_bytes=b''))
  assert refusal(tmp_path, on_bad_record='skip') == (
      'dataset_dir={}: none of the records of val can be used'.format(tmp_path))


def test_images_that_only_tensorflow_refuses_are_refused(
    tmp_path, monkeypatch):
  write(tmp_path, record_sets.example(
      0, image_bytes=record_sets.picture()[:-9]))
  monkeypatch.setattr(
      decoding, 'check_content', lambda *unused: '(image_0.jpg)')
  assert 'record 0 (image_0.jpg): ' in refusal(tmp_path, verify_records=True)


# --- Diagnosis -------------------------------------------------------------


def test_diagnose_returns_none_for_valid_shards(described):
  assert splits.diagnose(described) is None


def test_state_of_changes_if_a_file_is_replaced(tmp_path):
  path = write(tmp_path, record_sets.example())
  before = splits.state_of([path])
  assert splits.state_of([path]) == before
  os.utime(path, ns=(1, 1))
  assert splits.state_of([path]) != before
  os.remove(path)
  with pytest.raises(InputError, match=SHARD + ': No such file'):
    splits.state_of([path])
