"""Runs MLCommons' LoadGen on a model like MLPerf Mobile, unofficially.

    OUTPUT/performance/mlperf_log_*   a run for speed
    OUTPUT/accuracy/mlperf_log_*      a run over every image, with responses
    OUTPUT/accuracy/report.json       the score of these responses
    OUTPUT/test01/mlperf_log_*        a run for speed with some responses
    OUTPUT/*/UNOFFICIAL.txt           a notice that these are no MLPerf results
    OUTPUT/summary.json               settings and results of all runs

Loading and preprocessing are not timed. The model runs in a worker process, so
that a crash becomes an error message.
"""
from concurrent.futures.process import BrokenProcessPool
import faulthandler
import functools
import json
import logging
import math
import os
import time
from typing import Any, Dict, List, NamedTuple, Optional, Tuple, Union

import numpy as np

from deeplab.config import options as options_lib
from deeplab.data import pairs as pairs_lib
from deeplab.data import png_folder
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.evaluation import published
from deeplab.evaluation import report as report_lib
from deeplab.mlperf import accuracy_log
from deeplab.models import interface
from deeplab.models import open_model
from deeplab.storage import files
from deeplab.system import environment
from deeplab.system import hardware
from deeplab.system import parallel
from deeplab.system import progress

_LOG = logging.getLogger(__name__)

PACKAGE = 'mlcommons-loadgen'
UNOFFICIAL = ('unofficial: no MLPerf result; only logs that the MLPerf Mobile '
              'app wrote can be submitted')
_SUMMARY = accuracy_log.SUMMARY
_NOTICE = 'UNOFFICIAL.txt'
# Minimum (queries, seconds). FULL is from MLPerf Mobile v0.7 to v2.0.
_LEAST = {options_lib.QUICK: (128, 10), options_lib.FULL: (1024, 60)}
_PERCENTILE = 0.9
_RULED_SAMPLES = 256
_RULED_IMAGES = 2000
# MLPerf Mobile requires this share of the float model's score in the app.
QUALITY_SHARE, FLOAT_SCORE = 0.97, 0.548
QUALITY_TARGET = QUALITY_SHARE * FLOAT_SCORE
_TEST01 = 'test01'
# Patterns of all files in the output folder; the last one appears last.
_OUTPUTS = tuple(kind + '/*' for kind in (
    options_lib.PERFORMANCE, options_lib.ACCURACY, _TEST01)) + (_SUMMARY,)
# Approximate number of responses that LoadGen logs in that run.
_TEST01_RESPONSES = 64
_WARM_UP_RUNS = 4
_NANOSECONDS = 1e9
_Setting = Union[str, int, float]
_LOG_LINE = ':::MLLOG '
_DETAIL = 'mlperf_log_detail.txt'


class _Setup(NamedTuple):
  """Arguments of the functions that run in the worker."""
  model: open_model.ModelFile
  # (height, width) of a checkpoint's network; None: the model's own.
  crop_size: Optional[Tuple[int, int]]
  pairs: Tuple[pairs_lib.Pair, ...]
  options: options_lib.LoadgenOptions


def run(options: options_lib.LoadgenOptions) -> Dict[str, Any]:
  """Runs LoadGen and writes the summary.

  Returns:
    The content of summary.json.

  Raises:
    InputError: LoadGen is missing, or the model, the images or the output
      folder cannot be used.
  """
  model = open_model.find(options.model)
  listing = png_folder.list_pairs(options.test_dir, options.val_label_dir)
  given = option('output_dir', options.output_dir)
  if os.path.isdir(options.output_dir) and os.listdir(options.output_dir):
    raise InputError('{}: is not empty; give a new folder', given)
  files.check_folder(given, options.output_dir)
  version = _version()
  crop_size = (png_folder.size_of(listing.pairs)
               if model.kind == interface.CHECKPOINT else None)
  setup = _Setup(model, crop_size, listing.pairs, options)
  with parallel.processes(1) as pool:
    try:
      with files.replacing_own(
          given, options.output_dir, _OUTPUTS) as folder:
        summary = _run_all(pool, setup, folder, version)
        files.write_json(os.path.join(folder, _SUMMARY), summary)
    except BrokenProcessPool:
      raise InputError(
          '{}: what runs it crashed; the file may be damaged, or the memory '
          'too small', option('model', options.model))
  return summary


def _version():
  version = environment.installed_version(PACKAGE)
  if not version:
    raise InputError(
        'needs the package {0}; on Python 3.11 to 3.13, ./scripts/setup.sh '
        'modern installs it into .venvs/modern; elsewhere, python -m pip '
        'install {0}==6.0.17'.format(PACKAGE))
  return version


