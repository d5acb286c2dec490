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
import json
import logging
import math
import os
import time
from typing import Any, Dict, List

import numpy as np

from deeplab.config import options as options_lib
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
# Minimum (queries, seconds). FULL is from MLPerf Mobile v0.7 to v2.0.
_LEAST = {options_lib.QUICK: (128, 10), options_lib.FULL: (1024, 60)}
_PERCENTILE = 0.9
_RULED_SAMPLES = 256
_RULED_IMAGES = 2000
_TEST01 = 'test01'
# Patterns of all files in the output folder; the last one appears last.
_OUTPUTS = tuple(kind + '/*' for kind in (
    options_lib.PERFORMANCE, options_lib.ACCURACY, _TEST01)) + (_SUMMARY,)
# Approximate number of responses that LoadGen logs in that run.
_TEST01_RESPONSES = 64
_WARM_UP_RUNS = 4
_LOG_LINE = ':::MLLOG '
_DETAIL = 'mlperf_log_detail.txt'


def run(options: options_lib.LoadgenOptions) -> Dict[str, Any]:
  """Runs LoadGen and writes the summary.

  Returns:
    The content of summary.json.

  Raises:
    InputError: LoadGen is missing, or the model, the images or the output
      folder cannot be used.
  """
  model = open_model.find(options.model)
  pairs = png_folder.list_pairs(options.test_dir, options.val_label_dir).pairs
  given = option('output_dir', options.output_dir)
  if os.path.isdir(options.output_dir) and os.listdir(options.output_dir):
    raise InputError('{}: is not empty; give a new folder', given)
  files.check_folder(given, options.output_dir)
  version = _version()
  try:
    with parallel.processes(1) as pool, files.replacing_own(
        given, options.output_dir, _OUTPUTS) as folder:
      summary = pool.submit(_run_all, model, pairs, options, folder).result()
      summary['loadgen'] = {'package': PACKAGE, 'version': version}
      files.write_json(os.path.join(folder, _SUMMARY), summary)
  except BrokenProcessPool:
    raise InputError(
        '{}: its interpreter crashed; the file may be damaged, or the memory '
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


# --- In the worker ---------------------------------------------------------


def _run_all(model, pairs, options, folder):
  """Makes all runs, with logs in a folder; returns the summary."""
  # The stack of a crash would add nothing to the message that follows.
  faulthandler.disable()
  predictor = open_model.open_predictor(
      model, num_threads=options.num_threads, crop_size=(
          png_folder.size_of(pairs) if model.kind == interface.CHECKPOINT
          else None))
  size = predictor.input_size
  _LOG.info('%s runs %s', predictor.runtime, model.path)
  png_folder.check(pairs, size)
  summary: Dict[str, Any] = {
      'unofficial': UNOFFICIAL,
      'model': {
          'kind': model.kind, 'path': model.path, 'input_size': list(size),
          'sha256': files.sha256_of(open_model.file_of(model))},
      'runtime': {'interpreter': predictor.runtime,
                  'num_threads': options.num_threads},
      'images': dict(png_folder.origin(pairs, size),
                     folder=os.path.dirname(pairs[0].image_path),
                     sha256=png_folder.identity(pairs), count=len(pairs)),
      'scenario': options.scenario, 'mode': options.mode,
      'not_by_the_rules': _departures(options, len(pairs)),
      'machine': hardware.describe()}
  kinds = [kind for kind in (options_lib.PERFORMANCE, options_lib.ACCURACY)
           if options.run in (kind, options_lib.BOTH)]
  for kind in kinds + ([_TEST01] if options.test01 else []):
    logs = os.path.join(folder, kind)
    os.mkdir(logs)
    files.write_text(os.path.join(logs, 'UNOFFICIAL.txt'), UNOFFICIAL + '\n')
    seconds = _measure(predictor, pairs, options, kind, logs)
    summary[kind] = (
        _score(model, predictor, pairs, options, logs, seconds)
        if kind == options_lib.ACCURACY else _speed(logs, options.scenario))
    if kind == _TEST01:
      summary[kind].update(accuracy_log.compare(
          _log_in(folder, options_lib.ACCURACY), _log_in(folder, kind), size))
  return summary


def _log_in(folder, kind):
  return os.path.join(folder, kind, accuracy_log.NAME)


def _departures(options, images):
  """Returns descriptions of how a run departs from the rules."""
  departures = []
  if images != _RULED_IMAGES:
    departures.append('{}, not {}'.format(
        progress.counted(images, 'image'), _RULED_IMAGES))
  for name, given, ruled in zip(('queries', 'seconds'), _least(options),
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


def _measure(predictor, pairs, options, kind, folder):
  """Runs LoadGen with logs in a folder; returns its duration in seconds."""
  import mlperf_loadgen
  fastest = _fastest(predictor, pairs[0])
  settings = _settings(mlperf_loadgen, options, kind, fastest)
  queries = len(pairs) if kind == options_lib.ACCURACY else max(
      settings.min_query_count,
      math.ceil(settings.min_duration_ms / 1000 / fastest))
  log_settings = mlperf_loadgen.LogSettings()
  log_settings.log_output = mlperf_loadgen.LogOutputSettings()
  log_settings.log_output.outdir = folder
  log_settings.enable_trace = False
  with progress.Bar(queries, kind, unit='query') as bar:
    samples = _Samples(mlperf_loadgen, predictor, pairs, bar)
    sut = mlperf_loadgen.ConstructSUT(samples.issue, lambda: None)
    library = mlperf_loadgen.ConstructQSL(
        len(pairs), min(options.samples_in_memory, len(pairs)), samples.load,
        samples.unload)
    started = time.time()
    # Without a name, LoadGen reads an audit.config in the current folder.
    mlperf_loadgen.StartTestWithLogSettings(
        sut, library, settings, log_settings, '')
    seconds = time.time() - started
    mlperf_loadgen.DestroyQSL(library)
    mlperf_loadgen.DestroySUT(sut)
  return seconds


def _fastest(predictor, pair):
  """Returns the seconds of the fastest of a few runs, after a first one."""
  inputs = _prepared(predictor, pair)
  durations = []
  for _ in range(_WARM_UP_RUNS):
    started = time.perf_counter()
    predictor.predict_prepared(inputs)
    durations.append(time.perf_counter() - started)
  return min(durations[1:])


def _settings(loadgen, options, kind, seconds):
  """Returns LoadGen's TestSettings.

  Args:
    loadgen: the package.
    options: LoadgenOptions.
    kind: options.PERFORMANCE, ACCURACY or _TEST01.
    seconds: seconds for an image. LoadGen plans the number of queries from it;
      a run shorter than its minimum duration is invalid.
  """
  settings = loadgen.TestSettings()
  settings.scenario = getattr(loadgen.TestScenario, options.scenario)
  settings.mode = (
      loadgen.TestMode.AccuracyOnly if kind == options_lib.ACCURACY
      else loadgen.TestMode.PerformanceOnly)
  settings.min_query_count, duration = _least(options)
  settings.min_duration_ms = math.ceil(1000 * duration)
  settings.offline_expected_qps = 1 / seconds
  settings.single_stream_expected_latency_ns = math.floor(seconds * 1e9)
  settings.single_stream_target_latency_percentile = _PERCENTILE
  settings.qsl_rng_seed = options.qsl_rng_seed
  settings.sample_index_rng_seed = options.sample_index_rng_seed
  settings.schedule_rng_seed = options.schedule_rng_seed
  if kind == _TEST01:
    settings.accuracy_log_rng_seed = options.accuracy_log_rng_seed
    settings.accuracy_log_sampling_target = _TEST01_RESPONSES
  return settings


# --- Results ---------------------------------------------------------------


def _score(model, predictor, pairs, options, logs, seconds):
  """Scores an accuracy run; returns entries of the summary."""
  path = os.path.join(logs, accuracy_log.NAME)
  # The log's path after publishing.
  name = _log_in(options.output_dir, options_lib.ACCURACY)
  report = accuracy_log.score(
      path, pairs, predictor.input_size, name=name,
      runtime='{}, LoadGen, unofficial'.format(predictor.runtime))
  report = report._replace(path=name, seconds=seconds)
  report_lib.write(os.path.join(logs, 'report.json'), report)
  score = report.scores.miou_mlperf_app
  return {
      'log_sha256': files.sha256_of(path),
      'images': report.images, 'miou_mlperf_app': score,
      'published': list(published.figures_of(
          open_model.file_of(model)).get('miou_mlperf_app', ())),
      'quality_target': options.quality_target,
      'quality_target_reached': score >= options.quality_target,
      'seconds': seconds}


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
    found = summary.get(kind)
    if found:
      text = ('90th percentile {latency_90th_ms:.2f} ms over {queries} queries'
              if 'queries' in found else
              '{samples_per_second:.2f} images a second over {samples} images')
      lines.append('{}, {}, {}: {}, {}'.format(
          kind, summary['scenario'], summary['mode'], text.format(**found),
          'VALID' if found['valid'] else
          'INVALID ({})'.format(found['invalid_reason'].strip())))
  if options_lib.ACCURACY in summary:
    found = summary[options_lib.ACCURACY]
    is_default = found['quality_target'] == options_lib.DEEPLAB_QUALITY_TARGET
    lines.append(
        'accuracy, from {}: mIoU, app {:.4f} of {}; {} the target of {:.4f} '
        '({}); {}'.format(
            accuracy_log.NAME, found['miou_mlperf_app'],
            progress.counted(found['images'], 'image'),
            'reaches' if found['quality_target_reached'] else 'misses',
            found['quality_target'],
            '97 % of 0.548, for DeepLabv3+ in MLPerf Mobile v0.7 to v2.0'
            if is_default else 'the given one',
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
