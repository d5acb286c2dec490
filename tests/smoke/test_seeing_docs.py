"""docs/seeing.md and docs/quantization.md: commands say what stands there.

They are run in bash, in the order of the text, on the published models and two
real pairs.
"""
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from deeplab import any_model
from deeplab import export
from deeplab import options
from deeplab.inspection import contents
from deeplab.inspection import difference
from deeplab.lite import conversion
from deeplab.lite import model_file
from tests import readme
from tests import scripts

pytestmark = [pytest.mark.modern, pytest.mark.extended]

MODEL = options.ModelOptions(decoder_output_stride=(4,))
MODELS = {'post_train_quant': 'freeze_ptq.tflite',
          'quantize_aware_training': 'freeze_qat.tflite'}


def commands_in(page):
  """Returns (command, lines that its output has) for each command."""
  found = []
  for language, content in re.findall(
      r'^```(\w+)\n(.*?)^```$', readme.read('docs', page), re.M | re.S):
    if language == 'bash':
      found.append((content, []))
    else:
      found[-1][1].extend(content.splitlines())
  return found


@pytest.fixture(scope='module')
def folder(tmp_path_factory, reference_dir, ade20k_sample_dir):
  """What a user has at that point; variables are the names of files in it."""
  folder = tmp_path_factory.mktemp('docs')
  for name in ('scripts', 'post_training_quant.py', '.venvs'):
    (folder / name).symlink_to(os.path.join(scripts.REPOSITORY, name))
  for kind, name in MODELS.items():
    (folder / 'checkpoints' / kind).mkdir(parents=True)
    (folder / 'checkpoints' / kind / name).symlink_to(
        os.path.join(reference_dir, name))
  (folder / 'CKPT_DIR').symlink_to(
      os.path.join(reference_dir, 'checkpoint_float'))
  (folder / 'photos').symlink_to(
      os.path.join(ade20k_sample_dir, 'images', 'validation'))
  export.export(MODEL, options.ExportOptions(
      checkpoint_path=str(folder / 'CKPT_DIR'),
      export_path=str(folder / 'PB_FILE.pb')))
  (folder / 'PB_FILE').symlink_to('PB_FILE.pb')
  arguments = ['--{}_image{}folder={}'.format(
      split, label, os.path.join(ade20k_sample_dir, kind, where))
               for split, where in (('train', 'training'),
                                    ('val', 'validation'))
               for label, kind in (('_', 'images'),
                                   ('_label_', 'annotations'))]
  scripts.run('build_ade20k_data.py', *arguments,
              '--output_dir={}'.format(folder / 'DATA_DIR'))
  scripts.run('gen_preprocessed_data.py', '--min_resize_value=512',
              '--max_resize_value=512',
              '--dataset_dir={}'.format(folder / 'DATA_DIR'),
              '--preprocessed_dataset_dir={}'.format(
                  folder / 'PREPROCESSED_DATA_DIR'))
  return folder


def run(folder, command):
  """Runs a command to its end; returns what it printed."""
  path = os.pathsep.join([os.path.dirname(sys.executable), os.environ['PATH']])
  variables = {name: str(folder / name)
               for name in re.findall(r'\$\{(\w+)\}', command)}
  done = subprocess.run(
      ['bash', '-euc', command], cwd=str(folder),
      env=dict(os.environ, PATH=path, **variables), stdout=subprocess.PIPE,
      stderr=subprocess.PIPE, encoding='utf-8')
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout


def test_flags_and_paths_in_the_text():
  known = {'seed'}
  for script in ('compare_models', 'visualize', 'inspect_model'):
    known |= scripts.flags_of('scripts/{}.py'.format(script))
  for page in ('seeing.md', 'quantization.md'):
    text = readme.read('docs', page)
    named = set(re.findall(r'`--([a-z]\w*)', text))
    assert named <= known, named - known
    for path in re.findall(r'`((?:scripts|docs|deeplab)/[\w./]+)`', text):
      assert os.path.exists(os.path.join(scripts.REPOSITORY, path)), path


