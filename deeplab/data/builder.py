"""Builds the shards of a split from a folder of images and one of labels.

Every pair of every split is decoded before the first byte is written. So all
problems are reported at once, and a failed build changes no older shard.
"""
import collections
import logging
import os
import random
import time
from typing import (
  Dict,
  Iterable,
  List,
  NamedTuple,
  Sequence,
  Tuple,
  TypeVar,
)

import numpy as np

from deeplab import constants
from deeplab import errors
from deeplab.config import label_map as label_maps
from deeplab.config import options as options_lib
from deeplab.data import pairs as pairs_lib
from deeplab.data import records
from deeplab.errors import InputError
from deeplab.errors import Message
from deeplab.errors import option
from deeplab.errors import printable
from deeplab.errors import some_messages
from deeplab.storage import checked_read
from deeplab.storage import files
from deeplab.storage import remote
from deeplab.system import parallel
from deeplab.system import progress

_LOG = logging.getLogger(__name__)
_Item = TypeVar('_Item')


class BuildSummary(NamedTuple):
  """The result of building one split."""
  split: str
  # Pairs in the shards.
  pairs: int
  # Bad pairs that were skipped.
  skipped: int
  # Files in the image folder that are not images.
  ignored: int
  # Paths of the shards.
  shards: Tuple[str, ...]
  # Pixels of each class; index 0 counts the labels that are no class.
  class_pixels: Tuple[int, ...]
  # Duration of the build of all splits, in seconds.
  seconds: float
  label_map: label_maps.LabelMap = label_maps.ADE20K
  # Loss weight of each class; see label_weights.
  label_weights: Tuple[float, ...] = ()

  def class_shares(self) -> List[float]:
    """Returns each class's share of all pixels, 0..1."""
    return _shares(self.class_pixels)


class _Checked(NamedTuple):
  """A split whose pairs have been decoded."""
  options: options_lib.BuildOptions
  label_map: label_maps.LabelMap
  # Good pairs of each shard, in the order of the records.
  shards: List[List[pairs_lib.Pair]]
  # Dict by the pair's name.
  facts: Dict[str, pairs_lib.PairFacts]
  skipped: int
  ignored: int
  # See BuildSummary.
  class_pixels: Tuple[int, ...]

  @property
  def good(self) -> List[pairs_lib.Pair]:
    """The pairs of all shards."""
    return sum(self.shards, [])


def build(splits: Sequence[options_lib.BuildOptions]) -> List[BuildSummary]:
  """Builds the shards of splits, and describes each in {split}.json.

  The files' bytes are stored unchanged. The order of pairs depends only on
  their names and the seed.

  Args:
    splits: BuildOptions, one for each split.

  Returns:
    A BuildSummary for each split.

  Raises:
    InputError: a folder or a pair of any split cannot be used, or the disk is
      full. Older shards are then unchanged.
  """
  start = time.time()
  maps = [label_maps.read(options.label_map) if options.label_map is not None
          else label_maps.ADE20K for options in splits]
  # All folders are listed first, because checking a split takes minutes.
  listings = [pairs_lib.list_pairs(
      split=options.split, image_folder=options.image_folder,
      label_folder=options.label_folder) for options in splits]
  checked, refusals = [], []
  for options, label_map, (found, ignored) in zip(splits, maps, listings):
    given = option('output_dir', options.output_dir)
    try:
      remote.make_folder(options.output_dir)
    except OSError as error:
      raise InputError('{}: {}', given, error.strerror)
    files.check_outputs(
        given,
        os.path.join(options.output_dir,
                     constants.description_name(options.split)),
        ours=checked_read.json_with('pairs', 'shards'))
    try:
      checked.append(_check(options, label_map, found, ignored))
    except InputError as error:
      refusals.append(error)
  if refusals:
    raise InputError('{}', errors.joined('; ', refusals))
  for split in checked:
    _warn(split)
  shards = _write(checked)
  return [BuildSummary(
      split.options.split, len(split.good), split.skipped, split.ignored,
      tuple(paths), split.class_pixels, time.time() - start, split.label_map,
      label_weights([split.facts[pair.name].class_pixels
                     for pair in split.good]))
          for split, paths in zip(checked, shards)]


