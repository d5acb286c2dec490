"""Runs the commands of docs/mlperf.md in bash, as documented."""
import json
import os

import pytest

from deeplab.mlperf import loadgen
from deeplab.system import environment
from tests import lite_models
from tests import readme
from tests import scripts

pytestmark = [pytest.mark.extended, pytest.mark.modern]


@pytest.fixture(scope='module')
def shell(tmp_path_factory):
  return readme.Shell(tmp_path_factory.mktemp('mlperf'))


def read_json(folder, *path):
  with open(os.path.join(str(folder), *path)) as content:
    return json.load(content)


@pytest.mark.skipif(not environment.installed_version(loadgen.PACKAGE),
                    reason='no {}'.format(loadgen.PACKAGE))
def test_commands_from_records_to_the_score_of_a_log(shell):
  """Uses a model without weights and the rules of a quick run."""
  folder = shell.folder
  scripts.run('scripts/make_synthetic_ade20k.py', '--size=100',
              '--train_images=1', '--val_images=2',
              '--output_dir={}'.format(folder))
  source = folder / 'ADEChallengeData2016'
  scripts.run(
      'build_ade20k_data.py', '--output_dir={}'.format(folder / 'records'),
      '--val_image_folder={}'.format(source / 'images' / 'validation'),
      '--val_image_label_folder={}'.format(
          source / 'annotations' / 'validation'))
  model = folder / 'checkpoints' / 'quantize_aware_training' / (
      'freeze_qat.tflite')
  model.parent.mkdir(parents=True)
  model.write_bytes(lite_models.argmax_model((512, 512)))

  shell.run_documented('mlperf.md', 'python gen_preprocessed_data.py',
                       DATA_DIR=folder / 'records')
  output = shell.run_documented(
      'mlperf.md', 'python scripts/loadgen.py',
      changes=[('--test01', '--test01 --mode=quick')])
  assert 'SingleStream, quick: 90th percentile' in output
  assert 'test01: 0 of ' in output and output.count('unofficial') == 1
  summary = read_json(folder, 'loadgen_qat', 'summary.json')
  effective = summary['performance']['effective_settings']
  assert effective['min_duration_ms'] == 10000
  assert effective['min_query_count'] == 128
  assert effective['performance_sample_count'] == 2
  assert summary['performance']['valid']

  output = shell.run_documented(
      'mlperf.md', 'python scripts/score_accuracy_log.py')
  score = summary['accuracy']['miou_mlperf_app']
  assert score > 0
  assert 'mIoU, app        {:.4f}'.format(score) in output
  assert read_json(folder, 'score.json')['miou_mlperf_app'] == score
  done = scripts.run(
      'segmentation_inference_eval_seg_tflite.py',
      '--net_file={}'.format(model),
      '--test_dir={}'.format(folder / 'mlperf_data'),
      '--report_json={}'.format(folder / 'evaluated.json'))
  assert 'RESULT ' in done.stdout
  assert read_json(folder, 'evaluated.json')['miou_mlperf_app'] == score


def test_reproduction_of_a_sample(
    shell, reference_dir, ade20k_sample_dir):
  published = shell.folder / 'published'
  for name, folder, pattern in (
      ('float', 'checkpoint_float', 'model.ckpt-200000'),
      ('quantize_aware_training', 'checkpoint_qat', 'model.ckpt-100000')):
    (published / name).mkdir(parents=True)
    for part in ('index', 'data-00000-of-00001'):
      part = '{}.{}'.format(pattern, part)
      (published / name / part).symlink_to(
          os.path.join(reference_dir, folder, part))
  for name, part in (('quantize_aware_training', 'freeze_qat.tflite'),
                     ('post_train_quant', 'freeze_ptq.tflite')):
    (published / name).mkdir(exist_ok=True)
    (published / name / part).symlink_to(os.path.join(reference_dir, part))
  # One validation image is enough.
  sample = shell.folder / 'sample'
  for kind, suffix in (('images', 'jpg'), ('annotations', 'png')):
    for split, name in (('training', 'ADE_train_00000036'),
                        ('validation', 'ADE_val_00000001')):
      folder = sample / kind / split
      folder.mkdir(parents=True)
      name = '{}.{}'.format(name, suffix)
      (folder / name).symlink_to(
          os.path.join(ade20k_sample_dir, kind, split, name))

  output = shell.run_documented(
      'mlperf.md', './scripts/reproduce.sh \\\n', SAMPLE_DIR=sample,
      PUBLISHED_DIR=published)
  assert output.startswith('17 steps, in ')
  assert 'a sample of 1 images, no verdict: ' in output
  folder = shell.folder / 'reproduced_sample'
  text = (folder / 'RESULTS.md').read_text()
  assert '**SAMPLE of 1 images: the scores say nothing of the published' in text
  assert text.count('| sample |') == 9
  assert '| post_train_quant/freeze_ptq.tflite | verified |' in text
  assert '- modern: Python 3' in text
  assert text.count('| float32 1x512x512x3, NHWC RGB; pixels 0 and') >= 4
  assert text.count('| uint8 1x512x512x3, NHWC RGB; pixels 0 and') == 4
  # The exported graph scores like its checkpoint.
  for graph, checkpoint, tolerance in (
      ('float_freeze.pb', 'float_model.ckpt-200000', 1e-4),
      ('quantize_aware_training_freeze.pb',
       'quantize_aware_training_model.ckpt-100000', 0.02)):
    assert read_json(folder, 'reports', 'made_here_{}.json'.format(graph))[
        'miou'] == pytest.approx(read_json(
            folder, 'reports', 'published_{}.json'.format(checkpoint))['miou'],
                                 abs=tolerance)
  # The command for the whole data set continues there; nothing is left to do.
  output = shell.run_documented(
      'mlperf.md', './scripts/reproduce.sh\n', changes=[(
          'reproduce.sh', 'reproduce.sh --sample=sample --published=published '
          '--environment=modern --output_dir=reproduced_sample')])
  assert output.count('(done before)') == 17
