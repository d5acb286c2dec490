"""Selects the records of a split to read: all, or only the good ones.

First, the sizes and counts of shards are compared with SPLIT.json. With
DatasetOptions.verify_records, or if bad records are skipped, every record is
read and decoded before use. Otherwise TensorFlow fails at a bad record, and
`diagnose` finds it.
"""
import contextlib
import itertools
import logging
import os
from typing import (
  Dict,
  Generator,
  Iterator,
  List,
  NamedTuple,
  Optional,
  Sequence,
  Tuple,
)

import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab import errors
from deeplab.config import label_map as label_maps
from deeplab.config import options as options_lib
from deeplab.data import decoding
from deeplab.data import framing
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
  # Number of records before the first unreadable one.
  readable: int
  # Positions of skipped records among them, counted from 0.
  bad: Tuple[int, ...] = ()

  @property
  def num_records(self) -> int:
    """Number of records to read."""
    return self.readable - len(self.bad)


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
    return sum(shard.num_records for shard in self.shards)


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
  expected = {path: _expected(path, description, skips)
              for path in shard_set.paths}
  total = sum(expected.values())
  shards = [Shard(path, count) for path, count in expected.items()]
  problems: List[Message] = []
  if skips or options.verify_records:
    shards, problems = _good_shards(
        expected, label_map.largest_id, 'checking ' + options.split)
  if problems and not skips:
    raise InputError('{}; {}{}', problems[0], _REBUILD, '' if not problems[1:]
                     else ' (and {} more bad ones)'.format(len(problems) - 1))
  if options.verify_records and description:
    _compare_checksums(shards, description)
  skipped = total - sum(shard.num_records for shard in shards)
  if skipped:
    _LOG.warning('%s of %s left out: %s', progress.counted(skipped, 'record'),
                 options.split, some_messages(problems, limit=_NAMED))
  if skipped == total:
    raise InputError('{}: none of the records of {} can be used',
                     option('dataset_dir', options.dataset_dir), options.split)
  return Split(tuple(shards), skipped, state, label_map)


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


def _expected(path, description, skips):
  """Returns the number of records that a shard should have.

  Args:
    path: path of the shard.
    description: records.Description, or None.
    skips: whether bad records are skipped, not refused.

  Raises:
    InputError: the shard is not the described one, or is damaged.
  """
  tally = framing.tally(path)
  if tally.problem and not skips:
    raise InputError('{}: record {} {}; {}'.format(
        path, tally.records, tally.problem, _REBUILD))
  if not description:
    return tally.records + bool(tally.problem)
  facts = description.shards[os.path.basename(path)]
  if tally.records > facts.records or not tally.problem and (
      (tally.records, tally.bytes) != (facts.records, facts.bytes)):
    raise InputError('{}: {} in {} bytes, but {} says {} in {}; {}'.format(
        path, progress.counted(tally.records, 'record'), tally.bytes,
        os.path.basename(description.path), facts.records, facts.bytes,
        records.BUILD_AGAIN))
  return facts.records


def _compare_checksums(shards, description):
  """Raises InputError if a good shard has another checksum."""
  for shard in progress.shown(shards, 'checksums', unit='shard'):
    wanted = description.shards[os.path.basename(shard.path)]
    if shard.num_records == wanted.records and (
        files.sha256_of(shard.path) != wanted.sha256):
      raise InputError('{}: not the checksum that {} says; {}'.format(
          shard.path, os.path.basename(description.path), records.BUILD_AGAIN))


# --- Every record ----------------------------------------------------------


class _Record(NamedTuple):
  """A record."""
  path: str
  # Counted from 0 in each shard.
  number: int
  data: bytes
  # Why it and the following records cannot be read; '': it is readable.
  unreadable: str = ''


def _records_of(path: str) -> Iterator[_Record]:
  """Yields the records of a shard up to the first unreadable one."""
  tally = framing.tally(path)
  problem = tally.problem
  numbers = itertools.count()
  try:
    for data in decoding.elements(lambda: tf.data.TFRecordDataset(
        [os.fsencode(path)]).take(tally.records)):
      yield _Record(path, next(numbers), data)
  except tf.errors.DataLossError:
    problem = 'fails its CRC'
  if problem:
    yield _Record(path, next(numbers), b'', problem)


def _checked(paths: Sequence[str], largest_id: int, total: int, title: str
             ) -> Generator[Tuple[_Record, Optional[Message]], None, None]:
  """Yields records without their data, and the problem of each or None."""
  def check(record):
    problem = None
    try:
      if record.unreadable:
        raise InputError(record.unreadable)
      decoder.check(record.data)
    except InputError as error:
      problem = Message('{}: record {} {}', record.path, record.number, error)
    return record._replace(data=b''), problem

  found = itertools.chain.from_iterable(map(_records_of, paths))
  with decoding.Decoder(largest_id) as decoder, (
      parallel.mapped_in_threads(check, found)) as checked:
    yield from progress.shown(checked, title, unit='record', total=total)


def _good_shards(expected: Dict[str, int], largest_id: int, title: str
                 ) -> Tuple[List[Shard], List[Message]]:
  """Decodes every record of the expected shards.

  Args:
    expected: number of records by path.
    largest_id: largest id that a label may hold.
    title: title of the progress bar.

  Returns:
    (shards, problems): the records to read, and the problems of others.
  """
  shards = {path: Shard(path, count) for path, count in expected.items()}
  problems = []
  for record, problem in _checked(
      list(expected), largest_id, sum(expected.values()), title):
    shard = shards[record.path]
    if record.unreadable:
      shards[shard.path] = shard._replace(readable=record.number)
      lost = shard.readable - record.number - 1
      if lost > 0:
        problem = Message('{}, so {} after it cannot be read', problem,
                          progress.counted(lost, 'record'))
    elif problem:
      shards[shard.path] = shard._replace(bad=shard.bad + (record.number,))
    if problem:
      problems.append(problem)
  return list(shards.values()), problems


# --- Diagnosis -------------------------------------------------------------


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
  total = sum(framing.tally(path).records for path in paths)
  with contextlib.closing(_checked(
      paths, largest_id, total, 'looking for the record')) as checked:
    for _, problem in checked:
      if problem:
        return Message('{}; {}', problem, _REBUILD)
  return None
