"""Evaluation of checkpoints and of exported graphs on records.

TFLite files are evaluated on PNG files, in processes of their own: see
`lite.evaluation`. Both count with `counting`.
"""
import hashlib
import logging
import os
import time
from typing import Optional

import tensorflow.compat.v1 as tf

from deeplab import any_model
from deeplab import checkpoints
from deeplab import counting
from deeplab import descriptions
from deeplab import events as events_lib
from deeplab import files
from deeplab import inputs
from deeplab import memory
from deeplab import options as options_lib
from deeplab import predictors
from deeplab import report as report_lib
from deeplab import stops
from deeplab import storage
from deeplab import visualize
from deeplab.data import dataset
from deeplab.data import records
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.fields import definitions
from deeplab.nets import deeplab_v3

_LOG = logging.getLogger(__name__)
# Seconds between two lines while waiting for a checkpoint.
_WAITING_NOTICE_SECS = 60


def evaluate(predictor: counting.Predictor,
             batches: dataset.Batches,
             preprocess_options: options_lib.PreprocessOptions,
             options: options_lib.EvalOptions, *, kind: str,
             step: Optional[int] = None,
             num_classes: Optional[int] = None) -> report_lib.Report:
  """Evaluates a predictor on a split and writes what is asked for.

  Args:
    predictor: makes the labels.
    batches: of the split.
    preprocess_options: what the images of the batches became first.
    options: what becomes of the scores.
    kind: report.CHECKPOINT or report.FROZEN_GRAPH.
    step: global step of a checkpoint, or None.
    num_classes: number of classes, the ignored one included; None: those of
      the batches' label map.

  Returns:
    The report, which is not printed yet.

  Raises:
    InputError: options or records that cannot be used.
  """
  counts = counting.count(
      predictor, batches,
      num_classes=num_classes or batches.label_map.num_classes,
      keep=report_lib.samples_wanted(options))
  result = report_lib.Report(
      kind=kind, path=predictor.description, step=step,
      split=batches.split, images=counts.images,
      seconds=counts.seconds, geometry=preprocess_options.geometry(),
      runtime=predictor.runtime, matrix=counts.matrix,
      skipped=batches.num_skipped, label_map=batches.label_map)
  if options.eval_logdir:
    # TensorBoard shows graphs as a run of their own, beside the checkpoints'.
    write_events(options.eval_logdir if kind == report_lib.CHECKPOINT
                 else os.path.join(options.eval_logdir, 'pb'), result)
  report_lib.save(result, counts.samples, options)
  return result


