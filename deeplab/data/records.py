r"""Writes, describes and finds TFRecord shards of tf.Example.

    SPLIT-0000N-of-00004.tfrecord  the records
    SPLIT.json             description of the shards, written last
    SPLIT.INCOMPLETE       marker while the others are renamed

`shards` in SPLIT.json has an entry for each shard. Readers use it to check that
the shard is complete and belongs to the same set as the others:

    {"split": "val",
     "pairs": 2000,
     "shards": [{"name": "val-00000-of-00004.tfrecord", "records": 500,
                 "bytes": 23154021, "sha256": "..."}, ...],
     ...}

The builder adds the skipped pairs, the seed of the order, the share of each
class and, if given, the label map. The reference's sets have no such file.
"""
import contextlib
import errno
import os
from typing import (
  Dict,
  Iterable,
  List,
  Mapping,
  NamedTuple,
  Optional,
  Sequence,
  Tuple,
)

import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab import errors
from deeplab.config import label_map as label_maps
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.errors import some_of
from deeplab.storage import checked_read
from deeplab.storage import files
from deeplab.storage import locks
from deeplab.storage import remote
from deeplab.system import tf_errors

BUILD_AGAIN = 'run build_ade20k_data.py again'
_UNFINISHED = b'build_ade20k_data.py has not finished writing here.\n'
_LENGTH_BYTES = 8
_CHECKSUM_BYTES = 4 + 4
# Largest record: an image and a label.
_MOST_BYTES = 2 * constants.MAX_FILE_BYTES
# First bytes of files that TensorFlow compressed by gzip or zlib.
_COMPRESSIONS = (b'\x1f\x8b', b'\x78\x01', b'\x78\x5e', b'\x78\x9c',
                 b'\x78\xda')
_COMPRESSED = ('is compressed by gzip or zlib; expected TFRecords without '
               'compression: write the shards again')


# --- tf.Example ------------------------------------------------------------


