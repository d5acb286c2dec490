"""scripts/reproduce.sh: its steps, what they need, and RESULTS.md."""
import collections
import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from deeplab import options as options_lib
from deeplab import report as report_lib
from deeplab import reproduction
from deeplab.errors import InputError
from tests import readme
from tests import scripts


def matrix_of(score, value):
  """A confusion matrix that has a value as one of its scores."""
  # What is not right is predicted 0, a class of its own to one of the scores.
  ratio = value * 32 / 31 if score == 'miou' else value
  matrix = np.zeros([32, 32], int)
  matrix[np.arange(1, 32), np.arange(1, 32)] = round(ratio * 1e6)
  matrix[1:, 0] = 1e6 - round(ratio * 1e6)
  return matrix


class Fake:
  """Does steps by making their results.

  Attributes:
    done: steps, in order.
    fails: part of the name of a step that fails.
  """

  def __init__(self, difference=0.0, fails='nothing'):
    self.done = []
    self.commands = []
    self.difference = difference
    self.fails = fails

  def __call__(self, step, command, folder):
    assert os.path.isdir(folder)
    if self.fails in step.name:
      return 3
    self.done.append(step.name)
    self.commands.append(command)
    for path in step.results:
      os.makedirs(os.path.dirname(path), exist_ok=True)
      if os.sep + 'reports' + os.sep in path:
        figure = next(figure for figure in reproduction.FIGURES if (
            '{}_{}.json'.format(figure.model, figure.form).replace(
                ' ', '_') in path))
        report_lib.write(path, report_lib.Report(
            kind='', path='', step=None, split='val', images=2, seconds=7.0,
            geometry='some geometry', runtime='some interpreter',
            matrix=matrix_of(
                figure.score, figure.published[-1] + self.difference)))
      else:
        with open(path, 'w'):
          pass
    return 0


@pytest.fixture(autouse=True)
def environments(monkeypatch):
  """As if all were there."""
  monkeypatch.setattr(
      reproduction, '_versions', '{0} has TensorFlow'.format)


@pytest.fixture
def sample(tmp_path):
  """(sample, folder of some published files)."""
  for split, names in (('training', ['1.jpg']),
                       ('validation', ['1.jpg', '2.png', 'x.txt'])):
    folder = tmp_path / 'sample' / 'images' / split
    folder.mkdir(parents=True)
    for name in names:
      (folder / name).write_text('')
  for name in ('float/model.ckpt-200000.index',
               'quantize_aware_training/model.ckpt-100000.index',
               'quantize_aware_training/freeze_qat.tflite'):
    path = tmp_path / 'published' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('hello\n')
  return str(tmp_path / 'sample'), str(tmp_path / 'published')


def options(tmp_path, **changes):
  return options_lib.ReproduceOptions(
      output_dir=str(tmp_path / 'out'), **changes)


def run_sample(tmp_path, sample, fake, **changes):
  return reproduction.run(options(
      tmp_path, sample=sample[0], published=sample[1], **changes), fake)


def results_of(tmp_path):
  return (tmp_path / 'out' / 'RESULTS.md').read_text()


# --- Steps -----------------------------------------------------------------


def test_a_sample_goes_through_every_kind_of_step(tmp_path, sample, capsys):
  fake = Fake()
  content = run_sample(tmp_path, sample, fake)
  assert fake.done == [
      'sample: convert', 'preprocess val for TFLite',
      'preprocess train for TFLite', 'export: Float',
      'convert to TFLite: Float', 'export: Quantization-aware training',
      'convert to TFLite: Quantization-aware training',
      'quantize after training', 'evaluate, published: Float checkpoint',
      'evaluate, published: Quantization-aware training checkpoint',
      'evaluate, published: Quantization-aware training TFLite',
      'evaluate, made here: Float frozen graph',
      'evaluate, made here: Float TFLite',
      'evaluate, made here: Quantization-aware training frozen graph',
      'evaluate, made here: Quantization-aware training TFLite',
      'evaluate, made here: Post-training quantization TFLite']
  assert len(content['rows']) == 8
  output = capsys.readouterr().out
  assert output.startswith('16 of 16 steps are left, in ')
  assert 'time: about ' in output and 'disk: about ' in output
  assert 'SAMPLE of 2 images' in output.split('\n== 1 of 16')[0]
  text = results_of(tmp_path)
  assert '**SAMPLE of 2 images: the scores say nothing of the published' in text
  assert '| yes |' not in text and '| NO |' not in text
  assert text.count('| sample |') == 8
  assert '- tf1: tf1 has TensorFlow\n- tf2: tf2 has TensorFlow\n' in text
  assert '| quantize_aware_training/freeze_qat.tflite | another file |' in text
  assert '| float/freeze.pb | missing |' in text
  with open(str(tmp_path / 'out' / 'results.json')) as written:
    assert json.load(written) == json.loads(json.dumps(content))


