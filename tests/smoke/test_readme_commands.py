"""Runs the README's commands in bash, as documented.

They run in order, on generated images, with their variables set in the
environment. Only numbers are lowered: training steps, images, and sizes.
"""
import collections
import glob
import json
import os
import re
import signal
import time

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab.config import options
from deeplab.models import tflite
from deeplab.nets import deeplab_v3
from tests import readme
from tests import scripts
from tests.export import test_export

# The scripts in the commands of each section.
COMMANDS = {
    'Data Generation': ['build_ade20k_data.py'],
    'Train': ['train.py'],
    'Evaluation': ['eval.py', 'export_model.py', 'eval_pb.py',
                   'gen_preprocessed_data.py',
                   'segmentation_inference_eval_seg_tflite.py'],
    'Quantization-aware training': ['train.py', 'scripts/convert_tflite.py'],
    'Post-training quantization': ['gen_preprocessed_data.py',
                                   'post_training_quant.py'],
}
TRAIN_IMAGES, VAL_IMAGES = 4, 2
LOWERED = {'training_number_of_steps': 1, 'train_batch_size': 2,
           'sample_num': TRAIN_IMAGES, 'train_crop_size': '65,65',
           'eval_crop_size': '65,65', 'min_resize_value': 64,
           'max_resize_value': 64}


class Shell(readme.Shell):
  """Runs the README's commands, by section and script."""

  def start(self, chapter, script, *more, **options):
    """Starts a section's command for a script, with more arguments.

    Args:
      chapter: heading in the README.
      script: path of the script.
      *more: arguments to add.
      **options: see start_text.
    """
    command, = (
        command for command in readme.python_commands(readme.section(chapter))
        if readme.words_of(command)[1] == script)
    for flag, value in LOWERED.items():
      command = re.sub(r'(--{}=["\']?)[\d,]+'.format(flag),
                       r'\g<1>{}'.format(value), command)
    return self.start_text(
        'exec ' + ' '.join((command.rstrip(),) + more), **options)

  def run(self, chapter, script, *more, **options):
    """Runs the command to its end; returns its output."""
    return self.finished(self.start(chapter, script, *more, **options))


def result_in(output):
  line, = (line for line in output.splitlines() if line.startswith('RESULT '))
  return json.loads(line[len('RESULT '):])


def events_in(folder):
  """Returns a dict from (tag, step) to value."""
  values = collections.OrderedDict()
  for path in glob.glob(os.path.join(str(folder), 'events.*')):
    for event in tf.train.summary_iterator(path):
      for value in event.summary.value:
        values[value.tag, event.step] = value.simple_value
  return values


# --- Outputs that later commands use ---------------------------------------


@pytest.fixture(scope='module')
def shell(tmp_path_factory):
  return Shell(tmp_path_factory.mktemp('readme'))


@pytest.fixture(scope='module')
def records(shell):
  scripts.run('scripts/make_synthetic_ade20k.py', '--size=200',
              '--train_images={}'.format(TRAIN_IMAGES),
              '--val_images={}'.format(VAL_IMAGES),
              '--output_dir={}'.format(shell.folder))
  source = shell.folder / 'ADEChallengeData2016'
  shell.run('Data Generation', 'build_ade20k_data.py',
            TRAIN_IMAGE_FOLDER=source / 'images' / 'training',
            TRAIN_LABEL_FOLDER=source / 'annotations' / 'training',
            VAL_IMAGE_FOLDER=source / 'images' / 'validation',
            VAL_LABEL_FOLDER=source / 'annotations' / 'validation',
            OUTPUT_DIR=shell.folder / 'tfrecord')
  return shell.folder / 'tfrecord'


@pytest.fixture(scope='module')
def trained(shell, records):
  """(folder, output) of the training command.

  Its initial checkpoint has no decoder, like the one named in the README.
  """
  pretrained = shell.folder / 'pretrained' / 'model.ckpt'
  with tf.Graph().as_default(), tf.Session() as session:
    deeplab_v3.logits(tf.zeros([1, 65, 65, 3]), options.ModelOptions(
        crop_size=(65, 65)))
    session.run(tf.global_variables_initializer())
    pretrained.parent.mkdir()
    tf.train.Saver().save(session, str(pretrained))
  output = shell.run(
      'Train', 'train.py', PRETRAINED_CKPT_FILE=pretrained,
      OUTPUT_DIR=shell.folder / 'train', DATA_DIR=records)
  return shell.folder / 'train', output


@pytest.fixture(scope='module')
def evaluated(shell, records, trained):
  """RESULT of eval.py, which runs until it is stopped."""
  process = shell.start('Evaluation', 'eval.py', CKPT_DIR=trained[0],
                        DATA_DIR=records)
  output = ''
  for line in process.stdout:
    output += line
    if line.startswith('RESULT '):
      break
  # Events are written after that line.
  deadline = time.time() + scripts.TIMEOUT_SECS
  while not events_in(shell.folder / 'log') and process.poll() is None:
    assert time.time() < deadline, output
    time.sleep(0.2)
  still_waiting = process.poll() is None
  process.send_signal(signal.SIGTERM)
  output += scripts.output_of(process)[0]
  assert still_waiting, output
  return result_in(output)


