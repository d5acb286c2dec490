"""Writes batches as a folder of preprocessed pairs; see `png_folder`.

Every file is complete from the moment it has its name. While the writing goes
on, and after it ended early, the folder has a file INCOMPLETE. Of parts that
write to one folder, the last one to come writes the manifest and removes it.
"""
import collections
import contextlib
import errno
import itertools
import json
import os
import time
from typing import (
  TYPE_CHECKING,
  Any,
  Dict,
  List,
  NamedTuple,
  Optional,
  Sequence,
  Tuple,
)

import numpy as np

from deeplab import contract
from deeplab import files
from deeplab import inputs
from deeplab import label_map as label_maps
from deeplab import options as options_lib
from deeplab import parallel
from deeplab import parts
from deeplab import progress
from deeplab.data import png
from deeplab.data import png_folder
from deeplab.errors import InputError
from deeplab.errors import Message
from deeplab.errors import option
from deeplab.errors import some_of

if TYPE_CHECKING:  # it needs TensorFlow, which this module does without
  from deeplab.data import dataset

# Least digits of a number in a name. ADE20K's own names have eight.
_DIGITS = {options_lib.NUMBERED: 1, options_lib.MLPERF_APP: 8}
_FOLDERS = (contract.PREPROCESSED_IMAGES, contract.PREPROCESSED_ANNOTATIONS)


class WriteSummary(NamedTuple):
  """What was written."""
  folder: str
  split: str
  # Number of pairs.
  pairs: int
  # Number of records left out because they are bad.
  skipped: int
  geometry: str
  # Duration, in seconds.
  seconds: float
  # Which part of all images this was; None: all.
  part: Optional[parts.Part] = None
  # Names the parts that are not there yet; '': the folder is complete.
  missing: str = ''


class _Element(NamedTuple):
  """One pair to write."""
  number: int
  # float32 [height, width, 3] RGB in [0, 255].
  image: np.ndarray
  # int32 [height, width], classes.
  label: np.ndarray
  # File name in the data set, and size there in pixels.
  source: str
  source_height: int
  source_width: int


def read_image_list(path: str) -> List[str]:
  """Reads the names of images, one a line; blanks around them do not count.

  Args:
    path: text file; lines may end as on Windows.

  Returns:
    List of str, in the order of the lines.

  Raises:
    InputError: no such file, no text, no name, or a name that comes twice.
  """
  given = option('image_list', path)
  text = inputs.read_text(
      path, given, 'the file name of an image on each line')
  names = [line.strip() for line in text.splitlines() if line.strip()]
  if not names:
    raise InputError('{}: no line with a name; expected the file name of an '
                     'image on each', given)
  repeated = [name for name, count in collections.Counter(names).items()
              if count > 1]
  if repeated:
    raise InputError('{}: {} names come more than once: {}', given,
                     len(repeated), some_of(repeated))
  return names


def write(batches: 'dataset.Batches', *,
          names: Optional[Sequence[str]] = None,
          split: str, preprocess_options: options_lib.PreprocessOptions,
          options: options_lib.PreprocessedOptions) -> WriteSummary:
  """Writes batches as a folder of pairs, with a manifest.

  Args:
    batches: dataset.Batches.
    names: file names of the batches' images in the order of their numbers;
      None: numbered as they come.
    split: 'train' or 'val', for the manifest.
    preprocess_options: PreprocessOptions of the batches, for the manifest.
    options: PreprocessedOptions.

  Returns:
    A WriteSummary.

  Raises:
    InputError: the folder holds other files, cannot be written or is full, or
      a record cannot be used.
  """
  started = time.time()
  folder, part = options.output_dir, options.part
  geometry = preprocess_options.geometry()
  facts = dict(
      label_maps.json_entry(batches.label_map),
      split=split,
      skipped=batches.num_skipped,
      geometry=geometry,
      preprocessing=preprocess_options.to_json(),
      image_list=options.image_list,
      layout=options.layout)
  work = part and _work(batches, names, facts)
  if part:
    _check_may_join(folder, part, work)
  else:
    _check_may_write(folder, options.overwrite)
  if options.manifest:
    files.check_outputs(option('manifest', options.manifest), options.manifest,
                      example=contract.PREPROCESSED_MANIFEST)
  try:
    if part:
      _prepare_part(folder, part, work)
    else:
      _prepare(folder)
  except OSError as error:
    raise InputError('{}: {}: {}', option('output_dir', folder),
                     error.filename, error.strerror)
  entries: List[Tuple[int, Dict[str, Any]]] = []
  with _explaining_write_errors(options, entries):
    for entry in _write_pairs(batches, names, options):
      entries.append(entry)
    missing = ''
    if part:
      missing = _complete_if_last(options, facts, entries, work)
    else:
      for name in _FOLDERS:
        files.sync(os.path.join(folder, name))
      _complete(options, facts, entries)
  return WriteSummary(
      folder, split, len(entries), batches.num_skipped, geometry,
      time.time() - started, part, missing)


