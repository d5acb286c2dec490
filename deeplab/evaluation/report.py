"""Reports of evaluations, as a table and as JSON.

A report holds a confusion matrix and how it was counted. Every score is
computed from the matrix.
"""
import json
import logging
import math
import os
from typing import (
  Any,
  Dict,
  Iterable,
  List,
  NamedTuple,
  Optional,
  Sequence,
  Tuple,
  Union,
)

import numpy as np

from deeplab import constants
from deeplab import errors
from deeplab.config import label_map as label_maps
from deeplab.config import options as options_lib
from deeplab.errors import InputError
from deeplab.errors import Option
from deeplab.errors import option
from deeplab.evaluation import metrics
from deeplab.evaluation import published
from deeplab.evaluation import visualize
from deeplab.models import interface
from deeplab.storage import checked_read
from deeplab.storage import files
from deeplab.system import streams

_LOG = logging.getLogger(__name__)

# Kind of a report from the responses of a LoadGen run.
ACCURACY_LOG = 'accuracy log'

# Tests whether a file is a report.
IS_REPORT = checked_read.json_with('confusion_matrix', 'pixel_accuracy')

# The three means in the order of all tables: field of metrics.Scores, name,
# counted classes.
MEANS = (
    ('miou', 'mIoU', 'every class seen, reference eval.py'),
    ('miou_kept_classes', 'mIoU, kept',
     'without class {ignored}, reference TFLite script'),
    ('miou_mlperf_app', 'mIoU, app',
     'sum over {classes} classes / {classes}, MLPerf mobile app'))
# The published mean and its models; then the kinds that have another mean.
_MIOU = ('miou', 'checkpoints and graphs')
_PUBLISHED_AS = {
    interface.TFLITE: ('miou_kept_classes', 'TFLite files on x86'),
    ACCURACY_LOG: ('miou_mlperf_app', 'TFLite files on a device')}

# Fields of a report that its JSON has only if they are not None.
_OPTIONAL = ('shard', 'model', 'host_ms')


class Shard(NamedTuple):
  """The shard of an evaluation that a report covers."""
  # Counted from 0.
  number: int
  # Number of shards.
  of: int
  # Facts that all shards share, by name: checksums of the model and of the
  # images, and the options.
  evaluation: Dict[str, Any]


class Report(NamedTuple):
  """One evaluation; build it with keywords."""
  # A kind of models.interface, or ACCURACY_LOG.
  kind: str
  # A checkpoint prefix, or the file.
  path: str
  # The checkpoint's global step; None: not a checkpoint.
  step: Optional[int]
  # 'train' or 'val', or another name of the images.
  split: str
  # Number of images in the matrix.
  images: int
  # Wall-clock seconds from the first image to the last.
  seconds: float
  # Resizing and padding, from PreprocessOptions.geometry.
  geometry: str
  # The interpreter, such as 'TensorFlow 1.15.5'.
  runtime: str
  # [num_classes, num_classes] integer, from metrics.confusion_matrix.
  matrix: np.ndarray
  # The class whose pixels are not in the matrix.
  ignore_label: int = constants.IGNORE_LABEL
  # Number of skipped bad images.
  skipped: int = 0
  # Used if its number of classes fits.
  label_map: label_maps.LabelMap = label_maps.ADE20K
  # None: all images of the split were evaluated.
  shard: Optional[Shard] = None
  # Facts about the file, from open_model.facts, or None.
  model: Optional[Dict[str, Any]] = None
  # Milliseconds an image in the model on this machine, the median of batches.
  host_ms: Optional[float] = None

  @property
  def scores(self) -> metrics.Scores:
    """All scores of the matrix."""
    return metrics.scores(self.matrix, self.ignore_label)

  @property
  def images_per_second(self) -> float:
    """Speed of the evaluation; NaN if no time was measured."""
    return self.images / self.seconds if self.seconds else float('nan')


