"""From options to a folder with everything that a comparison tells."""
import contextlib
import logging
import os
import shutil
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from deeplab import any_model
from deeplab import counting
from deeplab import errors
from deeplab import files
from deeplab import label_map as label_maps
from deeplab import options as options_lib
from deeplab import parallel
from deeplab import report as report_lib
from deeplab import visualize
from deeplab.comparison import charts as charts_lib
from deeplab.comparison import counts as counts_lib
from deeplab.comparison import drawing
from deeplab.comparison import page as page_lib
from deeplab.comparison import samples as samples_lib
from deeplab.comparison import statistics as statistics_lib
from deeplab.errors import InputError
from deeplab.errors import option

_LOG = logging.getLogger(__name__)
PAGE = 'index.html'
# Says, too, that a folder is of a comparison and may be replaced.
NUMBERS = 'comparison.json'
_CHARTS, _IMAGES = 'charts', 'images'
# How few draws do for each size of a sample.
_LEAST_DRAWS = 5


class Result(NamedTuple):
  """What was made."""
  # Path of the page, and its size in bytes.
  page: str
  page_bytes: int
  numbers: Dict[str, Any]


def compare(models: Sequence[Tuple[str, str]],
            options: options_lib.ComparisonOptions) -> Result:
  """Compares models and writes the page, its pictures and the numbers.

  Args:
    models: (name, path) of each, at least two; the first one is what others are
      compared with.
    options: ComparisonOptions.

  Returns:
    What was made.

  Raises:
    InputError: models or images that cannot be used, or are of different
      classes; or matplotlib is missing.
  """
  charts_lib.check()
  samples_lib.check(options)
  found = [any_model.find(path) for _, path in models]
  model_map = _label_map(found)
  names = [errors.printable(name) for name, _ in models]
  _check_folder(options.output_dir)
  with contextlib.ExitStack() as stack:
    predictors = _open(found, options, stack)
    samples = samples_lib.read(
        options, predictors[0].input_size, model_map)
    counts = counts_lib.count(
        predictors, samples, most_different=options.most_different)
    described = [
        page_lib.Model(name, model.kind, model.path, predictor.runtime)
        for name, model, predictor in zip(names, found, predictors)]
  statistics = statistics_lib.compute(
      counts, resamples=options.resamples, seed=options.seed)
  by_size = statistics_lib.by_sample_size(
      counts, resamples=max(_LEAST_DRAWS, options.resamples // _LEAST_DRAWS),
      seed=options.seed)
  content = page_lib.Content(
      models=described, source=samples.source, geometry=samples.geometry,
      settings=[
          ('intervals', '{} draws of images, seed {}'.format(
              options.resamples, options.seed)),
          ('numbers', NUMBERS)],
      counts=counts, statistics=statistics,
      charts=charts_lib.draw(
          statistics, by_size, counts.differing / counts.pixels, names,
          counts.label_map),
      sheets=['{}/{:03d}.png'.format(_IMAGES, place + 1)
              for place in range(len(counts.shown))])
  numbers = dict(
      statistics_lib.to_json(statistics, counts, names),
      models=[model._asdict() for model in described], source=samples.source,
      geometry=samples.geometry, resamples=options.resamples,
      seed=options.seed)
  size = _write(options.output_dir, content, numbers)
  return Result(os.path.join(options.output_dir, PAGE), size, numbers)


def _label_map(found: Sequence[any_model.ModelFile]
               ) -> Optional[label_maps.LabelMap]:
  """Returns what the classes of all models are; None: no model says it."""
  known = [(model.path, label_map) for model, label_map in zip(
      found, map(any_model.label_map_of, found)) if label_map]
  return label_maps.agreed(*known) if known else None


def _open(found: Sequence[any_model.ModelFile],
          options: options_lib.ComparisonOptions,
          stack: contextlib.ExitStack) -> List[counting.Predictor]:
  """Opens models so that all take images of one size."""
  threads = parallel.worker_count(options.num_threads)
  opened: Dict[int, counting.Predictor] = {}
  size = options.crop_size
  # A checkpoint takes the size that files have.
  for place in sorted(range(len(found)), key=lambda place: (
      found[place].kind == report_lib.CHECKPOINT)):
    predictor = stack.enter_context(any_model.open_predictor(
        found[place], crop_size=size, num_threads=threads))
    size = predictor.input_size
    opened[place] = predictor
  return [opened[place] for place in range(len(found))]


def _check_folder(folder):
  """Raises InputError unless a folder can be written, or written anew."""
  if os.path.isdir(folder) and os.listdir(folder) and not os.path.exists(
      os.path.join(folder, NUMBERS)):
    raise InputError('{}: holds other files than a comparison; give another '
                     'folder', option('output_dir', folder))
  files.check_folder(option('output_dir', folder), folder)


def _write(folder, content, numbers):
  """Writes the folder; returns the page's size in bytes."""
  folder = os.path.normpath(folder)
  with files.replacing(folder) as (temporary,):
    os.makedirs(os.path.join(temporary, _CHARTS))
    os.makedirs(os.path.join(temporary, _IMAGES))
    for chart in content.charts:
      with open(os.path.join(
          temporary, _CHARTS, chart.name + '.png'), 'wb') as out:
        out.write(chart.png)
    names = [model.name for model in content.models]
    label_map = content.counts.label_map
    for shown, path in zip(content.counts.shown, content.sheets):
      sheet = drawing.sheet(
          drawing.panels(shown, names, label_map),
          drawing.classes_shown([shown]), label_map)
      visualize.save(os.path.join(temporary, path), sheet)
    files.write_json(os.path.join(temporary, NUMBERS), numbers)
    page = page_lib.render(content).encode('utf-8')
    with open(os.path.join(temporary, PAGE), 'wb') as out:
      out.write(page)
    # A folder replaces an empty one only.
    shutil.rmtree(folder, ignore_errors=True)
  return len(page)


def summary_lines(result: Result) -> List[str]:
  """Describes a Result in lines of text, for people."""
  numbers = result.numbers
  names = [model['name'] for model in numbers['models']]
  width = max(map(len, names))
  lines = []
  for name in names:
    line = '{:<{}}'.format(name, width)
    if 'scores' in numbers:
      line += '  mIoU {}'.format(_shown(numbers['scores'][name]['miou']))
    line += '  same as {} {}'.format(
        names[0], _shown(numbers['agreement'][names[0]][name]))
    lines.append(line)
  return lines + [
      'all models agree on {} of the pixels of {} images'.format(
          _shown(numbers['all_agree']), numbers['images']),
      numbers['reliability'],
      '{}: {:.1f} MB, opens in any browser'.format(
          result.page, result.page_bytes / 1e6)]


def _shown(interval):
  value, low, high = (interval[name] for name in ('value', 'low', 'high'))
  if value is None:
    return '-'
  if low is None:
    return '{:.4f}'.format(value)
  return '{:.4f} [{:.4f}, {:.4f}]'.format(value, low, high)
