"""Moves checkpoints, graphs and records between TensorFlow versions.

The tests run in .venvs/tf1; the other side is .venvs/modern.
"""
import json
import os
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from deeplab.config import options
from deeplab.data import builder
from deeplab.data import synthetic
from deeplab.export import tflite_conversion
from deeplab.models import tflite
from tests import scripts

pytestmark = [pytest.mark.extended, pytest.mark.tf1]

SIZE = ['--min_resize_value=65', '--max_resize_value=65', '--resize_factor=16']
MODEL = ['--decoder_output_stride=4']
QUANTIZED = '--quantize_delay_step=0'


@pytest.fixture(scope='module')
def pythons():
  """A dict from environment to interpreter."""
  return {'tf1': sys.executable, 'modern': scripts.python_of('modern')}


@pytest.fixture(scope='module')
def data(pythons, tmp_path_factory):
  """TFRecords of the modern environment, equal to those of this one."""
  folder = tmp_path_factory.mktemp('data')
  synthetic.make_dataset(options.SyntheticOptions(
      output_dir=str(folder), train_images=4, val_images=3, long_side=80))
  source = folder / 'ADEChallengeData2016'
  folders = {
      split: [str(source / kind / long) for kind in ('images', 'annotations')]
      for split, long in (('train', 'training'), ('val', 'validation'))}
  builder.build([
      options.BuildOptions(
          split=split, image_folder=images, label_folder=labels,
          output_dir=str(folder / 'tf1'))
      for split, (images, labels) in folders.items()])
  scripts.run(
      'build_ade20k_data.py', '--output_dir={}'.format(folder / 'modern'), *[
          '--{}_image{}_folder={}'.format(split, kind, path)
          for split, paths in folders.items()
          for kind, path in zip(('', '_label'), paths)],
      python=pythons['modern'])
  for shard in (folder / 'tf1').glob('*.tfrecord'):
    assert shard.read_bytes() == (folder / 'modern' / shard.name).read_bytes()
  return str(folder / 'modern')


def train(python, data, logdir, steps, *more):
  return scripts.run(
      'train.py', '--dataset_dir=' + data, '--train_logdir={}'.format(logdir),
      '--training_number_of_steps={}'.format(steps), '--train_batch_size=2',
      '--train_crop_size=65,65', '--seed=1', *SIZE, *MODEL, *more,
      python=python, is_shallow=True)


def evaluate(python, data, checkpoint, *more):
  """Returns the report of eval.py."""
  path = os.path.join(str(checkpoint), 'report.json')
  scripts.run(
      'eval.py', '--dataset_dir=' + data, '--report_json=' + path,
      '--checkpoint_dir={}'.format(checkpoint), '--eval_crop_size=65,65',
      '--max_number_of_evaluations=1', *SIZE, *MODEL, *more, python=python,
      is_shallow=True)
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
  """Asserts that two reports of the same images have nearly equal counts."""
  matrices = [np.array(report['confusion_matrix']) for report in (one, other)]
  assert matrices[0].sum() == matrices[1].sum() > 0
  moved = np.abs(matrices[0] - matrices[1]).sum() / 2
  assert moved <= share * matrices[0].sum()


def variables_of(kind):
  """Returns the names in a published checkpoint, without Adam's."""
  with open(os.path.join(scripts.REPOSITORY, 'tests', 'golden',
                         'variables_{}.json'.format(kind))) as published:
    return {entry['name'] for entry in json.load(published)
            if not entry['name'].endswith(('/Adam', '/Adam_1'))}


def names_in(folder):
  return {name for name, unused_shape in tf.train.list_variables(str(folder))}


def test_training_moves_between_tensorflow_versions(pythons, data, tmp_path):
  floats, quantized = tmp_path / 'float', tmp_path / 'quantized'
  train(pythons['tf1'], data, floats, 1)
  written = {name.replace('/Momentum', '') for name in names_in(floats)}
  assert written <= variables_of('float') and 'global_step' in written
  reports = {name: evaluate(python, data, floats)
             for name, python in pythons.items()}
  assert reports['tf1']['step'] == reports['modern']['step'] == 1
  agree(reports['tf1'], reports['modern'], 0.001)
  scripts.run('export_model.py', '--checkpoint_path={}'.format(floats),
              '--export_path={}'.format(floats), '--train_crop_size=65,65',
              *MODEL, python=pythons['modern'], is_shallow=True)
  agree(evaluate_graph(pythons['tf1'], data, str(floats / 'freeze.pb')),
        reports['tf1'], 0.001)

  train(pythons['modern'], data, quantized, 1, QUANTIZED,
        '--tf_initial_checkpoint={}'.format(
            tf.train.latest_checkpoint(str(floats))))
  written = names_in(quantized)
  assert written <= variables_of('qat') and len(written) > 200
  done = train(pythons['tf1'], data, quantized, 2, QUANTIZED)
  assert 'RESUMING from step 1' in done.stderr
  assert names_in(quantized) == written


def test_a_modern_export_reproduces_the_published_quantized_file(
    pythons, reference_dir, tmp_path):
  """test_lite_conversion.py checks the result of the modern converter."""
  published = tflite.read(os.path.join(reference_dir, 'freeze_qat.tflite'))
  scripts.run(
      'export_model.py', '--export_path={}'.format(tmp_path), QUANTIZED,
      '--checkpoint_path=' + os.path.join(reference_dir, 'checkpoint_qat'),
      '--train_crop_size=512,512', *MODEL, python=pythons['modern'])
  path = str(tmp_path / 'freeze_qat.tflite')
  tflite_conversion.convert(options.ConversionOptions(
      graph_def=str(tmp_path / 'freeze.pb'), out_tflite=path, mode='qat'))
  ours = tflite.read(path)
  assert ours.operators == published.operators
  assert os.path.getsize(path) == pytest.approx(2348952, abs=16)
  for mine, theirs in zip(ours.tensors, published.tensors):
    assert mine[:3] == theirs[:3]  # name, shape and dtype
    assert mine.zero_points == theirs.zero_points
    np.testing.assert_allclose(mine.scales, theirs.scales, rtol=2e-7)
    np.testing.assert_array_equal(mine.data, theirs.data)