def table(report: Report) -> str:
  """Returns a human-readable table.

  It has a line for each class, then the settings and the scores, and no final
  newline. Lines have at most 80 columns, except for long paths and names. A
  star marks the mean to compare with the published figures.
  """
  scores = report.scores
  names = class_names(report)
  labelled = np.asarray(report.matrix).sum(axis=1)
  shares = 100.0 * labelled / max(1, labelled.sum())
  width = max(12, *map(len, names))
  lines = ['{:>5}  {:<{}} {:>12} {:>8}'.format(
      'class', 'name', width, 'pixels', 'IoU')]
  lines += ['{:>5}  {:<{}} {:>10.2f} % {:>8}'.format(
      index, name, width, share, _score(iou))
            for index, (name, share, iou) in enumerate(
                zip(names, shares, scores.per_class_iou))]
  lines.append('')
  kept = sum(index != report.ignore_label for index in range(len(names)))
  marked, note = _published(report)
  rows = [
      ('evaluated', '{} {}{}'.format(
          report.kind, report.path, '' if report.step is None else
          ', step {}'.format(report.step))),
      ('images', '{} of {}{}, {:.1f} s, {:.2f} a second{}'.format(
          report.images, report.split, '' if not report.shard else
          ', shard {} of {}'.format(*report.shard[:2]), report.seconds,
          report.images_per_second, '; {} bad ones left out'.format(
              report.skipped) if report.skipped else '')),
      ('geometry', report.geometry),
      ('runtime', report.runtime),
      ('pixel accuracy', _score(scores.pixel_accuracy)),
      ('class accuracy', _score(scores.mean_class_accuracy))]
  rows += [(name, '{}{:1} ({})'.format(
      _score(getattr(scores, field)), '*' if field == marked else '',
      text.format(classes=kept, ignored=report.ignore_label)))
           for field, name, text in MEANS]
  lines += ['{:<16} {}'.format(*row) for row in rows]
  return '\n'.join(map(errors.printable, lines + ([note] if note else [])))


def _published(report):
  """Returns (field of metrics.Scores, note) of the mean to compare, or Nones.

  The published figures are for ADE20K's 32 classes.
  """
  if (len(report.matrix) != constants.NUM_CLASSES or
      report.label_map != label_maps.ADE20K):
    return None, None
  score, what = _PUBLISHED_AS.get(report.kind, _MIOU)
  figures = published.figures_of(report.path)
  if not figures:
    return score, '* the mean that the published figures of {} are'.format(what)
  if score not in figures:  # the float TFLite file
    score, = figures
  return score, '* compare with {}, published of {} images'.format(
      published.text_of(figures[score]), published.IMAGES)


def score_of(report: Report) -> Dict[str, Any]:
  """Returns the main score of a report, with its convention and geometry."""
  score = _PUBLISHED_AS.get(report.kind, _MIOU)[0]
  name, text = next(mean[1:] for mean in MEANS if mean[0] == score)
  return {
      'name': score, 'value': _finite(getattr(report.scores, score)),
      'convention': '{}: {}'.format(name, text.format(
          classes=len(report.matrix) - 1, ignored=report.ignore_label)),
      'geometry': report.geometry, 'split': report.split,
      'images': report.images}


def class_names(report: Report) -> Sequence[str]:
  """Returns the names of all classes of a report."""
  return label_maps.of_model(len(report.matrix), report.label_map).names


def to_json(report: Report) -> Dict[str, Any]:
  """Returns a report as a dict that json can write; NaN becomes None.

  Returns:
    The report's fields, optional ones only if they are not the default;
    images_per_second; the scores; 'score', the main one with its convention and
    geometry; 'classes', a list of dicts (id, name, pixels, iou);
    'confusion_matrix', a list of rows.
  """
  scores = report.scores._asdict()
  iou = scores.pop('per_class_iou')
  matrix = np.asarray(report.matrix)
  content = dict(report._asdict(), **scores)
  for name in ('matrix', 'label_map', *_OPTIONAL):
    del content[name]
  content.update(label_maps.json_entry(report.label_map))
  content.update((name, getattr(report, name)) for name in _OPTIONAL
                 if getattr(report, name) is not None)
  if report.shard:
    content['shard'] = dict(report.shard._asdict())
  content['score'] = score_of(report)
  content['images_per_second'] = report.images_per_second
  content['classes'] = [
      {'id': index, 'name': name, 'pixels': int(matrix[index].sum()),
       'iou': _finite(float(iou[index]))}
      for index, name in enumerate(class_names(report))]
  content['confusion_matrix'] = matrix.tolist()
  return {name: _finite(value) for name, value in content.items()}


def from_json(content: Any) -> Report:
  """Returns the Report from the content that to_json returned.

  Raises:
    InputError: the content is no report.
  """
  try:
    fields = {name: content[name] for name in Report._fields
              if name not in ('matrix', 'label_map', *_OPTIONAL)}
    fields.update((name, content.get(name)) for name in _OPTIONAL)
    fields['label_map'] = label_maps.optional_from_json(
        content, 'report') or label_maps.ADE20K
    fields['shard'] = fields['shard'] and Shard(**fields['shard'])
    matrix = np.array(content['confusion_matrix'])
    report = Report(matrix=matrix, **fields)
    if (matrix.dtype.kind == 'i' and matrix.shape == (len(matrix),) * 2 and
        dict(content, score=score_of(report)) == to_json(report)):
      return report
  except (ValueError, KeyError, TypeError, IndexError, AttributeError,
          InputError):
    pass
  raise InputError('expected a report')