def _check(options, label_map, found, ignored):
  """Decodes all pairs of a split; returns _Checked."""
  facts, problems = _check_all(found, options, label_map)
  _report(problems, len(found), options)
  # Shuffling comes first, so that a skipped pair does not reorder others.
  good = [pair for pair in shuffled(found, options.shuffle_seed)
          if pair.name in facts]
  checked = _Checked(
      options, label_map, split_evenly(good, constants.NUM_SHARDS), facts,
      len(problems), ignored, tuple(map(sum, zip(
          *(facts[pair.name].class_pixels for pair in good)))))
  _check_classes(checked)
  return checked


def _check_classes(split):
  """Raises InputError if no pixel of a split has a class."""
  if not any(split.class_pixels[1:]):
    raise InputError(
        '{}: no label of {} holds {}',
        option(split.options.split + '_label_folder',
               split.options.label_folder),
        len(split.good), 'a class id of 1..{}'.format(constants.NUM_CLASSES - 1)
        if split.label_map == label_maps.ADE20K else
        Message('an id that {} lists',
                option('label_map', split.options.label_map)))


def _warn(split):
  """Logs warnings about probable mistakes in a split."""
  name = split.options.split
  for warning in pairs_lib.warnings(
      {pair.name: split.facts[pair.name].image for pair in split.good}):
    _LOG.warning('%s: %s', name, warning)
  classes = [index for index, pixels in enumerate(split.class_pixels)
             if index and pixels]
  if len(classes) == 1:
    _LOG.warning('%s: all labelled pixels are of class %d %s: %s', name,
                 classes[0], split.label_map.names[classes[0]],
                 label_maps.ONE_CLASS)


def _shares(class_pixels):
  total = sum(class_pixels) or 1
  return [pixels / total for pixels in class_pixels]


def label_weights(class_pixels: Sequence[Sequence[int]]) -> Tuple[float, ...]:
  """Returns loss weights that balance the classes.

  They are the median frequency balancing of Eigen and Fergus, 2015
  (https://arxiv.org/abs/1411.4734). The frequency of a class is its share of
  the pixels of all images that it is in; its weight is the median of the
  frequencies, divided by its own.

  Args:
    class_pixels: for each image, the pixels of each class.

  Returns:
    A weight per class: 0 for class 0, which the loss ignores; 1 for a class
    without a pixel.
  """
  pixels = np.array(class_pixels, np.int64)
  of_images = ((pixels > 0) * pixels.sum(axis=1, keepdims=True)).sum(axis=0)
  found = of_images > 0
  found[constants.IGNORE_LABEL] = False
  frequency = pixels.sum(axis=0)[found] / of_images[found]
  weights = np.ones(len(found))
  weights[constants.IGNORE_LABEL] = 0
  weights[found] = np.median(frequency) / frequency
  return tuple(weights.tolist())


def shuffled(items: Iterable[_Item], seed: int) -> List[_Item]:
  """Returns items in an order that depends on the seed alone."""
  items = list(items)
  random.Random(seed).shuffle(items)
  return items


