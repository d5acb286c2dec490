"""Runs commands of docs/shards_and_cloud.md, and the benchmark's, in bash.

gs:// is replaced by ram://, TensorFlow's file system in memory. Only outputs go
there, because each command is another process.
"""
import json

import numpy as np
from PIL import Image
import pytest
import tensorflow.compat.v1 as tf

from deeplab.config import options
from deeplab.nets import deeplab_v3
from tests import lite_models
from tests import readme
from tests import scripts

pytestmark = [pytest.mark.extended, pytest.mark.modern]
TWO = (('in 0 1 2 3', 'in 0 1'), ('num_shards=4', 'num_shards=2'))
SMALL = (('512,512', '65,65'), ('_resize_value=512', '_resize_value=64'))
IMAGES = {'train': 3, 'val': 5}


@pytest.fixture(scope='module')
def shell(tmp_path_factory):
  return readme.Shell(tmp_path_factory.mktemp('scaling'), is_shallow=True)


@pytest.fixture(scope='module')
def folders(shell):
  """Variables of the page's commands that build records."""
  scripts.run('scripts/make_synthetic_ade20k.py', '--size=64',
              '--train_images={}'.format(IMAGES['train']),
              '--val_images={}'.format(IMAGES['val']),
              '--output_dir={}'.format(shell.folder))
  source = shell.folder / 'ADEChallengeData2016'
  return {'{}_{}_FOLDER'.format(split, name): source / kind / folder
          for split, folder in (('TRAIN', 'training'), ('VAL', 'validation'))
          for name, kind in (('IMAGE', 'images'), ('LABEL', 'annotations'))}


@pytest.fixture(scope='module')
def records(shell, folders):
  output = shell.folder / 'records'
  scripts.run('build_ade20k_data.py', '--output_dir={}'.format(output), *(
      '--{}={}'.format(name.lower().replace(
          'label_folder', 'image_label_folder'), path)
      for name, path in folders.items()))
  return output


@pytest.fixture(scope='module')
def checkpoint(shell, shallow_module):
  prefix = shell.folder / 'pretrained' / 'model.ckpt'
  prefix.parent.mkdir()
  with tf.Graph().as_default(), tf.Session() as session:
    deeplab_v3.logits(tf.zeros([1, 65, 65, 3]), options.ModelOptions(
        crop_size=(65, 65), decoder_output_stride=(4,)))
    session.run(tf.global_variables_initializer())
    tf.train.Saver().save(session, str(prefix))
  return prefix


def test_reports_of_shards_are_merged(shell):
  """test_lite_evaluation.py shows that merged shards equal a single run."""
  folder = shell.folder / 'preprocessed'
  for kind, shape in (('images', (65, 65, 3)), ('annotations', (65, 65))):
    (folder / kind).mkdir(parents=True)
    for number in range(5):
      Image.fromarray(np.full(shape, number, np.uint8)).save(
          str(folder / kind / 'img_{}.png'.format(number)))
  model = shell.folder / 'm.tflite'
  model.write_bytes(lite_models.argmax_model((65, 65)))
  shell.run_documented(
      'shards_and_cloud.md', 'for K in 0 1 2 3; do\n  python seg', changes=TWO,
      NET_FILE=model, OUTPUT_DIR=folder)
  printed = shell.run_documented(
      'shards_and_cloud.md', 'python scripts/merge_reports.py')
  assert '"images": 5' in printed
  assert json.loads((shell.folder / 'report.json').read_text())['images'] == 5


def test_outputs_may_be_remote(shell, folders, records, checkpoint):
  gs = 'gs://my-bucket'
  printed = shell.run_documented(
      'shards_and_cloud.md', 'python build_ade20k_data.py', changes=((gs, 'ram://b'),),
      **folders)
  assert 'val: 5 pairs in 4 shards in ram://b/records' in printed
  printed = shell.run_documented(
      'shards_and_cloud.md', 'python train.py', changes=SMALL + (
      ('number_of_steps=200000', 'number_of_steps=1'),
      ('train_batch_size=4', 'train_batch_size=2'),
      (gs + '/pretrained', str(checkpoint)), (gs + '/records', str(records)),
      (gs + '/train', 'ram://b/train')))
  assert '--train_logdir=ram://b/train: no lock' in printed
  assert 'ram://b/train/model.ckpt-1' in printed
  printed = shell.run_documented(
      'shards_and_cloud.md', 'python eval.py', changes=SMALL + (
      (gs + '/records', str(records)),
      (gs + '/train', str(checkpoint.parent)), (gs + '/log', 'ram://b/log'),
      (gs + '/report.json', 'ram://b/report.json')))
  assert printed.splitlines()[-1].startswith('RESULT {')


def test_the_benchmark_of_cores_runs(shell):
  printed = shell.run_documented(
      'scaling.md', 'python scripts/benchmark.py', changes=(
          ('cores,hosts', 'cores'), ('--rounds=1', '--quick')))
  assert '2 cases in ' in printed and ', 0 failed' in printed
