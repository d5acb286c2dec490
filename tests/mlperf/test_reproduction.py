"""Tests scripts/reproduce.sh: its steps, repeated runs and RESULTS.md."""
import collections
import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from deeplab.config import options as options_lib
from deeplab.errors import InputError
from deeplab.evaluation import published
from deeplab.evaluation import report as report_lib
from deeplab.mlperf import reproduce
from deeplab.mlperf import steps
from tests import readme
from tests import scripts

QAT = 'quantize_aware_training/'
NAMES = [
    'records', 'preprocess val', 'preprocess train', 'export: Float',
    'convert: Float', 'export: Quantization-aware training',
    'convert: Quantization-aware training', 'quantize after training',
    'evaluate, published: Float checkpoint',
    'evaluate, published: Quantization-aware training checkpoint',
    'evaluate, published: Quantization-aware training TFLite',
    'evaluate, made here: Float frozen graph',
    'evaluate, made here: Float TFLite',
    'evaluate, made here: Quantization-aware training frozen graph',
    'evaluate, made here: Quantization-aware training TFLite',
    'evaluate, made here: Post-training quantization TFLite']
EVALUATED_CHECKPOINT = NAMES[8]


def matrix_of(score, value):
  """Returns a confusion matrix with the given value of a score."""
  # Wrong pixels are predicted as class 0, which only mIoU counts as a class.
  ratio = value * 32 / 31 if score == 'miou' else value
  matrix = np.zeros([32, 32], int)
  matrix[np.arange(1, 32), np.arange(1, 32)] = round(ratio * 1e6)
  matrix[1:, 0] = 1e6 - round(ratio * 1e6)
  return matrix


class Fake:
  """Replaces steps by writing their outputs.

  Attributes:
    done, commands: names and commands of steps, in order.
  """

  def __init__(self):
    self.done, self.commands = [], []
    self.difference, self.fails, self.makes_nothing = 0.0, None, False

  def __call__(self, step, command, folder):
    if self.fails and self.fails in step.name:
      return 3
    self.done.append(step.name)
    self.commands.append(command)
    path = os.path.join(folder, step.output)
    if self.makes_nothing:
      return 0
    if '.' not in os.path.basename(path):  # a folder
      path = os.path.join(path, 'file')
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if step.figure:
      score, values = next(iter(published.FIGURES[step.figure].items()))
      report_lib.write(path, report_lib.Report(
          kind='', path='', step=None, split='val', images=2, seconds=7.0,
          geometry='some geometry', runtime='some interpreter',
          host_ms=3.5, model={
              'bytes': 7, 'sha256': 'abc', 'precision': 'int8', 'input': {
                  'dtype': 'uint8', 'shape': [1, 4, 6, 3], 'layout': 'NHWC',
                  'channels': 'RGB', 'range': [0, 255]}},
          matrix=matrix_of(score, values[-1] + self.difference)))
    else:
      with open(path, 'w') as output:
        output.write(step.name)
    return 0

  def take(self):
    """Returns the names of the steps since the last call."""
    done, self.done = self.done, []
    return done


def add(*path, content=b'other'):
  """Appends to a file, or creates it."""
  path = os.path.join(*map(str, path))
  os.makedirs(os.path.dirname(path), exist_ok=True)
  with open(path, 'ab') as grown:
    grown.write(content)


@pytest.fixture
def fake(monkeypatch):
  """Pretends that all environments exist."""
  monkeypatch.setattr(reproduce, '_versions', '{} has TensorFlow'.format)
  made = Fake()
  monkeypatch.setattr(reproduce, '_execute', made)
  return made


@pytest.fixture
def sample(tmp_path):
  """Writes a sample and some published files; returns both folders."""
  for split, names in (('training', ['1.jpg']),
                       ('validation', ['1.jpg', '2.png', 'x.txt'])):
    for name in names:
      add(tmp_path, 'sample', 'images', split, name)
  for name in ('float/model.ckpt-200000.index', QAT + 'model.ckpt-100000.index',
               QAT + 'freeze_qat.tflite'):
    add(tmp_path, 'published', name)
  return str(tmp_path / 'sample'), str(tmp_path / 'published')