def split_evenly(items: List[_Item], count: int) -> List[List[_Item]]:
  """Splits a list into lists whose lengths differ by at most one."""
  bounds = [index * len(items) // count for index in range(count + 1)]
  return [items[first:last] for first, last in zip(bounds, bounds[1:])]


# --- Checking --------------------------------------------------------------


def _check_all(found, options, label_map):
  """Decodes pairs; returns their facts by image name, and problems in order."""
  image_format = 'jpeg' if options.image_format == 'jpg' else (
      options.image_format)
  # Both a.jpg and a.png have the label a.png.
  users = collections.Counter(_stem(pair) for pair in found)

  def check(pair):
    if users[_stem(pair)] > 1:
      raise InputError('{}: {} images share the label {}.png'.format(
          pair.name, users[_stem(pair)], _stem(pair)))
    return pairs_lib.check_pair(
        pair, image_format=image_format, palette_labels=options.palette_labels,
        label_map=label_map)

  facts, problems = parallel.check_all(
      check, found, title='checking ' + options.split, unit='pair',
      num_workers=options.num_workers)
  return ({pair.name: fact for pair, fact in zip(found, facts) if fact},
          problems)


def _stem(pair):
  return os.path.splitext(pair.name)[0]


def _report(problems, total, options):
  """Writes all problems to a file; raises InputError unless allowed."""
  path = os.path.join(
      options.output_dir, '{}-problems.txt'.format(options.split))
  if not problems:
    if remote.exists(path):
      remote.remove(path)  # an earlier run's
    return
  # Also written if bad pairs are skipped, because summary_line names it.
  files.write_text(path, ''.join(
      printable(str(problem)) + '\n' for problem in problems))
  if options.skip_bad and len(problems) < total:
    return
  raise InputError(
      '{} of {} pairs of {} cannot be used: {} (full list: {}){}',
      len(problems), total, options.split, some_messages(problems), path,
      '' if len(problems) == total else Message(
          '; {} leaves them out', option('skip_bad')))


# --- Writing ---------------------------------------------------------------


def _write(checked):
  """Writes all splits; returns the paths of the shards of each."""
  with progress.Bar(sum(len(split.good) for split in checked), 'writing',
                    unit='pair') as bar:
    return records.write_splits([records.Content(
        split.options.output_dir, split.options.split,
        [_examples(shard, split.facts, bar) for shard in split.shards],
        _description(split)) for split in checked])


def _examples(shard, facts, bar):
  """Yields the tf.train.Example of each pair."""
  for pair in shard:
    fact = facts[pair.name]
    yield records.make_example(
        image_bytes=pairs_lib.read_file(pair.image_path),
        label_bytes=pairs_lib.label_bytes(pair),
        # Deviates: the reference stored the absolute path, which is useless on
        # another machine and makes shards differ.
        filename=pair.name,
        # Deviates: the reference wrote 'png' for JPEG data.
        image_format=fact.image.format, label_format='png',
        height=fact.image.size[1], width=fact.image.size[0])
    bar.update()


def _description(split):
  """Returns the facts that {split}.json holds in addition to the shards."""
  shares = _shares(split.class_pixels)
  return dict(
      label_maps.json_entry(split.label_map),
      skipped=split.skipped,
      shuffle_seed=split.options.shuffle_seed,
      classes=[{'id': index, 'name': name, 'pixel_share': round(share, 6)}
               for index, (name, share) in enumerate(
                   zip(split.label_map.names, shares))])


def summary_line(summary: BuildSummary,
                 options: options_lib.BuildOptions) -> str:
  """Returns a line about the pairs that were built and skipped."""
  line = '{}: {} pairs in {} shards in {} ({:.1f} s)'.format(
      summary.split, summary.pairs, len(summary.shards), options.output_dir,
      summary.seconds)
  if summary.skipped:
    line += '; {0} pairs left out, see {1}-problems.txt there'.format(
        summary.skipped, summary.split)
  if summary.ignored:
    line += '; {} files that are not images ignored'.format(summary.ignored)
  return line


def histogram_table(summaries: Sequence[BuildSummary]) -> List[str]:
  """Returns lines with each class's share of the pixels of each split.

  The last line names classes without a pixel. All splits have the same classes.
  """
  names = summaries[0].label_map.names
  layout = '{{:>2}}  {{:<{}}}'.format(max(10, *map(len, names)))
  heading = layout.format('id', 'class')
  lines = [heading + ''.join('{:>10}'.format(s.split) for s in summaries)]
  absent = []
  columns = zip(*(summary.class_shares() for summary in summaries))
  for index, (name, shares) in enumerate(zip(names, columns)):
    if any(shares):
      lines.append(layout.format(index, name) + ''.join(
          '{:>9.2f}%'.format(100 * share) for share in shares))
    else:
      absent.append(name)
  if absent:
    lines.append('no pixel: {}'.format(', '.join(absent)))
  return lines
