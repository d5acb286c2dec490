"""Runs commands of docs/seeing.md and docs/quantization.md in bash.

They run in order, on the published models and two real pairs. Their output must
contain what the pages show.
"""
import os

import pytest

from deeplab.config import options
from deeplab.export import freeze
from tests import readme
from tests import scripts

pytestmark = [pytest.mark.modern, pytest.mark.extended]

MODEL = options.ModelOptions(decoder_output_stride=(4,))
MODELS = {'post_train_quant': 'freeze_ptq.tflite',
          'quantize_aware_training': 'freeze_qat.tflite'}


def assert_shown(output, page, number):
  """Checks that a command's output contains the lines that a page shows.

  Args:
    output: what the command printed.
    page: such as 'quantization.md'.
    number: number of the command on the page, from 0.
  """
  commands = []
  for block in readme.fenced(readme.read('docs', page)):
    if block.language == 'bash':
      commands.append([])
    else:
      commands[-1] += block.content.splitlines()
  assert commands[number]
  for line in commands[number]:
    # The page shows only the start of long lines.
    assert any(printed.strip().startswith(line.strip())
               for printed in output.splitlines()), (line, output)


@pytest.fixture(scope='module')
def shell(tmp_path_factory, reference_dir, ade20k_sample_dir):
  """A folder with the files of a user; variables hold their paths."""
  shell = readme.Shell(tmp_path_factory.mktemp('docs'))
  folder = shell.folder
  for kind, name in MODELS.items():
    (folder / 'checkpoints' / kind).mkdir(parents=True)
    (folder / 'checkpoints' / kind / name).symlink_to(
        os.path.join(reference_dir, name))
  (folder / 'photos').symlink_to(
      os.path.join(ade20k_sample_dir, 'images', 'validation'))
  checkpoint = os.path.join(reference_dir, 'checkpoint_float')
  freeze.export(MODEL, options.ExportOptions(
      checkpoint_path=checkpoint, export_path=str(folder / 'float.pb')))
  arguments = ['--{}_image{}folder={}'.format(
      split, label, os.path.join(ade20k_sample_dir, kind, where))
               for split, where in (('train', 'training'),
                                    ('val', 'validation'))
               for label, kind in (('_', 'images'),
                                   ('_label_', 'annotations'))]
  scripts.run('build_ade20k_data.py', *arguments,
              '--output_dir={}'.format(folder / 'records'))
  scripts.run('gen_preprocessed_data.py', '--min_resize_value=512',
              '--max_resize_value=512',
              '--dataset_dir={}'.format(folder / 'records'),
              '--preprocessed_dataset_dir={}'.format(folder / 'preprocessed'))
  shell.variables = {
      'CKPT_DIR': checkpoint, 'PB_FILE': folder / 'float.pb',
      'DATA_DIR': folder / 'records',
      'PREPROCESSED_DATA_DIR': folder / 'preprocessed'}
  return shell


def test_commands_of_seeing_md_run(shell):
  output = shell.run_documented(
      'seeing.md', 'python scripts/compare_models.py \\\n    --model=float',
      **shell.variables)
  assert '2 images are noise' in output and 'mIoU' in output
  output = shell.run_documented(
      'seeing.md', 'python scripts/compare_models.py \\\n    --model=$',
      **shell.variables)
  assert '2 images are noise' in output and 'mIoU' not in output
  for name in ('comparison', 'on_photos'):
    assert (shell.folder / name / 'index.html').stat().st_size < 1e6
  output = shell.run_documented('seeing.md', 'python scripts/visualize.py')
  assert 'ADE_val_00000001.jpg.overlay.png: 512x683, ' in output
  output = shell.run_documented(
      'seeing.md', 'python scripts/inspect_model.py', **shell.variables)
  assert 'other weights: ' in output


def test_commands_of_quantization_md_run(shell):
  """Commands run in the order of the page and print what it shows."""
  scripts.python_of('tf2')
  shell.run_documented('quantization.md', '.venvs/tf2/', **shell.variables)
  output = shell.run_documented(
      'quantization.md', 'python scripts/inspect_model.py \\\n'
      '    --model=checkpoints/post_train_quant/freeze_ptq.tflite\n')
  assert_shown(output, 'quantization.md', 0)
  output = shell.run_documented(
      'quantization.md', 'python scripts/inspect_model.py \\\n'
      '    --model=checkpoints/post_train_quant/freeze_ptq.tflite \\',
      **shell.variables)
  assert_shown(output, 'quantization.md', 1)
  shell.run_documented('quantization.md', '.venvs/modern/', **shell.variables)
  output = shell.run_documented(
      'quantization.md', 'python scripts/inspect_model.py \\\n'
      '    --model=ptq_2.2', **shell.variables)
  assert_shown(output, 'quantization.md', 4)
  output = shell.run_documented(
      'quantization.md', 'python scripts/compare_models.py',
      **shell.variables)
  assert ' mIoU than 2.2 ' in output