def _run_all(pool, setup, folder, version):
  """Makes all runs, with logs in a folder; returns the summary."""
  options = setup.options
  size, runtime = pool.submit(_describe, setup).result()
  _LOG.info('%s runs %s', runtime, setup.model.path)
  png_folder.check(setup.pairs, size)
  summary = {
      'unofficial': UNOFFICIAL,
      'model': {
          'kind': setup.model.kind, 'path': setup.model.path,
          'sha256': files.sha256_of(open_model.file_of(setup.model)),
          'input_size': list(size)},
      'runtime': {'interpreter': runtime,
                  'num_threads': options.num_threads},
      'images': dict(png_folder.origin(setup.pairs, size),
                     folder=os.path.dirname(setup.pairs[0].image_path),
                     sha256=png_folder.identity(setup.pairs),
                     count=len(setup.pairs)),
      'scenario': options.scenario,
      'mode': options.mode,
      'not_by_the_rules': _departures(setup),
      'loadgen': {'package': PACKAGE, 'version': version},
      'machine': hardware.describe(),
  }
  kinds = [kind for kind in (options_lib.PERFORMANCE, options_lib.ACCURACY)
           if options.run in (kind, options_lib.BOTH)]
  for kind in kinds + ([_TEST01] if options.test01 else []):
    logs = os.path.join(folder, kind)
    os.mkdir(logs)
    files.write_text(os.path.join(logs, _NOTICE), UNOFFICIAL + '\n')
    settings, seconds = pool.submit(_measure, setup, kind, logs).result()
    summary[kind] = {'settings': settings}
    if kind == options_lib.ACCURACY:
      summary[kind].update(_score(setup, size, runtime, logs, seconds))
    else:
      summary[kind].update(_speed(logs, options.scenario))
    if kind == _TEST01:
      summary[kind].update(accuracy_log.compare(
          _log_in(folder, options_lib.ACCURACY), _log_in(folder, kind), size))
  return summary


def _log_in(folder, kind):
  return os.path.join(folder, kind, accuracy_log.NAME)


def _departures(setup):
  """Returns descriptions of how a run departs from the rules."""
  options = setup.options
  least = _least(options)
  departures = []
  if len(setup.pairs) != _RULED_IMAGES:
    departures.append('{}, not {}'.format(
        progress.counted(len(setup.pairs), 'image'), _RULED_IMAGES))
  for name, given, ruled in zip(('queries', 'seconds'), least,
                                _LEAST[options_lib.FULL]):
    if given < ruled:
      departures.append('at least {:g} {}, not {}'.format(given, name, ruled))
  if options.samples_in_memory != _RULED_SAMPLES:
    departures.append('{} in memory, not {}'.format(
        progress.counted(options.samples_in_memory, 'image'), _RULED_SAMPLES))
  if options.scenario != options_lib.SINGLE_STREAM:
    departures.append('{}; this model is scored in {}'.format(
        options.scenario, options_lib.SINGLE_STREAM))
  return departures


def _least(options):
  """Returns the minimum (queries, seconds) of a performance run."""
  queries, seconds = _LEAST[options.mode]
  return options.min_queries or queries, options.min_seconds or seconds


# --- Results ---------------------------------------------------------------


def _score(setup, size, runtime, logs, seconds):
  """Scores an accuracy run; returns entries of the summary."""
  path = os.path.join(logs, accuracy_log.NAME)
  # The log's path after publishing.
  name = _log_in(setup.options.output_dir, options_lib.ACCURACY)
  report = accuracy_log.score(
      path, setup.pairs, size, name=name,
      runtime='{}, LoadGen, unofficial'.format(runtime))
  report = report._replace(path=name, seconds=seconds)
  report_lib.write(os.path.join(logs, 'report.json'), report)
  score = report.scores.miou_mlperf_app
  return {
      'log_sha256': files.sha256_of(path),
      'images': report.images,
      'miou_mlperf_app': score,
      'published': list(published.figures_of(
          open_model.file_of(setup.model)).get('miou_mlperf_app', ())),
      'quality_target': QUALITY_TARGET,
      'quality_target_reached': score >= QUALITY_TARGET,
      'seconds': seconds,
  }


