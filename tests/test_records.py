"""Tests of deeplab/data/records.py."""
import io
import os

import numpy as np
from PIL import Image
import pytest
import tensorflow.compat.v1 as tf

from deeplab import contract
from deeplab.data import records
from deeplab.errors import InputError

pytestmark = [pytest.mark.tf1, pytest.mark.tf2, pytest.mark.modern]


def encode(size, image_format, mode):
  """Returns a random image of (width, height) as file bytes."""
  pixels = np.random.RandomState(sum(size)).randint(
      0, 32, (size[1], size[0], 3), np.uint8)
  out = io.BytesIO()
  Image.fromarray(pixels).convert(mode).save(out, image_format)
  return out.getvalue()


def example(index=0, **changes):
  """Returns the tf.train.Example of a pair of 8x6 pixels."""
  fields = dict(
      image_bytes=encode((8, 6), 'JPEG', 'RGB'),
      label_bytes=encode((8, 6), 'PNG', 'L'), image_format='jpeg',
      filename='ADE_val_{:08d}.jpg'.format(index), label_format='png',
      height=6, width=8)
  fields.update(changes)
  return records.make_example(**fields)


def write(path, examples):
  with tf.io.TFRecordWriter(str(path)) as writer:
    for one in examples:
      writer.write(one.SerializeToString())
  return str(path)


def touch(folder, *names, content=b'x'):
  for name in names:
    (folder / name).write_bytes(content)


def shard_names(split, count):
  return [contract.shard_name(split, index, count) for index in range(count)]


# --- tf.Example ------------------------------------------------------------


def test_example_has_the_keys_that_readers_expect():
  feature = example(image_bytes=b'image', label_bytes=b'label',
                    filename='h\u00e9.jpg').features.feature
  values = {key: (list(value.bytes_list.value) or
                  list(value.int64_list.value))
            for key, value in feature.items()}
  assert values == {
      'image/encoded': [b'image'], 'image/filename': [b'h\xc3\xa9.jpg'],
      'image/format': [b'jpeg'], 'image/height': [6], 'image/width': [8],
      'image/channels': [3], 'image/segmentation/class/encoded': [b'label'],
      'image/segmentation/class/format': [b'png']}


def parse(serialized):
  """Parses through tf.data, as the readers do."""
  with tf.Graph().as_default(), tf.Session() as session:
    data = tf.data.Dataset.from_tensors(serialized).map(records.parse_example)
    return session.run(tf.data.make_one_shot_iterator(data).get_next())


def test_parse_example_undoes_make_example():
  assert parse(example(7, image_bytes=b'a', label_bytes=b'b')
               .SerializeToString()) == {
                   'image_encoded': b'a', 'label_encoded': b'b',
                   'filename': b'ADE_val_00000007.jpg', 'height': 6,
                   'width': 8}


def test_parse_example_does_without_what_only_informs():
  bare = example(image_bytes=b'a', label_bytes=b'b')
  for key in list(bare.features.feature):
    if not key.endswith('encoded'):
      del bare.features.feature[key]
  parsed = parse(bare.SerializeToString())
  assert (parsed['filename'], parsed['height'], parsed['width']) == (b'', 0, 0)


# --- Writing ---------------------------------------------------------------


def test_write_shards_replaces_the_older_set_of_its_split(tmp_path):
  touch(tmp_path, *shard_names('val', 2) + shard_names('train', 2))
  touch(tmp_path, 'val-00000-of-00004', 'val-notes.txt')
  paths = records.write_shards(
      output_dir=str(tmp_path), split='val',
      shards=[[example(0), example(1)], [], [example(2)], []])
  assert paths == [str(tmp_path / name) for name in shard_names('val', 4)]
  assert [records.count_records(path) for path in paths] == [2, 0, 1, 0]
  assert sorted(os.listdir(str(tmp_path))) == sorted(
      shard_names('train', 2) + shard_names('val', 4) + ['val-notes.txt'])


def test_write_shards_makes_the_same_bytes_again(tmp_path):
  shards = []
  for _ in range(2):
    path = records.write_shards(
        output_dir=str(tmp_path), split='val', shards=[[example(3)]])[0]
    with open(path, 'rb') as shard:
      shards.append(shard.read())
  assert shards[0] == shards[1]


@pytest.mark.parametrize('error, message', [
    (OSError(28, 'No space left on device'), 'disk full writing val-00001-of'),
    (tf.errors.ResourceExhaustedError(None, None, 'x'),
     'disk full writing val-00001-of'),
    (OSError(5, 'Input/output error'), 'Input/output error'),
])
def test_write_shards_leaves_nothing_of_a_failure(tmp_path, error, message):
  def failing():
    yield example(1)
    raise error

  old = shard_names('val', 2)
  touch(tmp_path, *old, content=b'old')
  with pytest.raises(InputError, match=message):
    records.write_shards(output_dir=str(tmp_path), split='val',
                         shards=[[example(0)], failing()])
  assert sorted(os.listdir(str(tmp_path))) == old
  assert (tmp_path / old[1]).read_bytes() == b'old'


# --- Finding ---------------------------------------------------------------


def test_find_shards_sorts_and_passes_other_files_over(tmp_path):
  names = shard_names('val', 3)
  touch(tmp_path, *reversed(names))
  touch(tmp_path, 'val-notes.txt', 'val.json', 'train-00000-of-00004.tfrecord',
        'val-00000-of-00003.tfrecord.17.tmp', 'xval-00000-of-00004.tfrecord')
  assert records.find_shards(str(tmp_path), 'val') == [
      str(tmp_path / name) for name in names]


