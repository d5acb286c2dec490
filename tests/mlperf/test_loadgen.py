"""Tests scripts/loadgen.py: its runs, logs and summary."""
import json
import os

import numpy as np
from PIL import Image
import pytest
import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab.config import options as options_lib
from deeplab.data import png_folder
from deeplab.errors import InputError
from deeplab.evaluation import tflite
from deeplab.mlperf import accuracy_log
from deeplab.mlperf import loadgen
from deeplab.models import interface
from deeplab.models import open_model
from deeplab.models import saved_model_file
from deeplab.system import environment
from tests import lite_models
from tests import scripts

pytestmark = pytest.mark.modern
needs_loadgen = pytest.mark.skipif(
    not environment.installed_version(loadgen.PACKAGE),
    reason='no {}'.format(loadgen.PACKAGE))
SCRIPT = 'scripts/loadgen.py'
SIZE = (33, 33)
IMAGES = 5


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  path = tmp_path_factory.mktemp('model') / 'argmax.tflite'
  path.write_bytes(lite_models.argmax_model(SIZE))
  return str(path)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Writes pairs with labels that mostly equal the model's."""
  folder = tmp_path_factory.mktemp('preprocessed')
  random = np.random.RandomState(0)
  for number in range(IMAGES):
    classes = random.randint(3, size=SIZE)
    label = np.where(random.rand(*SIZE) < 0.7, classes,
                     random.randint(40, size=SIZE))
    for kind, array in (('images', lite_models.image_of(classes)),
                        ('annotations', label)):
      (folder / kind).mkdir(exist_ok=True)
      Image.fromarray(array.astype(np.uint8)).save(
          str(folder / kind / 'img_{}.png'.format(number)))
  return str(folder)


def options(model, folder, out, **changes):
  given = dict(min_queries=20, min_seconds=0.1, samples_in_memory=2)
  given.update(changes)
  return options_lib.LoadgenOptions(
      model=model, test_dir=folder, output_dir=str(out), **given)


def read_json(*path):
  with open(os.path.join(*map(str, path))) as content:
    return json.load(content)


# --- Runs ------------------------------------------------------------------


@needs_loadgen
@pytest.mark.parametrize('scenario, target', [
    ('SingleStream', options_lib.DEEPLAB_QUALITY_TARGET), ('Offline', 0.001)])
def test_both_runs(model, folder, tmp_path, scenario, target, monkeypatch):
  # LoadGen would read this file silently.
  (tmp_path / 'audit.config').write_text('*.*.performance_issue_same = 1\n')
  monkeypatch.chdir(tmp_path)
  out = tmp_path / 'out'
  summary = loadgen.run(options(model, folder, out, scenario=scenario,
                                test01=True, qsl_rng_seed=7,
                                quality_target=target))
  assert summary == read_json(out, 'summary.json')
  assert sorted(os.listdir(str(out))) == [
      'accuracy', 'performance', 'summary.json', 'test01']
  for kind in ('accuracy', 'performance', 'test01'):
    assert 'unofficial' in (out / kind / 'UNOFFICIAL.txt').read_text()

  # The score is the evaluator's, to the last bit.
  expected = tflite.evaluate(
      options_lib.TfliteEvalOptions(net_file=model, test_dir=folder),
      options_lib.EvalOptions())
  report = read_json(out, 'accuracy', 'report.json')
  assert report['confusion_matrix'] == expected.matrix.tolist()
  assert summary['accuracy']['miou_mlperf_app'] == (
      expected.scores.miou_mlperf_app) > 0
  assert summary['accuracy']['images'] == IMAGES
  assert summary['accuracy']['quality_target_reached'] == (target == 0.001)

  # Check the logs of LoadGen itself.
  responses = list(accuracy_log.responses(
      str(out / 'accuracy' / accuracy_log.NAME), SIZE))
  assert sorted(response.sample for response in responses) == list(
      range(IMAGES))
  text = (out / 'performance' / 'mlperf_log_summary.txt').read_text()
  assert 'Scenario : {}\nMode     : PerformanceOnly'.format(scenario) in text
  found = summary['performance']
  # A slow machine may make too few queries in the minimum duration.
  assert found['valid'] == ('Result is : VALID' in text)
  assert found['errors'] == []
  assert found.get('queries', found.get('samples')) >= 20
  effective = found['effective_settings']
  assert effective['performance_sample_count'] == 2
  assert effective['min_duration_ms'] == 100
  assert effective['qsl_rng_seed'] == 7
  assert effective['sample_index_rng_seed'] == 2747215439041700203
  assert effective['min_sample_count'] >= 20
  assert not effective['performance_issue_same']

  assert summary['test01']['different'] == 0
  assert summary['test01']['responses'] >= 5
  assert summary['test01']['bytes'] == (
      summary['test01']['responses'] * SIZE[0] * SIZE[1])


