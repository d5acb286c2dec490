"""Tests which checkpoints are evaluated, when, and what is written."""
import glob
import io
import json
import os
import signal
import time

import numpy as np
from PIL import Image
import pytest
import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab.checkpoints import read
from deeplab.config import options as options_lib
from deeplab.data import records
from deeplab.errors import InputError
from deeplab.evaluation import evaluate as evaluate_lib
from deeplab.evaluation import report as report_lib
from deeplab.evaluation import visualize
from deeplab.models import interface
from deeplab.models import predictors
from deeplab.system import memory
from deeplab.system import signals
from tests import record_sets

CROP = (33, 33)
MODEL = options_lib.ModelOptions(crop_size=CROP)


@pytest.fixture
def data(tmp_path):
  """Writes two validation pairs; every label is class 2."""
  folder = tmp_path / 'data'
  folder.mkdir()
  record_sets.write_shards(output_dir=str(folder), split='val', shards=[[
      records.make_example(
          image_bytes=record_sets.encode(np.full(CROP + (3,), value, np.uint8)),
          label_bytes=record_sets.encode(np.full(CROP, 2, np.uint8)),
          filename='{}.png'.format(value), image_format='png',
          label_format='png', height=CROP[0], width=CROP[1])
      for value in (1, 2)]])
  return folder


class Network(interface.Predictor):
  """A stand-in for the network; it predicts the last digit of the step.

  Attributes:
    restored: names of the checkpoints.
    images: number of images predicted.
    before_restore: called with each prefix.
  """

  runtime = predictors.runtime()
  input_size = CROP

  def __init__(self):
    self.restored = []
    self.images = 0
    self.before_restore = lambda prefix: None

  def __call__(self, unused_model_options):
    return self

  def close(self):
    pass

  def restore(self, prefix):
    self.before_restore(prefix)
    with open(prefix + '.index') as index:
      self._class = int(index.read()[-1])
    self.restored.append(os.path.basename(prefix))
    self.description = prefix

  def predict(self, images):
    self.images += len(images)
    return np.full(images.shape[:3], self._class, np.int32)


@pytest.fixture
def network(monkeypatch):
  network = Network()
  monkeypatch.setattr(predictors, 'CheckpointPredictor', network)
  monkeypatch.setattr(read, 'global_step_in', read.step_of)
  monkeypatch.setattr(read, 'damage_of', lambda prefix: (
      None if os.path.exists(prefix + '.index') else 'there is no index'))
  return network


@pytest.fixture
def logs(tmp_path):
  """An empty folder for checkpoints."""
  folder = tmp_path / 'train'
  folder.mkdir()
  return folder


def save(folder, step):
  """Writes a stand-in for a checkpoint."""
  (folder / 'model.ckpt-{}.index'.format(step)).write_text(str(step))


def remove(prefix):
  os.remove(prefix + '.index')


def evaluate(data, checkpoint_dir, *, times=1, model=MODEL, batch_size=1,
             reevaluate=False, strict=False, timeout=None, interval=0,
             **outputs):
  return evaluate_lib.evaluate_checkpoints(
      watch_options=options_lib.CheckpointEvalOptions(
          checkpoint_dir=str(checkpoint_dir), max_evaluations=times,
          interval_secs=interval, timeout_secs=timeout, reevaluate=reevaluate,
          strict_checkpoint=strict),
      model_options=model,
      dataset_options=options_lib.DatasetOptions(
          dataset_dir=str(data), split='val', batch_size=batch_size),
      preprocess_options=options_lib.PreprocessOptions(
          crop_size=model.crop_size),
      options=options_lib.EvalOptions(
          **{name: path if isinstance(path, int) else str(path)
             for name, path in outputs.items()}))


def without_path(report):
  return {name: value for name, value in report_lib.to_json(report).items()
          if name != 'path'}


def events_of(folder):
  return [(event.step, [value.tag for value in event.summary.value])
          for path in sorted(glob.glob(str(folder / '*tfevents*')))
          for event in tf.train.summary_iterator(path)]


# --- Cached evaluations ----------------------------------------------------


def test_the_report_of_an_evaluated_checkpoint_is_reused(
    data, logs, network, tmp_path, capsys, caplog):
  save(logs, 2)
  first = evaluate(data, logs, eval_logdir=tmp_path / 'log')
  printed = capsys.readouterr().out
  assert first.images == 2 and network.images == 2
  # The folder may have been moved since.
  os.rename(str(logs), str(tmp_path / 'moved'))
  with caplog.at_level('INFO'):
    again = evaluate(data, tmp_path / 'moved', eval_logdir=tmp_path / 'log',
                     report_json=tmp_path / 'report.json')
  assert network.images == 2 and network.restored == ['model.ckpt-2']
  assert without_path(again) == without_path(first)
  assert again.path == str(tmp_path / 'moved' / 'model.ckpt-2')
  assert capsys.readouterr().out.replace(
      str(tmp_path / 'moved'), str(logs)) == printed
  with open(str(tmp_path / 'report.json')) as content:
    assert json.load(content) == report_lib.to_json(again)
  assert len(events_of(tmp_path / 'log')) == 2
  assert ('evaluated before with the same options: no image is read, its '
          'report follows; reevaluate evaluates it again') in caplog.text


