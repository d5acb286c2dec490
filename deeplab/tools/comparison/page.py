"""Renders a comparison as one self-contained HTML file.

page.html is the template, with styles and a script that sorts tables. Charts
and pictures are inlined. A content security policy forbids loading anything.
"""
import os
from typing import Any, Dict, List

from deeplab import errors
from deeplab.config import label_map as label_maps
from deeplab.evaluation import visualize
from deeplab.tools.comparison import charts as charts_lib
from deeplab.tools.comparison import counts as counts_lib
from deeplab.tools.comparison import drawing
from deeplab.tools.comparison import statistics as statistics_lib

_NONE = '–'  # en dash for a missing number
# Most rows in the table of images; the JSON has all.
_MOST_ROWS = 2000


def render(numbers: Dict[str, Any], counts: counts_lib.Counts,
           charts: List[charts_lib.Chart], sheets: List[str]) -> str:
  """Returns the page.

  Args:
    numbers: content of comparison.json.
    counts: the counts, with the images to show.
    charts: all charts.
    sheets: paths of the full-size images, relative to the page.
  """
  import jinja2
  environment = jinja2.Environment(
      loader=jinja2.FileSystemLoader(os.path.dirname(__file__)),
      autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
      lstrip_blocks=True, finalize=_printable)
  environment.filters.update(
      hex=lambda colour: '#{:02x}{:02x}{:02x}'.format(*colour),
      png_uri=lambda png: drawing.data_uri(png, 'image/png'),
      sort_key=lambda value: '' if value is None else value)
  names = [model['name'] for model in numbers['models']]
  scores = numbers.get('scores', {})
  classes = _listed_classes(scores) if scores else []
  return environment.get_template('page.html').render(
      numbers=numbers, names=names, scores=scores, label_map=counts.label_map,
      title='Comparison of {} and {}'.format(', '.join(names[:-1]), names[-1]),
      score_names=statistics_lib.SCORES,
      is_ade20k=counts.label_map == label_maps.ADE20K,
      is_few=numbers['images'] < statistics_lib.FEW_IMAGES,
      classes=classes, absent=counts.label_map.num_classes - 1 - len(
          [share for _, share in classes if share]),
      charts={chart.name: chart for chart in charts},
      shown=_shown(counts, names, sheets),
      classes_shown=drawing.classes_shown(counts.shown),
      meanings=drawing.MEANINGS if scores else drawing.MEANINGS[-1:],
      # Python's sort is stable.
      images=sorted(numbers['by_image'], key=lambda image: (
          -image['differing']))[:_MOST_ROWS],
      confusions=statistics_lib.confusions, colour=charts_lib.colour,
      shade=lambda index: visualize.shade(index, label_map=counts.label_map),
      score=_score, signed=lambda value: _score(value, '{:+.4f}'),
      percent=_percent, verdict=lambda difference: statistics_lib.verdict(
          difference, numbers['images']))


def _listed_classes(scores):
  """Returns (class, share of the labelled pixels).

  The classes are those that are labelled or change a mIoU.
  """
  of_classes = list(zip(*(model['classes'] for model in scores.values())))
  total = sum(models[0]['pixels'] for models in of_classes)
  return [(index, models[0]['pixels'] / total)
          for index, models in enumerate(of_classes) if any(
              one['pixels'] or one[statistics_lib.SHARE] for one in models)]


def _shown(counts, names, sheets):
  """Returns the images that differ most, with their panels."""
  return [
      {'name': shown.name, 'differing': shown.differing, 'sheet': sheet,
       'panels': [(title, *drawing.thumbnail(pixels)) for title, pixels in
                  drawing.panels(shown, names, counts.label_map)]}
      for shown, sheet in zip(counts.shown, sheets)]


def _printable(value):
  """Escapes invisible characters, because names may contain any."""
  # The exact type excludes Markup, a subclass of str.
  return errors.printable(value) if type(value) is str else value


def _score(value, form='{:.4f}'):
  return _NONE if value is None else form.format(value).replace('-', '−')


def _percent(value):
  return _NONE if value is None else _score(100 * value, '{:.2f} %')