def options(tmp_path, **changes):
  return options_lib.ReproduceOptions(
      output_dir=str(tmp_path / 'out'), **changes)


@pytest.fixture
def run_sample(tmp_path, sample):
  def run(**changes):
    return reproduce.run(options(
        tmp_path, sample=sample[0], published=sample[1], **changes))
  return run


def results_of(tmp_path):
  return (tmp_path / 'out' / 'RESULTS.md').read_text()


# --- Steps -----------------------------------------------------------------


def test_a_sample_runs_every_kind_of_step(
    tmp_path, run_sample, fake, capsys):
  assert run_sample() == 'a sample of 2 images, no verdict: {}'.format(
      tmp_path / 'out' / 'RESULTS.md')
  assert fake.done == NAMES
  output = capsys.readouterr().out
  assert output.startswith('16 steps, in ')
  assert 'SAMPLE of 2 images' in output.split('\n== 1 of 16')[0]
  text = results_of(tmp_path)
  assert '**SAMPLE of 2 images: the scores say nothing of the published' in text
  assert '| yes |' not in text and '| NO |' not in text
  assert text.count('| sample |') == 8
  assert '- tf1: tf1 has TensorFlow\n- tf2: tf2 has TensorFlow\n' in text
  assert '| quantize_aware_training/freeze_qat.tflite | another file |' in text
  assert '| float/freeze.pb | missing |' in text
  # Flags exist in their scripts, and each script has its environment.
  in_environments = collections.defaultdict(set)
  for python, script, *arguments in fake.commands:
    script = os.path.relpath(script, scripts.REPOSITORY)
    in_environments[script].add(python.split(os.sep)[-3])
    assert {word[2:].split('=')[0] for word in arguments} <= (
        scripts.flags_of(script))
  assert in_environments == {
      'build_ade20k_data.py': {'tf1'}, 'gen_preprocessed_data.py': {'tf1'},
      'export_model.py': {'tf1'}, 'scripts/convert_tflite.py': {'tf1'},
      'eval.py': {'tf1'}, 'eval_pb.py': {'tf1'},
      'post_training_quant.py': {'tf2'},
      'segmentation_inference_eval_seg_tflite.py': {'tf2'}}
  commands = '\n'.join(map(' '.join, fake.commands))
  # The sample has only one calibration image.
  assert commands.count('--sample_num=1 ') == 1
  assert commands.count('--quantize_delay_step=0') == 2
  assert commands.count('--resize_factor=16') == 4
  # A row has the fields of a model card.
  row, = [line for line in text.splitlines()
          if QAT + 'freeze_qat.tflite | 7' in line and 'published' in line]
  assert row.split(' | ')[6:] == [
      '7', 'abc', 'int8',
      'uint8 1x4x6x3, NHWC RGB; pixels 0 and 255 are 0 and 255', '0.5312',
      'mIoU: every class seen, reference eval.py', '2 of val',
      '3.5, some interpreter', 'some geometry |']


# --- Done before, or not ---------------------------------------------------


