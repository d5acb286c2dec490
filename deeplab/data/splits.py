"""The records of a split that are to be read: all, or those that are sound.

Before TensorFlow is given a record, the form of each is looked at. With
DatasetOptions.verify_records, or where bad records are to be left out, each is
decoded too.
"""
import functools
import itertools
import logging
import os
from typing import List, NamedTuple, Optional, Sequence, Tuple

from deeplab import contract
from deeplab import errors
from deeplab import files
from deeplab import label_map as label_maps
from deeplab import options as options_lib
from deeplab import parallel
from deeplab import progress
from deeplab import storage
from deeplab.data import decoding
from deeplab.data import examples
from deeplab.data import framing
from deeplab.data import records
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.errors import some_messages

_LOG = logging.getLogger(__name__)
_REBUILD = 'rebuild this shard with build_ade20k_data.py'
# Bad records that are named where they are left out.
_NAMED = 20


class Record(NamedTuple):
  """One record to read."""
  # The shard that it is in; its number there, counted from 0; framing.Frame's
  # offset.
  path: str
  number: int
  offset: int
  # The image's file name as recorded, which may have a folder.
  filename: str


class Split(NamedTuple):
  """What is to be read of a split."""
  # All shards.
  paths: Tuple[str, ...]
  # In order.
  records: Tuple[Record, ...]
  # How many others there are, or were.
  skipped: int
  # What tells whether the shards are still the same files.
  state: Tuple[storage.State, ...]
  # Which ids of the labels are which class.
  label_map: label_maps.LabelMap


