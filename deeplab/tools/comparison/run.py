"""Runs a comparison and writes its folder."""
import contextlib
import glob
import importlib
import os
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from deeplab import errors
from deeplab.config import label_map as label_maps
from deeplab.config import options as options_lib
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.evaluation import visualize
from deeplab.models import interface
from deeplab.models import open_model
from deeplab.storage import checked_read
from deeplab.storage import files
from deeplab.system import parallel
from deeplab.tools.comparison import charts as charts_lib
from deeplab.tools.comparison import counts as counts_lib
from deeplab.tools.comparison import drawing
from deeplab.tools.comparison import page as page_lib
from deeplab.tools.comparison import samples as samples_lib
from deeplab.tools.comparison import statistics as statistics_lib
from deeplab.tools.inspection import run as inspection

PAGE, NUMBERS = 'index.html', 'comparison.json'
_CHARTS, _IMAGES = 'charts', 'images'
# Patterns of all files of a comparison. The numbers identify a run's folder.
_FILES = (PAGE, _CHARTS + '/scores.png', _CHARTS + '/iou.png',
          _CHARTS + '/iou_differences.png', _CHARTS + '/confusion_[0-9].png',
          _CHARTS + '/confusion_[0-9][0-9].png',
          _IMAGES + '/[0-9][0-9][0-9].png', NUMBERS)
_PACKAGES = ('jinja2', 'matplotlib')


class Result(NamedTuple):
  """The page written."""
  # Path of the page, and its size in bytes.
  page: str
  page_bytes: int
  numbers: Dict[str, Any]


def compare(models: Sequence[Tuple[str, str]],
            options: options_lib.ComparisonOptions) -> Result:
  """Compares models and writes the page, its pictures and the numbers.

  Args:
    models: (name, path) of at least two models; the others are compared with
      the first one.
    options: images and output folder.

  Raises:
    InputError: models or images cannot be used or have different classes, the
      folder has other files, or a package is missing.
  """
  _check_packages()
  samples_lib.check(options)
  found = [open_model.find(path) for _, path in models]
  model_map = _label_map(found)
  names = [errors.printable(name) for name, _ in models]
  given = option('output_dir', options.output_dir)
  _check_inputs(given, options, [path for _, path in models])
  with files.replacing_own(
      given, options.output_dir, _FILES,
      checked_read.json_with('agreement', 'models')) as folder:
    with contextlib.ExitStack() as stack:
      predictors = _open(found, options, stack)
      if options.label_map or options.pictures and not model_map:
        # Images with labels bring their own label map.
        model_map = max((
            open_model.classes_of(model, predictor, options.label_map)
            for model, predictor in zip(found, predictors)),
                        key=lambda classes: classes.num_classes)
      samples = samples_lib.read(
          options, predictors[0].input_size, model_map)
      counts = counts_lib.count(
          predictors, samples, most_different=options.most_different)
      described = [
          dict(open_model.facts(model, predictor), name=name, kind=model.kind,
               path=model.path, runtime=predictor.runtime)
          for name, model, predictor in zip(names, found, predictors)]
      for index in range(1, len(found)):
        described[index]['difference_to_the_first'] = inspection.differences(
            (found[0], found[index]), (names[0], names[index]),
            predictors[0].input_size)
    numbers = dict(
        statistics_lib.compute(
            counts, names, resamples=options.resamples, seed=options.seed),
        models=described, source=samples.source, geometry=samples.geometry,
        resamples=options.resamples, seed=options.seed)
    size = _write(folder, numbers, counts)
  return Result(os.path.join(options.output_dir, PAGE), size, numbers)


def _check_packages():
  for name in _PACKAGES:
    try:
      importlib.import_module(name)
    except ImportError:
      raise InputError('the page needs the package {} (none found); run '
                       './scripts/setup.sh modern, then use '
                       '.venvs/modern/bin/python'.format(name))


def _check_inputs(given, options, models):
  """Raises InputError if a file or folder to write is an input."""
  inputs = models + [options.pictures, options.test_dir]
  if options.test_dir:
    inputs += [os.path.join(options.test_dir, _IMAGES)]
  inputs = {os.path.realpath(path) for path in inputs if path}
  folder = options.output_dir
  written = [folder, os.path.join(folder, _CHARTS),
             os.path.join(folder, _IMAGES)]
  for name in _FILES:
    written += glob.glob(os.path.join(glob.escape(folder), name))
  for path in written:
    if os.path.realpath(path) in inputs:
      raise InputError('{}: {} is an input of this command; give another '
                       'folder', given, path)


def _label_map(found: Sequence[open_model.ModelFile]
               ) -> Optional[label_maps.LabelMap]:
  """Returns the label map shared by all models; None: no model has one."""
  known = [(model.path, label_map) for model, label_map in zip(
      found, map(open_model.label_map_of, found)) if label_map]
  return label_maps.agreed(*known) if known else None


def _open(found: Sequence[open_model.ModelFile],
          options: options_lib.ComparisonOptions,
          stack: contextlib.ExitStack) -> List[interface.Predictor]:
  """Opens models and checks that their input sizes are equal."""
  threads = parallel.worker_count(options.num_threads)
  opened: Dict[int, interface.Predictor] = {}
  size = options.crop_size
  first = ''
  # Checkpoints are last because they adopt the size of the other models.
  for place in sorted(range(len(found)), key=lambda place: (
      found[place].kind == interface.CHECKPOINT)):
    model = found[place]
    predictor = stack.enter_context(open_model.open_predictor(
        model, num_threads=threads, crop_size=(
            size if model.kind == interface.CHECKPOINT else
            options.crop_size)))
    if size and predictor.input_size != tuple(size):
      raise InputError(
          '{}: takes images of {}x{}, but {} of {}x{}; expected models of one '
          'size', model.path, *predictor.input_size, first, *size)
    size, first = predictor.input_size, model.path
    opened[place] = predictor
  return [opened[place] for place in range(len(found))]


def _write(folder, numbers, counts):
  """Writes the files into a folder; returns the page's size in bytes."""
  charts = charts_lib.draw(
      numbers['scores'], counts.label_map) if 'scores' in numbers else []
  for chart in charts:
    files.write_bytes(
        os.path.join(folder, _CHARTS, chart.name + '.png'), chart.png)
  names = [model['name'] for model in numbers['models']]
  sheets = ['{}/{:03d}.png'.format(_IMAGES, place + 1)
            for place in range(len(counts.shown))]
  for shown, path in zip(counts.shown, sheets):
    titles, pictures = zip(*drawing.panels(shown, names, counts.label_map))
    visualize.save(os.path.join(folder, path), visualize.sheet(
        [pictures], titles, drawing.classes_shown([shown]), counts.label_map))
  page = page_lib.render(numbers, counts, charts, sheets).encode('utf-8')
  files.write_bytes(os.path.join(folder, PAGE), page)
  files.write_json(os.path.join(folder, NUMBERS), numbers)
  return len(page)


def summary_lines(result: Result) -> List[str]:
  """Returns human-readable lines about a Result."""
  numbers = result.numbers
  names = [model['name'] for model in numbers['models']]
  lines = ['{:<{}}  mIoU {}'.format(
      name, max(map(len, names)), _shown(scores['miou']))
           for name, scores in numbers.get('scores', {}).items()]
  return lines + numbers['findings'] + [
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