def test_commands_of_seeing(folder):
  commands = commands_in('seeing.md')
  assert len(commands) == 4
  compared, on_pictures, shown, inspected = [
      run(folder, command) for command, _ in commands]
  assert '2 images are noise' in compared and 'mIoU' in compared
  assert 'mIoU' not in on_pictures
  for name in ('comparison', 'on_photos'):
    assert (folder / name / 'index.html').stat().st_size < 1e6
  assert 'ADE_val_00000001.jpg.overlay.png: 512x683, ' in shown
  assert 'other weights: ' in inspected


def test_commands_of_quantization(folder):
  scripts.python_of('tf2')
  commands = commands_in('quantization.md')
  assert len(commands) == 7
  for command, expected in commands:
    output = run(folder, command).splitlines()
    for line in expected:
      # Some are long, and the text has how they begin.
      assert any(printed.startswith(line) for printed in output), (
          line, output)


def test_without_the_new_quantizer_weights_are_those_of_2_2(
    folder, monkeypatch):
  """And so the rule is of that, and not of the suite."""
  scripts.python_of('tf2')
  if not (folder / 'ptq_2.2.tflite').exists():
    run(folder, next(command for command, _ in commands_in('quantization.md')
                     if '=ptq_2.2.tflite --input_type' in command))
  make = conversion._converter

  def with_the_old_one(graph):
    converter = make(graph)
    converter.experimental_new_quantizer = False
    return converter

  monkeypatch.setattr(conversion, '_converter', with_the_old_one)
  conversion.post_training_quantize(options.CalibrationOptions(
      dataset_dir=str(folder / 'PREPROCESSED_DATA_DIR'),
      graph_def=str(folder / 'PB_FILE'), out_tflite=str(folder / 'old.tflite'),
      input_type='uint8', sample_num=2))
  found = difference.between(*[
      contents.read(any_model.find(str(folder / name)))
      for name in ('ptq_2.2.tflite', 'old.tflite')])
  assert found.verdict == difference.EQUAL
  assert found.total('differing') == 0


@pytest.mark.parametrize('is_used_again', [False, True])
def test_a_sum_is_taken_for_a_term_where_it_takes_its_place(
    tmp_path, is_used_again):
  """TensorFlow 2.21's calibration; where this fails, the text is out of date.

  Values of the term stay below 1, those of the sum reach 6.
  """
  random = np.random.RandomState(0)
  image = random.uniform(-1, 1, [1, 8, 8, 3]).astype(np.float32)

  def conv(net, size, name):
    weights = random.uniform(-size, size, [1, 1, net.shape.as_list()[3], 4])
    return tf.nn.bias_add(
        tf.nn.conv2d(net, weights.astype(np.float32), strides=1,
                     padding='SAME'), np.zeros([4], np.float32), name=name)

  with tf.Graph().as_default() as graph, tf.Session() as session:
    images = tf.placeholder(tf.float32, image.shape, name='in')
    base = tf.nn.relu6(conv(images, 9.0, 'base'))
    term = conv(base, 0.04, 'term')
    net = conv(base + term, 1.0, 'last')
    if is_used_again:
      net = net * term
    tf.argmax(net, 3, output_type=tf.int32, name='out')
    (tmp_path / 'x.pb').write_bytes(graph.as_graph_def().SerializeToString())
    of_term, of_sum = session.run([term, base + term], {images: image})
  assert np.abs(of_term).max() < 1 and of_sum.max() > 5
  converter = tf.lite.TFLiteConverter.from_frozen_graph(
      str(tmp_path / 'x.pb'), ['in'], ['out'])
  converter.optimizations = [tf.lite.Optimize.DEFAULT]
  converter.representative_dataset = lambda: [[image]]
  model = model_file.parse(converter.convert(), 'x')
  _, output, _ = [
      model.tensors[operator.outputs[0]] for operator in model.operators
      if operator.kind == 'CONV_2D']
  largest = output.scales[0] * (127 - output.zero_points[0])
  assert largest < 1 if is_used_again else largest > 5
