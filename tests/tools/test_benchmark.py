"""Tests of the benchmark: its table, its turns, its ratios, its script.

The times that it measures depend on the machine and are not tested.
"""
import importlib
import json
import os
import sys
from unittest import mock

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from deeplab.system import environment as environment_lib
from deeplab.tools.benchmark import cases
from deeplab.tools.benchmark import driver
from deeplab.tools.benchmark import images
from deeplab.tools.benchmark import network
from deeplab.tools.benchmark import results
from deeplab.tools.benchmark import worker
from deeplab.training import losses
from tests import scripts

_SCRIPT = 'scripts/benchmark.py'
_HERE = 'tf1=' + sys.executable


def _result(group, environment, name, seconds, peak_bytes=2 ** 20):
  return driver.Result(group, name, environment, 'image', seconds, peak_bytes)


# --- The table -------------------------------------------------------------


def test_every_work_and_every_goal_of_the_table_exists():
  works = {row[2] for group in cases.GROUPS for row in group.rows}
  works |= {file[0] for file in cases.FILES.values()}
  for work in works:
    module, name = work.split('.')
    assert callable(getattr(
        importlib.import_module('deeplab.tools.benchmark.' + module), name))
  keys = set()
  for group in cases.GROUPS:
    for case in cases.cases_of(group, cases.ENVIRONMENTS):
      keys |= {case.key, '{}/*/{}'.format(case.group, case.name)}
  for goal in cases.GOALS:
    assert {goal.case, goal.against} <= keys


def test_first_of_several_environments():
  group = cases.Group('name', 'title', 'image', (), [
      ('every', ('tf1', 'modern'), 'a.b', {}),
      ('first', ['modern', 'tf1'], 'a.b', {})])
  assert [case.key for case in cases.cases_of(group, ['tf1', 'modern'])] == [
      'name/tf1/every', 'name/modern/every', 'name/modern/first']
  assert [case.key for case in cases.cases_of(group, ['tf1'])] == [
      'name/tf1/every', 'name/tf1/first']


def test_one_hot_loss_is_the_same_loss():
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


def test_the_training_step_computes_the_one_hot_loss(shallow, monkeypatch):
  """The step must call the function that the case replaces."""
  used = mock.Mock(side_effect=InterruptedError)
  monkeypatch.setattr(network, 'one_hot_sum', used)
  with pytest.raises(InterruptedError):
    network.train_step(cases.QUICK, None, one_hot=True)


# --- Turns -----------------------------------------------------------------


def _run(rows, *, rounds, work, **options):
  benchmark = driver.Benchmark(
      pythons={'tf1': 'python'}, sizes=cases.QUICK, rounds=rounds, folder='.')
  benchmark.work = work
  benchmark.run([cases.Group(
      'group', 'title', 'image', options.pop('files', ()), rows, **options)])
  return benchmark


@pytest.mark.parametrize('most_rounds, rounds', [(None, 2), (1, 1)])
def test_cases_take_turns(most_rounds, rounds):
  asked = []

  def work(environment, name, settings):
    asked.append((environment, name, settings['name']))
    return {'seconds': 2.0, 'peak_bytes': len(asked), 'detail': 'by hand'}

  benchmark = _run(
      [(name, ('tf1',), 'a.b', {'name': name}) for name in ('one', 'two')],
      rounds=2, most_rounds=most_rounds, work=work)
  assert asked == [('tf1', 'a.b', 'one'), ('tf1', 'a.b', 'two')] * rounds
  assert benchmark.results[0] == driver.Result(
      'group', 'one', 'tf1', 'image', [2.0] * rounds, 2 * rounds - 1,
      'by hand')


def test_a_case_that_fails_leaves_the_others_alone():
  def work(unused_environment, unused_name, settings):
    settings['left'] -= 1
    if settings['left'] < 0:
      raise driver.WorkError('broken')
    return {'seconds': 2.0, 'peak_bytes': 5, 'detail': ''}

  benchmark = _run([('one', ('tf1',), 'a.b', {'left': 1}),
                    ('two', ('tf1',), 'a.b', {'left': 5})], rounds=3, work=work)
  assert [(result.error, result.seconds) for result in benchmark.results] == [
      ('broken', []), (None, [2.0] * 3)]


