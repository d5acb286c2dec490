"""Draws charts of a comparison as PNG; needs matplotlib."""
import io
import logging
from typing import Any, Dict, List, NamedTuple

import numpy as np

from deeplab.config import label_map as label_maps
from deeplab.data import png
from deeplab.evaluation import visualize
from deeplab.tools.comparison import statistics as statistics_lib

# Colours of models: Okabe and Ito's palette for colour-blind readers.
COLOURS = ('#0072b2', '#e69f00', '#009e73', '#cc79a7', '#d55e00', '#56b4e9',
           '#8c6d31', '#555555')
_DPI = 160
_STYLE: Any = {
    'font.size': 9, 'axes.spines.top': False, 'axes.spines.right': False,
    'axes.grid': True, 'grid.color': '#e6e6e6', 'axes.axisbelow': True,
    # Model names may contain a dollar sign.
    'text.parse_math': False, 'legend.frameon': False}


class Chart(NamedTuple):
  """One chart."""
  # File name without extension.
  name: str
  title: str
  png: bytes


def draw(scores: Dict[str, Any], label_map: label_maps.LabelMap
         ) -> List[Chart]:
  """Draws all charts.

  Args:
    scores: scores of each model, by name, as in comparison.json.
    label_map: the label map of the classes.
  """
  # matplotlib logs when it builds its font cache.
  logging.getLogger('matplotlib').setLevel(logging.WARNING)
  import matplotlib
  matplotlib.use('Agg')
  from matplotlib import pyplot
  names, models = list(scores), list(scores.values())
  labelled = [index for index, one in enumerate(models[0]['classes'])
              if one['iou']['value'] is not None]
  texts = ['{} {}'.format(index, label_map.names[index]) for index in labelled]

  def of_classes(name):
    return [[model['classes'][index][name] for index in labelled]
            for model in models]

  with pyplot.rc_context(_STYLE):
    return [
        Chart('scores', 'Scores with intervals', _bars(
            pyplot, list(statistics_lib.SCORES.values()), names,
            [[model[name] for name in statistics_lib.SCORES]
             for model in models])),
        Chart('iou', 'IoU by class', _bars(
            pyplot, texts, names, of_classes('iou'))),
        Chart('iou_differences', 'Difference of IoU by class', _bars(
            pyplot, texts,
            ['{} \u2212 {}'.format(name, names[0]) for name in names[1:]],
            of_classes('iou_difference')[1:], first_colour=1))
    ] + _confusion_matrices(scores, label_map)


def colour(index: int) -> str:
  """Returns the HTML colour of a model by its index."""
  return COLOURS[index % len(COLOURS)]


def _bars(pyplot, texts, names, intervals, first_colour=0):
  """Draws a group of bars for each text, one for each name; returns a PNG.

  Args:
    pyplot: matplotlib.pyplot.
    texts: labels of the groups.
    names: names in the legend.
    intervals: [names, texts] of dicts with value, low and high.
    first_colour: index of the first name's colour.
  """
  figure, axes = pyplot.subplots(
      figsize=(7.4, 1 + 0.15 * len(texts) * (len(names) + 0.7)))
  height = 0.8 / len(names)
  for index, (name, row) in enumerate(zip(names, intervals)):
    values, low, high = (
        np.array([one[end] for one in row], np.float64)  # None becomes NaN
        for end in ('value', 'low', 'high'))
    places = np.arange(len(texts)) + (index + 0.5) * height - 0.4
    # There is no whisker without an interval.
    whiskers = np.nan_to_num([values - low, high - values])
    axes.barh(places, values, height, label=name,
              color=colour(first_colour + index))
    axes.errorbar(values, places, xerr=np.maximum(whiskers, 0), fmt='none',
                  ecolor='#555555', elinewidth=0.8, capsize=2)
  axes.set_yticks(range(len(texts)), texts)
  axes.set_ylim(len(texts) - 0.4, -0.6)
  axes.grid(axis='y', visible=False)
  if first_colour:
    axes.axvline(0, color='black', linewidth=0.8)
    reach = max(0.05, *map(abs, axes.get_xlim()))
    axes.set_xlim(-reach, reach)
  else:
    axes.set_xlim(0, 1)
  axes.legend(loc='lower center', bbox_to_anchor=(0.5, 1.0),
              ncol=min(3, len(names)), fontsize=9)
  out = io.BytesIO()
  # Without date and version, equal inputs give equal bytes.
  figure.savefig(out, format='png', dpi=_DPI, bbox_inches='tight',
                 metadata={'Software': None})
  pyplot.close(figure)
  return out.getvalue()


def _confusion_matrices(scores, label_map):
  """Draws the confusion matrix of each model, of the classes that occur."""
  matrices = [np.array(model['confusion_matrix']) for model in scores.values()]
  seen = np.sum(matrices, axis=0)
  classes = np.flatnonzero(seen.any(axis=0) | seen.any(axis=1)).tolist()
  return [
      Chart('confusion_{}'.format(number), name, png.encode(np.asarray(
          visualize.confusion_matrix(matrix, label_map.names, classes))))
      for number, (name, matrix) in enumerate(zip(scores, matrices), 1)]