def make_example(*, image_bytes: bytes, label_bytes: bytes, filename: str,
                 image_format: str, label_format: str, height: int,
                 width: int) -> tf.train.Example:
  """Builds the tf.train.Example of one pair.

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
      constants.KEY_IMAGE: _bytes_feature(image_bytes),
      constants.KEY_FILENAME: _bytes_feature(constants.bytes_of_name(filename)),
      constants.KEY_IMAGE_FORMAT: _bytes_feature(image_format.encode('ascii')),
      constants.KEY_HEIGHT: _int_feature(height),
      constants.KEY_WIDTH: _int_feature(width),
      constants.KEY_CHANNELS: _int_feature(3),
      constants.KEY_LABEL: _bytes_feature(label_bytes),
      constants.KEY_LABEL_FORMAT: _bytes_feature(label_format.encode('ascii')),
  }
  return tf.train.Example(features=tf.train.Features(feature=feature))


def _bytes_feature(value):
  return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _int_feature(value):
  return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))


# --- Writing ---------------------------------------------------------------


class Content(NamedTuple):
  """The content of a split to write."""
  output_dir: str  # exists
  split: str
  # Records of each shard; iterated once.
  shards: Sequence[Iterable[tf.train.Example]]
  # Other facts for the description.
  facts: Mapping[str, object] = {}


class ShardFacts(NamedTuple):
  """Description of a shard."""
  name: str
  records: int
  bytes: int
  sha256: str


def write_splits(contents: Sequence[Content]) -> List[List[str]]:
  """Writes shards and descriptions of splits: all of them, or none.

  All files are complete on disk under temporary names before the first one is
  renamed. Readers find the complete old or new set. If this process is killed
  in between, they find SPLIT.INCOMPLETE and refuse the split.

  Args:
    contents: the content of each split.

  Returns:
    The shards' paths of each split.

  Raises:
    InputError: a file cannot be written, or another process writes there.
  """
  paths = [[os.path.join(content.output_dir, constants.shard_name(
      content.split, index, len(content.shards)))
            for index in range(len(content.shards))] for content in contents]
  descriptions = [
      os.path.join(
          content.output_dir, constants.description_name(content.split))
      for content in contents]
  markers = [_marker(content.output_dir, content.split) for content in contents]
  state = 'temporary files removed, nothing published'
  with contextlib.ExitStack() as stack:
    try:
      for folder in sorted({content.output_dir for content in contents}):
        stack.enter_context(
            locks.alone(option('output_dir', folder), folder))
      with files.replacing(
          *(sum(paths, []) + descriptions)) as temporaries:
        rest = iter(temporaries)
        found = [[_write_shard(next(rest), shard) for shard in content.shards]
                 for content in contents]
        for content, facts, temporary in zip(contents, found, rest):
          with open(temporary, 'wb') as out:
            out.write(files.json_bytes(_description(content, facts)))
        files.write_all(dict.fromkeys(markers, _UNFINISHED))
        state = '{} left marked as unfinished; {}'.format(
            ' and '.join(content.split for content in contents), BUILD_AGAIN)
      for content, kept in zip(contents, paths):
        _remove_others(content, kept)
      for marker in markers:
        remote.remove(marker)
    except OSError as error:
      full = error.errno == errno.ENOSPC
      raise InputError('{}; {}'.format(
          'disk full writing ' + os.path.basename(error.filename or '') if full
          else errors.of_system(error), state))
  return paths


def _write_shard(path, examples):
  """Writes a shard; returns its ShardFacts."""
  count = 0
  try:
    with tf.io.TFRecordWriter(os.fsencode(path)) as writer:
      for example in examples:
        # Deterministic, so that every run writes the same bytes.
        writer.write(example.SerializeToString(deterministic=True))
        count += 1
  except tf.errors.OpError as error:
    raise OSError(
        errno.ENOSPC if isinstance(error, tf.errors.ResourceExhaustedError)
        else errno.EIO, tf_errors.why_not_written(error), path)
  size, found, problem = tally(path)
  if problem or found != count:
    raise OSError(errno.EIO, 'not all bytes arrived', path)
  return ShardFacts(os.path.basename(path), count, size, files.sha256_of(path))


def _description(content, shards):
  return dict(content.facts, split=content.split,
              pairs=sum(shard.records for shard in shards),
              shards=[shard._asdict() for shard in shards])


def _marker(folder, split):
  return os.path.join(folder, constants.incomplete_name(split))


def _remove_others(content, kept):
  """Removes a split's shards that are not in `kept`."""
  for name in _shards_in(content.output_dir, content.split):
    path = os.path.join(content.output_dir, name)
    if path not in kept:
      remote.remove(path)


# --- Finding ---------------------------------------------------------------


def tally(path: str) -> Tuple[int, int, str]:
  """Counts the records of a shard without reading their data.

  A record is 8 bytes of length (little endian), 4 of the length's checksum, the
  data, and 4 of the data's checksum. TensorFlow compares the checksums later;
  it would allocate memory for any length, even beyond the end of the file.

  Returns:
    (bytes, records, problem): the file's size, the number of records up to the
    first problem, and that problem, to follow 'record N'; '': none.

  Raises:
    InputError: the file cannot be read.
  """
  count = position = 0
  try:
    size = remote.size(path)
    with remote.reading(path) as shard:
      while position < size:
        shard.seek(position)
        header = shard.read(_LENGTH_BYTES)
        length = int.from_bytes(header, 'little')
        position += _LENGTH_BYTES + length + _CHECKSUM_BYTES
        if position > size or len(header) < _LENGTH_BYTES:
          return size, count, (
              _COMPRESSED if not count and header.startswith(_COMPRESSIONS)
              else 'is cut short')
        if length > _MOST_BYTES:
          return size, count, 'has {} bytes; expected at most {}'.format(
              length, _MOST_BYTES)
        count += 1
  except OSError as error:
    raise InputError(errors.of_system(error))
  return size, count, ''


class Description(NamedTuple):
  """Content of SPLIT.json."""
  path: str
  # Dict by name.
  shards: Dict[str, ShardFacts]
  # None: built without one.
  label_map: Optional[label_maps.LabelMap]


class ShardSet(NamedTuple):
  """The shards of one split."""
  # Sorted by index.
  paths: Tuple[str, ...]
  # None: not described, like the reference's sets.
  description: Optional[Description]


