"""Checkpoints, graphs and records go from one TensorFlow to another and back.

Run in .venvs/tf1; the other side is .venvs/modern.
"""
import json
import os
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from deeplab.lite import model_file
from tests import scripts

pytestmark = [pytest.mark.extended, pytest.mark.tf1]

SIZE = ['--min_resize_value=65', '--max_resize_value=65', '--resize_factor=16']
MODEL = ['--decoder_output_stride=4']
QUANTIZED = '--quantize_delay_step=0'
WEIGHTS = 2238576


@pytest.fixture(scope='module')
def pythons():
  """Dict from environment to interpreter."""
  return {'tf1': sys.executable, 'modern': scripts.python_of('modern')}


@pytest.fixture(scope='module')
def data(pythons, tmp_path_factory):
  """TFRecords that the modern environment wrote."""
  folder = tmp_path_factory.mktemp('data')
  scripts.run('scripts/make_synthetic_ade20k.py', '--train_images=4',
              '--val_images=3', '--size=80', '--output_dir=' + str(folder))
  source = folder / 'ADEChallengeData2016'
  records = []
  for name, python in pythons.items():
    output = folder / name
    records.append(output)
    scripts.run('build_ade20k_data.py', '--output_dir={}'.format(output), *[
        '--{}_image{}_folder={}'.format(
            split, '' if kind == 'images' else '_label', source / kind / long)
        for split, long in (('train', 'training'), ('val', 'validation'))
        for kind in ('images', 'annotations')], python=python)
  for shard in records[0].glob('*.tfrecord'):
    assert shard.read_bytes() == (records[1] / shard.name).read_bytes()
  return str(records[1])


def train(python, data, logdir, steps, *more):
  return scripts.run(
      'train.py', '--dataset_dir=' + data, '--train_logdir={}'.format(logdir),
      '--training_number_of_steps={}'.format(steps), '--train_batch_size=2',
      '--train_crop_size=65,65', '--seed=1', *SIZE, *MODEL, *more,
      python=python)


def evaluate(python, data, checkpoint, *more):
  """Returns the report of eval.py."""
  path = os.path.join(str(checkpoint), 'report.json')
  scripts.run(
      'eval.py', '--dataset_dir=' + data, '--report_json=' + path,
      '--checkpoint_dir={}'.format(checkpoint), '--eval_crop_size=65,65',
      '--max_number_of_evaluations=1', *SIZE, *MODEL, *more, python=python)
  with open(path) as content:
    return json.load(content)


def evaluate_graph(python, data, path):
  report = path + '.report.json'
  scripts.run('eval_pb.py', '--dataset_dir=' + data, '--pb=' + path,
              '--eval_crop_size=65,65', '--report_json=' + report, *SIZE,
              python=python)
  with open(report) as content:
    return json.load(content)


def agree(one, other, share):
  """Whether two reports of the same images count the same, nearly."""
  matrices = [np.array(report['confusion_matrix']) for report in (one, other)]
  assert matrices[0].sum() == matrices[1].sum() > 0
  moved = np.abs(matrices[0] - matrices[1]).sum() / 2
  assert moved <= share * matrices[0].sum()


def test_a_float_run_changes_its_tensorflow_and_back(pythons, data, tmp_path):
  with open(os.path.join(scripts.REPOSITORY, 'tests', 'golden',
                         'variables_float.json')) as published:
    names = {entry['name'] for entry in json.load(published)
             if not entry['name'].endswith(('/Adam', '/Adam_1'))}
  for step, name in enumerate(('tf1', 'modern', 'tf1'), 1):
    done = train(pythons[name], data, tmp_path, step)
    assert step == 1 or 'RESUMING from step {}'.format(step - 1) in done.stderr
    written = {name.replace('/Momentum', '') for name, unused_shape
               in tf.train.list_variables(str(tmp_path))}
    assert written <= names and 'global_step' in written
  reports = {name: evaluate(python, data, tmp_path)
             for name, python in pythons.items()}
  assert reports['tf1']['step'] == reports['modern']['step'] == 3
  agree(reports['tf1'], reports['modern'], 0.001)
  scripts.run('export_model.py', '--checkpoint_path={}'.format(tmp_path),
              '--export_path={}'.format(tmp_path), '--train_crop_size=65,65',
              *MODEL, python=pythons['modern'])
  agree(evaluate_graph(pythons['tf1'], data, str(tmp_path / 'freeze.pb')),
        reports['tf1'], 0.001)


def test_a_quantized_run_goes_to_the_other_tensorflow_and_back(
    pythons, data, tmp_path):
  with open(os.path.join(scripts.REPOSITORY, 'tests', 'golden',
                         'variables_qat.json')) as published:
    names = {entry['name'] for entry in json.load(published)}
  for step, name in enumerate(['modern', 'tf1'], 1):
    train(pythons[name], data, tmp_path, step, QUANTIZED)
    assert {name for name, unused_shape in tf.train.list_variables(
        str(tmp_path))} == names
  report = evaluate(pythons['modern'], data, tmp_path, QUANTIZED)
  assert (report['step'], report['images']) == (2, 3)


def test_a_modern_export_regenerates_the_published_quantized_file(
    pythons, reference_dir, tmp_path):
  published = model_file.read(os.path.join(reference_dir, 'freeze_qat.tflite'))
  scripts.run(
      'export_model.py', '--export_path={}'.format(tmp_path), QUANTIZED,
      '--checkpoint_path=' + os.path.join(reference_dir, 'checkpoint_qat'),
      '--train_crop_size=512,512', *MODEL, python=pythons['modern'])
  for name, python in pythons.items():
    scripts.run(
        'scripts/convert_tflite.py', '--mode=qat',
        '--graph_def={}'.format(tmp_path / 'freeze.pb'),
        '--out_tflite={}'.format(tmp_path / name), python=python)
  ours = model_file.read(str(tmp_path / 'tf1'))
  assert ours.operators == published.operators
  assert (tmp_path / 'tf1').stat().st_size == pytest.approx(2348952, abs=16)
  for mine, theirs in zip(ours.tensors, published.tensors):
    assert mine[:3] == theirs[:3]  # name, shape and dtype
    assert mine.zero_points == theirs.zero_points
    np.testing.assert_allclose(mine.scales, theirs.scales, rtol=2e-7)
    np.testing.assert_array_equal(mine.data, theirs.data)
  # The newer converter orders operators and names tensors differently.
  newer = model_file.read(str(tmp_path / 'modern'))
  assert newer.operation_counts() == published.operation_counts()
  assert sorted_weights(newer) == sorted_weights(published)


def sorted_weights(model):
  """Contents of all convolutions' weights, in an order of their own."""
  weights = [model.tensors[operator.inputs[1]].data
             for operator in model.operators
             if operator.kind in ('CONV_2D', 'DEPTHWISE_CONV_2D')]
  assert sum(values.size for values in weights) == WEIGHTS
  return sorted(values.tobytes() for values in weights)