@needs_loadgen
def test_summary_of_a_run(model, folder, tmp_path):
  summary = loadgen.run(options(
      model, folder, tmp_path / 'out', num_threads=2, run='performance'))
  assert 'accuracy' not in summary
  assert summary['runtime'] == {
      'interpreter': 'ai-edge-litert {}, XNNPACK delegate, 2 threads'.format(
          environment.installed_version('ai-edge-litert')),
      'num_threads': 2}
  assert summary['model']['kind'] == 'tflite'
  settings = summary['performance']['effective_settings']
  assert settings['target_latency_percentile'] == 0.9
  assert settings['schedule_rng_seed'] == 16159082839903944936
  assert summary['not_by_the_rules'] == [
      '5 images, not 2000', 'at least 20 queries, not 1024',
      'at least 0.1 seconds, not 60', '2 images in memory, not 256']
  assert summary['images']['sha256'] == png_folder.identity(
      png_folder.list_pairs(folder).pairs)
  lines = loadgen.summary_lines(summary, 'out')
  assert lines[0] == (
      'LoadGen {} (unofficial: no MLPerf result; only logs that the MLPerf '
      'Mobile app wrote can be submitted)'.format(
          environment.installed_version(loadgen.PACKAGE)))
  assert lines[1].startswith('performance, SingleStream, full: 90th percentile')
  assert lines[2].startswith('not by the rules: 5 images')
  summary['accuracy'] = {
      'miou_mlperf_app': 0.54, 'images': 2000, 'quality_target_reached': True,
      'published': [0.5401, 0.5412],
      'quality_target': options_lib.DEEPLAB_QUALITY_TARGET}
  assert loadgen.summary_lines(summary, 'out')[2] == (
      'accuracy, from mlperf_log_accuracy.json: mIoU, app 0.5400 of 2000 '
      'images; reaches the target of 0.5316 (97 % of 0.548, for DeepLabv3+ in '
      'MLPerf Mobile v0.7 to v2.0); compare with 0.5401 / 0.5412, published of '
      'a device')


def test_departures_from_the_rules():
  full = options('x', 'y', 'z', min_queries=None, min_seconds=None,
                 samples_in_memory=256)
  assert loadgen._departures(full, 2000) == []
  mlperf_loadgen = pytest.importorskip('mlperf_loadgen')
  settings = loadgen._settings(mlperf_loadgen, full, 'performance', 0.05)
  assert (settings.min_query_count, settings.min_duration_ms) == (1024, 60000)
  assert settings.single_stream_target_latency_percentile == 0.9
  assert settings.single_stream_expected_latency_ns == 50000000
  quick = full._replace(mode='quick', scenario='Offline')
  settings = loadgen._settings(mlperf_loadgen, quick, 'performance', 0.05)
  assert (settings.min_query_count, settings.min_duration_ms) == (128, 10000)
  assert settings.offline_expected_qps == 20
  assert loadgen._departures(quick, 2000) == [
      'at least 128 queries, not 1024', 'at least 10 seconds, not 60',
      'Offline; this model is scored in SingleStream']
  assert full.quality_target == pytest.approx(0.5316, abs=1e-4)


@needs_loadgen
@pytest.mark.slow
def test_the_script_runs_a_saved_model(model, folder, tmp_path):
  with tf.Graph().as_default() as graph:
    images = tf.placeholder(
        tf.float32, (1,) + SIZE + (3,), constants.INPUT_NODE)
    tf.argmax(images, 3, output_type=tf.int32, name=constants.OUTPUT_NODE)
  (tmp_path / 'saved').mkdir()
  (tmp_path / 'saved' / constants.SAVED_MODEL_FILE).write_bytes(
      saved_model_file.content_of(
          graph.as_graph_def(), constants.INPUT_NODE, constants.OUTPUT_NODE))
  done = scripts.run(
      SCRIPT, '--model={}'.format(tmp_path / 'saved'),
      '--test_dir={}'.format(folder),
      '--output_dir={}'.format(tmp_path / 'out'), '--run=accuracy',
      '--quality_target=0.57408')
  summary = read_json(tmp_path, 'out', 'summary.json')
  assert summary['model']['kind'] == 'SavedModel'
  # On these images, its labels equal those of the TFLite file.
  report = read_json(tmp_path, 'out', 'accuracy', 'report.json')
  assert report['confusion_matrix'] == tflite.evaluate(
      options_lib.TfliteEvalOptions(net_file=model, test_dir=folder),
      options_lib.EvalOptions()).matrix.tolist()
  assert 'accuracy, from mlperf_log_accuracy.json: mIoU, app 0.0' in (
      done.stdout)
  assert ('misses the target of 0.5741 (the given one); the published '
          'figures of devices are this mean') in done.stdout
  assert summary['accuracy']['quality_target'] == 0.57408