def _complete(options, facts, entries):
  """Writes the manifest; from then on the folder is a whole one.

  Args:
    options: PreprocessedOptions.
    facts: what the manifest says, but for the images.
    entries: list of (number, entry of the manifest) of all images.
  """
  folder = options.output_dir
  # They come as the records do; numbers are those of a list of names.
  entries = sorted(entries, key=lambda entry: entry[0])
  manifest = dict(facts, count=len(entries),
                  images=[entry for _, entry in entries])
  for path in (png_folder.manifest_path(folder), options.manifest):
    if path:
      files.write_json(path, manifest)
  with contextlib.suppress(FileNotFoundError):  # another part has done the same
    os.remove(_marker(folder))


def _marker(folder):
  return os.path.join(folder, contract.PREPROCESSED_INCOMPLETE)


# --- Parts -----------------------------------------------------------------


def _work(batches, names, facts):
  """Returns what parts of one folder have in common, as JSON has it."""
  return json.loads(json.dumps(dict(
      facts, records=batches.identity, images=batches.total_images,
      names=names and files.digest(list(names)))))


def _check_may_join(folder, part, work):
  """Raises InputError unless a part may write to a folder.

  That is empty, or has parts of the same work alone.
  """
  given = option('output_dir', folder)
  _check_foreign(folder)
  present = _present(folder)
  if not os.path.exists(_marker(folder)):
    if present:
      raise InputError('{} holds {} files already; give another folder for '
                       'parts', given, len(present))
    return
  begun = parts.begun(_marker(folder))
  if begun:
    parts.check_same(_marker(folder), begun, dict(work, parts=part.of))
  elif present:
    raise InputError('{} holds {} files from an unfinished run without parts; '
                     'give another folder', given, len(present))


def _prepare_part(folder, part, work):
  """Makes the folders, and marks the whole as incomplete."""
  for name in _FOLDERS:
    os.makedirs(os.path.join(folder, name), exist_ok=True)
  if not (os.path.exists(_marker(folder)) and parts.begun(_marker(folder))):
    files.write_json(_marker(folder), dict(work, parts=part.of))
  with contextlib.suppress(FileNotFoundError):  # of an earlier run of this part
    os.remove(parts.file_of(folder, part))


def _complete_if_last(options, facts, entries, work):
  """Says that a part is there; completes the folder where all are.

  Args:
    options: PreprocessedOptions.
    facts: as for _complete.
    entries: of this part.
    work: from _work.

  Returns:
    The parts that are missing, in words; '': none.
  """
  folder, part = options.output_dir, options.part
  files.sync_each(
      os.path.join(folder, name, entry['name'])
      for name in _FOLDERS for _, entry in entries)
  parts.keep(folder, part, work, entries)
  try:
    found = parts.kept(folder, part.of, work)
  except FileNotFoundError:
    return ''  # another one came last, too, and has completed the folder
  if len(found) < part.of and os.path.exists(_marker(folder)):
    return parts.missing_in(folder, part.of)
  if len(found) == part.of:
    try:
      entries = [(int(number), dict(entry))
                 for one in found for number, entry in one]
    except (TypeError, ValueError):
      raise InputError('{}: what parts left there is damaged; run all of them '
                       'again', option('output_dir', folder))
    _complete(options, facts, entries)
  for path in parts.files_in(folder).values():
    with contextlib.suppress(FileNotFoundError):
      os.remove(path)
  return ''


def summary_line(summary: WriteSummary) -> str:
  """Says in one line what was written."""
  part = ''
  if summary.part:
    part = '; {} missing'.format(summary.missing) if summary.missing else (
        '; all parts are there')
  return '{}{}: {} pairs in {} ({}; {:.1f} s){}{}'.format(
      summary.split, ', {}'.format(summary.part) if summary.part else '',
      summary.pairs, summary.folder, summary.geometry,
      summary.seconds, '; {} bad records left out'.format(summary.skipped)
      if summary.skipped else '', part)


