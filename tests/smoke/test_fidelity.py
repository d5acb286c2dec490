"""Scripts reproduce the reference's scores on real ADE20K pairs."""
import json
import os

import numpy as np
import pytest

from tests import processors
from tests import scripts

pytestmark = [pytest.mark.extended, pytest.mark.tf1, pytest.mark.modern]

SIZE = ['--eval_crop_size=512,512', '--min_resize_value=512',
        '--max_resize_value=512', '--resize_factor=16']
QUANTIZED = {'float': [], 'qat': ['--quantize_delay_step=0']}
# Absolute tolerances of (mIoU, IoU of a class). A float score of two images
# changes in the seventh digit; for quantized ones see tests/processors.py.
TOLERANCES = {'float': (1e-4, 1e-4),
              'qat': (processors.BOUNDS['quantized_miou'],
                      processors.BOUNDS['quantized_class_iou'])}


@pytest.fixture(scope='module')
def numbers(reference_dir):
  with open(os.path.join(reference_dir, 'numbers.json')) as content:
    return json.load(content)


def report_of(script, path, *arguments):
  scripts.run(script, '--report_json={}'.format(path), *arguments, *SIZE)
  with open(str(path)) as content:
    return json.load(content)


@pytest.mark.parametrize('kind', ['float', 'qat'])
def test_checkpoint_and_graph_scores_match_the_reference(
    kind, sample_records, numbers, reference_dir, tmp_path):
  checkpoint = os.path.join(reference_dir, 'checkpoint_' + kind)
  expected = numbers['eval_ckpt_{}_rebuilt'.format(kind)]
  report = report_of(
      'eval.py', tmp_path / 'ckpt.json', '--checkpoint_dir=' + checkpoint,
      '--dataset_dir=' + sample_records, '--decoder_output_stride=4',
      '--max_number_of_evaluations=1', '--eval_batch_size=2',
      *QUANTIZED[kind])
  assert report['images'] == 2
  tolerance, class_tolerance = TOLERANCES[kind]
  assert report['miou'] == pytest.approx(expected['overall'], abs=tolerance)
  scored = {'class_{}'.format(entry['id']): entry['iou']
            for entry in report['classes'] if entry['iou'] is not None}
  assert set(scored) == set(expected) - {'overall', 'resize_factor'}
  for name, iou in scored.items():
    assert iou == pytest.approx(expected[name], abs=class_tolerance), name

  scripts.run(
      'export_model.py', '--checkpoint_path=' + checkpoint,
      '--export_path={}'.format(tmp_path), '--train_crop_size=512,512',
      '--decoder_output_stride=4', *QUANTIZED[kind])
  frozen = report_of(
      'eval_pb.py', tmp_path / 'pb.json', '--pb={}'.format(
          tmp_path / 'freeze.pb'), '--dataset_dir=' + sample_records)
  assert frozen['miou'] == pytest.approx(
      numbers['eval_pb_{}_rebuilt'.format(kind)], abs=tolerance)
  # On one machine, the two agree more closely than across machines.
  moved = np.abs(np.subtract(
      frozen['confusion_matrix'], report['confusion_matrix'])).sum() / 2
  counted = np.sum(report['confusion_matrix'])
  assert moved <= {'float': 1e-5, 'qat': 0.02}[kind] * counted


def test_forgotten_flags_are_named(sample_records, reference_dir, tmp_path):
  line = scripts.refusal(
      'eval.py', '--dataset_dir=' + sample_records,
      '--max_number_of_evaluations=1',
      '--checkpoint_dir=' + os.path.join(reference_dir, 'checkpoint_float'))
  assert 'has unused 25 variables (decoder/' in line
  assert 'was it trained with --decoder_output_stride=4?' in line
  for kind, flags, words in (
      ('qat', [], 'add --quantize_delay_step=0'),
      ('float', ['--num_classes=151'],
       'it has 32 classes: give --num_classes=32')):
    line = scripts.refusal(
        'export_model.py', '--export_path={}'.format(tmp_path),
        '--checkpoint_path=' + os.path.join(
            reference_dir, 'checkpoint_' + kind),
        '--decoder_output_stride=4', *flags)
    assert words in line
  assert not os.listdir(str(tmp_path))