def remove_picture(data, logs, kept):
  os.remove(str(kept.parent.parent / 'vis' / 'predictions.png'))


def damage_report(data, logs, kept):
  kept.write_text(kept.read_text().replace('"images": 2', '"images": null'))


def change_weights(data, logs, kept):
  (logs / 'model.ckpt-2.index').write_text('12')


def touch_records(data, logs, kept):
  os.utime(str(data / 'val-00000-of-00001.tfrecord'), (1, 1))


@pytest.mark.slow
def test_any_change_of_the_inputs_evaluates_again(
    data, logs, network, tmp_path):
  outputs = {'eval_logdir': tmp_path / 'log', 'vis_dir': tmp_path / 'vis'}
  save(logs, 2)
  evaluate(data, logs, **outputs)
  kept, = (tmp_path / 'log').glob('evaluated-2-*.json')
  for change, arguments in (
      (remove_picture, {}), (damage_report, {}), (None, {'reevaluate': True}),
      (None, {'batch_size': 2}),
      (None, {'model': MODEL._replace(output_stride=8)}),
      (change_weights, {}), (touch_records, {})):
    if change:
      change(data, logs, kept)
    before = network.images
    evaluate(data, logs, **arguments, **outputs)
    assert network.images == before + 2, (change, arguments)
    evaluate(data, logs, **dict(arguments, reevaluate=False), **outputs)
    assert network.images == before + 2, (change, arguments)


@pytest.mark.slow
def test_without_folder_or_events_nothing_is_cached(
    data, logs, network, tmp_path):
  save(logs, 2)
  for _ in range(2):
    evaluate(data, logs / 'model.ckpt-2', eval_logdir=tmp_path / 'log')
    evaluate(data, logs)
  assert network.images == 8


@pytest.mark.slow
def test_a_restarted_watch_waits_for_the_next_checkpoint(
    data, logs, network, tmp_path):
  save(logs, 2)
  evaluate(data, logs, eval_logdir=tmp_path / 'log')
  save(logs, 3)
  assert evaluate(data, logs, eval_logdir=tmp_path / 'log', times=0,
                  timeout=0).step == 3
  assert evaluate(data, logs, eval_logdir=tmp_path / 'log', times=0,
                  timeout=0).step == 3
  assert network.restored == ['model.ckpt-2', 'model.ckpt-3']


# --- Beside a trainer ------------------------------------------------------


def test_a_vanished_checkpoint_is_skipped(
    data, logs, network, tmp_path, caplog):
  save(logs, 2)
  save(logs, 3)

  def trainer(prefix):
    if prefix.endswith('-3'):
      remove(prefix)
      save(logs, 4)
      remove(str(logs / 'model.ckpt-2'))

  network.before_restore = trainer
  with caplog.at_level('INFO'):
    result = evaluate(data, logs, eval_logdir=tmp_path / 'log')
  assert (result.step, result.matrix[2, 4]) == (4, 2 * 33 * 33)
  assert network.restored == ['model.ckpt-4']
  assert 'model.ckpt-3 was removed before it was read' in caplog.text


def test_a_watch_goes_on_if_every_checkpoint_vanishes(data, logs, network):
  save(logs, 3)
  network.before_restore = remove
  assert evaluate(data, logs, times=0, timeout=0) is None


def test_a_bad_checkpoint_is_not_taken_for_a_vanished_one(
    data, logs, network):
  save(logs, 3)

  def refuse(prefix):
    raise InputError('{}: lacks weights'.format(prefix))

  network.before_restore = refuse
  with pytest.raises(InputError, match='model.ckpt-3: lacks weights'):
    evaluate(data, logs)


def test_a_damaged_newest_checkpoint_is_skipped_unless_strict(
    data, logs, network, monkeypatch):
  save(logs, 3)
  save(logs, 4)
  monkeypatch.setattr(read, 'damage_of', lambda prefix: (
      'cut' if prefix.endswith('-4') else None))
  assert evaluate(data, logs).step == 3
  with pytest.raises(InputError, match='model.ckpt-4 cannot be read .*strict'):
    evaluate(data, logs, strict=True)


def test_an_incomplete_checkpoint_is_waited_for(
    data, logs, network, monkeypatch):
  # The index is written last.
  (logs / 'model.ckpt-5.data-00000-of-00001').write_text('')
  slept = []

  def sleep(secs):
    slept.append(secs)
    if len(slept) == 2:
      save(logs, 5)
    elif len(slept) > 9:
      raise KeyboardInterrupt  # the checkpoint was not found

  monkeypatch.setattr(time, 'sleep', sleep)
  with pytest.raises(KeyboardInterrupt):
    evaluate(data, logs, times=0)
  assert network.restored == ['model.ckpt-5']


