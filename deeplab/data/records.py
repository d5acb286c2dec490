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
  Set,
  Tuple,
)

from google.protobuf import message as protobuf_message
import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab import errors
from deeplab.config import label_map as label_maps
from deeplab.data import framing
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.errors import some_of
from deeplab.storage import checked_read
from deeplab.storage import files
from deeplab.storage import locks
from deeplab.storage import remote

BUILD_AGAIN = 'run build_ade20k_data.py again'


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


class Parsed(NamedTuple):
  """Fields of a tf.Example that readers use; images are not decoded."""
  image_encoded: bytes
  label_encoded: bytes
  # The stored constants.KEY_FILENAME; empty: none.
  filename: bytes


def parse(data: bytes) -> Parsed:
  """Parses a serialized tf.Example.

  Raises:
    InputError: it is no such example; the text follows 'record N'.
  """
  try:
    features = tf.train.Example.FromString(data).features.feature
  except protobuf_message.DecodeError:
    raise InputError('is not a tf.Example')
  filename = b''.join(features[constants.KEY_FILENAME].bytes_list.value[:1])
  images = []
  for key in (constants.KEY_IMAGE, constants.KEY_LABEL):
    values = features[key].bytes_list.value
    if len(values) != 1:
      raise InputError('{}: {} holds {} values of bytes, expected 1'.format(
          name_in_messages(filename), key, len(values)))
    images.append(values[0])
  return Parsed(images[0], images[1], filename)


def name_in_messages(filename: bytes) -> str:
  """Formats the name of a record's image, to follow 'record N'."""
  return '({})'.format(constants.text_of_name(filename) or 'no name')


def parse_example(serialized: tf.Tensor) -> Dict[str, tf.Tensor]:
  """Parses one serialized tf.Example inside a graph.

  Args:
    serialized: scalar string tensor.

  Returns:
    Dict of scalar string tensors, named as in Parsed. The graph fails if the
    example is malformed.
  """
  # Not tf.io.parse_single_example: its error text contains the data, which
  # crashes TensorFlow 1.15 with a segmentation fault.
  features, = _decode_proto(serialized, 'Example', 'features').values
  entries, = _decode_proto(features[0], 'Features', 'feature').values
  keys, found = _decode_proto(
      entries, 'Features.FeatureEntry', 'key', 'value').values
  wanted = tf.stack([
      tf.strings.reduce_join(tf.boolean_mask(found, tf.equal(keys, key)))
      for key in (
          constants.KEY_IMAGE, constants.KEY_LABEL, constants.KEY_FILENAME)])
  lists, = _decode_proto(wanted, 'Feature', 'bytes_list').values
  contents = _decode_proto(lists[:, 0], 'BytesList', 'value')
  one_of_each = tf.reduce_all(tf.equal(contents.sizes[:2], 1))
  with tf.control_dependencies([tf.Assert(
      one_of_each, ['no image and label', contents.sizes])]):
    values = contents.values[0][:, 0]
  return {
      name: values[index] for index, name in enumerate(Parsed._fields)}


def _decode_proto(serialized, message, *fields):
  return tf.io.decode_proto(
      serialized, 'tensorflow.' + message, fields, [tf.string] * len(fields))


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


def write_shards(
    *, output_dir: str, split: str,
    shards: Sequence[Iterable[tf.train.Example]]) -> List[str]:
  """Writes one split; see write_splits.

  Args:
    output_dir: an existing folder.
    split: 'train' or 'val'.
    shards: the records of each shard.

  Returns:
    The shards' paths.
  """
  return write_splits([Content(output_dir, split, shards)])[0]


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
          _write_description(temporary, content, facts)
        _mark(markers)
        state = _unfinished(contents)
      _unmark(contents, paths, markers)
    except OSError as error:
      raise InputError('{}; {}'.format(_write_problem(error), state))
  return paths


def _write_description(path, content, shards):
  with open(path, 'wb') as out:
    out.write(files.json_bytes(_description(content, shards)))


def _unfinished(contents):
  return '{} left marked as unfinished; {}'.format(
      ' and '.join(content.split for content in contents), BUILD_AGAIN)


def _unmark(contents, paths, markers):
  """Removes stale shards, then the INCOMPLETE marker."""
  for content, kept in zip(contents, paths):
    _remove_others(content, kept)
  for marker in markers:
    remote.remove(marker)


def _write_shard(path, examples):
  """Writes a shard; returns its ShardFacts."""
  count = size = 0
  try:
    with tf.io.TFRecordWriter(os.fsencode(path)) as writer:
      for example in examples:
        # Deterministic, so that every run writes the same bytes.
        data = example.SerializeToString(deterministic=True)
        writer.write(data)
        count += 1
        size += framing.framed_size(len(data))
    if os.path.getsize(path) != size:
      raise OSError(errno.EIO, 'not all bytes arrived', path)
    return ShardFacts(
        os.path.basename(path), count, size, files.sha256_of(path))
  except tf.errors.OpError as error:
    raise OSError(
        errno.ENOSPC if isinstance(error, tf.errors.ResourceExhaustedError)
        else errno.EIO, error.message.replace(
            '{}; '.format(path), ''), path)
  except OSError as error:
    error.filename = error.filename or path
    raise


