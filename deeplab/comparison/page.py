"""A comparison as one HTML file that needs nothing else.

Charts and pictures are in the file; styles and the script that sorts tables
too. The page forbids itself to load anything.
"""
import html
import math
from typing import Iterable, List, NamedTuple, Sequence, Tuple, Union

from deeplab import contract
from deeplab import errors
from deeplab.comparison import charts as charts_lib
from deeplab.comparison import counts as counts_lib
from deeplab.comparison import drawing
from deeplab.comparison import statistics as statistics_lib

_NONE = '–'  # an en dash, where there is no number
# Rows of the table of images; the rest is in the JSON.
_MOST_ROWS = 2000
_POLICY = ("default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
           "script-src 'unsafe-inline'")

_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: #1a1a1a;
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 24px 20px 64px; }
h1 { font-size: 28px; line-height: 1.2; margin: 8px 0 4px; }
h2 { font-size: 20px; margin: 44px 0 10px; padding-top: 10px;
  border-top: 1px solid #ddd; }
h3 { font-size: 16px; margin: 22px 0 6px; }
p { margin: 8px 0; max-width: 74ch; }
.quiet { color: #555; font-size: 14px; }
.note { border-left: 4px solid #0072b2; background: #f3f8fc;
  padding: 10px 14px; max-width: none; }
.note.few { border-color: #d55e00; background: #fdf4ee; }
.path { overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: 10px 0; }
table { border-collapse: collapse; font-size: 14px;
  font-variant-numeric: tabular-nums; }
th, td { padding: 5px 10px; text-align: left; border-bottom: 1px solid #e6e6e6;
  vertical-align: baseline; }
th { border-bottom: 2px solid #bbb; font-weight: 600; white-space: nowrap; }
td.number, th.number { text-align: right; white-space: nowrap; }
tbody tr:hover { background: #f7f7f7; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid #0072b2; outline-offset: 2px; }
th[aria-sort] button::after { content: " \\2195"; color: #aaa; }
th[aria-sort=ascending] button::after { content: " \\2191"; color: #1a1a1a; }
th[aria-sort=descending] button::after { content: " \\2193"; color: #1a1a1a; }
.interval { color: #666; font-size: 12.5px; white-space: nowrap; }
td .interval { display: block; }
.worse { color: #a03000; } .better { color: #00623f; }
.class { white-space: nowrap; }
.swatch { display: inline-block; width: 12px; height: 12px; margin-right: 6px;
  border: 1px solid rgba(0,0,0,.25); vertical-align: -1px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; padding: 0;
  margin: 10px 0; list-style: none; font-size: 14px; }
.chart img { max-width: 100%; height: auto; display: block; }
.chart { margin: 14px 0 22px; }
.image { border: 1px solid #e2e2e2; border-radius: 6px; padding: 10px 12px;
  margin: 14px 0; }
.image h3 { margin: 0 0 6px; overflow-wrap: anywhere; }
.panels { display: flex; flex-wrap: wrap; gap: 10px; }
.panels figure { margin: 0; max-width: 256px; }
.panels img { display: block; max-width: 100%; height: auto;
  image-rendering: auto; min-width: 48px; }
.panels figcaption { font-size: 13px; color: #444; overflow-wrap: anywhere; }
.confusions { display: flex; flex-wrap: wrap; gap: 10px 32px; }
.confusions > div { flex: 1 1 460px; min-width: 0; }
a { color: #0060a0; }
"""

_SCRIPT = """
for (const button of document.querySelectorAll('th button')) {
  button.addEventListener('click', () => {
    const head = button.parentElement, row = head.parentElement;
    const table = row.closest('table'), body = table.tBodies[0];
    const place = [...row.children].indexOf(head);
    const now = head.getAttribute('aria-sort');
    // Numbers from the largest, texts from the first.
    const up = now === 'none' ? !head.classList.contains('number')
      : now === 'descending';
    for (const other of row.querySelectorAll('[aria-sort]'))
      other.setAttribute('aria-sort', 'none');
    head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
    const value = line => {
      const cell = line.children[place], key = cell.dataset.key;
      return key === undefined ? cell.textContent : key === '' ? null : +key;
    };
    const order = (a, b) => typeof a === 'number' ? a - b
      : a.localeCompare(b, undefined, {numeric: true});
    [...body.rows].map(line => [value(line), line]).sort(([a], [b]) =>
      a === null ? (b === null ? 0 : 1) : b === null ? -1
        : up ? order(a, b) : order(b, a)
    ).forEach(([, line]) => body.append(line));
  });
}
"""


class Model(NamedTuple):
  """What the page says of a model besides scores."""
  name: str
  kind: str
  path: str
  runtime: str


class Content(NamedTuple):
  """What the page shows."""
  models: List[Model]
  # Where images come from, and what became of them.
  source: str
  geometry: str
  # Such as the seed, for the last lines.
  settings: List[Tuple[str, str]]
  counts: counts_lib.Counts
  statistics: statistics_lib.Statistics
  charts: List[charts_lib.Chart]
  # Paths, from the page, of the sheets of counts.shown.
  sheets: List[str]


def render(content: Content) -> str:
  """Returns the page."""
  names = [model.name for model in content.models]
  title = 'Comparison of {} and {}'.format(', '.join(names[:-1]), names[-1])
  parts = [
      '<h1>{}</h1>'.format(_text(title)),
      '<p class="quiet path">{} images: {}; {}</p>'.format(
          content.statistics.images, _text(content.source),
          _text(content.geometry)),
      _reliability(content.statistics), _scores(content), _agreement(content),
      _classes(content), _most_different(content),
      _confusions(content), _all_images(content), _settings(content)]
  return (
      '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
      '<meta http-equiv="Content-Security-Policy" content="{}">\n'
      '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
      '<link rel="icon" href="data:,">\n'
      '<title>{}</title><style>{}</style></head>\n<body><main>\n{}\n'
      '</main><script>{}</script></body></html>\n'.format(
          _text(_POLICY), _text(title), _STYLE,
          '\n'.join(part for part in parts if part), _SCRIPT))


# --- Sections --------------------------------------------------------------


def _reliability(statistics):
  few = statistics.images < statistics_lib.FEW_IMAGES
  return '<p class="note{}">{}</p>'.format(
      ' few' if few else '', _text(statistics.reliability))


def _scores(content):
  statistics = content.statistics
  if statistics.models is None:
    return ''
  head = [_Column('model'), _Column('mIoU', True), _Column('difference', True),
          _Column('verdict')]
  head += [_Column(text, True) for text in (
      'mIoU, kept', 'mIoU, app', 'pixel accuracy', 'class accuracy')]
  rows = [
      [_Cell(_swatch(charts_lib.colour(index)) + _text(
          content.models[index].name))] + _score_cells(
              model, index, statistics.images)
      for index, model in enumerate(statistics.models)]
  notes = (
      '<p class="quiet">mIoU: mean over every class that is labelled or '
      'predicted, as eval.py. Kept: without class 0. App: the sum over '
      'classes 1 to {0}, divided by {0}, as in MLPerf’s app. Differences are '
      'to the first model. In brackets: the interval of 95 of 100 draws of '
      'images.</p>'.format(content.counts.label_map.num_classes - 1))
  return _section('Scores', _table(head, rows) + notes +
                  _charts(content, 'scores'))


def _score_cells(model, index, images):
  cells = [_score_cell(model.scores['miou'])]
  if index:
    verdict = statistics_lib.verdict(model.differences['miou'], images)
    cells += [_difference_cell(model.differences['miou'], images),
              _Cell('<span class="{}">{}</span>'.format(
                  verdict.split()[0], verdict))]
  else:
    cells += [_Cell(_NONE, ''), _Cell('the first')]
  return cells + [
      _score_cell(model.scores[name], with_interval=False) for name in (
          'miou_kept_classes', 'miou_mlperf_app', 'pixel_accuracy',
          'mean_class_accuracy')]


def _agreement(content):
  statistics, names = content.statistics, [m.name for m in content.models]
  text = '<p>All models say the same of {} of the pixels{}.</p>'.format(
      _percent(statistics.all_agree.value), _brackets(
          statistics.all_agree, _percent))
  if len(names) > 2:
    rows = [[_Cell(_text(name))] + [
        _percent_cell(statistics.agreement[row][column])
        if row != column else _Cell(_NONE, '') for column in range(len(names))]
            for row, name in enumerate(names)]
    text += _table([_Column('')] + [_Column(name, True) for name in names],
                   rows)
  text += _crossed(content)
  return _section('Agreement of pixels', text + _charts(
      content, 'differing'))


def _crossed(content):
  """What the first model says where another one says something else."""
  parts = []
  for index, model in enumerate(content.models):
    pairs = statistics_lib.confusions(content.counts.crossed[index])
    if index and pairs:
      parts.append('<div><h3>{} says … where {} says …</h3>{}</div>'.format(
          _text(content.models[0].name), _text(model.name), _pairs_table(
              content.models[0].name, model.name, pairs,
              content.counts.label_map)))
  return '<div class="confusions">{}</div>'.format(''.join(parts))


def _pairs_table(first, second, pairs, label_map):
  return _table(
      [_Column(first), _Column(second), _Column('pixels', True),
       _Column('of its pixels', True)],
      [[_Cell(_class(label, label_map)), _Cell(_class(prediction, label_map)),
        _Cell('{:,}'.format(pixels), pixels), _Cell(_percent(share), share)]
       for label, prediction, pixels, share in pairs])


def _charts(content, *names):
  return ''.join(
      '<div class="chart"><h3>{}</h3><img alt="{}" width="{}" src="{}"></div>'
      .format(_text(chart.title), _text(chart.text), chart.width,
              drawing.data_uri(chart.png, 'image/png'))
      for chart in content.charts if chart.name in names)


def _classes(content):
  models = content.statistics.models
  if models is None:
    return ''
  total = max(1, models[0].matrix.sum())
  head = [_Column('class'), _Column('pixels', True)]
  for index, model in enumerate(content.models):
    head.append(_Column(model.name, True))
    if index:
      head.append(_Column('difference', True))
  rows = []
  label_map = content.counts.label_map
  for index in range(label_map.num_classes):
    share = models[0].matrix[index].sum() / total
    if index == contract.IGNORE_LABEL or not share:
      continue
    row = [_Cell(_class(index, label_map), index),
           _Cell(_percent(share), share)]
    for place, model in enumerate(models):
      row.append(_score_cell(model.iou[index], with_interval=False))
      if place:
        row.append(_difference_cell(
            model.iou_differences[index], content.statistics.images))
    rows.append(row)
  absent = label_map.num_classes - 1 - len(rows)
  note = ''
  if absent:
    note = ('<p class="quiet">{} classes are not labelled in these images and '
            'have no IoU.</p>'.format(absent))
  return _section('IoU by class', _table(head, rows) + note + _charts(
      content, 'iou', 'iou_differences', 'sample_sizes'))


def _most_different(content):
  counts, names = content.counts, [model.name for model in content.models]
  if not counts.shown:
    return ''
  parts = [_legend(drawing.classes_shown(counts.shown), counts.label_map),
           _map_legend(names, content.statistics.models is not None)]
  for shown, path in zip(counts.shown, content.sheets):
    figures = []
    for panel in drawing.panels(shown, names, counts.label_map):
      uri, (width, height) = drawing.thumbnail(panel.pixels)
      figures.append(
          '<figure><img alt="{0}" width="{1}" height="{2}" loading="lazy" '
          'src="{3}"><figcaption>{0}</figcaption></figure>'.format(
              _text(panel.title), width, height, uri))
    parts.append(
        '<div class="image"><h3>{}: {} of pixels differ</h3>'
        '<div class="panels">{}</div><p class="quiet">In full size: '
        '<a href="{}">{}</a></p></div>'.format(
            _text(shown.name), _percent(shown.differing), ''.join(figures),
            _text(path), _text(path)))
  return _section('Images that differ most', ''.join(parts))


def _legend(classes, label_map):
  return '<ul class="legend">{}</ul>'.format(''.join(
      '<li>{}</li>'.format(_class(index, label_map)) for index in classes))


def _map_legend(names, labelled):
  entries = [(drawing.DIFFERENT, 'they differ')]
  if labelled:
    entries = [
        (drawing.FIRST_RIGHT, 'only {} is right'.format(names[0])),
        (drawing.OTHER_RIGHT, 'only the other one is right'),
        (drawing.NONE_RIGHT, 'both are wrong, in different ways'),
        (drawing.DIFFERENT, 'they differ where there is no label')]
  return '<p>Where two models differ:</p><ul class="legend">{}</ul>'.format(
      ''.join('<li>{}{}</li>'.format(_swatch(_hex(colour)), _text(text))
              for colour, text in entries))


def _confusions(content):
  models = content.statistics.models
  if models is None:
    return ''
  parts = []
  for index, model in enumerate(models):
    name = content.models[index].name
    parts.append('<div>{}<h3>{}: most often mistaken</h3>{}</div>'.format(
        _charts(content, 'confusion_{}'.format(index + 1)), _text(name),
        _pairs_table('label', 'prediction',
                     statistics_lib.confusions(model.matrix),
                     content.counts.label_map)))
  return _section('Confusion matrices',
                  '<div class="confusions">{}</div>'.format(''.join(parts)))


def _all_images(content):
  counts, models = content.counts, content.models
  labelled = counts.matrices is not None
  head = [_Column('image'), _Column('differing', True)]
  if labelled:
    head += [_Column('accuracy, ' + model.name, True) for model in models]
  rows = []
  order = sorted(range(len(counts.names)), key=lambda index: (
      -counts.differing[index] / counts.pixels[index], index))
  for index in order[:_MOST_ROWS]:
    share = counts.differing[index] / counts.pixels[index]
    row = [_Cell(_text(counts.names[index])), _Cell(_percent(share), share)]
    if labelled:
      row += [_Cell(_NONE if value is None else _score(value),
                    '' if value is None else value)
              for value in statistics_lib.pixel_accuracies(counts, index)]
    rows.append(row)
  left = len(order) - len(rows)
  note = ('<p class="quiet">{} more are in comparison.json.</p>'.format(left)
          if left else '')
  return _section('All images', _table(head, rows) + note)


def _settings(content):
  rows = [[_Cell(_text(model.name)), _Cell(_text(model.kind)),
           _Cell('<span class="path">{}</span>'.format(_text(model.path))),
           _Cell(_text(model.runtime))] for model in content.models]
  lines = ''.join('<li>{}: {}</li>'.format(_text(name), _text(value))
                  for name, value in content.settings)
  return _section('How this was made', _table(
      [_Column('model'), _Column('kind'), _Column('file'), _Column('run by')],
      rows) + '<ul class="quiet">{}</ul>'.format(lines))


# --- Pieces ----------------------------------------------------------------


class _Column(NamedTuple):
  text: str
  is_number: bool = False


class _Cell(NamedTuple):
  """A cell of a table, with what it is sorted by, if not by its text."""
  markup: str
  # '': no number, which comes last.
  key: Union[float, str, None] = None


def _section(title, markup):
  return '<h2>{}</h2>\n{}'.format(_text(title), markup)


def _table(head: Sequence[_Column], rows: Iterable[Sequence[_Cell]]) -> str:
  """Returns a table; that of several rows can be sorted."""
  rows = list(rows)
  heads = []
  for column in head:
    label = _text(column.text)
    if len(rows) > 1 and column.text:
      label = '<button type="button">{}</button>'.format(label)
    heads.append('<th scope="col"{}{}>{}</th>'.format(
        ' class="number"' if column.is_number else '',
        ' aria-sort="none"' if len(rows) > 1 and column.text else '', label))
  lines = []
  for row in rows:
    cells = ''.join('<td{}{}>{}</td>'.format(
        ' class="number"' if column.is_number else '',
        '' if cell.key is None else ' data-key="{}"'.format(cell.key),
        cell.markup) for column, cell in zip(head, row))
    lines.append('<tr>{}</tr>'.format(cells))
  return ('<div class="scroll"><table><thead><tr>{}</tr></thead><tbody>\n{}\n'
          '</tbody></table></div>'.format(''.join(heads), '\n'.join(lines)))


def _text(text):
  # Names of files may be of no encoding, and hold anything.
  return html.escape(errors.printable(str(text)), quote=True)


def _swatch(colour):
  return '<span class="swatch" style="background:{}"></span>'.format(colour)


def _class(index, label_map):
  return '<span class="class">{}{} {}</span>'.format(
      _swatch(_hex(label_map.palette[index])), index,
      _text(label_map.names[index]))


def _hex(colour):
  return '#{:02x}{:02x}{:02x}'.format(*colour)


def _score(value, signed=False):
  if math.isnan(value):
    return _NONE
  return ('{:+.4f}' if signed else '{:.4f}').format(value).replace('-', '−')


def _percent(value):
  return _NONE if math.isnan(value) else '{:.2f} %'.format(100 * value)


def _brackets(interval, shown):
  if math.isnan(interval.low):
    return ''
  return ' <span class="interval">[{}, {}]</span>'.format(
      shown(interval.low), shown(interval.high))


def _score_cell(interval, with_interval=True):
  text = _score(interval.value)
  if with_interval:
    text += _brackets(interval, _score)
  return _Cell(text, '' if math.isnan(interval.value) else interval.value)


def _difference_cell(interval, images):
  """Returns a cell that is coloured where a difference is clear."""
  def signed(value):
    return _score(value, signed=True)

  text = '<span class="{}">{}</span>'.format(
      statistics_lib.verdict(interval, images).split()[0],
      signed(interval.value)) + _brackets(interval, signed)
  return _Cell(text, '' if math.isnan(interval.value) else interval.value)


def _percent_cell(interval):
  return _Cell(_percent(interval.value) + _brackets(interval, _percent),
               interval.value)