def write_events(logdir: str, result: report_lib.Report) -> None:
  """Writes a report's scores for TensorBoard, and its confusion matrix.

  The IoU of a class has the reference's tag, and one with its name, but for the
  ignored one.

  Args:
    logdir: folder for the events.
    result: the report.

  Raises:
    OSError, tf.errors.OpError: they cannot be written.
  """
  scores = result.scores
  values = [tf.Summary.Value(
      tag='eval/miou_1.0_overall', simple_value=scores.miou)]
  names = report_lib.class_names(result)
  for tag, classes in (
      ('eval/miou_1.0_class_{index}', range(len(names))),
      ('iou/{index:02}_{name}', [index for index in range(len(names))
                                 if index != result.ignore_label])):
    values += [
        tf.Summary.Value(tag=tag.format(index=index, name=names[index]),
                         simple_value=float(scores.per_class_iou[index]))
        for index in classes]
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
    watch_options: which checkpoints, and when.
    model_options: the structure of the network that they are of.
    dataset_options: which split.
    preprocess_options: what the images become first.
    options: what becomes of the scores.

  Returns:
    The last report, or None where the time was up before the first.

  Raises:
    InputError: options, records or checkpoints that cannot be used; no
      checkpoint although max_evaluations is given.
  """
  checkpoint_dir = watch_options.checkpoint_dir
  is_single = not storage.is_folder(checkpoint_dir) and (
      storage.exists(checkpoint_dir) or
      bool(checkpoints.parts_of(checkpoint_dir)))
  newest = checkpoints.Newest(
      checkpoint_dir, strict=watch_options.strict_checkpoint)
  if is_single or watch_options.max_evaluations and not newest.find():
    first = checkpoints.find(checkpoint_dir, 'checkpoint_dir')
  report_lib.check_outputs(options)
  # What can be wrong with the data shows before there is any waiting.
  batches = dataset.batches(
      dataset_options, preprocess_options,
      model_map=checkpoints.label_map_of(checkpoint_dir))
  model_options = model_options.with_classes(batches.label_map)
  memory.check(
      deeplab_v3.least_memory(model_options, batches.batch_size),
      '{} of {}', option('batch_size', batches.batch_size),
      option('crop_size', model_options.crop_size))
  result = None
  with predictors.CheckpointPredictor(model_options) as predictor:
    evaluator = _Evaluator(predictor, batches, model_options, dataset_options,
                           preprocess_options, options)
    if is_single:
      return evaluator.evaluated(first, again=True)
    results = _appearing(
        newest, watch_options.interval_secs, watch_options.timeout_secs,
        lambda prefix: evaluator.evaluated(
            prefix, again=watch_options.reevaluate))
    for number, report in enumerate(results, 1):
      result = report
      if number == watch_options.max_evaluations:
        break
  return result


class _Evaluator:
  """Evaluates checkpoints, prints their reports and keeps them.

  The reports are kept in the folder of events, so that an evaluation that is
  started again does not repeat what is done.
  """

  def __init__(self, predictor, batches, model_options, dataset_options,
               preprocess_options, options):
    self._predictor = predictor
    self._batches = batches
    self._model_options = model_options
    self._dataset_options = dataset_options
    self._preprocess_options = preprocess_options
    self._options = options

  def evaluated(self, prefix, *, again):
    """Evaluates a checkpoint.

    Args:
      prefix: checkpoint prefix.
      again: evaluate it even if its report was kept.

    Returns:
      The report. None: the checkpoint was removed before it was read, as a
      trainer removes old ones.
    """
    try:
      cache = self._cache_file(prefix)
      kept = None if again else self._recalled(cache)
      if not kept:
        self._predictor.restore(prefix)
    except Exception:
      # A trainer removes the index first.
      if storage.exists(prefix + '.index'):
        raise
      _LOG.info('%s was removed before it was read', prefix)
      return None
    if kept:
      _LOG.info('%s was evaluated before with the same options: no image is '
                'read, its report follows; %s evaluates it again', prefix,
                option('reevaluate'))
      result = kept._replace(path=prefix)
      if self._options.report_json:
        report_lib.write(self._options.report_json, result)
    else:
      result = evaluate(
          self._predictor, self._batches, self._preprocess_options,
          self._options, kind=report_lib.CHECKPOINT,
          step=checkpoints.global_step_in(prefix),
          num_classes=self._model_options.num_classes)
      if cache:
        report_lib.write(cache, result)
    report_lib.show(result, self._options.report_json)
    return result

  def _cache_file(self, prefix):
    """Returns the file that keeps the report of a checkpoint; None: no file.

    Its name has a checksum of everything that the report depends on. The index
    of a checkpoint has the checksums of its variables; its name and folder do
    not matter.
    """
    if not self._options.eval_logdir:
      return None
    with storage.reading(prefix + '.index') as index:
      weights = hashlib.sha1(index.read()).hexdigest()
    data = self._dataset_options
    key = files.digest({
        'checkpoint': weights,
        'records': [(os.path.basename(path), storage.state(path)[1:])
                    for path in records.find_shards(
                        data.dataset_dir, data.split)],
        'model': options_lib.to_json(self._model_options),
        'data': options_lib.to_json(data),
        'preprocessing': self._preprocess_options.to_json(),
        'pictures': [self._options.vis_dir,
                     report_lib.samples_wanted(self._options)],
        'runtime': predictors.runtime()})
    return os.path.join(
        self._options.eval_logdir, 'evaluated-{}-{}.json'.format(
            checkpoints.step_of(prefix), key[:16]))

  def _recalled(self, cache):
    """Returns the report that a file keeps, or None."""
    vis_dir = self._options.vis_dir
    if not cache or vis_dir and not os.path.exists(
        report_lib.picture_path(vis_dir)):
      return None
    try:
      return report_lib.from_json(inputs.read_json(cache, cache, 'a report'))
    except (OSError, InputError):
      return None  # There is none, or it is damaged: it is made again.


def _appearing(newest, interval_secs, timeout_secs, evaluated_once):
  """Has the newest checkpoint of a folder evaluated when there is a new one.

  Args:
    newest: a checkpoints.Newest of the folder.
    interval_secs: least time between two evaluations.
    timeout_secs: time without a new checkpoint to stop after; None: never.
    evaluated_once: function from a prefix to a report, or None where the
      checkpoint is gone.

  Yields:
    The reports.
  """
  seen = None
  waiting_since, noticed = time.time(), None
  while True:
    prefix = newest.find()
    if prefix and prefix != seen:
      started = time.time()
      result = evaluated_once(prefix)
      if result is None:
        continue  # another one has taken its place
      yield result
      seen = prefix
      _say_waiting(newest, prefix)
      # The interval is from start to start: an evaluation that took longer is
      # followed by the next one at once.
      _sleep(started + interval_secs - time.time())
      waiting_since = noticed = time.time()
      continue
    now = time.time()
    if timeout_secs is not None and now - waiting_since >= timeout_secs:
      _LOG.info('no new checkpoint in %s for %d s: done', newest.folder,
                timeout_secs)
      return
    if noticed is None or now - noticed >= _WAITING_NOTICE_SECS:
      noticed = now
      _say_waiting(newest, prefix)
    _sleep(1)


def _say_waiting(newest, prefix):
  _LOG.info('waiting for a checkpoint in %s (newest: %s); Ctrl-C ends this',
            newest.folder, prefix or '; '.join(newest.problems) or 'none')


def _sleep(seconds):
  """Waits for the next checkpoint; a signal is the usual end of that."""
  try:
    time.sleep(max(0, seconds))
  except stops.Stopped as stopped:
    _LOG.info('stopped by %s while waiting; all reports are complete',
              stopped.name)
    raise SystemExit(stopped.status)


# --- Exported graphs -------------------------------------------------------


def evaluate_frozen_graph(
    *, graph_options: options_lib.GraphEvalOptions,
    dataset_options: options_lib.DatasetOptions,
    preprocess_options: options_lib.PreprocessOptions,
    options: options_lib.EvalOptions) -> report_lib.Report:
  """Evaluates a frozen graph, a SavedModel or an ONNX file.

  Args:
    graph_options: which one.
    dataset_options: which split.
    preprocess_options: what the images become first.
    options: what becomes of the scores.

  Returns:
    What was published.

  Raises:
    InputError: options, records or a graph that cannot be used.
  """
  model = _exported(graph_options)
  with _open_exported(
      model, graph_options, preprocess_options.crop_size) as predictor:
    # Missing folders are made, but not for a graph that is refused.
    report_lib.check_outputs(options)
    batches = dataset.batches(
        dataset_options, preprocess_options,
        model_map=descriptions.label_map_beside(model.path))
    result = evaluate(predictor, batches, preprocess_options, options,
                      kind=model.kind)
  report_lib.show(result, options.report_json)
  return result


def _exported(graph_options):
  """Tells what was exported: an any_model.ModelFile."""
  path = graph_options.path
  servable = any_model.saved_model_folder(path)
  if servable:
    return any_model.ModelFile(report_lib.SAVED_MODEL, servable)
  is_onnx = os.path.isfile(path) and any_model.is_onnx(path)
  # What it is not, the reader of graphs says.
  return any_model.ModelFile(
      report_lib.ONNX if is_onnx else report_lib.FROZEN_GRAPH, path)


def _open_exported(model, graph_options, crop_size):
  """Returns a predictor of it."""
  if model.kind == report_lib.FROZEN_GRAPH:
    return predictors.FrozenGraphPredictor(
        model.path, crop_size=crop_size, input_node=graph_options.input_node,
        output_node=graph_options.output_node)
  for name in ('input_node', 'output_node'):
    given = getattr(graph_options, name)
    if given != definitions(options_lib.GraphEvalOptions)[name].default:
      raise InputError('{}: {} says itself what goes in and comes out; drop it',
                       option(name, given), model.path)
  return any_model.open_predictor(model, crop_size=crop_size)
