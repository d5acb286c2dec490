"""The README: its commands run as written, and what it names exists.

A command is a code block. Those of the float part are executed in bash on
generated images, one after the other, with their variables set in the
environment and only the number of training steps lowered.
"""
import collections
import glob
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import tensorflow.compat.v1 as tf

from deeplab import contract
from tests import scripts

FLOAT_PART_ENDS = '\n### Evaluate TFLite\n'
FLOAT_PART = ['build_ade20k_data.py', 'train.py', 'eval.py', 'export_model.py',
              'eval_pb.py']
STEPS = 2
PATIENCE_SECS = 300

# A node of the exported graph, and what is there once a user has run something.
NOT_IN_THE_REPOSITORY = {
    'MobilenetV2/MobilenetV2/input', 'ADE20K', 'demo_output/',
    'demo_output/pictures/predictions.png', 'freeze.pb', 'manifest.json',
    'model_options.json', 'preprocessed/images', 'images/', 'annotations/',
    'images/training', 'images/validation', 'images/img_N.png',
    'annotations/training', 'annotations/validation', 'annotations/img_N.png',
    '.venvs/tf1', '.venvs/tf2', '.venvs/tf1/bin/python',
    'checkpoints/float/freeze.tflite',
    'checkpoints/post_train_quant/freeze_ptq.tflite',
    'checkpoints/quantize_aware_training/freeze_qat.tflite'}


def read(*path):
  with open(os.path.join(scripts.REPOSITORY, *path), encoding='utf-8') as text:
    return text.read()


def code_blocks(markdown):
  """Returns the content of all fenced blocks, without their indentation."""
  return [textwrap.dedent(content) for _, content in re.findall(
      r'^( *)```\w*\n(.*?)^\1```$', markdown, re.M | re.S)]


def words_of(command):
  """Splits a command as bash does, ${VARIABLES} left as they are."""
  return shlex.split(command.replace('\\\n', ''))


def python_commands(markdown):
  return [block for block in code_blocks(markdown)
          if block.startswith('python ')]


def prose_of(markdown):
  return re.sub(r'^( *)```.*?^\1```$', '', markdown, flags=re.M | re.S)


def quoted_in(markdown):
  """Returns what stands between single backticks, outside of code blocks."""
  return re.findall(r'`([^`\n]+)`', prose_of(markdown))


# --- The text --------------------------------------------------------------


def test_documented_commands_stand_word_for_word_and_in_order(reference_dir):
  path = os.path.join(os.path.dirname(reference_dir), 'mission.md')
  if not os.path.exists(path):
    pytest.skip('no mission.md beside DEEPLAB_REFERENCE_DIR')
  with open(path, encoding='utf-8') as text:
    documented = code_blocks(text.read())
  assert len(documented) == 11
  ours = iter(code_blocks(read('README.md')))
  for command in documented:
    assert command in ours, 'missing or out of order: ' + command


def test_flags_in_commands_are_flags_of_their_scripts():
  commands = python_commands(read('README.md'))
  assert len(commands) >= 9
  for command in commands:
    _, script, *arguments = words_of(command)
    known = scripts.flags_of(script)
    for argument in arguments:
      assert argument.startswith('--'), command
      assert argument[2:].split('=')[0] in known, (script, argument)


def test_flags_in_the_text_are_flags_of_some_script():
  known = {'zip'}  # of download_and_convert_ade20k.sh
  assert '--zip=' in read('download_and_convert_ade20k.sh')
  for path in (glob.glob(os.path.join(scripts.REPOSITORY, '*.py')) +
               glob.glob(os.path.join(scripts.REPOSITORY, 'scripts', '*.py'))):
    known |= scripts.flags_of(os.path.relpath(path, scripts.REPOSITORY))
  named = {name for quoted in quoted_in(read('README.md'))
           for name in re.findall(r'--([a-z]\w*)', quoted)}
  assert len(named) > 20
  # In '--flag=value' and '--flag = value', which show how to write one.
  assert named - known == {'flag'}


def test_paths_exist():
  markdown = read('README.md')
  paths = {quoted for quoted in quoted_in(markdown) if re.match(
      r'(\./)?[\w./]+(/[\w.]*|\.(py|sh|md|txt|json|pb|tflite|png))$', quoted)}
  for block in code_blocks(markdown):
    paths |= set(re.findall(r'(?:\./|python )([\w./]+\.(?:sh|py))', block))
  paths = {re.sub(r'^\./', '', path) for path in paths}
  assert {'train.py', 'deeplab/nets/', 'scripts/demo.sh'} <= paths
  missing = [path for path in sorted(paths - NOT_IN_THE_REPOSITORY)
             if not os.path.exists(os.path.join(scripts.REPOSITORY, path))]
  assert missing == []


