"""TFRecord shards of tf.Example: written, found, counted and diagnosed."""
import errno
import os
import struct
from typing import Dict, Iterable, List, Optional, Sequence

import tensorflow.compat.v1 as tf
import tqdm

from deeplab import contract
from deeplab import files
from deeplab import tf_texts
from deeplab.data import pairs
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.errors import some_of

# A record in a file: 8 bytes of length (little endian), 4 of checksum, the
# data, 4 of checksum.
_LENGTH = struct.Struct('<Q')
_HEADER_BYTES = 12
_FOOTER_BYTES = 4
_REBUILD = 'rebuild this shard with build_ade20k_data.py'


# --- tf.Example ------------------------------------------------------------


def make_example(*, image_bytes: bytes, label_bytes: bytes, filename: str,
                 image_format: str, label_format: str, height: int,
                 width: int) -> tf.train.Example:
  """Makes the tf.train.Example of one pair.

  Args:
    image_bytes: bytes of a JPEG or PNG file.
    label_bytes: bytes of an 8-bit gray PNG file of the same size.
    filename: the image's file name, without its folder.
    image_format: 'jpeg' or 'png'.
    label_format: 'png'.
    height: pixels.
    width: pixels.
  """
  feature = {
      contract.KEY_IMAGE: _bytes_feature(image_bytes),
      contract.KEY_FILENAME: _bytes_feature(filename.encode('utf-8')),
      contract.KEY_IMAGE_FORMAT: _bytes_feature(image_format.encode('ascii')),
      contract.KEY_HEIGHT: _int_feature(height),
      contract.KEY_WIDTH: _int_feature(width),
      contract.KEY_CHANNELS: _int_feature(3),
      contract.KEY_LABEL: _bytes_feature(label_bytes),
      contract.KEY_LABEL_FORMAT: _bytes_feature(label_format.encode('ascii')),
  }
  return tf.train.Example(features=tf.train.Features(feature=feature))


def _bytes_feature(value):
  return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _int_feature(value):
  return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))


def parse_example(serialized: tf.Tensor) -> Dict[str, tf.Tensor]:
  """Parses one serialized tf.Example inside a graph.

  Args:
    serialized: scalar string tensor.

  Returns:
    Dict of scalar tensors: 'image_encoded', 'label_encoded' and 'filename'
    (string), 'height' and 'width' (int64, pixels; 0 where not recorded).
  """
  features = tf.io.parse_single_example(serialized, {
      contract.KEY_IMAGE: tf.io.FixedLenFeature((), tf.string),
      contract.KEY_LABEL: tf.io.FixedLenFeature((), tf.string),
      contract.KEY_FILENAME: tf.io.FixedLenFeature((), tf.string, ''),
      contract.KEY_HEIGHT: tf.io.FixedLenFeature((), tf.int64, 0),
      contract.KEY_WIDTH: tf.io.FixedLenFeature((), tf.int64, 0),
  })
  return {
      'image_encoded': features[contract.KEY_IMAGE],
      'label_encoded': features[contract.KEY_LABEL],
      'filename': features[contract.KEY_FILENAME],
      'height': features[contract.KEY_HEIGHT],
      'width': features[contract.KEY_WIDTH],
  }


# --- Writing shards --------------------------------------------------------


def write_shards(
    *, output_dir: str, split: str,
    shards: Sequence[Iterable[tf.train.Example]]) -> List[str]:
  """Writes a split's shards, all of them or none.

  The files have temporary names until the last one is complete; then they
  replace the split's older shards, those of another shard count included.

  Args:
    output_dir: an existing folder.
    split: 'train' or 'val'.
    shards: list of iterables of tf.train.Example, one a shard.

  Returns:
    List of the shards' paths.

  Raises:
    InputError: a file cannot be written; nothing has changed then.
  """
  names = [contract.shard_name(split, index, len(shards))
           for index in range(len(shards))]
  paths = [os.path.join(output_dir, name) for name in names]
  with files.replacing(*paths) as temporaries:
    for name, temporary, examples in zip(names, temporaries, shards):
      try:
        _write_shard(temporary, examples)
      except (OSError, tf.errors.OpError) as error:
        raise InputError('{} {}; temporary files removed, nothing '
                         'published'.format(_write_problem(error), name))
  # Readers refuse shards of more than one set.
  for name in os.listdir(output_dir):
    parsed = contract.parse_shard_name(name)
    if parsed and parsed[0] == split and name not in names:
      os.remove(os.path.join(output_dir, name))
  return paths


def _write_shard(path, examples):
  with tf.io.TFRecordWriter(path) as writer:
    for example in examples:
      # The same bytes for the same pair, on every run.
      writer.write(example.SerializeToString(deterministic=True))


def _write_problem(error):
  full = isinstance(error, tf.errors.ResourceExhaustedError)
  if full or getattr(error, 'errno', None) == errno.ENOSPC:
    return 'disk full writing'
  return '{} while writing'.format(error)


# --- Finding and counting --------------------------------------------------