@pytest.mark.parametrize('begun', [False, True])
def test_a_watch_logs_what_it_waits_for_and_ends_quietly(
    data, logs, network, monkeypatch, caplog, begun):
  if begun:
    save(logs, 5)

  def stop(unused_secs):
    raise signals.Stopped(signal.SIGINT)

  monkeypatch.setattr(time, 'sleep', stop)
  monkeypatch.setattr(time, 'time', lambda: 1e9)
  with caplog.at_level('INFO'), pytest.raises(SystemExit) as ended:
    evaluate(data, logs, times=0, interval=300)
  assert ended.value.code == 130
  assert [record.getMessage() for record in caplog.records][-2:] == [
      'waiting for a checkpoint in {} (newest: {}), looking {}; Ctrl-C ends '
      'this'.format(logs, *((logs / 'model.ckpt-5', 'for one in 300 s')
                            if begun else ('none', 'every second'))),
      'stopped by SIGINT; all written reports are complete']


# --- Results ---------------------------------------------------------------


def test_events_have_scores_of_classes_and_the_confusion_matrix(tmp_path):
  matrix = np.zeros([32, 32], np.int64)
  matrix[1, 1], matrix[1, 3], matrix[3, 3] = 30, 10, 20
  evaluate_lib.write_events(str(tmp_path), report_lib.Report(
      kind=interface.CHECKPOINT, path='model.ckpt-7', step=7, split='val',
      images=1, seconds=1, geometry='', runtime='', matrix=matrix))
  values = {value.tag: value for path in tmp_path.glob('*tfevents*')
            for event in tf.train.summary_iterator(str(path))
            for value in event.summary.value if event.step == 7}
  # The tags of the reference.
  assert list(values)[:33] == ['eval/miou_1.0_overall'] + [
      'eval/miou_1.0_class_{}'.format(index) for index in range(32)]
  assert values['iou/01_wall'].simple_value == pytest.approx(30 / 40)
  assert values['iou/03_sky'].simple_value == pytest.approx(20 / 30)
  # Only the reference's tags have NaN, for classes without a label.
  assert np.isnan(values['eval/miou_1.0_class_31'].simple_value)
  assert [tag for tag in values if tag.startswith('iou/')] == [
      'iou/01_wall', 'iou/03_sky']
  picture = values['eval/confusion_matrix'].image
  drawn = Image.open(io.BytesIO(picture.encoded_image_string))
  assert drawn.size == (picture.width, picture.height)
  np.testing.assert_array_equal(
      drawn, visualize.confusion_matrix(matrix, constants.CLASS_NAMES))


def test_everything_is_written_before_anything_is_printed(
    data, logs, network, tmp_path, monkeypatch):
  save(logs, 2)
  outputs = {'eval_logdir': tmp_path / 'log', 'vis_dir': tmp_path / 'vis',
             'report_json': tmp_path / 'report.json'}
  with monkeypatch.context() as patches:
    patches.delattr(report_lib, 'table')
    with pytest.raises(NameError):
      evaluate(data, logs, **outputs)
  assert (tmp_path / 'report.json').exists()
  assert (tmp_path / 'vis' / 'predictions.png').exists()
  assert len(events_of(tmp_path / 'log')) == 2
  assert evaluate(data, logs, **outputs).step == 2
  assert network.images == 2


@pytest.mark.parametrize('name', ['eval_logdir', 'report_json', 'vis_dir'])
def test_outputs_are_checked_before_the_evaluation(
    data, logs, network, tmp_path, monkeypatch, name):
  monkeypatch.setattr(
      predictors, 'open_frozen_graph', lambda *unused_arguments: network)
  save(logs, 2)
  (tmp_path / 'file').write_text('')
  if name == 'report_json':
    path = tmp_path / 'file' / 'report.json'
  else:
    path = tmp_path / 'file'
  with pytest.raises(InputError, match='{}={}: '.format(name, path)):
    evaluate(data, logs, **{name: path})
  with pytest.raises(InputError, match='{}={}: '.format(name, path)):
    evaluate_lib.evaluate_frozen_graph(
        graph_options=options_lib.GraphEvalOptions(path='none.pb'),
        dataset_options=options_lib.DatasetOptions(
            dataset_dir=str(data), split='val'),
        preprocess_options=options_lib.PreprocessOptions(crop_size=CROP),
        options=options_lib.EvalOptions(**{name: str(path)}))
  assert not network.restored and not network.images


def test_a_batch_that_does_not_fit_into_memory_is_refused(
    data, logs, network, tmp_path, monkeypatch):
  save(logs, 2)
  # Two images of 33x33 in float32 with 32 classes need less than this.
  monkeypatch.setattr(memory, 'available_bytes', lambda: 400 * 2 ** 10)
  # A batch is never larger than the split.
  assert evaluate(data, logs, batch_size=4096).step == 2
  monkeypatch.setattr(memory, 'available_bytes', lambda: 200 * 2 ** 10)
  with pytest.raises(InputError, match='batch_size=2 of crop_size=33,33: needs '
                     'about 0.0 GiB of memory'):
    evaluate(data, logs, batch_size=4096)