def test_commands_are_those_of_the_readme(tmp_path, sample):
  """Of their scripts' flags, and in the environment that each is for."""
  fake = Fake()
  run_sample(tmp_path, sample, fake)
  in_environments = collections.defaultdict(set)
  for command in fake.commands:
    python, script = command[:2]
    script = os.path.relpath(script, scripts.REPOSITORY)
    in_environments[script].add(python.split(os.sep)[-3])
    known = scripts.flags_of(script)
    assert {word[2:].split('=')[0] for word in command[2:]} <= known
  assert in_environments == {
      'build_ade20k_data.py': {'tf1'}, 'gen_preprocessed_data.py': {'tf1'},
      'export_model.py': {'tf1'}, 'scripts/convert_tflite.py': {'tf1'},
      'eval.py': {'tf1'}, 'eval_pb.py': {'tf1'},
      'post_training_quant.py': {'tf2'},
      'segmentation_inference_eval_seg_tflite.py': {'tf2'}}
  text = '\n'.join(map(' '.join, fake.commands))
  # One calibration image is all that there is.
  assert text.count('--sample_num=1\n') == 1
  assert text.count('--quantize_delay_step=0') == 2
  assert text.count('--resize_factor=16') == 4


def test_what_is_done_is_not_done_again(tmp_path, sample, capsys):
  run_sample(tmp_path, sample, Fake())
  before = results_of(tmp_path)
  fake = Fake()
  run_sample(tmp_path, sample, fake)
  assert fake.done == [] and results_of(tmp_path) == before
  assert '0 of 16 steps are left' in capsys.readouterr().out
  (tmp_path / 'out' / 'reports' /
   'published_float_checkpoint.json').unlink()
  # A build that was stopped while shards got their names.
  (tmp_path / 'out' / 'tfrecord' / 'val.INCOMPLETE').write_text('')
  (tmp_path / 'out' / 'preprocessed' / 'train' / 'INCOMPLETE').write_text('')
  run_sample(tmp_path, sample, fake)
  assert fake.done == ['sample: convert', 'preprocess train for TFLite',
                       'evaluate, published: Float checkpoint']


def test_a_step_that_fails_is_where_the_next_run_begins(tmp_path, sample):
  with pytest.raises(InputError) as error:
    run_sample(tmp_path, sample, Fake(fails='export: Quant'))
  assert str(error.value) == (
      'step 6 of 16 (export: Quantization-aware training) ended with status '
      '3; what it says is above; the same command goes on from there')
  assert not (tmp_path / 'out' / 'RESULTS.md').exists()
  fake = Fake()
  run_sample(tmp_path, sample, fake)
  assert fake.done[0] == 'export: Quantization-aware training'


def test_a_step_without_a_result_is_named(tmp_path, sample):
  with pytest.raises(InputError, match=r'step 1 of 16 \(sample: convert\) left '
                     'no .*train.json'):
    run_sample(tmp_path, sample, lambda *unused: 0)


# --- The whole data set ----------------------------------------------------


def test_the_whole_is_verified_and_judged(tmp_path, capsys):
  fake = Fake(difference=0.0019)
  content = reproduction.run(options(tmp_path), fake)
  assert fake.done[:4] == [
      'published files: download, verify', 'ADE20K: download, verify, convert',
      'preprocess val for TFLite', 'preprocess train for TFLite']
  assert fake.commands[0][0].endswith('scripts/fetch_checkpoints.sh')
  assert fake.commands[1] == [os.path.join(
      scripts.REPOSITORY, 'download_and_convert_ade20k.sh')]
  text = '\n'.join(map(' '.join, fake.commands))
  assert '--image_list=' in text and '--sample_num=500\n' in text
  assert len(content['rows']) == 12
  assert all(row['within_tolerance'] for row in content['rows'])
  text = results_of(tmp_path)
  assert 'SAMPLE' not in text and text.count('| yes |') == 12
  assert '| Float | checkpoint | published | 0.5528 | 0.5547 | +0.0019 | yes |'
  assert '| 0.5501 / 0.5509 | 0.5528 | +0.0019 | yes |' in text
  output = capsys.readouterr().out
  assert re.search(r'time: about [5-7]\.\d hours', output)
  assert re.search(r'disk: about 4\.\d GB, of ', output)
  # What verifies by itself is asked each time.
  fake = Fake()
  reproduction.run(options(tmp_path), fake)
  assert fake.done == ['published files: download, verify',
                       'ADE20K: download, verify, convert']
  assert reproduction.summary_line(content, 'out') == (
      '12 of 12 scores are within 0.002 of the published ones: out/RESULTS.md')


def test_what_is_off_is_said(tmp_path):
  content = reproduction.run(options(tmp_path), Fake(difference=-0.0021))
  text = results_of(tmp_path)
  # Of two figures the nearer one counts: 0.5509 - 0.0021 is near the other.
  assert text.count('| NO |') == 10 and text.count('| yes |') == 2
  assert reproduction.summary_line(content, 'out').startswith('2 of 12')