@needs_loadgen
def test_the_network_of_a_checkpoint_has_the_size_of_the_images(
    folder, tmp_path, monkeypatch):
  class Sky(interface.Predictor):
    def __init__(self, crop_size):
      self.input_size = crop_size
      self.runtime = 'network of {}x{}'.format(*crop_size)

    def predict_prepared(self, images):
      return np.full(images.shape[:3], 3, np.int32)

  (tmp_path / 'model.ckpt-7.index').write_text('weights')
  found = open_model.ModelFile('checkpoint', str(tmp_path / 'model.ckpt-7'))
  monkeypatch.setattr(open_model, 'find', lambda path: found)
  monkeypatch.setattr(open_model, 'open_predictor', lambda model, **options: (
      Sky(options['crop_size'])))
  summary = loadgen.run(options(
      'x', folder, tmp_path / 'out', run='accuracy'))
  assert summary['runtime']['interpreter'] == 'network of 33x33'
  report = read_json(tmp_path, 'out', 'accuracy', 'report.json')
  assert report['runtime'] == 'network of 33x33, LoadGen, unofficial'
  assert np.count_nonzero(np.sum(report['confusion_matrix'], axis=0)) == 1


# --- Failures --------------------------------------------------------------


@needs_loadgen
def test_different_responses_are_counted(
    model, folder, tmp_path, monkeypatch):
  """One pixel differs; the worker is a fork, so it has the patch too."""
  classes_of = loadgen._Samples.classes_of
  settings_of = loadgen._settings
  kinds = []

  def noted(loadgen, options, kind, seconds):
    kinds.append(kind)
    return settings_of(loadgen, options, kind, seconds)

  def wrong(samples, number):
    classes = classes_of(samples, number)
    if kinds[-1] != 'accuracy':
      classes[-1, -1] += 1
    return classes

  monkeypatch.setattr(loadgen, '_settings', noted)
  monkeypatch.setattr(loadgen._Samples, 'classes_of', wrong)
  found = loadgen.run(options(
      model, folder, tmp_path / 'out', test01=True))['test01']
  assert 0 < found['responses'] == found['different'] == (
      found['different_bytes'])


@needs_loadgen
@pytest.mark.parametrize('method, wrong, message', [
    ('issue', lambda *unused: os.abort(), 'its interpreter crashed'),
    # The message names the final path of the log.
    ('classes_of', lambda *unused: np.full(SIZE, 77, np.uint8),
     '^{out}/accuracy/mlperf_log_accuracy.json: image .*class 77; expected 0 '
     'to 31')])
def test_a_failure_leaves_no_output(
    model, folder, tmp_path, monkeypatch, method, wrong, message):
  monkeypatch.setattr(loadgen._Samples, method, wrong)
  out = tmp_path / 'out'
  with pytest.raises(InputError, match=message.format(out=out)):
    loadgen.run(options(model, folder, out, run='accuracy'))
  assert os.listdir(str(tmp_path)) == ['out']
  assert os.listdir(str(out)) == []


def test_without_loadgen_the_remedy_is_named(
    model, folder, tmp_path, monkeypatch):
  monkeypatch.setattr(environment, 'installed_version', lambda package: None)
  with pytest.raises(InputError) as error:
    loadgen.run(options(model, folder, tmp_path / 'out'))
  assert str(error.value) == (
      'needs the package mlcommons-loadgen; on Python 3.11 to 3.13, '
      './scripts/setup.sh modern installs it into .venvs/modern; elsewhere, '
      'python -m pip install mlcommons-loadgen==6.0.17')
  with open(os.path.join(scripts.REPOSITORY,
                         'requirements-modern.txt')) as pinned:
    assert 'mlcommons-loadgen==6.0.17;' in pinned.read()


def test_bad_options_are_refused(model, folder, tmp_path):
  (tmp_path / 'x').write_text('')
  with pytest.raises(InputError, match='output_dir=.*: is not empty'):
    loadgen.run(options(model, folder, tmp_path))
  with pytest.raises(InputError, match='run=accuracy: expected run=both'):
    options(model, folder, tmp_path, run='accuracy', test01=True)
  with pytest.raises(InputError, match='qsl_rng_seed=18446744073709551616'):
    options(model, folder, tmp_path, qsl_rng_seed=2 ** 64)


@pytest.mark.parametrize('text, message', [
    ('', 'LoadGen wrote no result; the run was cut off'),
    (':::MLLOG {"key": "error_runtime", "value": "Too few", "metadata": '
     '{"is_error": true}}', 'LoadGen wrote no result; Too few')])
def test_a_detailed_log_without_a_result_is_refused(tmp_path, text, message):
  path = tmp_path / 'detail.txt'
  path.write_text(text)
  with pytest.raises(InputError, match=message):
    loadgen.read_detail(str(path))


@needs_loadgen
@pytest.mark.parametrize('form', ['new/', 'link', '.'])
def test_output_dir_may_have_any_form(
    model, folder, tmp_path, monkeypatch, form):
  monkeypatch.chdir(tmp_path)
  os.mkdir('real')
  os.symlink('real', 'link')
  if form == '.':
    monkeypatch.chdir('real')
  measure = loadgen._measure

  def fill(*arguments):
    with open(os.path.join(form, 'mine'), 'w'):
      pass  # a foreign file appears during the run.
    return measure(*arguments)

  if form != 'new/':
    monkeypatch.setattr(loadgen, '_measure', fill)
  loadgen.run(options(model, folder, form, run='accuracy', min_queries=1))
  assert sorted(os.listdir(form)) == (
      ['accuracy'] + ['mine'] * (form != 'new/') + ['summary.json'])
