"""Writes batches as a folder of preprocessed pairs; see `png_folder`.

All files get their final names at the end. If that is interrupted, the folder
has a file INCOMPLETE.
"""
import collections
import errno
import functools
import itertools
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

from deeplab import constants
from deeplab.config import label_map as label_maps
from deeplab.config import options as options_lib
from deeplab.data import png
from deeplab.data import png_folder
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.errors import some_of
from deeplab.storage import checked_read
from deeplab.storage import files
from deeplab.system import parallel
from deeplab.system import progress

if TYPE_CHECKING:  # it imports TensorFlow, which is not needed here
  from deeplab.data import dataset

# Minimum number of digits in a name. ADE20K's own names have eight.
_DIGITS = {options_lib.NUMBERED: 1, options_lib.MLPERF_APP: 8}
_FOLDERS = (constants.PREPROCESSED_IMAGES, constants.PREPROCESSED_ANNOTATIONS)
# Patterns of all files in the output folder; the last one appears last.
_OUTPUTS = tuple(folder + '/img_[0-9]*.png' for folder in _FOLDERS) + (
    constants.PREPROCESSED_MANIFEST,)


class WriteSummary(NamedTuple):
  """The result of writing a folder."""
  folder: str
  split: str
  # Number of pairs.
  pairs: int
  # Number of bad records that were skipped.
  skipped: int
  geometry: str
  # Duration, in seconds.
  seconds: float


def read_image_list(path: str) -> List[str]:
  """Reads the names of images, one on each line; strips blanks.

  Args:
    path: text file; CRLF line ends are allowed.

  Returns:
    The names in order.

  Raises:
    InputError: there is no such file, it is no text, or has no name or a
      duplicate.
  """
  given = option('image_list', path)
  text = checked_read.read_text(
      path, given, 'the file name of an image on each line')
  names = [line.strip() for line in text.splitlines() if line.strip()]
  if not names:
    raise InputError('{}: no line with a name; expected the file name of an '
                     'image on each', given)
  repeated = [name for name, count in collections.Counter(names).items()
              if count > 1]
  if repeated:
    raise InputError('{}: {} names occur more than once: {}', given,
                     len(repeated), some_of(repeated))
  return names


def write(batches: 'dataset.Batches', *,
          names: Optional[Sequence[str]] = None,
          split: str, preprocess_options: options_lib.PreprocessOptions,
          options: options_lib.PreprocessedOptions) -> WriteSummary:
  """Writes batches as a folder of pairs, with a manifest.

  Args:
    batches: the pairs.
    names: file names of the images in the order of their numbers; None: number
      them in order of arrival.
    split: 'train' or 'val', for the manifest.
    preprocess_options: options of the batches, for the manifest.
    options: the folder and its layout.

  Raises:
    InputError: the folder holds other files or cannot be written, the disk is
      full, or a record cannot be used.
  """
  started = time.time()
  folder = options.output_dir
  geometry = preprocess_options.geometry()
  facts = dict(
      label_maps.json_entry(batches.label_map),
      split=split,
      skipped=batches.num_skipped,
      geometry=geometry,
      preprocessing=preprocess_options.to_json(),
      image_list=options.image_list,
      layout=options.layout)
  given = option('output_dir', folder)
  is_manifest = checked_read.json_with('images', 'geometry')
  files.check_outputs(
      given, png_folder.manifest_path(folder), ours=is_manifest)
  if options.manifest:
    files.check_outputs(option('manifest', options.manifest), options.manifest,
                        inputs=[options.image_list], ours=is_manifest,
                        example=constants.PREPROCESSED_MANIFEST)
  _check_may_write(folder, options.overwrite)
  entries: List[Tuple[int, Dict[str, Any]]] = []
  try:
    with files.replacing_own(given, folder, _OUTPUTS,
                             lambda unused_path: options.overwrite) as new:
      entries.extend(_write_pairs(new, batches, names, options))
      # Entries are in the order of records; numbers follow the list of names.
      entries.sort(key=lambda entry: entry[0])
      manifest = dict(facts, count=len(entries),
                      images=[entry for _, entry in entries])
      files.write_json(png_folder.manifest_path(new), manifest)
  except OSError as error:
    raise InputError(
        '{} after {} images; correct this and run again with {}',
        'disk full' if error.errno == errno.ENOSPC else '{}: {}'.format(
            error.filename or folder, error.strerror),
        len(entries), option('overwrite'))
  if options.manifest:
    files.write_json(options.manifest, manifest)
  return WriteSummary(
      folder, split, len(entries), batches.num_skipped, geometry,
      time.time() - started)


def summary_line(summary: WriteSummary) -> str:
  """Returns a line about the files written."""
  return '{}: {} pairs in {} ({}; {:.1f} s){}'.format(
      summary.split, summary.pairs, summary.folder, summary.geometry,
      summary.seconds, '; {} bad records left out'.format(summary.skipped)
      if summary.skipped else '')


def _check_may_write(folder, overwrite):
  """Raises InputError unless an existing folder's files may be replaced."""
  present = [os.path.join(name, found) for name in _FOLDERS
             if os.path.isdir(os.path.join(folder, name))
             for found in sorted(os.listdir(os.path.join(folder, name)))
             if not found.startswith('.')]
  foreign = [path for path in present if not constants.is_preprocessed_name(
      os.path.basename(path))]
  given = option('output_dir', folder)
  if foreign:
    raise InputError(
        '{} holds {} files that are not img_N.png: {}; give another folder',
        given, len(foreign), some_of(foreign))
  if present and not overwrite:
    raise InputError(
        '{} holds {} files from split {}; {} replaces them', given,
        len(present), png_folder.read_manifest(folder).get('split', 'unknown'),
        option('overwrite'))


def _write_pairs(folder, batches, names, options):
  """Writes all pairs; yields (number, entry of the manifest) for each."""
  for name in _FOLDERS:
    os.mkdir(os.path.join(folder, name))
  with parallel.mapped_in_threads(
      functools.partial(_write_pair, folder, _DIGITS[options.layout]),
      _numbered(batches, names), options.num_workers) as results:
    yield from progress.shown(results, 'writing', unit='image',
                              total=batches.num_images)


def _numbered(batches, names):
  """Yields (number, batch, position in the batch) of each pair."""
  count = itertools.count()
  numbers = names and {name: index for index, name in enumerate(names)}
  for batch in batches:
    for place, filename in enumerate(batch['filename']):
      yield (numbers[constants.image_name(filename)] if names
             else next(count)), batch, place


def _write_pair(folder, digits, numbered):
  """Writes two files; returns (number, entry of the manifest)."""
  number, batch, place = numbered
  name = constants.preprocessed_name(number, digits)
  # Parity: mobile_open's gen_preprocessed_data.py truncates values and does
  # not round them; the padding becomes 127.
  for inner, array in zip(_FOLDERS, (batch['image'], batch['label'])):
    with open(os.path.join(folder, inner, name), 'wb') as out:
      out.write(png.encode(array[place].astype(np.uint8)))
  return number, {
      'name': name, 'source': constants.image_name(batch['filename'][place]),
      'height': int(batch['height'][place]),
      'width': int(batch['width'][place])}
