"""Tests reports: the table, strict JSON, and atomic writes."""
import json
import os
import sys

import numpy as np
import pytest

from deeplab.config import label_map
from deeplab.config import options as options_lib
from deeplab.data import download
from deeplab.errors import InputError
from deeplab.evaluation import published
from deeplab.evaluation import report as reports
from deeplab.models import interface
from deeplab.system import streams
from tests import scripts


def small_report(**changes):
  """Returns a report on five classes; classes 3 and 4 have no pixels."""
  report = reports.Report(
      kind=interface.CHECKPOINT, path='log/model.ckpt-600', step=600,
      split='val', images=4, seconds=8.0,
      geometry='resized to 512..512, factor 16, padded to 512x512',
      runtime='TensorFlow 1.15.5',
      matrix=np.array([[0, 0, 0, 0, 0],
                       [2, 6, 0, 0, 0],
                       [0, 2, 4, 2, 0],
                       [0, 0, 0, 0, 0],
                       [0, 0, 0, 0, 0]]))
  return report._replace(**changes)


def strict_json(text):
  """Parses JSON strictly: NaN and Infinity are refused."""
  def refuse(word):
    raise AssertionError('not JSON: {}'.format(word))
  return json.loads(text, parse_constant=refuse)


def test_table():
  assert reports.table(small_report()) == '\n'.join([
      'class  name               pixels      IoU',
      '    0  other              0.00 %        -',
      '    1  class 1           50.00 %   0.6000',
      '    2  class 2           50.00 %   0.5000',
      '    3  class 3            0.00 %        -',
      '    4  class 4            0.00 %        -',
      '',
      'evaluated        checkpoint log/model.ckpt-600, step 600',
      'images           4 of val, 8.0 s, 0.50 a second',
      'geometry         resized to 512..512, factor 16, padded to 512x512',
      'runtime          TensorFlow 1.15.5',
      'pixel accuracy   0.6250',
      'class accuracy   0.6250',
      'mIoU             0.2750  (every class seen, reference eval.py)',
      'mIoU, kept       0.3667  (without class 0, reference TFLite script)',
      'mIoU, app        0.2750  (sum over 4 classes / 4, MLPerf mobile app)'])


@pytest.mark.parametrize('kind, marked, files', [
    (interface.CHECKPOINT, 'mIoU ', 'checkpoints and graphs'),
    (interface.TFLITE, 'mIoU, kept', 'TFLite files on x86'),
    (reports.ACCURACY_LOG, 'mIoU, app', 'TFLite files on a device')])
def test_the_published_mean_is_marked(kind, marked, files):
  report = small_report(kind=kind, matrix=np.eye(32, dtype=np.int64))
  *lines, note = reports.table(report).split('\n')
  line, = (line for line in lines if '*' in line)
  assert line.startswith(marked) and ' 1.0000* (' in line
  assert lines[32] == '   31  armchair           3.12 %   1.0000'
  assert max(map(len, lines)) <= 80
  assert note == (
      '* the mean that the published figures of {} are'.format(files))
  # There are no published figures for other classes.
  own = label_map.LabelMap(('other',) * 32, ((),) * 32)
  assert '*' not in reports.table(report._replace(label_map=own))


@pytest.mark.parametrize('file, kind, path, marked, figures', [
    ('float/model.ckpt-200000.index', interface.CHECKPOINT, 'x', 'mIoU ',
     '0.5528'),
    ('quantize_aware_training/freeze_qat.tflite', interface.TFLITE, 'x.index',
     'mIoU, kept', '0.5483'),
    ('float/freeze.tflite', interface.TFLITE, 'x.index', 'mIoU, app',
     '0.5501 / 0.5509')])
def test_published_figures_are_found_by_file_content(
    tmp_path, monkeypatch, file, kind, path, marked, figures):
  (tmp_path / 'x.index').write_bytes(b'model')
  monkeypatch.setattr(download, 'published', lambda: {
      file: download.blob_sha1_of(str(tmp_path / 'x.index'))})
  *lines, note = reports.table(small_report(
      kind=kind, path=str(tmp_path / path),
      matrix=np.eye(32, dtype=np.int64))).split('\n')
  assert [line.startswith(marked) for line in lines if '*' in line] == [True]
  assert note == (
      '* compare with {}, published of 2000 images'.format(figures))


def test_published_figures_match_the_reference(reference_dir):
  with open(os.path.join(reference_dir, 'numbers.json')) as content:
    numbers = json.load(content)
  expected = numbers['published_miou_full_val_2000_images']
  found = {}
  for file, figures in published.FIGURES.items():
    assert download.published()[file] == (
        numbers['git_blob_sha1']['checkpoints/' + file])
    model, name = file.split('/')
    for score, values in figures.items():
      form = {'miou_kept_classes': 'tflite_x86',
              'miou_mlperf_app': 'tflite_on_device_cpu'}.get(
                  score, 'pb' if name.endswith('.pb') else 'ckpt')
      found.setdefault(model, {})[form] = (
          list(values) if len(values) > 1 else values[0])
  assert found == expected