def _description(content, shards):
  return dict(content.facts, split=content.split,
              pairs=sum(shard.records for shard in shards),
              shards=[shard._asdict() for shard in shards])


def _write_problem(error):
  if error.errno == errno.ENOSPC:
    return 'disk full writing ' + os.path.basename(error.filename or '')
  return errors.of_system(error)


def _marker(folder, split):
  return os.path.join(folder, constants.incomplete_name(split))


def _mark(markers):
  """Creates marker files; if one fails, removes those it created."""
  made: List[str] = []
  try:
    for marker in markers:
      if not remote.exists(marker):
        made.append(marker)
        files.write_text(
            marker, 'build_ade20k_data.py has not finished writing here.\n')
  except BaseException:
    for marker in made:
      with contextlib.suppress(OSError):
        remote.remove(marker)
    raise


def _remove_others(content, kept):
  """Removes a split's shards that are not in `kept`."""
  for name in _shards_in(content.output_dir, content.split):
    path = os.path.join(content.output_dir, name)
    if path not in kept:
      remote.remove(path)


# --- Finding ---------------------------------------------------------------


class Description(NamedTuple):
  """Content of SPLIT.json."""
  path: str
  pairs: int
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
    raise InputError('{}: the building of {} was not finished; {}'.format(
        dataset_dir, split, BUILD_AGAIN))
  shards = _shards_in(dataset_dir, split)
  description = read_description(dataset_dir, split)
  if not shards:
    raise InputError(
        'no {}-*-of-*.tfrecord in {} (found: {}); run '
        'build_ade20k_data.py'.format(
            split, dataset_dir,
            some_of(sorted(remote.names_in(dataset_dir))) or 'nothing'))
  if description:
    _check_described(dataset_dir, shards, description)
  else:
    _check_whole(dataset_dir, split, shards)
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


def _check_described(folder, shards, description):
  """Checks that the shards are the described ones."""
  wanted = description.shards
  missing = sorted(set(wanted) - set(shards))
  if missing:
    raise InputError('{}: {} missing; {}'.format(
        folder, some_of(missing), BUILD_AGAIN))
  others = sorted(set(shards) - set(wanted))
  if others:
    raise InputError('{}: {} not of the set that {} describes; remove what is '
                     'not, or {}'.format(
                         folder, some_of(others),
                         os.path.basename(description.path), BUILD_AGAIN))


def _check_whole(folder, split, shards):
  """Checks that the indices are 0..count-1."""
  outside = [name for name, (index, count) in shards.items()
             if index >= count]
  if outside:
    raise InputError('{}: {} of no set: counted from 0, no shard has such a '
                     'number'.format(folder, some_of(outside)))
  counts = sorted({count for _, count in shards.values()})
  if len(counts) > 1 or len(set(shards.values())) < len(shards):
    raise InputError(
        'shards of more than one {} set in {}: {}; keep one set'.format(
            split, folder, some_of(list(shards), limit=8)))
  missing = sorted(
      set(range(counts[0])) - {index for index, _ in shards.values()})
  if missing:
    names = [constants.shard_name(split, index, counts[0]) for index in missing]
    raise InputError('{}: {} missing; {}'.format(
        folder, some_of(names), BUILD_AGAIN))


def read_description(folder: str, split: str) -> Optional[Description]:
  """Returns the Description of a split; None: there is no file.

  Raises:
    InputError: the file cannot be read.
  """
  path = os.path.join(folder, constants.description_name(split))
  if not (remote.exists(path) or os.path.islink(path)):
    return None
  try:
    return _parse_description(
        path, split,
        checked_read.read_json(path, path, 'a description of shards'))
  except OSError as error:
    raise InputError(errors.of_system(error))
  except (InputError, ValueError, KeyError, TypeError):
    raise InputError('{}: damaged; {}, which writes it'.format(
        path, BUILD_AGAIN))


def _parse_description(path, split, content):
  """Returns a Description; raises ValueError, KeyError or TypeError."""
  if content['split'] != split:
    raise ValueError
  pairs = _count(content['pairs'])
  label_map = label_maps.optional_from_json(content, path)
  found = [ShardFacts(
      str(shard['name']), _count(shard['records']), _count(shard['bytes']),
      str(shard['sha256'])) for shard in content['shards']]
  wanted: Set[Tuple[str, int, int]] = {
      (split, index, len(found)) for index in range(len(found))}
  if wanted != {constants.parse_shard_name(shard.name) for shard in found} or (
      pairs != sum(shard.records for shard in found)):
    raise ValueError
  return Description(
      path, pairs, {shard.name: shard for shard in found}, label_map)


def _count(value):
  if type(value) is not int or value < 0:
    raise ValueError
  return value
