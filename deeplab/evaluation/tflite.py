"""Evaluates a TFLite file on a folder of preprocessed pairs.

The interpreter runs in worker processes, so that a crash does not end the main
process. Needs no TensorFlow.
"""
from concurrent.futures.process import BrokenProcessPool
import contextlib
import faulthandler
import functools
import logging
from typing import Any, Dict, NamedTuple, Tuple, cast

import numpy as np

from deeplab.config import label_map as label_maps
from deeplab.config import options as options_lib
from deeplab.data import png_folder
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.evaluation import counting
from deeplab.evaluation import merging
from deeplab.evaluation import report as report_lib
from deeplab.models import interface
from deeplab.models import interpreters
from deeplab.models import metadata
from deeplab.models import open_model
from deeplab.system import parallel
from deeplab.system import progress

_LOG = logging.getLogger(__name__)


class _Model(NamedTuple):
  """Facts about the file, from a worker; see TflitePredictor."""
  input_size: Tuple[int, int]
  input_text: str
  interpreter_text: str
  num_threads: int
  # From open_model.facts.
  facts: Dict[str, Any]


def evaluate(options: options_lib.TfliteEvalOptions,
             eval_options: options_lib.EvalOptions) -> report_lib.Report:
  """Evaluates a TFLite file and publishes the report.

  Args:
    options: the file and the images.
    eval_options: outputs; its eval_logdir is not used.

  Raises:
    InputError: the file is no usable model, or the pairs do not fit it.
  """
  interpreters.read(options.net_file)  # fails early
  listing = png_folder.list_pairs(options.test_dir, options.val_label_dir)
  report_lib.check_outputs(eval_options, png_folder.folders_in(listing.pairs))
  label_map = _label_map(options, listing)
  pairs = _pairs_of_shard(options, eval_options, listing.pairs)
  workers = parallel.worker_count(options.num_workers, len(pairs))
  with _crashes_explained(options.net_file, workers), (
      parallel.processes(workers)) as pool:
    # The first task starts the workers, before there are threads.
    model = pool.submit(_describe, options).result()
    _LOG.info('%s takes %s', options.net_file, model.input_text)
    if model.num_threads < options.num_threads:
      _LOG.warning(
          '%s has no effect: the interpreter of %s has one thread; %s starts '
          'processes', option('num_threads', options.num_threads),
          model.interpreter_text, option('num_workers'))
    png_folder.check(pairs, model.input_size, label_map)
    _log_unused(listing)
    kept = report_lib.samples_wanted(eval_options)
    # Arguments of _count_one for each pair.
    tasks = ((options, pair, label_map.num_classes, index < kept)
             for index, pair in enumerate(pairs))
    with contextlib.closing(parallel.ordered_map(
        pool, _count_one, tasks, ahead=2 * workers)) as batches:
      counts = counting.total(batches, num_images=len(pairs),
                              num_classes=label_map.num_classes)
  result = report_lib.Report(
      kind=interface.TFLITE, path=options.net_file, step=None,
      images=counts.images, seconds=counts.seconds, matrix=counts.matrix,
      runtime='{}, {} process{} x {} thread{}'.format(
          model.interpreter_text, workers, '' if workers == 1 else 'es',
          model.num_threads, '' if model.num_threads == 1 else 's'),
      label_map=label_map, shard=_shard(options, listing, model),
      model=model.facts, host_ms=counts.median_ms,
      **png_folder.origin(pairs, model.input_size))
  report_lib.publish(result, counts.samples, eval_options)
  return result


def _label_map(options, listing):
  """Returns the label map, agreed by the annotations and the file."""
  folder = png_folder.folder_of(listing.pairs)
  return label_maps.agreed(
      (png_folder.manifest_path(folder), png_folder.read_label_map(folder)),
      (option('net_file', options.net_file),
       metadata.label_map_beside(options.net_file)))


def _pairs_of_shard(options, eval_options, pairs):
  """Returns the pairs of the requested shard, or all."""
  of = options.num_shards
  if of == 1:
    return pairs
  if not eval_options.report_json:
    raise InputError('{} without {}: scripts/merge_reports.py adds up the '
                     'reports', option('num_shards', of), option('report_json'))
  if of > len(pairs):
    raise InputError('{}: expected at most {}, the number of images',
                     option('num_shards', of), len(pairs))
  first, last = merging.bounds(options.shard_index, of, len(pairs))
  return pairs[first:last]


def _shard(options, listing, model):
  """Returns the report_lib.Shard of this run; None: not sharded."""
  if options.num_shards == 1:
    return None
  return report_lib.Shard(
      cast(int, options.shard_index), options.num_shards, {
          'model': model.facts['sha256'],
          'images': png_folder.identity(listing.pairs),
          'input': model.input_text,
          'interpreter': model.interpreter_text})


@contextlib.contextmanager
def _crashes_explained(net_file, workers):
  """Turns the crash of a worker into an InputError."""
  try:
    yield
  except BrokenProcessPool:
    raise InputError(
        '{}: the interpreter crashed; the file may be damaged, or the memory '
        'too small for {} processes', option('net_file', net_file), workers)


def _log_unused(listing):
  """Logs the number of unused files in the folders."""
  if listing.ignored:
    _LOG.info('ignored in the folder of images: %s of another kind',
              progress.counted(listing.ignored, 'file'))
  if listing.unused:
    _LOG.info('not used: %s without an image',
              progress.counted(listing.unused, 'annotation'))


# --- In the workers --------------------------------------------------------


@functools.lru_cache(maxsize=None)
def _predictor(options):
  """Returns the predictor of this process."""
  # The stack of a crash would add nothing to the message that follows.
  faulthandler.disable()
  return interpreters.TflitePredictor(
      options.net_file, is_float_input=options.is_float_input,
      is_input_0_255=options.is_input_0_255, num_threads=options.num_threads)


def _describe(options):
  predictor = _predictor(options)
  facts = open_model.facts(
      open_model.ModelFile(interface.TFLITE, options.net_file), predictor)
  return _Model(predictor.input_size, predictor.input_text,
                predictor.interpreter_text, predictor.num_threads, facts)


def _count_one(task):
  """Returns the counting.Counts of (options, pair, number of classes, keep)."""
  options, pair, num_classes, keep = task
  image, label = png_folder.read_pair(pair, num_classes)
  return counting.count_batch(
      _predictor(options), {
          'image': image[np.newaxis], 'label': label[np.newaxis],
          'filename': [pair.name]}, num_classes=num_classes, keep=int(keep))
