"""Evaluates checkpoints and exported graphs on records.

`evaluation.tflite` evaluates TFLite files on PNG files, in worker processes.
"""
import contextlib
import hashlib
import logging
import math
import os
import time
from typing import Any, Dict, NamedTuple, Optional

import tensorflow.compat.v1 as tf

from deeplab.checkpoints import compatibility
from deeplab.checkpoints import find
from deeplab.checkpoints import read
from deeplab.config import options as options_lib
from deeplab.config.fields import definitions
from deeplab.data import dataset
from deeplab.data import records
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.evaluation import best as best_lib
from deeplab.evaluation import counting
from deeplab.evaluation import report as report_lib
from deeplab.evaluation import tensorboard as events_lib
from deeplab.evaluation import visualize
from deeplab.models import interface
from deeplab.models import metadata
from deeplab.models import open_model
from deeplab.models import predictors
from deeplab.nets import deeplab_v3
from deeplab.storage import files
from deeplab.storage import remote
from deeplab.system import memory
from deeplab.system import progress
from deeplab.system import signals

_LOG = logging.getLogger(__name__)
# Interval of log lines while waiting for a checkpoint.
_WAITING_NOTICE_SECS = 60


def evaluate(predictor: interface.Predictor,
             batches: dataset.Batches,
             preprocess_options: options_lib.PreprocessOptions,
             options: options_lib.EvalOptions, *, kind: str,
             facts: Optional[Dict[str, Any]] = None,
             step: Optional[int] = None,
             num_classes: Optional[int] = None,
             cache: Optional[str] = None) -> report_lib.Report:
  """Evaluates a predictor on a split, then writes and prints the report.

  Args:
    predictor: the opened model.
    batches: batches of the split.
    preprocess_options: options of the batches.
    options: paths of the files to write.
    kind: interface.CHECKPOINT, FROZEN_GRAPH, SAVED_MODEL or ONNX.
    facts: about the file, from open_model.facts, or None.
    step: global step of a checkpoint, or None.
    num_classes: number of classes, the ignored one included; None: as in the
      batches' label map.
    cache: another file to write the report to, or None.

  Returns:
    The report.

  Raises:
    InputError: the options or the records cannot be used.
  """
  _LOG.info('evaluating %s on %s of %s', predictor.description,
            progress.counted(batches.num_images, 'image'), batches.split)
  counts = counting.count(
      predictor, batches,
      num_classes=num_classes or batches.label_map.num_classes,
      keep=report_lib.samples_wanted(options))
  result = report_lib.Report(
      kind=kind, path=predictor.description, step=step,
      split=batches.split, images=counts.images,
      seconds=counts.seconds, geometry=preprocess_options.geometry(),
      runtime=predictor.runtime, matrix=counts.matrix,
      skipped=batches.num_skipped, label_map=batches.label_map, model=facts,
      host_ms=counts.median_ms)
  if options.eval_logdir:
    # TensorBoard shows graphs as a separate run beside the checkpoints'.
    write_events(options.eval_logdir if kind == interface.CHECKPOINT
                 else os.path.join(options.eval_logdir, 'pb'), result)
  if cache:
    report_lib.write(cache, result)
  report_lib.publish(result, counts.samples, options)
  return result


def write_events(logdir: str, result: report_lib.Report) -> None:
  """Writes a report's scores and its confusion matrix for TensorBoard.

  Each class has the reference's tag, with NaN for a class without a label. All
  labelled ones also have a tag with the class name.

  Args:
    logdir: folder for the events.
    result: the report.

  Raises:
    OSError, tf.errors.OpError: they cannot be written.
  """
  names = report_lib.class_names(result)
  iou = result.scores.per_class_iou
  scores = {'eval/miou_1.0_overall': result.scores.miou}
  scores.update(('eval/miou_1.0_class_{}'.format(index), iou[index])
                for index in range(len(names)))
  scores.update(('iou/{:02}_{}'.format(index, name), iou[index])
                for index, name in enumerate(names)
                if not math.isnan(iou[index]))
  values = [tf.Summary.Value(tag=tag, simple_value=float(score))
            for tag, score in scores.items()]
  values.append(events_lib.picture(
      'eval/confusion_matrix',
      visualize.confusion_matrix(result.matrix, names)))
  events_lib.write_file(logdir, result.step or 0, tf.Summary(value=values))


# --- Checkpoints -----------------------------------------------------------