def _speed(logs, scenario):
  """Returns the summary's entries for a performance run."""
  found = read_detail(os.path.join(logs, _DETAIL))
  speed = {
      'valid': found['result_validity'] == 'VALID',
      'invalid_reason': found.get('result_invalid_reason', ''),
      'errors': found['errors'],
      'latency_ms': {
          name: found['result_{}_latency_ns'.format(name)] / 1e6
          for name in ('min', 'mean', 'max', '50.00_percentile',
                       '90.00_percentile', '99.00_percentile')},
      'effective_settings': {
          name[len('effective_'):]: value for name, value in found.items()
          if name.startswith('effective_')},
  }
  if scenario == options_lib.OFFLINE:
    speed['samples_per_second'] = found['result_samples_per_second']
    speed['samples'] = (found['effective_samples_per_query'] *
                        found['result_query_count'])
  else:
    speed['queries'] = found['result_query_count']
    speed['latency_90th_ms'] = speed['latency_ms']['90.00_percentile']
    # MLPerf Inference reports this; MLPerf Mobile, up to v2.0, does not.
    speed['early_stopping_90th_ms'] = found['early_stopping_latency_ss'] / 1e6
  return speed


def read_detail(path: str) -> Dict[str, Any]:
  """Reads LoadGen's mlperf_log_detail.txt.

  Returns:
    Dict from key to its last value; 'errors' is a list of LoadGen's errors.

  Raises:
    InputError: the file has no result.
  """
  found: Dict[str, Any] = {'errors': []}
  with open(path, encoding='utf-8', errors='replace') as lines:
    entries = [json.loads(line[len(_LOG_LINE):]) for line in lines
               if line.startswith(_LOG_LINE)]
  for entry in entries:
    found[entry['key']] = entry['value']
    if entry['metadata']['is_error']:
      found['errors'].append(str(entry['value']))
  if 'result_validity' not in found:
    raise InputError('{}: LoadGen wrote no result; {}', path,
                     '; '.join(found['errors']) or 'the run was cut off')
  return found


def summary_lines(summary: Dict[str, Any], output_dir: str) -> List[str]:
  """Returns human-readable lines of a summary.

  Args:
    summary: from `run`.
    output_dir: the folder that holds it.
  """
  lines = ['LoadGen {} ({})'.format(
      summary['loadgen']['version'], summary['unofficial'])]
  for kind in (options_lib.PERFORMANCE, _TEST01):
    if kind in summary:
      lines.append('{}, {}, {}: {}'.format(
          kind, summary['scenario'], summary['mode'],
          _speed_text(summary[kind])))
  if options_lib.ACCURACY in summary:
    found = summary[options_lib.ACCURACY]
    lines.append(
        'accuracy, from {}: mIoU, app {:.4f} of {}; {} the target of '
        '{:.4f} ({:.0f} % of {}); {}'.format(
            accuracy_log.NAME, found['miou_mlperf_app'],
            progress.counted(found['images'], 'image'),
            'reaches' if found['quality_target_reached'] else 'misses',
            QUALITY_TARGET, 100 * QUALITY_SHARE, FLOAT_SCORE,
            'compare with {}, published of a device'.format(
                published.text_of(found['published']))
            if found['published'] else
            'the published figures of devices are this mean'))
  if _TEST01 in summary:
    found = summary[_TEST01]
    lines.append(
        'test01: {different} of {responses} responses differ from the accuracy '
        'run, in {different_bytes} of {bytes} bytes'.format(**found))
  if summary['not_by_the_rules']:
    lines.append('not by the rules: ' + '; '.join(summary['not_by_the_rules']))
  lines.append('everything is in ' + os.path.join(output_dir, _SUMMARY))
  return lines


def _speed_text(found):
  if 'queries' in found:
    text = '90th percentile {:.2f} ms over {} queries'.format(
        found['latency_90th_ms'], found['queries'])
  else:
    text = '{:.2f} images a second over {} images'.format(
        found['samples_per_second'], found['samples'])
  return '{}, {}'.format(text, 'VALID' if found['valid'] else (
      'INVALID ({})'.format(found['invalid_reason'].strip())))


# --- In the worker ---------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _predictor(model, crop_size, num_threads):
  """Returns the predictor of this process."""
  # The stack of a crash would add nothing to the message that follows.
  faulthandler.disable()
  return open_model.open_predictor(
      model, crop_size=crop_size, num_threads=num_threads)


def _predictor_of(setup):
  return _predictor(setup.model, setup.crop_size, setup.options.num_threads)


def _describe(setup):
  """Returns the model's (input size, runtime)."""
  predictor = _predictor_of(setup)
  return tuple(predictor.input_size), predictor.runtime