@pytest.mark.slow
def test_only_changed_steps_run_again(
    tmp_path, run_sample, fake, sample, monkeypatch, capsys):
  def done_again():
    """Returns (steps that ran, names of changed facts)."""
    run_sample()
    printed = capsys.readouterr().out
    assert printed.count('(done before)') == 16 - len(fake.done)
    changed = re.findall('have changed: (.*)\\)', printed)
    return fake.take(), set(', '.join(changed).split(', ')) - {''}

  run_sample()
  fake.take()
  capsys.readouterr()
  out = tmp_path / 'out'
  journal = json.loads((out / 'steps.json').read_text())
  journal[EVALUATED_CHECKPOINT].update(when='2001-02-03 04:05', commit='abc')
  journal['begun'] = {'environment': 'tf'}  # as in earlier releases
  (out / 'steps.json').write_text(json.dumps(journal))
  assert done_again() == ([], set())
  before = results_of(tmp_path)
  # A row has the time of its own step.
  assert ('| Float | checkpoint | published | 2001-02-03 04:05 | abc | '
          'float/model.ckpt-200000 | ') in before
  assert before.count('2001-02-03') == 1
  # Repeating a step gives the same output, so later steps are kept.
  report = 'reports/published_float_model.ckpt-200000.json'
  (out / report).write_text('')
  assert done_again() == ([EVALUATED_CHECKPOINT], {report})
  (out / 'made' / 'float' / 'freeze.tflite').unlink()
  assert done_again() == (['convert: Float'], {'made/float/freeze.tflite'})
  (out / 'preprocessed' / 'val' / 'file').unlink()
  assert done_again() == (['preprocess val'], {'preprocessed/val'})
  assert results_of(tmp_path).split('## Models')[0] == (
      before.split('## Models')[0])
  # Changes of a published file and of the sample.
  checkpoint = os.path.join(sample[1], 'float', 'model.ckpt-200000')
  add(checkpoint + '.index')
  assert done_again() == (['export: Float', EVALUATED_CHECKPOINT], {checkpoint})
  add(sample[0], 'images', 'validation', '3.jpg')
  images = os.path.join(sample[0], 'images')
  assert done_again() == (['records'], {os.path.join(images, 'validation')})
  add(sample[0], 'images', 'training', '2.jpg')
  # The number of calibration images is part of the command.
  assert done_again() == (
      ['records', 'quantize after training'],
      {os.path.join(images, 'training'), 'command'})
  # Changes of one script, of the library and of an environment.
  checksum = reproduce._checksum
  monkeypatch.setattr(reproduce, '_checksum', lambda path: (
      checksum(path) + 'x' * path.endswith('eval_pb.py')))
  assert done_again() == ([
      'evaluate, made here: {} frozen graph'.format(model)
      for model in ('Float', 'Quantization-aware training')], {'code'})
  monkeypatch.setattr(reproduce, '_checksum', lambda path: (
      'x' if path.endswith('deeplab') else checksum(path)))
  assert len(done_again()[0]) == 16
  monkeypatch.setattr(reproduce, '_versions', '{} is newer'.format)
  assert done_again() == (NAMES, {'environment'})


def test_the_next_run_starts_at_the_failed_step(
    tmp_path, run_sample, fake):
  fake.fails = 'export: Quant'
  with pytest.raises(InputError) as error:
    run_sample()
  assert str(error.value) == (
      'step 6 of 16: export: Quantization-aware training ended with status '
      '3; its output is above; the same command continues with this step')
  assert not (tmp_path / 'out' / 'RESULTS.md').exists()
  fake.fails, fake.makes_nothing = None, True
  with pytest.raises(InputError, match='step 6 of 16: .* left no .*freeze.pb'):
    run_sample()
  fake.makes_nothing = False
  fake.take()
  run_sample()
  assert fake.take() == NAMES[5:]


# --- The whole data set ----------------------------------------------------


# The nearer of two figures counts: 0.5509 - 0.0021 is near the other one.
@pytest.mark.parametrize('difference, near', [(0.0019, 12), (-0.0021, 2)])
def test_scores_of_the_whole_data_set_are_judged(
    tmp_path, fake, capsys, difference, near):
  fake.difference = difference
  assert reproduce.run(options(tmp_path)) == (
      '{} of 12 scores are within 0.002 of the published ones: {}'.format(
          near, tmp_path / 'out' / 'RESULTS.md'))
  assert fake.done[:4] == [
      'published files', 'ADE20K', 'records', 'preprocess val']
  assert fake.commands[0] == [
      os.path.join(scripts.REPOSITORY, 'scripts', 'fetch_checkpoints.sh'),
      '--output_dir=checkpoints']
  assert fake.commands[1] == [
      os.path.join(scripts.REPOSITORY, 'download_and_convert_ade20k.sh'),
      '--download_only']
  text = '\n'.join(map(' '.join, fake.commands))
  assert '--image_list=' in text and '--sample_num=500 ' in text
  text = results_of(tmp_path)
  assert 'SAMPLE' not in text
  assert (text.count('| yes |'), text.count('| NO |')) == (near, 12 - near)
  for line in (
      '| Float | checkpoint | published | mIoU | 0.5528 | {:.4f} | '.format(
          0.5528 + difference),
      '| Float | TFLite | published | mIoU, app | 0.5501 / 0.5509 | ',
      '| Quantization-aware training | TFLite | made here | mIoU, kept | '):
    assert line in text
  output = capsys.readouterr().out
  assert 'takes about 6 hours on 2 processors, and 4.3 GB of disk' in output


