"""Runs the example of docs/own_data.md in bash, as documented.

Commands run in order, in one folder, with less data and a smaller crop.
"""
import json
import os
import re

import pytest
import tensorflow.compat.v1 as tf

from deeplab.config import label_map
from deeplab.config import options
from deeplab.nets import deeplab_v3
from tests import golden_weights
from tests import readme
from tests import scripts

pytestmark = pytest.mark.extended

CROP = (('129', '65'),)
NAMES = ('other', 'structure', 'ground')


def pretrained(folder):
  """Writes a checkpoint of 32 classes; returns its prefix."""
  with tf.Graph().as_default(), tf.Session() as session:
    deeplab_v3.logits(tf.zeros([1, 65, 65, 3]), options.ModelOptions(
        crop_size=(65, 65), decoder_output_stride=(4,)))
    golden_weights.load(session, tf.global_variables())
    os.mkdir(folder)
    return tf.train.Saver().save(session, os.path.join(folder, 'model.ckpt'))


@pytest.fixture(scope='module')
def printed(shallow_module, tmp_path_factory):
  """(folder, dict from step to the output of its command)."""
  shell = readme.Shell(tmp_path_factory.mktemp('own'), is_shallow=True)
  modern = scripts.python_of('modern')
  shell.run_documented(
      'own_data.md', 'python scripts/make_synthetic_ade20k.py', changes=[
          ('painted', 'painted --train_images=4 --val_images=2 --size=96')])
  shell.run_documented('own_data.md', 'cat > classes.csv')
  outputs = {
      'build': shell.run_documented(
          'own_data.md', 'python build_ade20k_data.py'),
      'train': shell.run_documented(
          'own_data.md', 'python train.py \\\n  --dataset_dir=records '
          '--train_logdir=trained \\', changes=CROP + (
              ('_steps=200', '_steps=1'), ('batch_size=4', 'batch_size=2')),
          PRETRAINED_CKPT_FILE=pretrained(str(shell.folder / 'pretrained'))),
      'eval': shell.run_documented(
          'own_data.md', 'python eval.py', changes=CROP),
      'export': shell.run_documented(
          'own_data.md', 'python export_model.py \\\n  '
          '--checkpoint_path=trained --export_path=exported \\', changes=CROP),
      'eval_pb': shell.run_documented(
          'own_data.md', 'python eval_pb.py', changes=CROP),
      'images': shell.run_documented(
          'own_data.md', 'python gen_preprocessed_data.py \\\n  '
          '--dataset_dir=records --preprocessed_dataset_dir=preprocessed',
          changes=CROP),
      'convert': shell.run_documented(
          'own_data.md', 'python scripts/convert_tflite.py \\\n  '
          '--graph_def=exported/freeze.pb'),
      'eval_tflite': shell.run_documented(
          'own_data.md', 'python segmentation_inference_eval_seg_tflite.py')}
  shell.run_documented(
      'own_data.md', 'python gen_preprocessed_data.py \\\n  '
      '--dataset_dir=records --preprocessed_dataset_dir=calibration',
      changes=CROP)
  shell.run_documented(
      'own_data.md', '# tf2 or modern\npython post_training_quant.py',
      changes=[('=40', '=4')], python=modern)
  shell.run_documented(
      'own_data.md', '# modern\npython export_model.py', changes=CROP,
      python=modern)
  shell.run_documented(
      'own_data.md', 'python train.py \\\n  --dataset_dir=records '
      '--train_logdir=trained_qat', changes=CROP + (
          ('_steps=100', '_steps=1'), ('batch_size=4', 'batch_size=2')))
  shell.run_documented(
      'own_data.md', 'python export_model.py \\\n  '
      '--checkpoint_path=trained_qat', changes=CROP)
  shell.run_documented(
      'own_data.md', 'python scripts/convert_tflite.py \\\n  '
      '--graph_def=exported_qat/freeze.pb')
  return shell.folder, outputs


def rows_in(output):
  """Returns the names of classes in a report's table."""
  return tuple(re.findall(r'^ +\d+  (\w+) +\d+\.\d+ %', output, re.M))


def test_evaluations_show_the_own_classes(printed):
  folder, outputs = printed
  for step in ('eval', 'eval_pb', 'eval_tflite'):
    assert rows_in(outputs[step]) == NAMES, outputs[step]
  assert 'every id that classes.csv does not list' in outputs['build']
  with open(str(folder / 'report.json')) as report:
    content = json.load(report)
  assert [one['name'] for one in content['classes']] == list(NAMES)
  assert len(content['confusion_matrix']) == 3
  assert (folder / 'pictures' / 'predictions.png').exists()


def test_every_file_of_the_table_has_the_label_map(printed):
  folder, _ = printed
  wanted = label_map.read(str(folder / 'classes.csv'))
  for path, *keys in (('records/train.json',), ('records/val.json',),
                      ('trained/model_options.json', 'model'),
                      ('exported/freeze.json', 'model'),
                      ('exported_onnx/freeze.json', 'model'),
                      ('model.tflite.json',), ('model_ptq.tflite.json',),
                      ('model_qat.tflite.json',),
                      ('preprocessed/manifest.json',)):
    with open(str(folder / path)) as stored:
      content = json.load(stored)
    for key in keys:
      content = content[key]
    assert label_map.from_json(content['label_map']) == wanted, path


def test_both_forms_of_the_label_map_are_equal(tmp_path):
  text, json_text = readme.code_blocks(readme.read(
      'docs', 'own_data.md').split('\n## The label map\n')[1].split(
          '\n## ')[0])
  for name, content in (('a', text), ('b', json_text)):
    (tmp_path / name).write_text(content)
  assert label_map.read(str(tmp_path / 'a')) == label_map.read(
      str(tmp_path / 'b'))


def test_the_documented_error_is_printed(printed):
  folder, _ = printed
  line = scripts.refusal(
      'eval.py', '--dataset_dir=records',
      '--checkpoint_dir=' + golden_folder(folder), '--eval_crop_size=65,65',
      '--decoder_output_stride=4', '--max_number_of_evaluations=1',
      cwd=str(folder), is_shallow=True)
  assert line in readme.code_blocks(readme.read('docs', 'own_data.md'))[-1]


def golden_folder(folder):
  """Makes the pretrained checkpoint one of ADE20K's classes."""
  with open(str(folder / 'pretrained' / 'model_options.json'), 'w') as out:
    json.dump({'model': options.to_json(options.ModelOptions(
        crop_size=(65, 65), decoder_output_stride=(4,))),
        'optimizer': 'adam'}, out)
  return 'pretrained'