def test_links_within_the_repository_lead_somewhere():
  markdown = read('README.md')
  anchors = {re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-')
             for heading in re.findall(r'^#+ (.*)$', prose_of(markdown), re.M)}
  targets = [target for target in re.findall(r'\]\(([^)]+)\)', markdown)
             if '://' not in target]
  assert len(targets) > 15
  for target in targets:
    if target.startswith('#'):
      assert target[1:] in anchors, target
    else:
      assert os.path.exists(os.path.join(scripts.REPOSITORY, target)), target


def test_class_table_is_the_contracts():
  section = read('README.md').split('\n## Classes\n')[1].split('\n## ')[0]
  cells = re.findall(r'(\d+) ([a-z]+) \|', section)
  assert cells == [(str(index), name)
                   for index, name in enumerate(contract.CLASS_NAMES)]


def test_environment_table_is_what_the_scripts_ask_for():
  wanted = {'tf1': "environments=('tf1',)",
            'tf1 or tf2': "environments=('tf1', 'tf2')",
            'tf2': "environments=('tf2',)",
            'tf2, or anything with a TFLite interpreter':
                "environments=('tf2', environment.TFLITE)",
            'either; they need no TensorFlow': 'environments=()'}
  rows = re.findall(
      r'^\| (`[^|]*\.py`) \| ([^|]*) \|$', read('README.md'), re.M)
  named = []
  for names, environments in rows:
    for script in re.findall('`(.*?)`', names):
      assert wanted[environments] in read(script), script
      named.append(script)
  there = [os.path.relpath(path, scripts.REPOSITORY) for pattern in (
      '*.py', 'scripts/*.py') for path in glob.glob(
          os.path.join(scripts.REPOSITORY, pattern))]
  assert sorted(named) == sorted(there)


def test_published_scores_are_the_reference_s(reference_dir):
  with open(os.path.join(reference_dir, 'numbers.json')) as numbers:
    published = json.load(numbers)['published_miou_full_val_2000_images']
  section = read('README.md').split('\n## Published models\n')[1].split(
      '\n## ')[0]
  cells = [[cell.strip() for cell in line.split('|')[1:-1]]
           for line in section.splitlines() if line.startswith('|')]
  rows = {row[0]: row[1:] for row in cells}
  columns = ('ckpt', 'pb', 'tflite_x86', 'tflite_on_device_cpu')
  for model, name in (('float', 'Float'),
                      ('quantize_aware_training',
                       'Quantization-aware training'),
                      ('post_train_quant', 'Post-training quantization')):
    shown = {column: [float(score) for score in cell.split('/')]
             for column, cell in zip(columns, rows[name]) if cell}
    assert shown == {
        column: score if isinstance(score, list) else [score]
        for column, score in published[model].items()}


# --- The float part, executed ----------------------------------------------


class Shell:
  """A user's bash, in an empty folder that shows the scripts."""

  def __init__(self, folder):
    self.folder = folder
    for path in glob.glob(os.path.join(scripts.REPOSITORY, '*.py')):
      (folder / os.path.basename(path)).symlink_to(path)

  def start(self, script, **variables):
    """Starts the README's float command for a script."""
    command, = (
        command for command in python_commands(
            read('README.md').split(FLOAT_PART_ENDS)[0])
        if words_of(command)[1] == script)
    command, replaced = re.subn(r'(--training_number_of_steps=)\d+',
                                r'\g<1>{}'.format(STEPS), command)
    assert replaced == (script == 'train.py')
    path = os.pathsep.join([os.path.dirname(sys.executable),
                            os.environ['PATH']])
    return subprocess.Popen(
        ['bash', '-euc', 'exec ' + command], cwd=str(self.folder),
        env=dict(os.environ, PATH=path, **{
            name: str(value) for name, value in variables.items()}),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        universal_newlines=True)

  def run(self, script, **variables):
    """Runs it to its end; returns what it printed."""
    process = self.start(script, **variables)
    output, _ = process.communicate(timeout=PATIENCE_SECS)
    assert process.returncode == 0, output
    return output


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


