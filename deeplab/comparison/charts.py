"""Charts of a comparison, as PNG; needs matplotlib."""
import io
import logging
from typing import Any, List, NamedTuple, Sequence

import numpy as np

from deeplab import label_map as label_maps
from deeplab.comparison import statistics as statistics_lib

# Of models, in order: the palette of Okabe and Ito, which colour-blind people
# can tell apart.
COLOURS = ('#0072b2', '#e69f00', '#009e73', '#cc79a7', '#d55e00', '#56b4e9',
           '#8c6d31', '#555555')
_INK, _FAINT = '#1a1a1a', '#d8d8d8'
# Resolution of the page and of the files.
_PAGE_DPI, _DPI = 96, 160
_STYLE = {
    'font.size': 9, 'font.family': 'DejaVu Sans', 'axes.edgecolor': '#888888',
    'axes.labelcolor': _INK, 'text.color': _INK, 'xtick.color': _INK,
    'ytick.color': _INK, 'axes.spines.top': False, 'axes.spines.right': False,
    'axes.grid': True, 'grid.color': '#e6e6e6', 'axes.axisbelow': True,
    # Names of models may hold a dollar sign.
    'text.parse_math': False,
    'legend.frameon': False, 'figure.facecolor': 'white'}


class Chart(NamedTuple):
  """One chart."""
  # Of its file, without ending.
  name: str
  title: str
  # A sentence for those who do not see it.
  text: str
  png: bytes
  # In pixels of a page.
  width: int


def _pyplot() -> Any:
  # It says when it makes its cache of fonts.
  logging.getLogger('matplotlib').setLevel(logging.WARNING)
  import matplotlib
  matplotlib.use('Agg')
  from matplotlib import pyplot
  return pyplot


def draw(models: Sequence[statistics_lib.ModelScores], names: Sequence[str],
         label_map: label_maps.LabelMap) -> List[Chart]:
  """Draws all charts.

  Args:
    models: scores of each.
    names: of the models.
    label_map: of the classes.
  """
  pyplot = _pyplot()
  seen = np.sum([model.matrix for model in models], axis=0)
  classes = [index for index in range(len(seen))
             if seen[index].any() or seen[:, index].any()]
  with pyplot.rc_context(_STYLE):
    return [_scores(pyplot, models, names),
            _iou(pyplot, models, names, label_map),
            _iou_differences(pyplot, models, names, label_map)] + [
                _confusion(pyplot, model, names[index], index, classes,
                           label_map) for index, model in enumerate(models)]


def colour(index: int) -> str:
  """Returns the colour of a model, by its position, as HTML writes it."""
  return COLOURS[index % len(COLOURS)]


def _chart(pyplot, figure, name, title, text):
  """Returns a figure as a Chart, and closes it."""
  out = io.BytesIO()
  # Without a date and versions: equal inputs give equal bytes.
  figure.savefig(out, format='png', dpi=_DPI, bbox_inches='tight',
                 metadata={'Software': None})
  width = int(figure.get_figwidth() * _PAGE_DPI)
  pyplot.close(figure)
  return Chart(name, title, text, out.getvalue(), width)


def _whiskers(intervals, values):
  """Returns lengths of error bars, [2, n]; none where there is no interval."""
  lows = np.nan_to_num(values - np.array([one.low for one in intervals]))
  highs = np.nan_to_num(np.array([one.high for one in intervals]) - values)
  return np.maximum([lows, highs], 0)


def _scores(pyplot, models, names):
  labels = (('miou', 'mIoU'), ('miou_kept_classes', 'mIoU, kept'),
            ('miou_mlperf_app', 'mIoU, app'),
            ('pixel_accuracy', 'pixel accuracy'))
  figure, axes = pyplot.subplots(
      figsize=(7.4, 0.7 + 0.16 * len(labels) * (len(models) + 1)))
  height = 0.8 / len(models)
  for index, model in enumerate(models):
    intervals = [model.scores[name] for name, _ in labels]
    values = np.array([one.value for one in intervals])
    axes.errorbar(
        values, np.arange(len(labels)) + (index + 0.5) * height - 0.4,
        xerr=_whiskers(intervals, values), fmt='o', markersize=5, capsize=3,
        color=colour(index), label=names[index])
  axes.set_yticks(range(len(labels)), [text for _, text in labels])
  axes.invert_yaxis()
  axes.grid(axis='y', visible=False)
  axes.set_xlim(0, 1)
  _legend(axes, names)
  return _chart(pyplot, figure, 'scores', 'Scores with intervals',
                'Score of each model, with its interval over images.')