def test_published_figures_match_the_readme():
  cells = [[cell.strip() for cell in line.split('|')[1:-1]]
           for line in readme.section('Published models').splitlines()
           if line.startswith('|')]
  shown = {(row[0], name): tuple(map(float, cell.split('/')))
           for row in cells[2:] for name, cell in zip(cells[0][1:], row[1:])
           if cell}
  columns = {'miou_kept_classes': 'TFLite, x86',
             'miou_mlperf_app': 'TFLite, device CPU'}
  for figure, scores in published.FIGURES.items():
    for score, values in scores.items():
      column = columns.get(score) or (
          'pb' if figure.endswith('.pb') else 'ckpt')
      assert shown[steps.MODELS[os.path.dirname(figure)], column] == values


# --- Processes -------------------------------------------------------------


def test_downloads_use_the_python_of_an_environment(tmp_path, monkeypatch):
  monkeypatch.delenv('PYTHON', raising=False)
  for role, expected in (('shell', sys.executable), ('network', '')):
    reproduce._execute(
        steps.Step('', role, [], ''),
        ['sh', '-c', 'printf %s "$PYTHON" > python'], str(tmp_path))
    assert (tmp_path / 'python').read_text() == expected


def test_a_signal_ends_the_running_step_too(tmp_path):
  class StopError(Exception):
    pass

  def stop(*unused):
    if (tmp_path / 'ready').exists():
      raise StopError
    signal.setitimer(signal.ITIMER_REAL, 0.1)

  script = tmp_path / 'step.sh'
  script.write_text('trap "echo ended > ended; exit" TERM\n'
                    'touch ready\n'
                    'for _ in $(seq 300); do sleep 0.2; done\n')
  before = signal.signal(signal.SIGALRM, stop)
  try:
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    with pytest.raises(StopError):
      reproduce._execute(steps.Step('', 'network', [], ''),
                         ['sh', str(script)], str(tmp_path))
  finally:
    signal.signal(signal.SIGALRM, before)
  # The step was asked to end, and waited for.
  assert (tmp_path / 'ended').exists()


# --- Refusals --------------------------------------------------------------


def test_bad_input_is_refused(tmp_path, sample, monkeypatch):
  for changes, message in (
      ({'sample': str(tmp_path)}, 'sample=.*: no image in images/training'),
      ({'zip': '/no/such'}, 'zip=/no/such: no such file'),
      ({'zip': 'x', 'sample': 'y'}, 'zip=x and sample=y: expected one')):
    with pytest.raises(InputError, match=message):
      reproduce.run(options(tmp_path, **changes))
  assert not (tmp_path / 'out').exists()
  with monkeypatch.context() as patch:
    patch.setattr(reproduce.environment, 'REPOSITORY', str(tmp_path))
    with pytest.raises(InputError, match='^{}/.venvs/tf1/bin/python: does not '
                       'run; ./scripts/setup.sh tf1 makes it'.format(tmp_path)):
      reproduce.run(options(tmp_path))
  monkeypatch.setattr(reproduce, '_versions', str)
  for name, content in (('RESULTS.md', b'mine'), ('steps.json', b'[3]')):
    add(tmp_path, 'out', name, content=content)
    with pytest.raises(InputError, match='output_dir=.*: holds something else'):
      reproduce.run(options(tmp_path))
  assert results_of(tmp_path) == 'mine'


def test_help_and_refusals_of_the_script():
  script = os.path.join(scripts.REPOSITORY, 'scripts', 'reproduce.sh')
  text = subprocess.check_output([script, '--help'], universal_newlines=True)
  for flag in options_lib.ReproduceOptions._definitions:
    assert '--{}='.format(flag) in text
  done = subprocess.run([script, 'sample'], stdout=subprocess.PIPE,
                        stderr=subprocess.STDOUT, universal_newlines=True)
  assert (done.returncode, done.stdout) == (
      2, 'ERROR reproduce.sh: unknown argument sample; expected '
      '--FLAG=VALUE or --help\n')