def evaluate_checkpoints(
    *, watch_options: options_lib.CheckpointEvalOptions,
    model_options: options_lib.ModelOptions,
    dataset_options: options_lib.DatasetOptions,
    preprocess_options: options_lib.PreprocessOptions,
    options: options_lib.EvalOptions) -> Optional[report_lib.Report]:
  """Evaluates checkpoints as they appear in a folder, or a single one once.

  Args:
    watch_options: which checkpoints to evaluate, and when.
    model_options: structure of their network.
    dataset_options: the split.
    preprocess_options: size of the images.
    options: paths of the files to write.

  Returns:
    The last report, or None if the time ran out before the first.

  Raises:
    InputError: options, records or checkpoints cannot be used; or there is no
      checkpoint and max_evaluations is given.
  """
  checkpoint_dir = watch_options.checkpoint_dir
  is_single = not remote.is_folder(checkpoint_dir) and bool(
      remote.exists(checkpoint_dir) or find.parts_of(checkpoint_dir))
  newest = find.Newest(
      checkpoint_dir, strict=watch_options.strict_checkpoint)
  if is_single or watch_options.max_evaluations and not newest.find():
    first = find.find(checkpoint_dir, 'checkpoint_dir')
  report_lib.check_outputs(options)
  if is_single and watch_options.keep_best:
    raise InputError('{}: expected a folder of checkpoints with {}', option(
        'checkpoint_dir', checkpoint_dir), option('keep_best'))
  # Data are checked before waiting.
  batches = dataset.Batches(
      dataset_options, preprocess_options,
      model_map=compatibility.label_map_of(checkpoint_dir))
  model_options = model_options.with_classes(batches.label_map)
  memory.check(
      deeplab_v3.least_memory(model_options, batches.batch_size),
      '{} of {}', option('batch_size', batches.batch_size),
      option('crop_size', model_options.crop_size))
  with contextlib.ExitStack() as stack:
    best = stack.enter_context(best_lib.keeping(
        checkpoint_dir, split=batches.split, images=batches.num_images,
        geometry=preprocess_options.geometry(), label_map=batches.label_map
    )) if watch_options.keep_best else None
    predictor = stack.enter_context(
        predictors.CheckpointPredictor(model_options))
    evaluator = _Evaluator(predictor, batches, model_options, dataset_options,
                           preprocess_options, options, best)
    if is_single:
      return evaluator.evaluated(first, again=True)
    with _ending_by_signals():
      return evaluator.watch(newest, watch_options)


@contextlib.contextmanager
def _ending_by_signals():
  """Context of a watch, which a signal usually ends; that is no error."""
  try:
    yield
  except signals.Stopped as stopped:
    _LOG.info('stopped by %s; all written reports are complete', stopped.name)
    raise SystemExit(stopped.status)