def _legend(axes, names):
  axes.legend(loc='lower center', bbox_to_anchor=(0.5, 1.0),
              ncol=min(3, len(names)), fontsize=9)


def _labelled(models):
  """Returns the classes that have a label."""
  return [index for index, one in enumerate(models[0].iou)
          if not np.isnan(one.value)]


def _iou(pyplot, models, names, label_map):
  classes = _labelled(models)
  figure, axes = pyplot.subplots(
      figsize=(7.4, 1 + 0.13 * len(classes) * (len(models) + 0.7)))
  height = 0.8 / len(models)
  for index, model in enumerate(models):
    values = [model.iou[index_].value for index_ in classes]
    axes.barh(np.arange(len(classes)) + (index + 0.5) * height - 0.4, values,
              height, color=colour(index), label=names[index])
  _class_axis(axes, classes, label_map)
  axes.set_xlim(0, 1)
  axes.set_xlabel('IoU')
  _legend(axes, names)
  return _chart(pyplot, figure, 'iou', 'IoU by class',
                'IoU of each class that is labelled, by model.')


def _class_axis(axes, classes, label_map):
  axes.set_yticks(range(len(classes)), [
      '{} {}'.format(index, label_map.names[index]) for index in classes])
  axes.set_ylim(len(classes) - 0.4, -0.6)
  axes.grid(axis='y', visible=False)


def _iou_differences(pyplot, models, names, label_map):
  classes = _labelled(models)
  others = len(models) - 1
  figure, axes = pyplot.subplots(
      figsize=(7.4, 1 + 0.15 * len(classes) * (others + 0.7)))
  height = 0.8 / others
  for index, model in enumerate(models[1:], 1):
    intervals = [model.iou_differences[index_] for index_ in classes]
    values = np.array([one.value for one in intervals])
    places = np.arange(len(classes)) + (index - 0.5) * height - 0.4
    axes.barh(places, values, height, color=colour(index),
              label='{} \u2212 {}'.format(names[index], names[0]))
    axes.errorbar(values, places, xerr=_whiskers(intervals, values),
                  fmt='none', ecolor='#555555', elinewidth=0.8, capsize=2)
  _class_axis(axes, classes, label_map)
  axes.axvline(0, color=_INK, linewidth=0.8)
  reach = max(0.05, *map(abs, axes.get_xlim()))
  axes.set_xlim(-reach, reach)
  axes.set_xlabel('difference of IoU')
  _legend(axes, names[1:])
  return _chart(
      pyplot, figure, 'iou_differences', 'Difference of IoU by class',
      'Difference of IoU to the first model, with intervals over images.')


def _confusion(pyplot, model, name, index, classes, label_map):
  """Draws a confusion matrix in shares of each label's pixels."""
  matrix = model.matrix[np.ix_(classes, classes)].astype(np.float64)
  totals = matrix.sum(axis=1, keepdims=True)
  shares = np.divide(matrix, totals, out=np.zeros_like(matrix),
                     where=totals > 0)
  # Without a label there is nothing to share out.
  shares[totals[:, 0] == 0] = np.nan
  side = min(6.0, 2.2 + 0.2 * len(classes))
  figure, axes = pyplot.subplots(figsize=(side, side))
  image = axes.imshow(100 * shares, cmap='Blues', vmin=0, vmax=100)
  texts = ['{} {}'.format(one, label_map.names[one]) for one in classes]
  axes.set_xticks(range(len(classes)), texts, rotation=90, fontsize=7)
  axes.set_yticks(range(len(classes)), texts, fontsize=7)
  axes.grid(visible=False)
  axes.set_xlabel('prediction')
  axes.set_ylabel('label')
  axes.set_facecolor(_FAINT)
  bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02)
  bar.set_label("% of the label's pixels", fontsize=8)
  bar.outline.set_visible(False)
  return _chart(
      pyplot, figure, 'confusion_{}'.format(index + 1), name,
      'Confusion matrix of {}: what the pixels of each label are predicted '
      'as.'.format(name))
