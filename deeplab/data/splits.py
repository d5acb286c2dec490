"""Selects the records of a split to read: all, or only the good ones.

First, the sizes and counts of shards are compared with SPLIT.json. With
DatasetOptions.verify_records, or if bad records are skipped, every record is
read and decoded before use. Otherwise TensorFlow fails at a bad record, and
`diagnose` finds it.
"""
import collections
import contextlib
import itertools
import logging
import os
from typing import (
  Dict,
  Generator,
  List,
  NamedTuple,
  Optional,
  Sequence,
  Set,
  Tuple,
)

import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab import errors
from deeplab.config import label_map as label_maps
from deeplab.config import options as options_lib
from deeplab.data import decoding
from deeplab.data import records
from deeplab.errors import InputError
from deeplab.errors import Message
from deeplab.errors import option
from deeplab.errors import some_messages
from deeplab.storage import files
from deeplab.storage import remote
from deeplab.system import parallel
from deeplab.system import progress

_LOG = logging.getLogger(__name__)
_REBUILD = 'rebuild this shard with build_ade20k_data.py'
# Most skipped records to name in the log.
_NAMED = 20


class Shard(NamedTuple):
  """The records to read from a shard."""
  path: str
  # Whether to read each record, up to the last one to read.
  kept: Tuple[bool, ...]


class Split(NamedTuple):
  """The records to read from a split."""
  shards: Tuple[Shard, ...]
  # Number of skipped records.
  skipped: int
  # State of the shards' files, to notice changes.
  state: Tuple[remote.State, ...]
  # Maps ids of the labels to classes.
  label_map: label_maps.LabelMap

  @property
  def paths(self) -> Tuple[str, ...]:
    """Paths of all shards."""
    return tuple(shard.path for shard in self.shards)

  @property
  def num_records(self) -> int:
    """Number of records to read."""
    return sum(sum(shard.kept) for shard in self.shards)


def label_map_of(
    options: options_lib.DatasetOptions,
    *others: Tuple[label_maps.Source, Optional[label_maps.LabelMap]]
) -> label_maps.LabelMap:
  """Returns the label map of a split; opens no shard.

  Args:
    options: folder, split, label_map.
    *others: other sources of the label map, for label_maps.agreed.

  Raises:
    InputError: a label map cannot be used, or two differ.
  """
  sources: List[
      Tuple[label_maps.Source, Optional[label_maps.LabelMap]]] = []
  if options.label_map is not None:
    sources.append((option('label_map', options.label_map),
                    label_maps.read(options.label_map)))
  description = records.read_description(options.dataset_dir, options.split)
  if description:
    sources.append((description.path, description.label_map))
  return label_maps.agreed(*sources, *others)


def open_split(
    options: options_lib.DatasetOptions,
    *others: Tuple[label_maps.Source, Optional[label_maps.LabelMap]]) -> Split:
  """Finds the records of a split, and checks them as the options require.

  Args:
    options: folder, split, verify_records, on_bad_record, label_map.
    *others: other sources of the label map; see label_map_of.

  Returns:
    A Split with at least one record.

  Raises:
    InputError: the shards are not one complete set, a record is bad and bad
      ones are not skipped, or label maps differ.
  """
  shard_set = records.find(options.dataset_dir, options.split)
  description = shard_set.description
  label_map = label_map_of(options, *others)
  state = state_of(shard_set.paths)
  if not description:
    _LOG.info('%s has no %s: whether records are missing is not known',
              options.dataset_dir, constants.description_name(options.split))
  skips = options.on_bad_record == options_lib.SKIP
  expected = {path: _expected(path, description, skips, label_map.largest_id)
              for path in shard_set.paths}
  bad: Dict[str, Set[int]] = collections.defaultdict(set)
  problems: List[Message] = []
  if skips or options.verify_records:
    for path, number, problem, is_end in _bad_records(
        shard_set.paths, label_map.largest_id, 'checking ' + options.split):
      bad[path].update(range(number, expected[path] if is_end else number + 1))
      lost = expected[path] - number - 1
      if is_end and lost > 0:
        problem = Message('{}, so {} after it cannot be read', problem,
                          progress.counted(lost, 'record'))
      problems.append(problem)
  if problems and not skips:
    raise InputError('{}; {}{}', problems[0], _REBUILD, '' if not problems[1:]
                     else ' (and {} more bad ones)'.format(len(problems) - 1))
  if options.verify_records and description:
    _compare_checksums(
        [path for path in shard_set.paths if not bad[path]], description)
  skipped = sum(map(len, bad.values()))
  if skipped:
    _LOG.warning('%s of %s left out: %s', progress.counted(skipped, 'record'),
                 options.split, some_messages(problems, limit=_NAMED))
  if skipped == sum(expected.values()):
    raise InputError('{}: none of the records of {} can be used',
                     option('dataset_dir', options.dataset_dir), options.split)
  return Split(tuple(Shard(path, _kept(count, bad[path]))
                     for path, count in expected.items()),
               skipped, state, label_map)


