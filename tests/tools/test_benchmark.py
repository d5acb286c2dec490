"""Tests the benchmark: its cases, rounds, ratios, goals and script.

Measured times depend on the machine and are not tested.
"""
import functools
import importlib
import json
import os
import sys
from unittest import mock

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from deeplab.errors import InputError
from deeplab.system import environment as environment_lib
from deeplab.tools.benchmark import cases
from deeplab.tools.benchmark import driver
from deeplab.tools.benchmark import images
from deeplab.tools.benchmark import network
from deeplab.tools.benchmark import results
from deeplab.tools.benchmark import scripts as scripts_lib
from deeplab.tools.benchmark import worker
from deeplab.training import losses
from tests import scripts

_SCRIPT = 'scripts/benchmark.py'
_HERE = 'tf1=' + sys.executable


def _result(group, environment, name, seconds, peak_bytes=2 ** 20):
  return cases.Case(group, name, environment, '', {}, tuple(seconds),
                    peak_bytes)


# --- The table -------------------------------------------------------------


def test_functions_and_cases_of_the_table_exist():
  works = {row[2] for group in cases.GROUPS for row in group.rows}
  works |= {file[0] for file in cases.FILES.values()}
  for work in works:
    module, name = work.split('.')
    assert callable(getattr(
        importlib.import_module('deeplab.tools.benchmark.' + module), name))
  keys = set()
  for group in cases.GROUPS:
    for case in cases.cases_of(group, cases.ENVIRONMENTS):
      keys.add(case.key)
  for goal in cases.GOALS:
    assert {goal.case, goal.against} <= keys


def test_one_hot_loss_equals_the_loss_of_the_suite():
  random = np.random.RandomState(1)
  logits = random.normal(0, 2, [2, 5, 5, 32]).astype(np.float32)
  labels = random.randint(0, 32, [2, 17, 17, 1])
  values = []
  for of_pixels in (losses.sum_over_pixels, network.one_hot_sum):
    with tf.Graph().as_default(), tf.Session() as session:
      values.append(session.run(losses.mean([of_pixels(
          tf.constant(logits), tf.constant(labels, tf.int32))])))
  assert values[0] == pytest.approx(values[1], rel=1e-6)
  assert values[0] > 1


def test_the_training_step_uses_the_one_hot_loss(shallow, monkeypatch):
  """The step must call the function that this case replaces."""
  used = mock.Mock(side_effect=InterruptedError)
  monkeypatch.setattr(network, 'one_hot_sum', used)
  with pytest.raises(InterruptedError):
    network.train_step(cases.QUICK, None, one_hot=True)


@pytest.mark.parametrize('settings', [
    {'mixed': True}, {'quantization': 'layers'}])
@pytest.mark.slow
def test_steps_on_a_gpu(shallow, monkeypatch, settings):
  """Tests the step, its settings and its memory on a CPU instead of a GPU."""
  with pytest.raises(InputError, match='sees no GPU here'):
    network.gpu_train_step(cases.QUICK, None, batch=2, **settings)
  monkeypatch.setattr(network.predictors, 'gpus', lambda: 1)
  monkeypatch.setattr(tf.config.experimental, 'get_memory_info',
                      lambda device: {'peak': 2 ** 21}, raising=False)
  seconds, detail = network.gpu_train_step(
      cases.QUICK, None, batch=2, **settings)
  assert seconds > 0 and detail == '2 MiB on the GPU'


def test_only_a_machine_with_a_gpu_runs_its_group(monkeypatch):
  gpus = []
  monkeypatch.setattr(driver.hardware, 'gpus', lambda: (gpus, None))
  everywhere = driver.find_groups([])
  gpus.append('one')
  assert [group.name for group in driver.find_groups([])
          if group not in everywhere] == ['gpu']
  assert driver.find_groups(['gpu'])[0].title == 'Training step on a GPU'


# --- Turns -----------------------------------------------------------------


def _run(rows, work, rounds=1, files=()):
  machine = mock.Mock(work=work)
  return driver.run(
      machine, [cases.Group('group', 'title', 'image', files, rows)], ['tf1'],
      rounds)