class _Evaluator(NamedTuple):
  """Evaluates checkpoints.

  Their reports are cached in the folder of events, so that a restarted
  evaluation does not repeat them.
  """
  predictor: predictors.CheckpointPredictor
  batches: dataset.Batches
  model_options: options_lib.ModelOptions
  dataset_options: options_lib.DatasetOptions
  preprocess_options: options_lib.PreprocessOptions
  options: options_lib.EvalOptions
  best: Optional[best_lib.Best]

  def watch(self, newest, watch_options):
    """Evaluates a folder's newest checkpoint whenever there is a new one.

    Args:
      newest: finds the newest checkpoint.
      watch_options: when to evaluate.

    Returns:
      The last report, or None.
    """
    result, seen, evaluations = None, None, 0
    waiting_since, noticed = time.time(), 0.0
    while True:
      prefix = newest.find()
      started = time.time()
      if prefix and prefix != seen:
        found = self.evaluated(prefix, again=watch_options.reevaluate)
        if not found:
          continue  # A newer checkpoint has replaced it.
        result, seen, evaluations = found, prefix, evaluations + 1
        if evaluations == watch_options.max_evaluations:
          return result
        # The interval is from start to start: after a longer evaluation, the
        # next one starts at once.
        pause = max(0, started + watch_options.interval_secs - time.time())
        _log_waiting(newest, prefix, pause)
        time.sleep(pause)
        waiting_since = noticed = time.time()
        continue
      timeout = watch_options.timeout_secs
      if timeout is not None and started - waiting_since >= timeout:
        _LOG.info('no new checkpoint in %s for %d s: done', newest.folder,
                  timeout)
        return result
      if started - noticed >= _WAITING_NOTICE_SECS:
        noticed = started
        _log_waiting(newest, prefix)
      time.sleep(1)

  def evaluated(self, prefix, *, again):
    """Evaluates a checkpoint.

    Args:
      prefix: checkpoint prefix.
      again: ignore a cached report.

    Returns:
      The report. None: the trainer removed the checkpoint before it was read.
    """
    try:
      cache = self._cache_file(prefix)
      kept = None if again else self._recalled(cache)
      contents = self.best.copy(prefix) if self.best else {}
      if not kept:
        self.predictor.restore(prefix)
        step = read.global_step_in(prefix)
        facts = open_model.facts(open_model.ModelFile(
            interface.CHECKPOINT, prefix), self.predictor)
    except Exception:
      # A trainer removes the index first.
      if remote.exists(prefix + '.index'):
        raise
      _LOG.info('%s was removed before it was read', prefix)
      return None
    if kept:
      _LOG.info('%s was evaluated before with the same options: no image is '
                'read, its report follows; %s evaluates it again', prefix,
                option('reevaluate'))
      result = kept._replace(path=prefix)
      report_lib.publish(result, {}, self.options)
    else:
      result = evaluate(
          self.predictor, self.batches, self.preprocess_options, self.options,
          kind=interface.CHECKPOINT, facts=facts, step=step,
          num_classes=self.model_options.num_classes, cache=cache)
    if self.best:
      self.best.offer(contents, result)
    return result

  def _cache_file(self, prefix):
    """Returns the cache file for the report of a checkpoint; None: no cache.

    Its name has a checksum of everything that the report depends on. The index
    of a checkpoint has the checksums of its variables, so the checkpoint's name
    and folder do not matter.
    """
    if not self.options.eval_logdir:
      return None
    with remote.reading(prefix + '.index') as index:
      weights = hashlib.sha1(index.read()).hexdigest()
    data = self.dataset_options
    key = files.digest({
        'checkpoint': weights,
        'records': [(os.path.basename(path), remote.state(path)[1:])
                    for path in records.find_shards(
                        data.dataset_dir, data.split)],
        'model': options_lib.to_json(self.model_options),
        'data': options_lib.to_json(data),
        'preprocessing': self.preprocess_options.to_json(),
        'pictures': [self.options.vis_dir,
                     report_lib.samples_wanted(self.options)],
        'runtime': predictors.runtime()})
    return os.path.join(
        self.options.eval_logdir, 'evaluated-{}-{}.json'.format(
            read.step_of(prefix), key[:16]))

  def _recalled(self, cache):
    """Returns a cached report, or None."""
    vis_dir = self.options.vis_dir
    if not cache or vis_dir and not os.path.exists(
        report_lib.picture_path(vis_dir)):
      return None
    try:
      return report_lib.read(cache)
    except (OSError, InputError):
      return None  # It is missing or damaged.


def _log_waiting(newest, prefix, pause=0):
  _LOG.info('waiting for a checkpoint in %s (newest: %s), %s; Ctrl-C ends this',
            newest.folder, prefix or '; '.join(newest.problems) or 'none',
            'looking for one in {:.0f} s'.format(pause) if pause
            else 'looking every second')


# --- Exported graphs -------------------------------------------------------


def evaluate_frozen_graph(
    *, graph_options: options_lib.GraphEvalOptions,
    dataset_options: options_lib.DatasetOptions,
    preprocess_options: options_lib.PreprocessOptions,
    options: options_lib.EvalOptions) -> report_lib.Report:
  """Evaluates a frozen graph, a SavedModel or an ONNX file.

  Args:
    graph_options: the file.
    dataset_options: the split.
    preprocess_options: size of the images.
    options: paths of the files to write.

  Returns:
    The report.

  Raises:
    InputError: the options, the records or the graph cannot be used.
  """
  model = _exported(graph_options.path)
  with _open_exported(
      model, graph_options, preprocess_options.crop_size) as predictor:
    # Outputs are checked after the graph, so a bad graph creates no folder.
    report_lib.check_outputs(options)
    batches = dataset.Batches(
        dataset_options, preprocess_options,
        model_map=metadata.label_map_beside(model.path))
    return evaluate(predictor, batches, preprocess_options, options,
                    kind=model.kind, facts=open_model.facts(model, predictor))


def _exported(path):
  """Returns the ModelFile of an exported model."""
  servable = open_model.saved_model_folder(path)
  if servable:
    return open_model.ModelFile(interface.SAVED_MODEL, servable)
  is_onnx = os.path.isfile(path) and open_model.is_onnx(path)
  # Reading a frozen graph fails if the file is none.
  return open_model.ModelFile(
      interface.ONNX if is_onnx else interface.FROZEN_GRAPH, path)


def _open_exported(model, graph_options, crop_size):
  """Opens an exported model."""
  nodes = (graph_options.input_node, graph_options.output_node)
  for name, given in zip(('input_node', 'output_node'), nodes):
    if model.kind != interface.FROZEN_GRAPH and given != definitions(
        options_lib.GraphEvalOptions)[name].default:
      raise InputError('{}: {} names its input and output itself; drop it',
                       option(name, given), model.path)
  return open_model.open_predictor(model, crop_size=crop_size, nodes=nodes)