def test_find_shards_takes_names_without_extension(tmp_path):
  touch(tmp_path, 'val-00000-of-00001')
  assert records.find_shards(str(tmp_path), 'val') == [
      str(tmp_path / 'val-00000-of-00001')]


def test_find_shards_takes_empty_shards_beside_full_ones(tmp_path):
  touch(tmp_path, *shard_names('val', 2)[1:])
  touch(tmp_path, *shard_names('val', 2)[:1], content=b'')
  assert len(records.find_shards(str(tmp_path), 'val')) == 2


@pytest.mark.parametrize('names, message', [
    ([], r'no val-\*-of-\*.tfrecord in .* \(found: nothing\); run '
     'build_ade20k_data.py'),
    (shard_names('train', 4) + ['val-notes.txt'],
     r'found: train-00000-of-00004.tfrecord, .* and 2 more'),
    (shard_names('val', 4)[:2] + shard_names('val', 4)[3:],
     ': val-00002-of-00004.tfrecord missing'),
    (shard_names('val', 4) + shard_names('val', 2), 'more than one val set'),
    (shard_names('val', 2) + ['val-00001-of-00002'], 'more than one val set'),
])
def test_find_shards_refuses(tmp_path, names, message):
  touch(tmp_path, *names)
  with pytest.raises(InputError, match=message):
    records.find_shards(str(tmp_path), 'val')


def test_find_shards_refuses_shards_without_records(tmp_path):
  touch(tmp_path, *shard_names('val', 4), content=b'')
  with pytest.raises(InputError, match=r'val has 0 records .*\(4 empty shards'):
    records.find_shards(str(tmp_path), 'val')


def test_find_shards_refuses_a_missing_folder(tmp_path):
  with pytest.raises(InputError, match='dataset_dir=.*no: no such folder'):
    records.find_shards(str(tmp_path / 'no'), 'val')


# --- Counting and diagnosis ------------------------------------------------


def test_count_records_of_hand_made_framing(tmp_path):
  # Lengths 3 and 0; the checksums are not looked at.
  path = tmp_path / 'x'
  path.write_bytes(b'\x03' + b'\0' * 7 + b'CCCC' + b'abc' + b'CCCC' +
                   b'\0' * 8 + b'CCCC' + b'CCCC')
  assert records.count_records(str(path)) == 2


@pytest.mark.parametrize('cut', [1, 5, 300])
def test_count_records_names_the_record_that_is_cut_short(tmp_path, cut):
  path = write(tmp_path / 'val-00000-of-00001.tfrecord',
               [example(index) for index in range(3)])
  with open(path, 'r+b') as shard:
    shard.truncate(os.path.getsize(path) - cut)
  with pytest.raises(InputError, match=path + ': .* inside record 2; rebuild'):
    records.count_records(path)


def test_diagnose_finds_nothing_wrong_with_sound_shards(tmp_path):
  paths = [write(tmp_path / 'a', [example(0), example(1)]),
           write(tmp_path / 'b', []),
           write(tmp_path / 'c', [example(2)])]
  assert records.diagnose(paths) is None


def test_diagnose_names_the_record_with_a_wrong_checksum(tmp_path):
  sound = write(tmp_path / 'a', [example(0)])
  path = write(tmp_path / 'b', [example(index) for index in range(3)])
  record_bytes = os.path.getsize(path) // 3
  with open(path, 'r+b') as shard:
    shard.seek(record_bytes + record_bytes // 2)
    byte = shard.read(1)[0]
    shard.seek(-1, os.SEEK_CUR)
    shard.write(bytes([byte ^ 1]))
  assert records.diagnose([sound, path]) == (
      path + ': record 1 fails its CRC; rebuild this shard with '
      'build_ade20k_data.py')


def test_diagnose_names_the_record_that_is_cut_short(tmp_path):
  path = write(tmp_path / 'a', [example(0), example(1)])
  with open(path, 'r+b') as shard:
    shard.truncate(os.path.getsize(path) - 9)
  assert records.diagnose([path]).startswith(path + ': record 1 is cut short')


@pytest.mark.parametrize('defect, message', [
    (example(5, image_bytes=encode((8, 6), 'JPEG', 'RGB')[:-40]),
     'record 1 (ADE_val_00000005.jpg): image/encoded: truncated JPEG'),
    (example(5, label_bytes=b'GIF89a'),
     'record 1 (ADE_val_00000005.jpg): image/segmentation/class/encoded: is '
     'neither JPEG nor PNG'),
    (example(5, label_bytes=encode((8, 7), 'PNG', 'L')),
     'record 1 (ADE_val_00000005.jpg): image 8x6, label 8x7'),
    (tf.train.Example(), 'record 1 (no name): no image/encoded'),
])
def test_diagnose_names_the_record_that_cannot_be_decoded(
    tmp_path, defect, message):
  path = write(tmp_path / 'a', [example(0), defect, example(2)])
  assert records.diagnose([path]).startswith('{}: {}'.format(path, message))


def test_diagnose_names_a_record_that_is_no_example(tmp_path):
  path = str(tmp_path / 'a')
  with tf.io.TFRecordWriter(path) as writer:
    writer.write(b'\xff\xff\xff')
  assert records.diagnose([path]).startswith(
      path + ': record 0 is not a tf.Example')
