"""Tests --keep_best: which checkpoint is in the subfolder, and when."""
import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from deeplab.checkpoints import compatibility
from deeplab.checkpoints import find
from deeplab.config import options as options_lib
from deeplab.data import records
from deeplab.errors import InputError
from deeplab.evaluation import best as best_lib
from deeplab.evaluation import evaluate as evaluate_lib
from deeplab.evaluation import report as report_lib
from deeplab.export import freeze
from deeplab.models import interface
from deeplab.models import predictors
from deeplab.nets import deeplab_v3
from tests import record_sets

CROP = (33, 33)
MODEL = options_lib.ModelOptions(crop_size=CROP)
# By global step: the class that this checkpoint predicts for every pixel.
CLASS_OF_STEP = {1: 3, 2: 4, 3: 2}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """Writes a pair: 20 rows of class 2, then 13 rows of class 3."""
  folder = tmp_path_factory.mktemp('data')
  label = np.full(CROP, 3, np.uint8)
  label[:20] = 2
  record_sets.write_shards(output_dir=str(folder), split='val', shards=[[
      records.make_example(
          image_bytes=record_sets.picture(size=CROP),
          label_bytes=record_sets.encode(label), filename='a.jpg',
          image_format='jpeg', label_format='png', height=33, width=33)]])
  return str(folder)


@pytest.fixture(scope='module')
def checkpoints(shallow_module, tmp_path_factory):
  """Returns the files of each step's checkpoint, by step and name."""
  folder = tmp_path_factory.mktemp('checkpoints')
  with tf.Graph().as_default(), tf.Session() as session:
    deeplab_v3.logits(tf.zeros((1,) + CROP + (3,)), MODEL)
    biases = [variable for variable in tf.global_variables()
              if variable.op.name == 'logits/semantic/biases']
    session.run(tf.global_variables_initializer())
    for step, index in CLASS_OF_STEP.items():
      biases[0].load(1e3 * np.eye(32)[index], session)
      tf.train.Saver().save(session, str(folder / 'model.ckpt'), step,
                            write_meta_graph=False, write_state=False)
  return {step: {path.name: path.read_bytes() for path in folder.glob(
      'model.ckpt-{}.*'.format(step))} for step in CLASS_OF_STEP}


@pytest.fixture
def train(checkpoints, tmp_path):
  """Returns a function that puts one step's checkpoint in a folder."""
  folder = tmp_path / 'train'
  folder.mkdir()
  compatibility.write_options(str(folder), MODEL, optimizer=None)

  def save(step):
    for path in folder.glob('model.ckpt-*'):
      path.unlink()
    for name, content in checkpoints[step].items():
      (folder / name).write_bytes(content)
    return folder

  return save


def evaluate(folder, data, crop_size=CROP):
  return evaluate_lib.evaluate_checkpoints(
      watch_options=options_lib.CheckpointEvalOptions(
          checkpoint_dir=str(folder), max_evaluations=1, keep_best=True),
      model_options=MODEL._replace(crop_size=crop_size),
      dataset_options=options_lib.DatasetOptions(dataset_dir=data, split='val'),
      preprocess_options=options_lib.PreprocessOptions(crop_size=crop_size),
      options=options_lib.EvalOptions())


def report_of(step, matrix):
  return report_lib.Report(
      kind=interface.CHECKPOINT, path='train/model.ckpt-{}'.format(step),
      step=step, split='val', images=1, seconds=1.0, geometry='', runtime='',
      matrix=matrix)


def killing(patch, number):
  """Ends the process at the given rename or removal, counted from 0."""
  calls = []

  def counted(function):
    def replacement(*arguments):
      calls.append(arguments)
      if len(calls) > number:
        raise KeyboardInterrupt
      return function(*arguments)
    return replacement

  for name in ('replace', 'remove'):
    patch.setattr(os, name, counted(getattr(os, name)))


@pytest.mark.slow
def test_the_best_checkpoint_survives_restarts_and_can_be_exported(
    train, data, tmp_path):
  kept = []
  for step in CLASS_OF_STEP:
    folder = train(step)
    evaluate(folder, data)
    kept.append(sorted(os.listdir(str(folder / 'best'))))
  # The second checkpoint is worse than the first, the third is better.
  assert kept[0] == kept[1] == [
      'checkpoint', 'model.ckpt-1.data-00000-of-00001', 'model.ckpt-1.index',
      'model.ckpt-1.json', 'model_options.json']
  assert kept[2] == [name.replace('-1.', '-3.') for name in kept[0]]
  report = report_lib.read(str(folder / 'best' / 'model.ckpt-3.json'))
  assert report.scores.miou == pytest.approx(20 / 33 / 2)
  # The trainer's folder has no other new checkpoint.
  assert find.prefixes_in(str(folder)) == [str(folder / 'model.ckpt-3')]
  graph = freeze.export(MODEL, options_lib.ExportOptions(
      checkpoint_path=str(folder / 'best'), export_path=str(tmp_path / 'out')))
  with predictors.open_frozen_graph(graph.path) as predictor:
    assert (predictor.predict(np.zeros((1,) + CROP + (3,))) == 2).all()


@pytest.mark.slow
def test_a_kill_leaves_a_whole_checkpoint_with_its_report(
    train, tmp_path, monkeypatch):
  scores = {1: np.eye(3, dtype=int), 3: np.eye(3, dtype=int)}
  scores[1][1, 2] = 1  # the worse one

  def keep(step):
    folder = train(step)
    with best_lib.keeping(str(folder), split='val') as best:
      best.offer(best.copy(str(folder / 'model.ckpt-{}'.format(step))),
                 report_of(step, scores[step]))

  def kept():
    prefix = find.Newest(str(tmp_path / 'train' / 'best'), strict=True).find()
    assert os.path.basename(report_lib.read(prefix + '.json').path) == (
        os.path.basename(prefix))
    return int(prefix[-1])

  found = []
  while len(found) < 9:
    keep(1)
    with monkeypatch.context() as patch:
      killing(patch, len(found))
      try:
        keep(3)
        break
      except KeyboardInterrupt:
        found.append(kept())
    keep(3)
    assert kept() == 3
    for path in (tmp_path / 'train' / 'best').iterdir():
      path.unlink()
  # Renamed: report, options, data, index, state. Removed: index, data, report.
  assert found == [1, 1, 1, 1, 3, 3, 3, 3]


def test_scores_that_cannot_be_compared_are_refused(train, data, tmp_path):
  folder = train(1)
  evaluate(folder, data)
  with pytest.raises(InputError, match='keep_best: .*model.ckpt-1 was '
                     'scored with another geometry; move'):
    evaluate(folder, data, crop_size=(65, 65))
  with pytest.raises(InputError, match='expected a folder of checkpoints'):
    evaluate(folder / 'model.ckpt-1', data)
  with best_lib.keeping(str(folder)) as best, pytest.raises(
      InputError, match='best: another run writes there'):
    evaluate(folder, data)
  (tmp_path / 'none').mkdir()
  with best_lib.keeping(str(tmp_path / 'none')) as best:
    best.offer({}, report_of(1, np.zeros([3, 3], int)))  # NaN
  assert not os.listdir(str(tmp_path / 'none' / 'best'))