def test_json_has_null_for_nan():
  content = reports.to_json(small_report())
  assert strict_json(json.dumps(content)) == content
  assert content['miou'] == pytest.approx(0.275)
  assert content['images_per_second'] == 0.5
  assert content['step'] == 600
  assert content['classes'][1] == {
      'id': 1, 'name': 'class 1', 'pixels': 8, 'iou': 0.6}
  assert content['classes'][3] == {
      'id': 3, 'name': 'class 3', 'pixels': 0, 'iou': None}
  assert content['confusion_matrix'][2] == [0, 2, 4, 2, 0]


def test_result_line_is_one_line_of_strict_json():
  line = reports.result_line(small_report(
      matrix=np.zeros([5, 5], np.int64), seconds=0.0))
  assert '\n' not in line
  mark, text = line.split(' ', 1)
  assert mark == 'RESULT'
  assert strict_json(text) == {
      'kind': 'checkpoint', 'path': 'log/model.ckpt-600', 'step': 600,
      'split': 'val', 'images': 4, 'seconds': 0.0, 'images_per_second': None,
      'geometry': 'resized to 512..512, factor 16, padded to 512x512',
      'runtime': 'TensorFlow 1.15.5', 'skipped': 0,
      'miou': None, 'miou_kept_classes': None,
      'miou_mlperf_app': None, 'pixel_accuracy': None,
      'mean_class_accuracy': None}


def test_a_report_is_read_back_unchanged(tmp_path):
  path = tmp_path / 'result.json'
  report = small_report()
  reports.write(str(path), report)
  assert strict_json(path.read_text()) == reports.to_json(report)
  assert os.listdir(str(tmp_path)) == ['result.json']
  again = reports.read(str(path))
  assert again._replace(matrix=0) == report._replace(matrix=0)
  np.testing.assert_array_equal(again.matrix, report.matrix)


@pytest.mark.parametrize('change', [
    {'images': None}, {'miou': 0.5}, {'confusion_matrix': [[1, 2]]},
    {'confusion_matrix': 'x'}, {'confusion_matrix': []}])
def test_invalid_reports_are_refused(tmp_path, change):
  path = tmp_path / 'x.json'
  content = dict(reports.to_json(small_report()), **change)
  for text in (json.dumps(content), json.dumps([content]), 'RESULT'):
    path.write_text(text)
    with pytest.raises(InputError, match='report=a=.*: .*expected a report'):
      reports.stage_table([('a', str(path))])


def test_an_error_in_printing_names_the_written_report(monkeypatch):
  class Closed:
    def write(self, unused):
      raise streams.OutputError(32, 'Broken pipe', 'standard output')

  monkeypatch.setattr(sys, 'stdout', Closed())
  with pytest.raises(streams.OutputError) as error:
    reports.show(small_report(), 'a.json')
  assert error.value.text == 'the report, which is in a.json'
  with pytest.raises(streams.OutputError) as error:
    reports.show(small_report(), None)
  assert error.value.text == reports.result_line(small_report())


def test_outputs_that_cannot_be_written_are_named(tmp_path):
  (tmp_path / 'file').write_text('')
  (tmp_path / 'vis' / 'predictions.png').mkdir(parents=True)
  for name, path, words in (
      ('eval_logdir', tmp_path / 'file', 'is a file, expected a folder'),
      ('vis_dir', tmp_path / 'file', 'is a file, expected a folder'),
      ('vis_dir', tmp_path / 'vis', '{} is a folder, expected the name of a '
       'file'.format(tmp_path / 'vis' / 'predictions.png')),
      ('report_json', tmp_path, 'is a folder, expected the name of a file, '
       'such as {}/report.json'.format(tmp_path)),
      ('report_json', tmp_path / 'file' / 'a', 'Not a directory')):
    with pytest.raises(InputError) as error:
      reports.check_outputs(options_lib.EvalOptions(**{name: str(path)}))
    assert str(error.value) == '{}={}: {}'.format(name, path, words)
  reports.check_outputs(options_lib.EvalOptions(
      eval_logdir=str(tmp_path / 'log'), report_json=str(tmp_path / 'a.json'),
      vis_dir=str(tmp_path / 'pictures')))
  assert sorted(os.listdir(str(tmp_path))) == ['file', 'log', 'pictures', 'vis']


# --- The stage table -------------------------------------------------------


def test_the_script_compares_stages(tmp_path):
  reports.write(str(tmp_path / 'a.json'), small_report())
  reports.write(str(tmp_path / 'b.json'), small_report(
      matrix=np.zeros([5, 5], np.int64), seconds=120.0))
  done = scripts.run(
      'scripts/stage_table.py', '--report=checkpoint=a.json',
      '--report=freeze_ptq.tflite=b.json', cwd=str(tmp_path))
  assert done.stdout.splitlines() == [
      'stage                 mIoU  pixel accuracy  images   seconds',
      'checkpoint          0.2750          0.6250       4       8.0',
      'freeze_ptq.tflite        -               -       4     120.0',
      'mIoU: every class seen, as the published figures of checkpoints and '
      'graphs.',
      'The published figures of TFLite files are "mIoU, kept" of their '
      'reports.']


@pytest.mark.parametrize('given', ['', 'report.json', '=report.json', 'a='])
def test_the_script_refuses_bad_stages(given):
  line = scripts.refusal('scripts/stage_table.py', '--report=' + given)
  assert 'expected STAGE=FILE' in line