def read(path: str, name: Union[str, Option] = '',
         kind: str = 'a report') -> Report:
  """Reads a report from a file.

  Args:
    path: the file.
    name: the option with the path, for messages; '': the path.
    kind: the expected kind of file, for messages.

  Raises:
    InputError: there is no such file, or it is no report.
    OSError: it cannot be read.
  """
  content = checked_read.read_json(path, name or path, kind)
  try:
    return from_json(content)
  except InputError:
    raise InputError('{}: expected {}', name or path, kind)


def write(path: str, report: Report) -> None:
  """Writes to_json(report) to a file atomically."""
  files.write_json(path, to_json(report))


def samples_wanted(eval_options: options_lib.EvalOptions) -> int:
  """Returns the number of images that `publish` draws."""
  return eval_options.vis_images if eval_options.vis_dir else 0


def check_outputs(eval_options: options_lib.EvalOptions,
                  picture_folders: Iterable[str] = ()) -> None:
  """Checks before the evaluation that every output can be written.

  Args:
    eval_options: paths of the outputs.
    picture_folders: folders of the evaluated images.

  Raises:
    InputError: a folder or file cannot be written to.
  """
  logdir, path, folder = (eval_options.eval_logdir, eval_options.report_json,
                          eval_options.vis_dir)
  if logdir:
    files.check_folder(option('eval_logdir', logdir), logdir)
  if path:
    files.check_outputs(
        option('report_json', path), path, ours=IS_REPORT,
        example='report.json')
  if folder:
    files.check_folder(
        option('vis_dir', folder), folder, inputs=picture_folders)
    files.check_outputs(option('vis_dir', folder), picture_path(folder))


def picture_path(vis_dir: str) -> str:
  """Returns the path of the picture of predictions."""
  return os.path.join(vis_dir, 'predictions.png')


def publish(report: Report, samples: Dict[str, List[np.ndarray]],
            eval_options: options_lib.EvalOptions) -> None:
  """Writes the JSON file and the pictures, then prints the report.

  Args:
    report: the evaluation.
    samples: lists of equal length, 'images' (uint8 [height, width, 3], RGB),
      'labels' and 'predictions' (integer [height, width]); see samples_wanted.
      {}: no picture is written.
    eval_options: paths of the files.

  Raises:
    OutputError: see show.
  """
  if eval_options.report_json:
    write(eval_options.report_json, report)
  if eval_options.vis_dir and samples:
    path = picture_path(eval_options.vis_dir)
    visualize.save(path, visualize.prediction_sheet(
        samples['images'], samples['labels'], samples['predictions'],
        label_map=report.label_map))
    _LOG.info('wrote %s', path)
  show(report, eval_options.report_json)


def show(report: Report, report_json: Optional[str]) -> None:
  """Prints the table and the result line.

  Args:
    report: the evaluation.
    report_json: path of the report's file, or None.

  Raises:
    OutputError: standard output cannot be written to; the message has the
      file's path or the result line.
  """
  try:
    print(table(report))
    # eval.py may run for hours, so the report is flushed.
    print(result_line(report), flush=True)
  except streams.OutputError as error:
    error.text = ('the report, which is in {}'.format(report_json)
                  if report_json else result_line(report))
    raise


def result_line(report: Report) -> str:
  """Returns 'RESULT {json}', a machine-readable line of the main numbers."""
  content = to_json(report)
  for name in ('classes', 'confusion_matrix', 'ignore_label', 'label_map',
               'score', *_OPTIONAL):
    content.pop(name, None)
  return 'RESULT ' + json.dumps(content, sort_keys=True)


def stage_table(stages: Sequence[Tuple[str, str]]) -> str:
  """Returns a table that compares reports.

  Args:
    stages: (name, path of a report) for each row.

  Returns:
    A header and a line for each row, without a final newline.

  Raises:
    InputError: a file is missing or is no report.
  """
  rows = [('stage', 'mIoU', 'pixel accuracy', 'images', 'seconds')]
  for stage, path in stages:
    report = read(path, option('report', '{}={}'.format(stage, path)))
    rows.append((stage, _score(report.scores.miou),
                 _score(report.scores.pixel_accuracy), str(report.images),
                 '{:.1f}'.format(report.seconds)))
  width = max(len(row[0]) for row in rows)
  lines = ['{:<{}}  {:>7}  {:>14}  {:>6}  {:>8}'.format(row[0], width, *row[1:])
           for row in rows]
  return '\n'.join(lines + [
      'mIoU: every class seen, as the published figures of checkpoints and '
      'graphs.', 'The published figures of TFLite files are "mIoU, kept" of '
      'their reports.'])


def _score(value):
  return '-' if math.isnan(value) else '{:.4f}'.format(value)


def _finite(value):
  """Returns the value, or None for a NaN, which JSON does not have."""
  return None if isinstance(value, float) and math.isnan(value) else value