class _Samples:
  """LoadGen's library of samples, and its system under test."""

  def __init__(self, loadgen, predictor, pairs, bar):
    self._loadgen = loadgen
    self._predictor = predictor
    self._pairs = pairs
    self._bar = bar
    # Model inputs by sample number.
    self._inputs = {}

  def load(self, numbers):
    """Reads and preprocesses images; not timed."""
    for number in numbers:
      self._inputs[number] = _prepared(self._predictor, self._pairs[number])

  def unload(self, numbers):
    """Frees images."""
    for number in numbers:
      del self._inputs[number]

  def issue(self, samples):
    """Answers a query; timed."""
    for sample in samples:
      classes = self.classes_of(sample.index)
      self._loadgen.QuerySamplesComplete([self._loadgen.QuerySampleResponse(
          sample.id, classes.ctypes.data, classes.nbytes)])
      self._bar.update(1)

  def classes_of(self, number):
    """Returns the class map of a loaded image, uint8 [height, width]."""
    labels = self._predictor.predict_prepared(self._inputs[number])[0]
    return labels.astype(np.uint8, order='C')


def _prepared(predictor, pair):
  """Returns the model's input for an image."""
  image = png_folder.read_image(pair)
  return predictor.prepare(image[np.newaxis].astype(np.float32))


def _measure(setup, kind, folder):
  """Runs LoadGen.

  Args:
    setup: _Setup.
    kind: options.PERFORMANCE, ACCURACY or _TEST01.
    folder: where LoadGen writes its logs.

  Returns:
    (LoadGen's settings as a dict, seconds without loading).
  """
  import mlperf_loadgen
  predictor = _predictor_of(setup)
  fastest = _fastest(predictor, setup.pairs[0])
  settings = _settings(setup, kind, fastest)
  with progress.Bar(
      _planned(setup, kind, fastest), kind, unit='query') as bar:
    samples = _Samples(mlperf_loadgen, predictor, setup.pairs, bar)
    log_output = mlperf_loadgen.LogOutputSettings()
    log_output.outdir = folder
    log_settings = mlperf_loadgen.LogSettings()
    log_settings.log_output = log_output
    log_settings.enable_trace = False
    sut = mlperf_loadgen.ConstructSUT(samples.issue, lambda: None)
    library = mlperf_loadgen.ConstructQSL(
        len(setup.pairs),
        min(setup.options.samples_in_memory, len(setup.pairs)), samples.load,
        samples.unload)
    started = time.time()
    # Without a name, LoadGen reads an audit.config in the current folder.
    mlperf_loadgen.StartTestWithLogSettings(
        sut, library, _test_settings(mlperf_loadgen, settings), log_settings,
        '')
    seconds = time.time() - started
    mlperf_loadgen.DestroyQSL(library)
    mlperf_loadgen.DestroySUT(sut)
  return settings, seconds


def _fastest(predictor, pair):
  """Returns the seconds of the fastest of a few runs, after a first one."""
  inputs = _prepared(predictor, pair)
  durations = []
  for _ in range(_WARM_UP_RUNS):
    started = time.perf_counter()
    predictor.predict_prepared(inputs)
    durations.append(time.perf_counter() - started)
  return min(durations[1:])


def _planned(setup, kind, seconds):
  """Estimates the number of queries of a run from the seconds for one."""
  if kind == options_lib.ACCURACY:
    return len(setup.pairs)
  queries, duration = _least(setup.options)
  return max(queries, math.ceil(duration / seconds))


def _settings(setup, kind, seconds):
  """Returns LoadGen's settings as a dict for JSON.

  Args:
    setup: _Setup.
    kind: see _measure.
    seconds: seconds for an image. LoadGen plans the number of queries from it;
      a run shorter than its minimum duration is invalid.
  """
  options = setup.options
  queries, duration = _least(options)
  settings = {
      'scenario': options.scenario,
      'mode': ('AccuracyOnly' if kind == options_lib.ACCURACY
               else 'PerformanceOnly'),
      'min_query_count': queries,
      'min_duration_ms': math.ceil(1000 * duration),
      'qsl_rng_seed': options.qsl_rng_seed,
      'sample_index_rng_seed': options.sample_index_rng_seed,
      'schedule_rng_seed': options.schedule_rng_seed,
  }
  if options.scenario == options_lib.OFFLINE:
    settings['offline_expected_qps'] = 1 / seconds
  else:
    settings['single_stream_expected_latency_ns'] = math.floor(
        seconds * _NANOSECONDS)
    settings['single_stream_target_latency_percentile'] = _PERCENTILE
  if kind == _TEST01:
    settings['accuracy_log_rng_seed'] = options.accuracy_log_rng_seed
    settings['accuracy_log_sampling_target'] = _TEST01_RESPONSES
  return settings


def _test_settings(loadgen, settings):
  """Converts the settings to LoadGen's own object."""
  made = loadgen.TestSettings()
  for name, value in settings.items():
    enum = {'scenario': loadgen.TestScenario,
            'mode': loadgen.TestMode}.get(name)
    setattr(made, name, getattr(enum, value) if enum else value)
  return made