def find_shards(dataset_dir: str, split: str) -> List[str]:
  """Returns the paths of `find`."""
  return list(find(dataset_dir, split).paths)


def find(dataset_dir: str, split: str) -> ShardSet:
  """Finds the shards of a split and checks that they are one complete set.

  Args:
    dataset_dir: folder with the shards of one or more splits.
    split: 'train' or 'val'.

  Returns:
    A ShardSet; no shard is opened.

  Raises:
    InputError: there is no such folder, no shard of the split or no record; a
      shard is missing or belongs to another set; or a build was not finished.
  """
  if not remote.is_folder(dataset_dir):
    raise InputError(
        '{}: no such folder', option('dataset_dir', dataset_dir))
  if remote.exists(_marker(dataset_dir, split)):
    raise InputError('{}: the build of {} was not finished; {}'.format(
        dataset_dir, split, BUILD_AGAIN))
  shards = _shards_in(dataset_dir, split)
  description = read_description(dataset_dir, split)
  if not shards:
    raise InputError(
        'no {}-*-of-*.tfrecord in {} (found: {}); run '
        'build_ade20k_data.py'.format(
            split, dataset_dir,
            some_of(sorted(remote.names_in(dataset_dir))) or 'nothing'))
  _check_whole(dataset_dir, split, shards, description)
  paths = tuple(os.path.join(dataset_dir, name) for name in shards)
  for path in paths:
    if not remote.is_file(path):
      raise InputError('{}: expected a file; {}'.format(path, BUILD_AGAIN))
  # A file without records is empty: the format has no file header.
  if not any(map(remote.size, paths)):
    raise InputError(
        '{} has 0 records in {} ({} empty shards); run '
        'build_ade20k_data.py'.format(split, dataset_dir, len(paths)))
  return ShardSet(paths, description)


def _shards_in(folder: str, split: str) -> Dict[str, Tuple[int, int]]:
  """Returns (index, count) of a split's shards of any set, by name."""
  found = {}
  for name in sorted(remote.names_in(folder)):
    parsed = constants.parse_shard_name(name)
    if parsed and parsed[0] == split:
      found[name] = parsed[1:]
  return found


def _check_whole(folder, split, shards, description):
  """Checks that the shards are one set: the described one, if any."""
  if description:
    wanted, name = set(description.shards), 'that {} describes'.format(
        os.path.basename(description.path))
  else:
    count = max(count for _, count in shards.values())
    # The reference's names may have no extension.
    wanted = {constants.shard_name(split, index, count)
              for index in range(count)}
    name = 'of {} shards'.format(count)
    if not wanted.intersection(shards):
      wanted = {os.path.splitext(one)[0] for one in wanted}
  others = sorted(set(shards) - wanted)
  if others:
    raise InputError('{}: {} not of the set {}; remove what is not, or {}'
                     .format(folder, some_of(others), name, BUILD_AGAIN))
  missing = sorted(wanted - set(shards))
  if missing:
    raise InputError('{}: {} missing; {}'.format(
        folder, some_of(missing), BUILD_AGAIN))


def read_description(folder: str, split: str) -> Optional[Description]:
  """Returns the Description of a split; None: there is no file.

  Raises:
    InputError: the file cannot be read.
  """
  path = os.path.join(folder, constants.description_name(split))
  if not (remote.exists(path) or os.path.islink(path)):
    return None
  try:
    content = checked_read.read_json(path, path, 'a description of shards')
    label_map = label_maps.optional_from_json(content, path)
    found = [ShardFacts(*(shard[key] for key in ShardFacts._fields))
             for shard in content['shards']]
    is_whole = content['split'] == split and (
        content['pairs'] == sum(shard.records for shard in found)) and (
            {constants.parse_shard_name(shard.name) for shard in found} ==
            {(split, index, len(found)) for index in range(len(found))})
  except OSError as error:
    raise InputError(errors.of_system(error))
  except (InputError, AttributeError, KeyError, TypeError):
    is_whole = False
  if not is_whole:
    raise InputError('{}: damaged; {}, which writes it'.format(
        path, BUILD_AGAIN))
  return Description(path, {shard.name: shard for shard in found}, label_map)