def test_cases_alternate_and_a_failing_one_is_dropped():
  asked = []

  def work(environment, name, settings):
    asked.append((environment, name, settings['name']))
    if settings['name'] == 'one' and len(asked) > 2:
      raise driver.WorkError('broken')
    return {'seconds': 2.0, 'peak_bytes': len(asked), 'detail': 'by hand'}

  found = _run([(name, ('tf1', 'modern'), 'a.b', {'name': name})
                for name in ('one', 'two')], work, rounds=3)
  one, two = (('tf1', 'a.b', name) for name in ('one', 'two'))
  assert asked == [one, two, one, two, two]
  assert (found[0].seconds, found[0].error) == ((), 'broken')
  assert found[1] == cases.Case(
      'group', 'two', 'tf1', 'a.b', {'name': 'two'}, (2.0,) * 3, 5, 'by hand')


def test_groups_whose_files_cannot_be_made_are_left_out(caplog):
  made = []
  assert _run(
      [('one', ('tf1',), 'a.b', {})], files=cases._PTQ_MODEL,
      work=lambda unused_environment, name, unused_settings: made.append(name)
  ) == []
  assert made == [
      'images.paint', 'images.build', 'images.write', 'graphs.export']
  assert 'ptq model can be made in tf2 or modern alone' in caplog.text


def test_the_reason_of_a_failing_process_is_reported(tmp_path):
  machine = driver.Machine(
      {'tf1': sys.executable}, cases.QUICK, str(tmp_path))
  with pytest.raises(driver.WorkError, match="has no attribute 'nothing'"):
    machine.work('tf1', 'cases.nothing', {})


def test_a_worker_uses_the_cores_and_memory_pool_of_its_case(monkeypatch):
  found = {}
  monkeypatch.setenv(environment_lib.MEMORY_POOL, 'true')
  monkeypatch.setattr(os, 'sched_setaffinity', lambda unused_process, cores: (
      found.update(cores=len(cores))))
  monkeypatch.setattr(images, 'paint', lambda sizes, paths, **settings: (
      found.update(settings, path=paths('a', 'b'), pool=os.environ[
          environment_lib.MEMORY_POOL], side=sizes.side)))
  assert worker._work({
      'work': 'images.paint', 'folder': 'folder',
      'sizes': dict(cases.QUICK._asdict()),
      'settings': {'cores': 1, 'pooled': False, 'other': 7}}) is None
  assert found == {'cores': 1, 'other': 7, 'path': 'folder/a/b',
                   'pool': 'false', 'side': 65}


def test_a_second_round_evaluates_a_folder_of_as_many_pairs(
    tmp_path, monkeypatch):
  for name in ('images', 'annotations'):
    folder = tmp_path / 'preprocessed' / name
    folder.mkdir(parents=True)
    for number in range(2):
      (folder / 'img_{}.png'.format(number)).write_text(str(number))
  seen = []

  def seconds(unused_script, unused_model, test_dir):
    folder = test_dir.split('=')[1]
    seen.append([len(os.listdir(os.path.join(folder, name)))
                 for name in ('images', 'annotations')])
    return 6.0

  monkeypatch.setattr(scripts_lib, '_seconds', seconds)
  paths = functools.partial(os.path.join, str(tmp_path))
  for _ in range(2):
    assert scripts_lib.evaluate_tflite(
        cases.QUICK._replace(few=3), paths, images='few') == (2.0, '3 images')
  assert seen == [[3, 3]] * 2
  assert os.listdir(str(tmp_path)) == ['preprocessed']


# --- Ratios ----------------------------------------------------------------


def test_ratio_pairs_the_rounds():
  # In the second round the machine was half as fast, for both cases.
  first = _result('g', 'tf1', 'a', [1.0, 2.0, 1.2])
  second = _result('g', 'tf1', 'b', [2.0, 4.0, 1.2])
  assert results.ratio(second, first) == 2.0


def test_goals():
  measured = [
      _result('evaluation', 'tf1', 'forward pass', [1.0]),
      _result('evaluation', 'tf1', 'evaluation', [1.25]),
      _result('float_step', 'tf1', 'one-hot loss', [3.0]),
      _result('float_step', 'tf1', 'suite', [2.0]),
      _result('tflite_memory', 'modern', 'few images', [9.0], 100),
      _result('tflite_memory', 'modern', 'many images', [1.0], 104)]
  found = {(goal['case'], goal['against']): (
      goal['wanted'], goal['ratio'], goal['met'])
           for goal in results.goals_of(measured)}
  assert found['evaluation/tf1/evaluation', 'evaluation/tf1/forward pass'] == (
      'under 1.15 x', 1.25, False)
  assert found['float_step/tf1/suite', 'float_step/tf1/one-hot loss'] == (
      'at least 1.15 x', 1.5, True)
  assert found['tflite_memory/modern/many images',
               'tflite_memory/modern/few images'] == (
                   'under 1.05 x of memory', 1.04, True)
  assert len(found) == 3  # those that were measured