def test_published_figures_are_the_readmes():
  section = readme.section('Published models')
  cells = [[cell.strip() for cell in line.split('|')[1:-1]]
           for line in section.splitlines() if line.startswith('|')]
  head, _, *rows = cells
  shown = {}
  for row in rows:
    for name, cell in zip(head[1:], row[1:]):
      if cell:
        shown[row[0], name] = tuple(map(float, cell.split('/')))
  columns = {'checkpoint': 'ckpt', 'frozen graph': 'pb',
             'TFLite': 'TFLite, {}'}
  for figure in reproduction.FIGURES:
    assert shown[reproduction._MODELS[figure.model], columns[
        figure.form].format(figure.measured)] == figure.published


def test_files_are_told_by_git_s_checksum():
  assert reproduction.blob_sha1(b'hello\n') == (
      'ce013625030ba8dba906f756967f9e9ca394464a')


def test_a_sample_alone_has_the_published_files_fetched(tmp_path, sample):
  fake = Fake()
  content = reproduction.run(options(tmp_path, sample=sample[0]), fake)
  assert fake.done[:2] == [
      'published files: download, verify', 'sample: convert']
  assert fake.commands[0][1:] == [
      '--output_dir={}'.format(tmp_path / 'out' / 'checkpoints')]
  assert len(content['rows']) == 12


def test_downloads_convert_with_an_environment_s_python(
    tmp_path, monkeypatch):
  monkeypatch.delenv('PYTHON', raising=False)
  for role, expected in (('shell', sys.executable), ('network', '')):
    reproduction._execute(
        reproduction.Step('', role, (), (), 0, 0),
        ['sh', '-c', 'printf %s "$PYTHON" > python'], str(tmp_path))
    assert (tmp_path / 'python').read_text() == expected


# --- Refusals --------------------------------------------------------------


def test_a_folder_of_another_run_is_refused(tmp_path, sample):
  run_sample(tmp_path, sample, Fake())
  with pytest.raises(InputError, match='output_dir=.*: was begun with another'):
    run_sample(tmp_path, sample, Fake(), environment='modern')
  with pytest.raises(InputError, match='output_dir=.*: was begun with another'):
    reproduction.run(options(tmp_path), Fake())


def test_too_small_a_disk_is_refused_before_any_step(tmp_path, monkeypatch):
  usage = collections.namedtuple('usage', 'free')
  monkeypatch.setattr(reproduction.shutil, 'disk_usage',
                      lambda path: usage(3e9))
  fake = Fake()
  with pytest.raises(InputError, match=r'output_dir=.*: needs about 4\.\d GB, '
                     r'has 3\.0 GB'):
    reproduction.run(options(tmp_path), fake)
  assert fake.done == []


def test_what_is_missing_is_named(tmp_path, sample):
  with pytest.raises(InputError, match='sample=.*: no image in images/train'):
    reproduction.run(options(tmp_path, sample=str(tmp_path)), Fake())
  with pytest.raises(InputError) as error:
    reproduction.run(options(
        tmp_path, sample=sample[0], published=str(tmp_path)), Fake())
  assert str(error.value) == (
      'published={}: has no float/model.ckpt-200000, '
      'quantize_aware_training/model.ckpt-100000'.format(tmp_path))
  with pytest.raises(InputError, match='zip=/no/such: no such file'):
    reproduction.run(options(tmp_path, zip='/no/such'), Fake())
  with pytest.raises(InputError, match='zip=x and sample=y: expected one'):
    options(tmp_path, zip='x', sample='y')
  assert not (tmp_path / 'out').exists()


def test_a_missing_environment_is_named(tmp_path, monkeypatch):
  monkeypatch.undo()
  monkeypatch.setattr(reproduction, 'ROOT', str(tmp_path))
  with pytest.raises(InputError) as error:
    reproduction.run(options(tmp_path), Fake())
  assert str(error.value) == (
      '{}/.venvs/tf1/bin/python: does not run; ./scripts/setup.sh tf1 makes '
      'it'.format(tmp_path))


def test_a_stop_ends_the_step_too(tmp_path):
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
      reproduction._execute(
          reproduction.Step('', 'network', (), (), 0, 0),
          ['sh', str(script)], str(tmp_path))
  finally:
    signal.signal(signal.SIGALRM, before)
  # It was asked to end, and waited for.
  assert (tmp_path / 'ended').exists()


# --- The script ------------------------------------------------------------


def reproduce(*arguments):
  return subprocess.run(
      [os.path.join(scripts.REPOSITORY, 'scripts', 'reproduce.sh'),
       *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
      universal_newlines=True)


def test_the_script_explains_itself_and_refuses():
  done = reproduce('--help')
  assert done.returncode == 0 and '--sample=DIR' in done.stdout
  for flag in options_lib.ReproduceOptions._definitions:
    assert '--{}='.format(flag) in done.stdout
  done = reproduce('sample')
  assert (done.returncode, done.stdout) == (2, '')
  assert done.stderr == (
      'ERROR reproduce.sh: unknown argument sample; expected --FLAG=VALUE or '
      '--help\n')
