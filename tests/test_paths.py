"""Tests every flag for a file or folder with other things in its place."""
import importlib.util
import itertools
import os
import shutil

import numpy as np
from PIL import Image
import pytest
import tensorflow.compat.v1 as tf

from deeplab.cli import runner
from deeplab.cli import script_flags
from deeplab.config.options import BuildOptions
from deeplab.data import builder
from tests import flag_groups
from tests import scripts
from tests.models.test_lite_model_file import model_bytes
from tests.test_security import make_graph

# Replacements for an input; the first list has neither files nor folders.
NO_INPUT = ('missing', 'in a file', 'pipe', 'device', 'empty file')
OTHER_INPUT = ('text', 'empty folder')
NO_OUTPUT = ('in a file', 'pipe', 'device')
NODES = ['--input_node=in', '--output_node=out']
READS_RECORDS = ['--dataset_dir=records', '--eval_crop_size=33,33']
# For each script: arguments of a valid run, flags that are read, and flags that
# are written.
TABLE = {
    'build_ade20k_data.py': (
        ['--val_image_folder=images', '--val_image_label_folder=labels',
         '--output_dir=out'],
        ['val_image_folder', 'val_image_label_folder'], ['output_dir']),
    'gen_preprocessed_data.py': (
        READS_RECORDS + ['--image_list=list', '--preprocessed_dataset_dir=out'],
        ['dataset_dir', 'image_list'],
        ['preprocessed_dataset_dir', 'manifest']),
    'train.py': (
        ['--dataset_dir=records', '--train_split=val', '--train_logdir=out',
         '--train_crop_size=33,33', '--tf_initial_checkpoint=checkpoints',
         '--fine_tune_batch_norm=false', '--train_batch_size=1'],
        ['dataset_dir'], ['train_logdir', 'profile_logdir']),
    'eval.py': (
        READS_RECORDS + [
            '--checkpoint_dir=checkpoints', '--max_number_of_evaluations=1'],
        ['dataset_dir', 'checkpoint_dir'],
        ['eval_logdir', 'report_json', 'vis_dir']),
    'eval_pb.py': (
        READS_RECORDS + ['--pb=graph'] + NODES, ['dataset_dir', 'pb'],
        ['eval_logdir', 'report_json', 'vis_dir']),
    'export_model.py': (
        ['--checkpoint_path=checkpoints', '--export_path=out',
         '--crop_size=33', '--crop_size=33'],
        ['checkpoint_path'], ['export_path']),
    'scripts/convert_tflite.py': (
        ['--graph_def=graph', '--mode=float', '--out_tflite=out'] + NODES,
        ['graph_def'], ['out_tflite']),
    'post_training_quant.py': (
        ['--graph_def=graph', '--out_tflite=out', '--dataset_dir=images',
         '--input_type=uint8', '--sample_num=1'] + NODES,
        ['graph_def', 'dataset_dir'], ['out_tflite']),
    'segmentation_inference_eval_seg_tflite.py': (
        ['--net_file=tflite', '--test_dir=images', '--val_label_dir=labels'],
        ['net_file', 'test_dir', 'val_label_dir'], ['report_json', 'vis_dir']),
    'scripts/loadgen.py': (
        ['--model=tflite', '--test_dir=images', '--val_label_dir=labels',
         '--output_dir=out'],
        ['model', 'test_dir', 'val_label_dir'], ['output_dir']),
    'scripts/score_accuracy_log.py': (
        ['--accuracy_log=log', '--test_dir=images', '--val_label_dir=labels'],
        ['accuracy_log', 'test_dir', 'val_label_dir'], ['report_json']),
    'scripts/rebuild_checkpoint.py': (
        ['--tflite=tflite', '--output_dir=out'], ['tflite'], []),
    'scripts/stage_table.py': ([], ['report'], []),
    'scripts/make_synthetic_ade20k.py': (
        ['--train_images=1', '--val_images=1', '--size=64'], [],
        ['output_dir']),
}


def cases(place, kinds):
  """Yields (script, flag, kind): every flag once, the kinds in turn."""
  turn = itertools.cycle(kinds)
  return [(script, flag, next(turn))
          for script in TABLE for flag in TABLE[script][place]]


@pytest.fixture(scope='module')
def home(tmp_path_factory):
  """Makes a folder with a valid input of each kind, and invalid ones."""
  home = tmp_path_factory.mktemp('paths')
  for folder in ('images', 'labels', 'checkpoints', 'empty folder'):
    (home / folder).mkdir()
  pixels = np.ones([33, 33, 3], np.uint8)
  Image.fromarray(pixels).save(str(home / 'images' / 'img_0.png'))
  Image.fromarray(pixels[..., 0]).save(str(home / 'labels' / 'img_0.png'))
  builder.build([BuildOptions(
      split='val', image_folder=str(home / 'images'),
      label_folder=str(home / 'labels'), output_dir=str(home / 'records'))])
  with tf.Graph().as_default(), tf.Session() as session:
    tf.get_variable('weights', [1])
    session.run(tf.global_variables_initializer())
    tf.train.Saver().save(session, str(home / 'checkpoints' / 'model.ckpt'), 1)
  (home / 'graph').write_bytes(
      make_graph(shape=(1, 33, 33, 3)).SerializeToString())
  (home / 'tflite').write_bytes(model_bytes())
  (home / 'list').write_text('img_0.png\n')
  (home / 'text').write_text('text')
  (home / 'empty file').write_text('')
  os.mkfifo(str(home / 'pipe'))
  return home


PATHS = {'in a file': 'text/x', 'device': '/dev/null'}


def reason(home, monkeypatch, script, flag, path):
  """Runs a script's main in `home`; returns its error message."""
  monkeypatch.chdir(home)
  specification = importlib.util.spec_from_file_location(
      'script', os.path.join(scripts.REPOSITORY, script))
  module = importlib.util.module_from_spec(specification)
  specification.loader.exec_module(module)
  value = 'stage=' + path if flag == 'report' else path
  values = flag_groups.parsed(
      script, *TABLE[script][0] + ['--{}={}'.format(flag, value)])
  before = sorted(os.listdir(str(home)))
  with pytest.raises(Exception) as caught:
    module.main(**script_flags.SCRIPTS[script].arguments(values))
  line = runner.reason_of(caught.value, values)
  assert line and '\n' not in line and '[Errno' not in line, caught.value
  # Only a folder for outputs may be new.
  shutil.rmtree('out', ignore_errors=True)
  assert sorted(os.listdir(str(home))) == before
  return line


@pytest.mark.parametrize('script, flag, kind', cases(1, NO_INPUT))
def test_inputs_that_cannot_be_read_are_refused(
    home, monkeypatch, script, flag, kind):
  path = PATHS.get(kind, kind)
  line = reason(home, monkeypatch, script, flag, path)
  assert '--' + flag in line or line.startswith(path + ': '), line
  assert path in line


@pytest.mark.parametrize('script, flag, kind', cases(1, OTHER_INPUT))
def test_inputs_of_another_kind_are_refused(
    home, monkeypatch, script, flag, kind):
  assert reason(home, monkeypatch, script, flag, kind)


@pytest.mark.parametrize('script, flag, kind', cases(2, NO_OUTPUT))
def test_outputs_that_cannot_be_written_are_refused(
    home, monkeypatch, script, flag, kind):
  path = PATHS.get(kind, kind)
  line = reason(home, monkeypatch, script, flag, path)
  assert '--{}={}'.format(flag, path) in line
