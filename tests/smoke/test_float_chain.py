"""Runs the whole float path through the scripts on generated images.

The backbone has few layers; the README's commands are run with the whole one.
"""
import functools
import json
import os
import re

import numpy as np
from PIL import Image
import pytest
import tensorflow.compat.v1 as tf

from deeplab import constants
from tests import scripts

pytestmark = pytest.mark.slow

SIZE = ['--min_resize_value=65', '--max_resize_value=65', '--resize_factor=16']
MODEL = ['--decoder_output_stride=4']
CROP = '65,65'


run = functools.partial(scripts.run, is_shallow=True)
refusal = functools.partial(scripts.refusal, is_shallow=True)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """TFRecords of 8 training and 3 validation scenes."""
  folder = tmp_path_factory.mktemp('data')
  scripts.run('scripts/make_synthetic_ade20k.py', '--train_images=8',
              '--val_images=3', '--size=80', '--output_dir=' + str(folder))
  source = folder / 'ADEChallengeData2016'
  output = folder / 'tfrecord'
  scripts.run('build_ade20k_data.py', '--output_dir={}'.format(output), *[
      '--{}_image{}_folder={}'.format(
          split, '' if kind == 'images' else '_label', source / kind / long)
      for split, long in (('train', 'training'), ('val', 'validation'))
      for kind in ('images', 'annotations')])
  return str(output)


def train_arguments(data, logdir, steps, *more):
  return ['--dataset_dir=' + data, '--train_logdir={}'.format(logdir),
          '--training_number_of_steps={}'.format(steps), '--log_steps=1',
          '--train_batch_size=2', '--train_crop_size=' + CROP, '--seed=1',
          *SIZE, *MODEL, *more]


def eval_arguments(data, checkpoint, *more):
  return ['--dataset_dir=' + data, '--checkpoint_dir={}'.format(checkpoint),
          '--eval_crop_size=' + CROP, '--max_number_of_evaluations=1',
          *SIZE, *MODEL, *more]


@pytest.fixture(scope='module')
def trained(data, tmp_path_factory):
  """(folder, output) of a run of three steps with all summaries."""
  folder = tmp_path_factory.mktemp('trained')
  done = run('train.py', *train_arguments(
      data, folder, 3, '--save_summaries_secs=0', '--save_summaries_images'))
  return folder, done


@pytest.fixture(scope='module')
def adam(data, trained, tmp_path_factory):
  """(folder, output) of another run that starts from that checkpoint."""
  folder = tmp_path_factory.mktemp('adam')
  done = run('train.py', *train_arguments(
      data, folder, 1, '--tf_initial_checkpoint={}'.format(trained[0]),
      '--optimizer=adam', '--fine_tune_batch_norm=False'))
  return folder, done


@pytest.fixture(scope='module')
def diverged(data, trained, tmp_path_factory):
  """Output of a run from that backbone with an absurd learning rate."""
  return run('train.py', *train_arguments(
      data, tmp_path_factory.mktemp('diverged'), 50,
      '--tf_initial_checkpoint={}'.format(trained[0]),
      '--initialize_last_layer=False', '--base_learning_rate=1e6'), status=2)


@pytest.fixture(scope='module')
def evaluated(data, trained, tmp_path_factory):
  """(folder of results, output) of evaluating the trained checkpoint."""
  folder = tmp_path_factory.mktemp('evaluated')
  done = run('eval.py', *eval_arguments(
      data, trained[0], '--report_json={}'.format(folder / 'ckpt.json'),
      '--eval_logdir={}'.format(folder / 'log'), '--eval_batch_size=2',
      '--vis_dir={}'.format(folder / 'vis'), '--vis_images=2'))
  return folder, done


@pytest.fixture(scope='module')
def frozen(trained, tmp_path_factory):
  """Path of the frozen graph of the trained checkpoint."""
  folder = tmp_path_factory.mktemp('frozen')
  done = run(
      'export_model.py', '--checkpoint_path={}'.format(trained[0]),
      '--export_path={}'.format(folder), '--num_classes=32',
      '--train_crop_size=' + CROP, *SIZE, *MODEL)
  assert 'freeze.pb: ' in done.stdout
  return str(folder / 'freeze.pb')


def event_values(folder):
  """Returns (dict from tag to value, set of kinds) of a folder's events."""
  values = {}
  for name in os.listdir(str(folder)):
    if 'tfevents' not in name:
      continue
    for event in tf.train.summary_iterator(os.path.join(str(folder), name)):
      for value in event.summary.value:
        values[value.tag] = value
  return values


# --- Training --------------------------------------------------------------


def test_training_logs_and_saves_checkpoints(trained):
  folder, done = trained
  assert 'step 3/3: loss' in done.stderr
  assert 'finished at step 3' in done.stdout
  assert done.stdout.count('\n') == 1
  assert 'training with TensorFlow {}, '.format(tf.__version__) in done.stderr
  assert '--train_batch_size=2: batch statistics want 12' in done.stderr
  assert 'Traceback' not in done.stderr
  assert 'Warning' not in done.stderr and 'WARNING' not in done.stderr
  assert tf.train.latest_checkpoint(str(folder)) == str(
      folder / 'model.ckpt-3')
  with open(str(folder / 'model_options.json')) as content:
    written = json.load(content)
  assert written['model']['decoder_output_stride'] == [4]
  assert written['optimizer'] == 'momentum'