def test_groups_without_their_files_are_left_out(caplog):
  made = []
  benchmark = _run(
      [('one', ('tf1',), 'a.b', {})], rounds=1, files=cases._PTQ_MODEL,
      work=lambda unused_environment, name, unused_settings: made.append(name))
  assert benchmark.results == []
  assert made == [
      'images.paint', 'images.build', 'images.write', 'graphs.export']
  assert 'ptq model can be made in tf2 or modern alone' in caplog.text


def test_a_process_that_fails_says_why(tmp_path):
  benchmark = driver.Benchmark(
      pythons={'tf1': sys.executable}, sizes=cases.QUICK, rounds=1,
      folder=str(tmp_path))
  with pytest.raises(driver.WorkError, match="has no attribute 'nothing'"):
    benchmark.work('tf1', 'cases.nothing', {})


def test_a_worker_has_the_processors_and_the_memory_of_its_case(monkeypatch):
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


# --- Ratios ----------------------------------------------------------------


def test_ratio_pairs_the_rounds():
  # The machine was twice as slow in the second round, for both.
  first = _result('g', 'tf1', 'a', [1.0, 2.0, 1.2])
  second = _result('g', 'tf1', 'b', [2.0, 4.0, 1.2])
  assert results.ratio(second, first) == 2.0
  assert results.ratio(
      first._replace(peak_bytes=30), second._replace(peak_bytes=20),
      'peak_bytes') == 1.5


def test_goals():
  measured = [
      _result('evaluation', 'tf1', 'forward pass', [1.0]),
      _result('evaluation', 'tf1', 'evaluation', [1.25]),
      _result('float_step', 'tf1', 'one-hot loss', [3.0]),
      _result('float_step', 'tf1', 'suite', [2.0]),
      _result('tflite_memory', 'tf2', 'few images', [9.0], 100),
      _result('tflite_memory', 'tf2', 'many images', [1.0], 104)]
  found = {goal['goal']: goal for goal in results.goals_of(measured)}
  assert found['evaluation per image, tf1, in forward passes'] == {
      'goal': 'evaluation per image, tf1, in forward passes',
      'wanted': 'under 1.15 x', 'ratio': 1.25, 'met': False, 'reason': ''}
  step = found['float step, tf1, against one-hot loss']
  assert (step['wanted'], step['ratio'], step['met']) == (
      'at least 1.15 x', 1.5, True)
  memory = found['TFLite evaluation memory, many images against few']
  assert (memory['ratio'], memory['met']) == (1.04, True)
  unmeasured = found['float step, modern, against one-hot loss in tf1']
  assert (unmeasured['ratio'], unmeasured['met']) == (None, None)
  assert len(found) == len(cases.GOALS)


def test_tables():
  failed = _result('records', 'modern', 'suite', [])._replace(error='why')
  content = {
      'goals': [{'goal': 'quick', 'wanted': 'at least 2 x', 'ratio': 2.5,
                 'met': True, 'reason': ''},
                {'goal': 'small', 'wanted': 'under 1 x', 'ratio': 2.0,
                 'met': False, 'reason': 'it is large'},
                {'goal': 'new', 'wanted': 'under 1 x', 'ratio': None,
                 'met': None, 'reason': ''}]}
  measured = [_result('records', 'tf1', 'suite', [0.2, 0.25, 0.3], 3 << 20),
              failed]
  assert results.tables(content, measured).splitlines() == [
      '## Goals',
      '',
      '| goal  | wanted       | measured | met |',
      '| ----- | ------------ | -------- | --- |',
      '| quick | at least 2 x | 2.5 x    | yes |',
      '| small | under 1 x    | 2 x      | NO  |',
      '| new   | under 1 x    | -        | -   |',
      '',
      'Not met, small: it is large.',
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
  """A deeplab folder where the user works is not the suite."""
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
  assert content['environments']['tf1']['Python'].startswith(
      '{}.{}'.format(*sys.version_info[:2]))
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
      for name in ('forward pass', 'forward pass, 8 at a time',
                   'frozen graph', 'evaluation')
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
