"""A comparison as one HTML file that needs nothing else.

page.html is its template, with styles and the script that sorts tables. Charts
and pictures are inlined. The page forbids itself to load anything.
"""
import math
import os
from typing import Any, Dict, List, NamedTuple

from deeplab import contract
from deeplab import errors
from deeplab import label_map as label_maps
from deeplab.comparison import charts as charts_lib
from deeplab.comparison import counts as counts_lib
from deeplab.comparison import drawing
from deeplab.comparison import statistics as statistics_lib

_NONE = '–'  # an en dash, if there is no number
# Rows of the table of images; the rest is in the JSON.
_MOST_ROWS = 2000
_OTHER_SCORES = {
    'miou_kept_classes': 'mIoU, kept', 'miou_mlperf_app': 'mIoU, app',
    'pixel_accuracy': 'pixel accuracy', 'mean_class_accuracy': 'class accuracy'}


class Model(NamedTuple):
  """What the page says of a model besides scores."""
  name: str
  kind: str
  path: str
  runtime: str


class Content(NamedTuple):
  """What the page shows."""
  models: List[Model]
  # Where images come from, and how they were resized.
  source: str
  geometry: str
  # Of the intervals.
  resamples: int
  seed: int
  counts: counts_lib.Counts
  statistics: statistics_lib.Statistics
  charts: List[charts_lib.Chart]
  # Paths, from the page, of the sheets of counts.shown.
  sheets: List[str]


def render(content: Content) -> str:
  """Returns the page."""
  import jinja2
  environment = jinja2.Environment(
      loader=jinja2.FileSystemLoader(os.path.dirname(__file__)),
      autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
      lstrip_blocks=True, finalize=_printable)
  environment.filters.update(
      hex=lambda colour: '#{:02x}{:02x}{:02x}'.format(*colour),
      png_uri=lambda png: drawing.data_uri(png, 'image/png'),
      sort_key=lambda value: '' if _is_none(value) else value)
  return environment.get_template('page.html').render(_variables(content))


def _variables(content: Content) -> Dict[str, Any]:
  """Returns what the template gets."""
  counts, statistics = content.counts, content.statistics
  names = [model.name for model in content.models]
  classes = _labelled_classes(content)
  return dict(
      content._asdict(),
      title='Comparison of {} and {}'.format(', '.join(names[:-1]), names[-1]),
      label_map=counts.label_map, other_scores=_OTHER_SCORES,
      is_ade20k=counts.label_map == label_maps.ADE20K,
      is_few=statistics.images < statistics_lib.FEW_IMAGES,
      classes=classes, absent=counts.label_map.num_classes - 1 - len(classes),
      charts={chart.name: chart for chart in content.charts},
      shown=_shown(content, names),
      classes_shown=drawing.classes_shown(counts.shown),
      map_legend=drawing.map_legend(names[0], statistics.models is not None),
      images=_images(counts), confusions=statistics_lib.confusions,
      colour=charts_lib.colour, score=_score, signed=_signed, percent=_percent,
      verdict=lambda difference: statistics_lib.verdict(
          difference, statistics.images))


def _labelled_classes(content):
  """Returns (class, share of the labelled pixels) of labelled classes."""
  if content.statistics.models is None:
    return []
  pixels = content.statistics.models[0].matrix.sum(axis=1)
  return [(index, pixels[index] / pixels.sum())
          for index in range(len(pixels))
          if index != contract.IGNORE_LABEL and pixels[index]]


def _shown(content, names):
  """Returns the images that differ most, with their panels."""
  counts = content.counts
  return [
      {'name': shown.name, 'differing': shown.differing, 'sheet': sheet,
       'panels': [(panel.title, *drawing.thumbnail(panel.pixels))
                  for panel in drawing.panels(shown, names, counts.label_map)]}
      for shown, sheet in zip(counts.shown, content.sheets)]


def _images(counts):
  """Returns (name, share that differs, accuracies); the largest share first."""
  shares = counts.differing / counts.pixels
  order = sorted(range(len(shares)), key=lambda index: (-shares[index], index))
  return [(counts.names[index], shares[index],
           statistics_lib.pixel_accuracies(counts, index))
          for index in order[:_MOST_ROWS]]


def _printable(value):
  """Escapes what is no visible character; names may hold anything."""
  # Not markup, which is a subclass of str.
  return errors.printable(value) if type(value) is str else value


def _is_none(value):
  return value is None or math.isnan(value)


def _score(value, form='{:.4f}'):
  return _NONE if _is_none(value) else form.format(value).replace('-', '−')


def _signed(value):
  return _score(value, '{:+.4f}')


def _percent(value):
  return _NONE if _is_none(value) else '{:.2f} %'.format(100 * value)