@pytest.fixture(scope='module')
def shell(tmp_path_factory):
  return Shell(tmp_path_factory.mktemp('readme'))


@pytest.fixture(scope='module')
def records(shell):
  scripts.run('scripts/make_synthetic_ade20k.py', '--train_images=8',
              '--val_images=2', '--size=200',
              '--output_dir={}'.format(shell.folder))
  source = shell.folder / 'ADEChallengeData2016'
  shell.run('build_ade20k_data.py',
            TRAIN_IMAGE_FOLDER=source / 'images' / 'training',
            TRAIN_LABEL_FOLDER=source / 'annotations' / 'training',
            VAL_IMAGE_FOLDER=source / 'images' / 'validation',
            VAL_LABEL_FOLDER=source / 'annotations' / 'validation',
            OUTPUT_DIR=shell.folder / 'tfrecord')
  return shell.folder / 'tfrecord'


@pytest.fixture(scope='module')
def trained(shell, records):
  """(folder, output) of the training command, from a checkpoint of one step.

  That checkpoint has no decoder, as the one that the README names.
  """
  pretrained = shell.folder / 'pretrained'
  scripts.run('train.py', '--dataset_dir={}'.format(records),
              '--train_logdir={}'.format(pretrained), '--train_batch_size=2',
              '--training_number_of_steps=1', '--train_crop_size=65,65',
              '--min_resize_value=65', '--max_resize_value=65')
  output = shell.run(
      'train.py', PRETRAINED_CKPT_FILE=pretrained / 'model.ckpt-1',
      OUTPUT_DIR=shell.folder / 'train', DATA_DIR=records)
  return shell.folder / 'train', output


@pytest.fixture(scope='module')
def evaluated(shell, records, trained):
  """RESULT of eval.py, which goes on until it is stopped."""
  process = shell.start('eval.py', CKPT_DIR=trained[0], DATA_DIR=records)
  output = ''
  for line in process.stdout:
    output += line
    if line.startswith('RESULT '):
      break
  # Events are written after that line.
  deadline = time.time() + PATIENCE_SECS
  while not events_in(shell.folder / 'log') and process.poll() is None:
    assert time.time() < deadline, output
    time.sleep(0.2)
  still_waiting = process.poll() is None
  process.send_signal(signal.SIGTERM)
  output += process.communicate(timeout=PATIENCE_SECS)[0]
  assert still_waiting, output
  return result_in(output)


@pytest.fixture(scope='module')
def frozen_graph(shell, trained):
  shell.run('export_model.py', CKPT_DIR=trained[0],
            PB_OUTPUT_DIR=shell.folder / 'export')
  return shell.folder / 'export' / 'freeze.pb'


def test_no_command_of_the_float_part_is_left_out():
  part = read('README.md').split(FLOAT_PART_ENDS)
  assert len(part) == 2
  assert [words_of(command)[1]
          for command in python_commands(part[0])] == FLOAT_PART


@pytest.mark.slow
def test_build_command_runs(records):
  assert sorted(path.name for path in records.glob('*.tfrecord')) == sorted(
      contract.shard_name(split, index)
      for split in contract.SPLITS for index in range(4))


@pytest.mark.slow
def test_train_command_runs(trained):
  folder, output = trained
  assert (folder / 'model.ckpt-{}.index'.format(STEPS)).exists()
  assert (folder / 'model_options.json').exists()
  assert re.search(r'restored \d+/297 model variables .*skipped: .*decoder.*'
                   'logits', output)
  assert 'finished at step {}'.format(STEPS) in output


@pytest.mark.slow
def test_eval_command_runs(shell, evaluated):
  assert (evaluated['step'], evaluated['images']) == (STEPS, 2)
  assert evaluated['geometry'] == (
      'resized to 512..512, factor 16, padded to 512x512')
  assert events_in(shell.folder / 'log')[
      'eval/miou_1.0_overall', STEPS] == pytest.approx(evaluated['miou'])


@pytest.mark.slow
def test_export_and_eval_pb_commands_run(shell, records, evaluated,
                                         frozen_graph):
  result = result_in(
      shell.run('eval_pb.py', PB_FILE=frozen_graph, DATA_DIR=records))
  for score in ('miou', 'pixel_accuracy'):
    assert 0 < result[score] == pytest.approx(evaluated[score], abs=1e-4)