@contextlib.contextmanager
def _explaining_write_errors(options, entries):
  """Turns an OSError into an InputError that says how far the writing got."""
  folder = options.output_dir
  try:
    yield
  except OSError as error:
    reason = ('disk full' if error.errno == errno.ENOSPC else
              '{}: {}'.format(error.filename or folder, error.strerror))
    again = Message('run again with {}', option('overwrite'))
    if options.part:
      again = Message('run {} again', str(options.part))
    raise InputError(
        '{} after {} images; {} is left marked {}: put that right and {}',
        reason, len(entries), folder, contract.PREPROCESSED_INCOMPLETE, again)


def _prepare(folder):
  """Makes the folders, marks the whole as incomplete, removes older files."""
  for name in _FOLDERS:
    os.makedirs(os.path.join(folder, name), exist_ok=True)
  # Before anything is removed: from here on the folder is not a whole one.
  files.write_text(
      _marker(folder),
      'gen_preprocessed_data.py has not finished writing here.\n')
  manifest = png_folder.manifest_path(folder)
  if os.path.exists(manifest):
    os.remove(manifest)
  for path in list(parts.files_in(folder).values()) + _present(folder):
    os.remove(path)


def _check_may_write(folder, overwrite):
  """Raises InputError unless an existing folder's files may be replaced."""
  _check_foreign(folder)
  present = _present(folder)
  if present and not overwrite:
    if os.path.exists(_marker(folder)):
      origin = 'an unfinished run'
    else:
      manifest = png_folder.read_manifest(folder)
      origin = 'split {}'.format(manifest.get('split', 'unknown'))
    raise InputError('{} holds {} files from {}; {} replaces them',
                     option('output_dir', folder), len(present), origin,
                     option('overwrite'))


def _check_foreign(folder):
  """Raises InputError where a folder holds files that no run wrote."""
  foreign = [
      os.path.relpath(path, folder) for path in _present(folder)
      if not contract.is_preprocessed_name(os.path.basename(path))]
  if foreign:
    raise InputError(
        '{} holds {} files that are not img_N.png: {}; give another folder',
        option('output_dir', folder), len(foreign), some_of(foreign))


def _present(folder):
  """Returns the paths in the two folders, hidden files left out."""
  paths = []
  for name in _FOLDERS:
    inner = os.path.join(folder, name)
    if os.path.isdir(inner):
      paths += [os.path.join(inner, found) for found in sorted(
          os.listdir(inner)) if not found.startswith('.')]
  return paths


def _write_pairs(batches, names, options):
  """Writes all pairs; yields (number, entry of the manifest) for each."""
  with contextlib.ExitStack() as stack:
    writers = [
        stack.enter_context(files.writing_many(
            os.path.join(options.output_dir, name))) for name in _FOLDERS]
    results = stack.enter_context(parallel.mapped_in_threads(
        _PairWriter(writers, options.layout), _elements(batches, names),
        options.num_workers))
    for entry in progress.shown(results, 'writing', unit='image',
                                total=batches.num_images):
      yield entry


def _elements(batches, names):
  """Yields the pairs of batches one by one, numbered."""
  count = itertools.count(batches.first_image)
  numbers = names and {name: index for index, name in enumerate(names)}
  for batch in batches:
    for place, filename in enumerate(batch['filename']):
      source = contract.image_name(filename)
      yield _Element(
          number=numbers[source] if names else next(count),
          image=batch['image'][place], label=batch['label'][place],
          source=source, source_height=int(batch['height'][place]),
          source_width=int(batch['width'][place]))


class _PairWriter:
  """Writes an _Element to its two files."""

  def __init__(self, writers, layout):
    self._writers = writers
    self._digits = _DIGITS[layout]

  def __call__(self, element):
    """Returns (number, entry of the manifest)."""
    name = contract.preprocessed_name(element.number, self._digits)
    # Parity: mobile_open's gen_preprocessed_data.py cuts values off to whole
    # numbers, and does not round them; the padding becomes 127.
    for write_file, array in zip(self._writers, (element.image, element.label)):
      write_file(name, png.encode(array.astype(np.uint8)))
    return element.number, {
        'name': name, 'source': element.source,
        'height': element.source_height, 'width': element.source_width}