def test_summaries_have_the_expected_tags(trained):
  values = event_values(trained[0])
  for tag in ('losses/softmax_cross_entropy', 'learning_rate', 'total_loss',
              'global_step/sec'):
    assert values[tag].HasField('simple_value'), sorted(values)
  assert values['MobilenetV2/Conv/weights'].HasField('histo')
  assert sum(value.HasField('histo') for value in values.values()) > 50
  for name in ('image', 'label', 'prediction'):
    assert values['samples/{}/image/0'.format(name)].HasField('image')


def test_last_layers_are_initialized_on_request(adam, diverged):
  restored, count = variables_restored(adam[1])
  assert restored == count
  assert variables_restored(diverged) == (count - 42, count)
  assert ('(newly initialized: aspp0, concat_projection, decoder, '
          'image_pooling, logits)' in diverged.stderr)


def variables_restored(done):
  return tuple(map(int, re.search(
      r'restored (\d+)/(\d+) model variables', done.stderr).groups()))


def test_a_loss_that_is_not_finite_names_batch_and_checkpoint(diverged):
  line = diverged.stderr.strip().splitlines()[-1]
  assert line.startswith('ERROR train.py: loss is inf or NaN at step ')
  assert 'ADE_train_000000' in line and 'learning rate' in line
  assert 'last finite loss' in line and 'model.ckpt-0 kept' in line
  assert 'Traceback' not in diverged.stderr


def test_runs_that_cannot_start_are_refused(data, trained, tmp_path):
  def refused(*more, logdir=None):
    return refusal('train.py', *train_arguments(
        data, logdir or tmp_path / 'log', 3, *more))

  assert 'already at step 3; raise --training_number_of_steps=3' in refused(
      logdir=trained[0])
  assert '--optimizer: was momentum, now adam' in refused(
      '--optimizer=adam', '--training_number_of_steps=9', logdir=trained[0])
  assert 'no checkpoint there' in refused(
      '--tf_initial_checkpoint={}'.format(tmp_path / 'none' / 'model.ckpt'))
  assert 'no train-' in refused('--dataset_dir={}'.format(tmp_path))
  assert not os.path.exists(str(tmp_path / 'log' / 'checkpoint'))


def test_a_damaged_shard_is_named(data, tmp_path):
  for name in os.listdir(data):
    with open(os.path.join(data, name), 'rb') as content:
      shard = bytearray(content.read())
    if name == constants.shard_name('train', 1):
      shard[40] ^= 255
    (tmp_path / name).write_bytes(bytes(shard))
  line = refusal('train.py', *train_arguments(
      str(tmp_path), tmp_path / 'log', 9))
  assert 'train-00001-of-00004.tfrecord: record 0' in line


# --- Evaluation ------------------------------------------------------------


def result_of(done):
  return json.loads(done.stdout.splitlines()[-1][len('RESULT '):])


def test_checkpoint_and_frozen_graph_have_the_same_scores(
    data, evaluated, frozen):
  folder, done = evaluated
  scripts.run('eval_pb.py', '--pb=' + frozen, '--dataset_dir=' + data,
              '--eval_crop_size=' + CROP, *SIZE,
              '--report_json={}'.format(folder / 'pb.json'),
              '--eval_logdir={}'.format(folder / 'log'))
  reports = {}
  for name in ('ckpt', 'pb'):
    with open(str(folder / (name + '.json'))) as content:
      reports[name] = json.load(content)
  ckpt = reports['ckpt']
  assert ckpt['confusion_matrix'] == reports['pb']['confusion_matrix']
  assert ckpt['images'] == 3 and ckpt['step'] == 3
  assert ckpt['path'].endswith('model.ckpt-3')
  assert reports['pb']['path'] == frozen
  assert result_of(done)['miou'] == ckpt['miou']
  # TensorBoard shows the scores of a graph as a separate run.
  for name in ('log', 'log/pb'):
    values = event_values(folder / name)
    seen = [entry for entry in ckpt['classes'][1:] if entry['iou'] is not None]
    assert len(values) == 1 + 32 + len(seen) + 1
    assert values['eval/miou_1.0_overall'].simple_value == pytest.approx(
        ckpt['miou'], rel=1e-6)
    for index, entry in enumerate(ckpt['classes']):
      value = values['eval/miou_1.0_class_{}'.format(index)].simple_value
      assert np.isnan(value) == (entry['iou'] is None)
  with Image.open(str(folder / 'vis' / 'predictions.png')) as sheet:
    assert sheet.width > 3 * 65 and sheet.height > 2 * 65


def test_geometry_flags_change_the_evaluation(data, evaluated, trained):
  results = [result_of(evaluated[1]), result_of(run(
      'eval.py', *eval_arguments(data, trained[0], '--min_resize_value=33')))]
  assert len({(result['geometry'], result['pixel_accuracy'])
              for result in results}) == 2


def test_evaluations_with_wrong_inputs_are_refused(
    data, trained, frozen, tmp_path):
  def refused(*more):
    return refusal('eval.py', *eval_arguments(data, trained[0], *more))

  assert ('--decoder_output_stride: checkpoint was trained with 4, got None'
          in refused('--decoder_output_stride='))
  assert 'no checkpoint' in refused('--checkpoint_dir={}'.format(tmp_path))
  assert 'no val-' in refused('--dataset_dir={}'.format(tmp_path))
  assert 'has no node Input' in scripts.refusal(
      'eval_pb.py', '--dataset_dir=' + data, '--eval_crop_size=' + CROP,
      '--pb=' + frozen, '--input_node=Input')