def _kept(count, bad):
  kept = [number not in bad for number in range(count)]
  while kept and not kept[-1]:
    kept.pop()
  return tuple(kept)


def state_of(paths: Sequence[str]) -> Tuple[remote.State, ...]:
  """Returns a state that changes if files are replaced or modified.

  Raises:
    InputError: a file is no longer accessible.
  """
  try:
    return tuple(map(remote.state, paths))
  except OSError as error:
    raise InputError(errors.of_system(error))


# --- Sizes, counts and checksums -------------------------------------------


def _expected(path, description, skips, largest_id):
  """Returns the number of records that a shard should have.

  Args:
    path: path of the shard.
    description: records.Description, or None.
    skips: whether bad records are skipped, not refused.
    largest_id: as for `diagnose`.

  Raises:
    InputError: the shard is not the described one, or is damaged.
  """
  size, count, problem = records.tally(path)
  if problem and not skips:
    raise InputError('{}', diagnose([path], largest_id))
  if not description:
    return count + bool(problem)
  facts = description.shards[os.path.basename(path)]
  if count > facts.records or not problem and (
      (count, size) != (facts.records, facts.bytes)):
    raise InputError('{}: {} in {} bytes, but {} says {} in {}; {}'.format(
        path, progress.counted(count, 'record'), size,
        os.path.basename(description.path), facts.records, facts.bytes,
        records.BUILD_AGAIN))
  return facts.records


def _compare_checksums(paths, description):
  """Raises InputError if a shard has another checksum than described."""
  for path in progress.shown(paths, 'checksums', unit='shard'):
    if files.sha256_of(path) != (
        description.shards[os.path.basename(path)].sha256):
      raise InputError('{}: not the checksum that {} says; {}'.format(
          path, os.path.basename(description.path), records.BUILD_AGAIN))


# --- Every record ----------------------------------------------------------


def _records_of(path, count, problem):
  """Yields (path, number, data, problem) of records; a problem is the last."""
  numbers = itertools.count()
  try:
    for data in decoding.elements(lambda: tf.data.TFRecordDataset(
        [os.fsencode(path)]).take(count)):
      yield path, next(numbers), data, ''
  except tf.errors.DataLossError:
    problem = 'fails its CRC'
  if problem:
    yield path, next(numbers), b'', problem


def _bad_records(
    paths: Sequence[str], largest_id: int, title: str
) -> Generator[Tuple[str, int, Message, bool], None, None]:
  """Reads and decodes all records of shards; yields the bad ones.

  Args:
    paths: the shards.
    largest_id: largest id that a label may hold.
    title: title of the progress bar.

  Yields:
    (path, number, problem, is_end): the number is counted from 0 in its shard;
    is_end: records after it cannot be read.
  """
  def check(record):
    path, number, data, unreadable = record
    try:
      if unreadable:
        raise InputError(unreadable)
      decoder.check(data)
    except InputError as error:
      return path, number, Message(
          '{}: record {} {}', path, number, error), bool(unreadable)
    return None

  tallies = [(path,) + records.tally(path)[1:] for path in paths]
  found = itertools.chain.from_iterable(itertools.starmap(_records_of, tallies))
  with decoding.Decoder(largest_id) as decoder, (
      parallel.mapped_in_threads(check, found)) as checked:
    yield from filter(None, progress.shown(
        checked, title, unit='record',
        total=sum(count for _, count, _ in tallies)))


def diagnose(
    paths: Sequence[str],
    largest_id: int = constants.LARGEST_LABEL_ON_DISK) -> Optional[Message]:
  """Finds the record that made TensorFlow fail.

  Args:
    paths: the shards.
    largest_id: largest id that a label may hold.

  Returns:
    One line that names shard, record (counted from 0) and problem; None: every
    record is good.
  """
  with contextlib.closing(_bad_records(
      paths, largest_id, 'looking for the record')) as found:
    for _, _, problem, _ in found:
      return Message('{}; {}', problem, _REBUILD)
  return None