def label_map_of(
    options: options_lib.DatasetOptions,
    *others: Tuple[label_maps.Source, Optional[label_maps.LabelMap]]
) -> label_maps.LabelMap:
  """Finds out what the classes of a split are; opens no shard.

  Args:
    options: folder, split, label_map.
    *others: who else says what they are, as for label_map.agreed.

  Raises:
    InputError: a label map that cannot be used, or two that differ.
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
  """Finds the records of a split, and checks them as far as is asked for.

  Args:
    options: folder, split, verify_records, on_bad_record, label_map.
    *others: who else says what the classes are; see label_map_of.

  Returns:
    A Split with at least one record.

  Raises:
    InputError: shards that are not one whole set; a record that cannot be used,
      unless those are left out; label maps that differ.
  """
  shard_set = records.find(options.dataset_dir, options.split)
  label_map = label_map_of(options, *others)
  state = state_of(shard_set.paths)
  scans = [_scan(path) for path in progress.shown(
      shard_set.paths, 'reading ' + options.split, unit='shard')]
  skips = options.on_bad_record == options_lib.SKIP
  if not skips:
    _refuse_any(scans)
  _say_what_is_not_known(options, shard_set.description)
  if shard_set.description:
    scans = _compared(scans, shard_set.description)
  if skips or options.verify_records:
    scans = _decoded(scans, options.split, label_map.largest_id)
    if not skips:
      _refuse_any(scans)
  if options.verify_records:
    _compare_checksums(scans, shard_set.description)
  found = tuple(record for scan in scans for record in scan.records)
  skipped = sum(scan.skipped for scan in scans)
  if skipped:
    _LOG.warning(
        '%s of %s left out: %s', _counted(skipped), options.split,
        some_messages(_problems(scans), limit=_NAMED))
  if not found:
    raise InputError('{}: none of the records of {} can be used',
                     option('dataset_dir', options.dataset_dir), options.split)
  return Split(shard_set.paths, found, skipped, state, label_map)


def _counted(count):
  return '1 record' if count == 1 else '{} records'.format(count)


def _problems(scans):
  return [problem for scan in scans for problem in scan.problems]


def _refuse_any(scans):
  problems = _problems(scans)
  if problems:
    more = len(problems) - 1
    raise InputError('{}; {}{}', problems[0], _REBUILD, '' if not more else
                     ' (and {} more bad ones)'.format(more))


def state_of(paths: Sequence[str]) -> Tuple[storage.State, ...]:
  """Returns what changes where files are replaced or written to.

  Raises:
    InputError: a file cannot be looked at any more.
  """
  try:
    return tuple(map(storage.state, paths))
  except OSError as error:
    raise InputError(errors.of_system(error))


# --- Looking at every record -----------------------------------------------


class _Scan(NamedTuple):
  """What a look at one shard found."""
  path: str
  # Sound as far as they were looked at.
  records: List[Record]
  # 'PATH: record N ...' of the others that were found.
  problems: List[errors.Message]
  # Whether the end of the file was reached, from record to record.
  is_whole: bool
  # Records that are not in `records`, those included that were not found.
  skipped: int


def _scan(path: str) -> _Scan:
  """Looks at the framing of a shard, and at the form of its examples."""
  found: List[Record] = []
  problems: List[errors.Message] = []
  frames = framing.frames(path)
  number = 0
  while True:
    try:
      frame = next(frames, None)
    except InputError as error:
      problems.append(_problem(path, number, error))
      return _Scan(path, found, problems, False, len(problems))
    except OSError as error:
      raise InputError(errors.of_system(error))
    if frame is None:
      return _Scan(path, found, problems, True, len(problems))
    try:
      found.append(Record(path, number, frame.offset, _filename(frame)))
    except InputError as error:
      problems.append(_problem(path, number, error))
    number += 1


def _filename(frame):
  """Returns what an example calls its image, or raises InputError."""
  try:
    return examples.check_form(frame.data).filename
  except InputError:
    frame.check()  # where it has been damaged since, that is what to say
    raise


def _problem(path, number, error):
  return errors.Message('{}: record {} {}', path, number, error)


def _decoded(scans, split, largest_id):
  """Decodes every record; returns the scans without those that fail."""
  with decoding.Decoder(largest_id) as decoder:
    checked, problems = parallel.check_all(
        functools.partial(_check_content, decoder=decoder),
        [record for scan in scans for record in scan.records],
        title='checking ' + split, unit='record')
  outcomes, reasons = iter(checked), iter(problems)
  result = []
  for scan in scans:
    # In the order of the scans, as many as there are.
    sound = [record for record in itertools.islice(
        outcomes, len(scan.records)) if record]
    bad = len(scan.records) - len(sound)
    result.append(scan._replace(
        records=sound, skipped=scan.skipped + bad,
        problems=scan.problems + list(itertools.islice(reasons, bad))))
  return result


def _check_content(record: Record, decoder: decoding.Decoder) -> Record:
  """Returns a record; raises InputError where it cannot be decoded."""
  try:
    frame = framing.read(record.path, record.offset)
    frame.check()
    decoder.check(frame.data)
  except InputError as error:
    raise InputError('{}', _problem(record.path, record.number, error))
  return record


# --- What SPLIT.json says --------------------------------------------------


def _compared(scans, description):
  """Holds scans against a description.

  Args:
    scans: list of _Scan.
    description: records.Description.

  Returns:
    The scans; where the end of a shard cannot be read, what it lacks is
    counted as left out.

  Raises:
    InputError: a shard that can be read, but is not the one described.
  """
  if description.shards is None:
    return _compared_in_all(scans, description)
  name = os.path.basename(description.path)
  result = []
  for scan in scans:
    facts = description.shards[os.path.basename(scan.path)]
    found = len(scan.records) + scan.skipped
    size = storage.size(scan.path)
    if scan.is_whole and (found, size) != (facts.records, facts.bytes) or (
        found > facts.records):
      raise InputError('{}: {} in {} bytes, but {} says {} in {}; {}'.format(
          scan.path, _counted(found), size, name, facts.records, facts.bytes,
          records.BUILD_AGAIN))
    result.append(scan._replace(skipped=facts.records - len(scan.records)))
  return result


def _compared_in_all(scans, description):
  """The same where only the number of all records is known."""
  found = sum(len(scan.records) + scan.skipped for scan in scans)
  lost = description.pairs - found
  broken = [scan for scan in scans if not scan.is_whole]
  if lost < 0 or lost and not broken:
    raise InputError('{}: {} in the shards, but {} are described; {}'.format(
        description.path, _counted(found), description.pairs,
        records.BUILD_AGAIN))
  return [scan._replace(skipped=scan.skipped + lost)
          if broken and scan is broken[0] else scan for scan in scans]


def _say_what_is_not_known(options, description):
  """Logs what cannot be checked of an older set."""
  if description is None:
    _LOG.info('%s has no %s: whether records are missing is not known',
              options.dataset_dir,
              contract.description_name(options.split))
  elif description.shards is None:
    _LOG.info('%s is of an earlier release: it has no checksums, and the '
              'records of all shards together', description.path)


def _compare_checksums(scans, description):
  """Raises InputError where a shard that looks sound is another one."""
  if description is None or description.shards is None:
    return
  for scan in progress.shown(scans, 'checksums', unit='shard'):
    wanted = description.shards[os.path.basename(scan.path)].sha256
    # Where records are bad, that is why.
    if not scan.problems and files.sha256_of(scan.path) != wanted:
      raise InputError('{}: not the checksum that {} says; {}'.format(
          scan.path, os.path.basename(description.path), records.BUILD_AGAIN))


# --- Diagnosis -------------------------------------------------------------


def diagnose(
    paths: Sequence[str],
    largest_id: int = contract.LARGEST_LABEL_ON_DISK
) -> Optional[errors.Message]:
  """Looks for the record that made TensorFlow fail.

  Args:
    paths: list of shards.
    largest_id: the largest that a label may hold.

  Returns:
    One line that names shard, record (counted from 0) and defect; None where
    every record is sound.
  """
  scans = [_scan(path) for path in paths]
  problems = _problems(scans)
  found = [record for scan in scans for record in scan.records]
  if not problems:
    with decoding.Decoder(largest_id) as decoder, parallel.mapped_in_threads(
        functools.partial(_check_content, decoder=decoder), found) as checked:
      try:
        for _ in progress.shown(checked, 'looking for the record',
                                unit='record', total=len(found)):
          pass
      except InputError as error:
        problems.append(error)
  return errors.Message('{}; {}', problems[0], _REBUILD) if problems else None
