"""Evaluation of checkpoints and of frozen graphs on records.

TFLite files are evaluated on PNG files, in processes of their own: see
`lite.evaluation`. Both count with `counting`.
"""
import logging
import os
import time
from typing import Optional

import tensorflow.compat.v1 as tf

from deeplab import checkpoints
from deeplab import contract
from deeplab import counting
from deeplab import options as options_lib
from deeplab import predictors
from deeplab import report as report_lib
from deeplab.data import dataset

_LOG = logging.getLogger(__name__)
# Seconds between two lines while waiting for a checkpoint.
_WAITING_NOTICE_SECS = 60


def evaluate(predictor: counting.Predictor,
             dataset_options: options_lib.DatasetOptions,
             preprocess_options: options_lib.PreprocessOptions,
             options: options_lib.EvalOptions, *, kind: str,
             step: Optional[int] = None,
             num_classes: int = contract.NUM_CLASSES) -> report_lib.Report:
  """Evaluates a predictor on a split and publishes the report.

  Args:
    predictor: makes the labels.
    dataset_options: which split.
    preprocess_options: what the images become first.
    options: what becomes of the scores.
    kind: report.CHECKPOINT or report.FROZEN_GRAPH.
    step: global step of a checkpoint, or None.
    num_classes: number of classes, the ignored one included.

  Returns:
    What was published.

  Raises:
    InputError: options or records that cannot be used.
  """
  counts = counting.count(
      predictor, dataset.batches(dataset_options, preprocess_options),
      num_classes=num_classes, keep=report_lib.samples_wanted(options))
  result = report_lib.Report(
      kind=kind, path=predictor.description, step=step,
      split=dataset_options.split, images=counts.images,
      seconds=counts.seconds, geometry=preprocess_options.geometry(),
      runtime=predictors.runtime(), matrix=counts.matrix)
  report_lib.publish(result, counts.samples, options)
  if options.eval_logdir:
    write_events(options.eval_logdir, result)
  return result


def write_events(logdir: str, result: report_lib.Report) -> None:
  """Writes a report's scores for TensorBoard, under the reference's tags.

  Args:
    logdir: folder for the events.
    result: the report.
  """
  scores = result.scores
  values = [tf.Summary.Value(
      tag='eval/miou_1.0_overall', simple_value=scores.miou)]
  values += [
      tf.Summary.Value(tag='eval/miou_1.0_class_{}'.format(index),
                       simple_value=float(iou))
      for index, iou in enumerate(scores.per_class_iou)]
  # A FileWriter does not work where eager execution is on.
  with tf.Graph().as_default():
    writer = tf.summary.FileWriter(logdir)
    writer.add_summary(tf.Summary(value=values), result.step or 0)
    writer.close()


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
  is_single = not os.path.isdir(checkpoint_dir) and (
      os.path.exists(checkpoint_dir) or
      os.path.exists(checkpoint_dir + '.index'))
  if is_single or watch_options.max_evaluations:
    first = checkpoints.find(checkpoint_dir, 'checkpoint_dir')
  # What can be wrong with the data shows before there is any waiting.
  dataset.batches(dataset_options, preprocess_options)
  prefixes = [first] if is_single else _appearing(
      checkpoint_dir, watch_options.interval_secs, watch_options.timeout_secs)
  result = None
  with predictors.CheckpointPredictor(model_options) as predictor:
    for number, prefix in enumerate(prefixes, 1):
      predictor.restore(prefix)
      result = evaluate(
          predictor, dataset_options, preprocess_options, options,
          kind=report_lib.CHECKPOINT, step=checkpoints.step_of(prefix),
          num_classes=model_options.num_classes)
      if number == watch_options.max_evaluations:
        break
  return result


def _appearing(folder, interval_secs, timeout_secs):
  """Yields the newest checkpoint of a folder whenever there is a new one."""
  seen = None
  waiting_since = noticed = time.time()
  while True:
    prefix = checkpoints.find_latest(folder)
    if prefix and prefix != seen:
      started = time.time()
      yield prefix
      seen = prefix
      # The interval is from start to start: an evaluation that took longer is
      # followed by the next one at once.
      time.sleep(max(0, started + interval_secs - time.time()))
      waiting_since = noticed = time.time()
      continue
    now = time.time()
    if timeout_secs is not None and now - waiting_since >= timeout_secs:
      _LOG.info('no new checkpoint in %s for %d s: done', folder, timeout_secs)
      return
    if now - noticed >= _WAITING_NOTICE_SECS:
      noticed = now
      _LOG.info('waiting for a checkpoint in %s (newest: %s)', folder,
                prefix or 'none')
    time.sleep(1)


def evaluate_frozen_graph(
    *, graph_options: options_lib.GraphEvalOptions,
    dataset_options: options_lib.DatasetOptions,
    preprocess_options: options_lib.PreprocessOptions,
    options: options_lib.EvalOptions) -> report_lib.Report:
  """Evaluates a frozen graph.

  Args:
    graph_options: which graph.
    dataset_options: which split.
    preprocess_options: what the images become first.
    options: what becomes of the scores.

  Returns:
    What was published.

  Raises:
    InputError: options, records or a graph that cannot be used.
  """
  with predictors.FrozenGraphPredictor(
      graph_options.path, crop_size=preprocess_options.crop_size,
      input_node=graph_options.input_node,
      output_node=graph_options.output_node) as predictor:
    return evaluate(predictor, dataset_options, preprocess_options, options,
                    kind=report_lib.FROZEN_GRAPH)