def find_shards(dataset_dir: str, split: str) -> List[str]:
  """Finds the shards of a split and checks that the set is whole.

  Args:
    dataset_dir: folder with the shards of one or more splits.
    split: 'train' or 'val'.

  Returns:
    Sorted list of paths.

  Raises:
    InputError: no such folder; no shard of the split; a shard is missing;
      shards of two sets; no record in any shard.
  """
  if not os.path.isdir(dataset_dir):
    raise InputError(
        '{}: no such folder', option('dataset_dir', dataset_dir))
  shards = {}
  for name in os.listdir(dataset_dir):
    parsed = contract.parse_shard_name(name)
    if parsed and parsed[0] == split:
      shards[name] = parsed[1:]
  if not shards:
    raise InputError(
        'no {}-*-of-*.tfrecord in {} (found: {}); run '
        'build_ade20k_data.py'.format(
            split, dataset_dir,
            some_of(sorted(os.listdir(dataset_dir))) or 'nothing'))
  _check_whole(dataset_dir, split, shards)
  paths = [os.path.join(dataset_dir, name) for name in sorted(shards)]
  # A file without records has no byte: the format has no file header.
  if not any(os.path.getsize(path) for path in paths):
    raise InputError(
        '{} has 0 records in {} ({} empty shards); run '
        'build_ade20k_data.py'.format(split, dataset_dir, len(paths)))
  return paths


def _check_whole(dataset_dir, split, shards):
  """Checks that names cover 0..count-1 once.

  Args:
    dataset_dir: the folder, for messages.
    split: the split, for messages.
    shards: dict from file name to (index, count).
  """
  counts = sorted({count for _, count in shards.values()})
  if len(counts) > 1 or len(set(shards.values())) < len(shards):
    raise InputError('shards of more than one {} set in {}: {}; keep one '
                     'set'.format(split, dataset_dir,
                                  some_of(sorted(shards), limit=8)))
  missing = sorted(set(range(counts[0])) -
                   {index for index, _ in shards.values()})
  if missing:
    names = [contract.shard_name(split, index, counts[0]) for index in missing]
    raise InputError('{}: {} missing; run build_ade20k_data.py again'.format(
        dataset_dir, some_of(names)))


def count_records(path: str) -> int:
  """Counts the records of a shard without reading their data.

  Args:
    path: file of TFRecords, not compressed.

  Raises:
    InputError: the file ends inside a record.
  """
  size = os.path.getsize(path)
  position = 0
  count = 0
  # Without a buffer only the headers are read, 12 bytes of some 50 kB.
  with open(path, 'rb', buffering=0) as shard:
    while position < size:
      shard.seek(position)
      header = shard.read(_HEADER_BYTES)
      if len(header) == _HEADER_BYTES:
        position += _HEADER_BYTES + _LENGTH.unpack_from(header)[0]
        position += _FOOTER_BYTES
      if len(header) < _HEADER_BYTES or position > size:
        raise InputError('{}: the file ends inside record {}; {}'.format(
            path, count, _REBUILD))
      count += 1
  return count


# --- Diagnosis -------------------------------------------------------------


def diagnose(paths: Sequence[str]) -> Optional[str]:
  """Looks for the record that made TensorFlow fail.

  Checksums of all shards come first, as they are quick; images are decoded
  only where every checksum is right.

  Args:
    paths: list of shards.

  Returns:
    One line that names shard, record (counted from 0) and defect; None where
    every record is sound.
  """
  for check, name in ((_checksum_problem, 'checksums'),
                      (_content_problem, 'images')):
    for path in tqdm.tqdm(paths, 'checking ' + name, unit='shard',
                          disable=None):
      problem = check(path)
      if problem:
        return '{}: {}'.format(path, problem)
  return None


def _checksum_problem(path):
  count = 0
  try:
    for _ in tf.io.tf_record_iterator(path):
      count += 1
  except tf.errors.DataLossError as error:
    what = ('is cut short' if tf_texts.is_cut_short(error)
            else 'fails its CRC')
    return 'record {} {}; {}'.format(count, what, _REBUILD)
  return None


def _content_problem(path):
  for index, record in enumerate(tf.io.tf_record_iterator(path)):
    try:
      _check_record(record)
    except InputError as error:
      return 'record {} {}; {}'.format(index, error, _REBUILD)
  return None


def _check_record(record):
  """Raises InputError where a reader could not use a serialized example."""
  example = tf.train.Example()
  try:
    example.ParseFromString(record)
  except Exception:  # protobuf's class of it moves between versions
    raise InputError('is not a tf.Example')
  feature = example.features.feature
  filename = feature[contract.KEY_FILENAME].bytes_list.value
  name = '({})'.format(filename[0].decode('utf-8') if filename else 'no name')
  sizes = []
  for key in (contract.KEY_IMAGE, contract.KEY_LABEL):
    value = feature[key].bytes_list.value
    if len(value) != 1:
      raise InputError('{}: no {}'.format(name, key))
    sizes.append(pairs.image_facts(
        value[0], '{}: {}'.format(name, key))[1])
  if sizes[0] != sizes[1]:
    raise InputError('{}: image {}x{}, label {}x{}'.format(
        name, *(sizes[0] + sizes[1])))