@pytest.fixture(scope='module')
def frozen_graph(shell, trained):
  shell.run('Evaluation', 'export_model.py', CKPT_DIR=trained[0],
            PB_OUTPUT_DIR=shell.folder / 'export')
  return shell.folder / 'export' / 'freeze.pb'


# --- The float model -------------------------------------------------------


def test_all_commands_are_listed():
  found = {heading: [readme.words_of(command)[1] for command
                     in readme.python_commands(readme.section(heading))]
           for heading in re.findall('^## (.*)$', readme.read('README.md'),
                                     re.M)}
  assert {heading: names for heading, names in found.items()
          if names} == COMMANDS


@pytest.mark.extended
def test_build_and_train_commands_run(records, trained, golden_dir):
  assert sorted(path.name for path in records.glob('*.tfrecord')) == sorted(
      constants.shard_name(split, index)
      for split in constants.SPLITS for index in range(4))
  folder, output = trained
  assert (folder / 'model.ckpt-1.index').exists()
  assert (folder / 'model_options.json').exists()
  assert re.search(r'restored \d+/297 model variables .*newly initialized: '
                   '.*decoder.*logits', output)
  assert 'finished at step 1' in output
  with open(os.path.join(golden_dir, 'variables_float.json')) as content:
    published = {entry['name']: (entry['dtype'], entry['shape'])
                 for entry in json.load(content)}
  reader = tf.train.NewCheckpointReader(str(folder / 'model.ckpt-1'))
  types = reader.get_variable_to_dtype_map()
  ours = {name: (types[name].name, shape) for name, shape in
          reader.get_variable_to_shape_map().items()}
  assert len(ours) == 658
  assert ours == published


@pytest.mark.extended
def test_eval_command_runs(shell, evaluated):
  assert (evaluated['step'], evaluated['images']) == (1, VAL_IMAGES)
  assert evaluated['geometry'] == (
      'resized to 64..64, factor 16, padded to 65x65')
  assert events_in(shell.folder / 'log')[
      'eval/miou_1.0_overall', 1] == pytest.approx(evaluated['miou'])


@pytest.mark.extended
def test_export_and_eval_pb_commands_run(shell, records, evaluated,
                                         frozen_graph):
  result = result_in(shell.run(
      'Evaluation', 'eval_pb.py', PB_FILE=frozen_graph, DATA_DIR=records))
  for name in ('images', 'geometry'):
    assert result[name] == evaluated[name]
  for score in ('miou', 'pixel_accuracy'):
    assert result[score] == pytest.approx(evaluated[score], abs=1e-4)


@pytest.mark.extended
def test_tflite_evaluation_commands_run(shell, records, frozen_graph):
  shell.run('Evaluation', 'gen_preprocessed_data.py', DATA_DIR=records,
            OUTPUT_DIR=shell.folder / 'preprocessed')
  # The default path of the command.
  shell.run('Quantization-aware training', 'scripts/convert_tflite.py',
            '--mode=float', PB_FILE=frozen_graph,
            OUTPUT_TFLITE_FILE='checkpoints/float/freeze.tflite')
  result = result_in(shell.run(
      'Evaluation', 'segmentation_inference_eval_seg_tflite.py'))
  assert result['images'] == VAL_IMAGES


# --- Quantization ----------------------------------------------------------


@pytest.mark.extended
def test_quantization_aware_commands_run(records, shallow, tmp_path):
  """The backbone is shallow, because the rewrite of all layers takes long."""
  shell = Shell(tmp_path, is_shallow=True)
  chapter = 'Quantization-aware training'
  folder = tmp_path / 'quantized'
  output = shell.run(
      chapter, 'train.py', OUTPUT_DIR=folder, DATA_DIR=records,
      PRETRAINED_CKPT_FILE=test_export.make_checkpoint(tmp_path))
  assert 'finished at step 1' in output
  with open(os.path.join(scripts.REPOSITORY, 'tests', 'golden',
                         'variables_qat.json')) as published:
    names = {variable['name'] for variable in json.load(published)}
  found = {name for name, unused_shape in tf.train.list_variables(str(folder))}
  assert found <= names and len(found) > 200
  shell.run('Evaluation', 'export_model.py', '--quantize_delay_step=0',
            CKPT_DIR=folder, PB_OUTPUT_DIR=folder)
  shell.run(chapter, 'scripts/convert_tflite.py', PB_FILE=folder / 'freeze.pb',
            OUTPUT_TFLITE_FILE=folder / 'freeze_qat.tflite')
  model = tflite.read(str(folder / 'freeze_qat.tflite'))
  assert model.tensors[model.inputs[0]].dtype == np.uint8


@pytest.mark.extended
def test_post_training_quantization_commands_run(shell, records, frozen_graph):
  chapter = 'Post-training quantization'
  images = shell.folder / 'calibration'
  shell.run(chapter, 'gen_preprocessed_data.py', DATA_DIR=records,
            OUTPUT_DIR=images)
  out = shell.folder / 'freeze_ptq.tflite'
  shell.run(chapter, 'post_training_quant.py',
            python=scripts.python_of('tf2'), PREPROCESSED_DATA_DIR=images,
            INPUT_PB_FILE=frozen_graph, OUTPUT_TFLITE_FILE=out)
  assert out.stat().st_size == pytest.approx(2937616, rel=0.01)