def test_tables():
  failed = _result('records', 'modern', 'suite', [])._replace(error='why')
  content = {'goals': [
      {'case': 'a', 'wanted': 'at least 2 x', 'against': 'b', 'ratio': 2.5,
       'met': True},
      {'case': 'c', 'wanted': 'under 1 x', 'against': 'd', 'ratio': 2.0,
       'met': False, 'reason': 'the why'}]}
  measured = [_result('records', 'tf1', 'suite', [0.2, 0.25, 0.3], 3 << 20),
              failed]
  assert results.tables(content, measured).splitlines() == [
      '## Goals',
      '',
      '| case | wanted       | against | measured | met |',
      '| ---- | ------------ | ------- | -------- | --- |',
      '| a    | at least 2 x | b       | 2.5 x    | yes |',
      '| c    | under 1 x    | d       | 2 x      | NO  |',
      '',
      'Not met, c: the why.',
      '',
      '## build_ade20k_data.py',
      '',
      '| case  | environment | s/image | spread | image/s | as fast as the '
      'first | peak memory |',
      '| ----- | ----------- | ------- | ------ | ------- | '
      '-------------------- | ----------- |',
      '| suite | tf1         | 0.25    | 40 %   | 4       | 1 x               '
      '   | 3 MiB       |',
      '| suite | modern      | failed  | -      | -       | -                 '
      '   | -           |']


# --- The script ------------------------------------------------------------


@pytest.mark.slow
def test_quick_run(tmp_path):
  """A deeplab folder in the working folder must not be imported."""
  json_path, md_path = tmp_path / 'out.json', tmp_path / 'out.md'
  (tmp_path / 'deeplab').mkdir()
  (tmp_path / 'deeplab' / '__init__.py').write_text('raise ImportError("x")')
  done = scripts.run(
      _SCRIPT, '--quick', '--only=records', '--output_json', str(json_path),
      '--environments={},tf2={}'.format(_HERE, tmp_path / 'missing'),
      '--output_md', str(md_path), env={'TMPDIR': str(tmp_path)},
      cwd=str(tmp_path))
  assert 'left out: tf2 (' in done.stderr
  assert '1 cases in ' in done.stdout and ' 0 failed' in done.stdout
  content = json.loads(json_path.read_text())
  case, = content['cases']
  assert (case['group'], case['environment']) == ('records', 'tf1')
  assert len(case['seconds']) == 1 and case['median'] > 0
  assert case['peak_bytes'] > 2 ** 20
  assert content['rounds'] == 1 and content['sizes']['pictures'] == 6
  assert content['environments']['tf1'].startswith(
      'Python {}.{}'.format(*sys.version_info[:2]))
  assert set(content['machine']) == {
      'processor', 'vector extensions', 'cores', 'memory', 'GPU', 'system',
      'date', 'commit'}
  text = md_path.read_text()
  assert text.startswith('# Benchmarks\n') and 'build_ade20k_data.py' in text
  assert sorted(os.listdir(str(tmp_path))) == [
      'deeplab', 'out.json', 'out.md']


def test_list():
  done = scripts.run(_SCRIPT, '--list', '--only=evaluation,records')
  assert done.stdout.split('\n') == [
      'evaluation/{}/{}'.format(environment, name)
      for name in ('forward pass', 'frozen graph', 'evaluation')
      for environment in ('tf1', 'modern')] + [
          'records/tf1/suite', 'records/modern/suite', '']


@pytest.mark.parametrize('arguments, problem', [
    (['--only=speed'], '--only=speed: unknown group speed; expected some of '),
    (['--environments=tf3'], '--environments=tf3: unknown environment tf3; '),
    (['--environments='], '--environments=: '),
    (['--environments=tf1=/nowhere/python'], 'none found; run '),
    (['--rounds=0', '--environments=' + _HERE],
     '--rounds=0: expected a whole number from 1 to 1000'),
])
def test_bad_flags(arguments, problem):
  assert problem in scripts.refusal(_SCRIPT, *arguments)
