"""Draws predictions of a model over pictures of any shape."""
import contextlib
import glob
import logging
import os
from typing import Any, Dict, List, NamedTuple, Tuple

import numpy as np

from deeplab.config import label_map as label_maps
from deeplab.config import options as options_lib
from deeplab.data import pictures
from deeplab.data import png
from deeplab.errors import option
from deeplab.errors import some_of
from deeplab.evaluation import visualize
from deeplab.models import open_model
from deeplab.storage import checked_read
from deeplab.storage import files
from deeplab.system import parallel
from deeplab.system import progress

_LOG = logging.getLogger(__name__)
SUMMARY = 'overlays.json'
_OVERLAY, _LABELS = '.overlay.png', '.labels.png'
# Minimum width of a legend in pixels; pictures may be 1 pixel wide.
_LEAST_LEGEND = 240
_GAP = 8
# Smaller shares of a picture are in the summary but not in the legend.
_LEAST_SHARE = 5e-4


class Result(NamedTuple):
  """The pictures written."""
  # Paths of the overlays, in order.
  overlays: List[str]
  # Content of the summary file.
  summary: Dict[str, Any]


def make(options: options_lib.OverlayOptions) -> Result:
  """Labels pictures and writes them with overlaid labels.

  For each picture NAME it writes NAME.overlay.png and, if requested,
  NAME.labels.png, both at the picture's own size with a legend below the
  overlay. All files appear together at the end.

  Raises:
    InputError: the model or the pictures cannot be used, or a file that no run
      wrote has the name of an output.
  """
  model = open_model.find(options.model)
  paths = pictures.list_pictures(options.pictures)
  given = option('output_dir', options.output_dir)
  if os.path.isdir(options.pictures):
    # Otherwise the next run would read the overlays as pictures.
    files.check_folder(
        given, options.output_dir, inputs=[os.path.dirname(paths[0])])
  paths, left_out = pictures.check(paths, options.skip_bad)
  if left_out:
    _LOG.warning('%d pictures left out: %s', len(left_out), some_of(left_out))
  names = [glob.escape(os.path.basename(path)) + ending for path in paths
           for ending in (_OVERLAY, _LABELS)]
  with contextlib.ExitStack() as stack:
    folder = stack.enter_context(files.replacing_own(
        given, options.output_dir, names + [SUMMARY],
        checked_read.json_with('pictures', 'exif_rotation')))
    predictor = stack.enter_context(open_model.open_predictor(
        model, crop_size=options.crop_size,
        num_threads=parallel.worker_count(options.num_threads)))
    label_map = open_model.classes_of(model, predictor, options.label_map)
    fitter = stack.enter_context(pictures.Fitter(predictor.input_size))
    facts = [
        _make_one(path, folder, options, fitter, predictor, label_map)
        for path in progress.shown(paths, 'labelling', unit='picture')]
    summary = {
        'model': model.path, 'kind': model.kind, 'runtime': predictor.runtime,
        'geometry': fitter.options.geometry(),
        'exif_rotation': options.exif_rotation, 'left_out': left_out,
        'pictures': facts}
    summary.update(label_maps.json_entry(label_map))
    files.write_json(os.path.join(folder, SUMMARY), summary)
  made = [os.path.join(options.output_dir, fact['overlay']) for fact in facts]
  return Result(made, summary)


def _make_one(path, folder, options, fitter, predictor, label_map):
  """Writes the files of one picture; returns its entry in the summary."""
  picture = pictures.read(path, exif_rotation=options.exif_rotation)
  fitted = fitter.fit(picture)
  labels = predictor.predict(fitted.image[np.newaxis])[0]
  labels = pictures.labels_as_seen(labels, fitted.size, picture.shape[:2])
  shares = _shares(labels)
  painted = visualize.overlay(picture, labels, options.opacity, label_map)
  if options.legend:
    shown = [index for index, share in shares if share >= _LEAST_SHARE]
    painted = _with_legend(painted, shown, label_map, options.opacity)
  name = os.path.basename(path)
  files.write_bytes(os.path.join(folder, name + _OVERLAY), png.encode(painted))
  if options.save_labels:
    files.write_bytes(os.path.join(folder, name + _LABELS), png.encode(labels))
  return {
      'name': name, 'height': picture.shape[0], 'width': picture.shape[1],
      'fitted_to': list(fitted.size), 'overlay': name + _OVERLAY,
      'classes': [
          {'id': index, 'name': label_map.names[index], 'share': share}
          for index, share in shares]}


def _shares(labels: np.ndarray) -> List[Tuple[int, float]]:
  """Returns (class, share of the pixels), largest first."""
  counts = np.bincount(labels.ravel())
  order = np.argsort(-counts, kind='stable')
  return [(int(index), float(counts[index]) / labels.size)
          for index in order if counts[index]]


def _with_legend(painted: np.ndarray, classes: List[int],
                 label_map: label_maps.LabelMap, opacity: float) -> np.ndarray:
  """Puts a legend below a picture; letters scale with the picture."""
  height, width, _ = painted.shape
  times = 1 + width // visualize.WIDE
  legend = np.asarray(visualize.legend(
      classes, max(width, _LEAST_LEGEND) // times, label_map, opacity))
  legend = legend.repeat(times, axis=0).repeat(times, axis=1)
  top = height + times * _GAP
  sheet = np.full(
      [top + legend.shape[0], max(width, legend.shape[1]), 3], 255, np.uint8)
  sheet[:height, :width] = painted
  sheet[top:, :legend.shape[1]] = legend
  return sheet


def summary_lines(result: Result, most: int = 10) -> List[str]:
  """Returns human-readable lines about a Result.

  Args:
    result: from `make`.
    most: number of pictures to name.
  """
  lines = []
  for path, fact in zip(result.overlays[:most], result.summary['pictures']):
    lines.append('{}: {}x{}, {}'.format(
        path, fact['height'], fact['width'], ', '.join(
            '{} {:.0%}'.format(entry['name'], entry['share'])
            for entry in fact['classes'][:4])))
  if len(result.overlays) > most:
    lines.append('and {} more'.format(len(result.overlays) - most))
  lines.append('{} by {} ({})'.format(
      progress.counted(len(result.overlays), 'picture'),
      result.summary['model'], result.summary['runtime']))
  return lines
