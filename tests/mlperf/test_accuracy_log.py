"""Tests reading, scoring and comparing LoadGen's accuracy logs."""
import json
import os
import tracemalloc

import numpy as np
from PIL import Image
import pytest

from deeplab.config import options as options_lib
from deeplab.data import png_folder
from deeplab.errors import InputError
from deeplab.mlperf import accuracy_log
from deeplab.storage import files
from tests import scripts

pytestmark = [pytest.mark.tf1, pytest.mark.modern]
SCRIPT = 'scripts/score_accuracy_log.py'
SIZE = (2, 3)  # height, width
LABELS = [[[1, 1, 2], [2, 0, 0]], [[3, 3, 3], [40, 2, 2]],
          [[1, 1, 1], [1, 1, 1]]]
PREDICTIONS = [[[1, 2, 2], [2, 5, 0]], [[3, 3, 1], [2, 2, 2]],
               [[1, 1, 1], [1, 1, 0]]]


def text_of(responses):
  """Returns a log as LoadGen writes it; responses are (image, class map)."""
  return '[\n' + ',\n'.join(
      '{{ "seq_id" : {}, "qsl_idx" : {}, "data" : "{}" }}'.format(
          sequence, sample, np.array(classes, np.uint8).tobytes().hex().upper())
      for sequence, (sample, classes) in enumerate(responses)) + '\n]\n'


WHOLE = text_of([(2, PREDICTIONS[2]), (0, PREDICTIONS[0]),
                 (1, PREDICTIONS[1])])


def save_png(path, array):
  Image.fromarray(np.array(array, np.uint8)).save(str(path))


@pytest.fixture
def folder(tmp_path):
  """Writes three preprocessed pairs and the log of their predictions."""
  for number, label in enumerate(LABELS):
    for kind, array in (('images', np.zeros(SIZE + (3,))),
                        ('annotations', label)):
      (tmp_path / kind).mkdir(exist_ok=True)
      save_png(tmp_path / kind / 'img_{}.png'.format(number), array)
  (tmp_path / 'log.json').write_text(WHOLE)
  return tmp_path


def score(folder, text, log='log.json'):
  (folder / log).write_text(text)
  return accuracy_log.score_log(
      options_lib.AccuracyLogOptions(
          accuracy_log=str(folder / log), test_dir=str(folder)),
      options_lib.EvalOptions())


def test_responses_are_scored_in_any_order(folder):
  done = scripts.run(
      SCRIPT, '--accuracy_log={}'.format(folder / 'log.json'),
      '--test_dir={}'.format(folder),
      '--report_json={}'.format(folder / 'report.json'))
  with open(str(folder / 'report.json')) as content:
    report = json.load(content)
  # Correct pixels of class 1: 6 of 9; 2: 4 of 5; 3: 2 of 3.
  assert report['miou_mlperf_app'] == pytest.approx(
      (6 / 9 + 4 / 5 + 2 / 3) / 31)
  assert (report['kind'], report['images']) == ('accuracy log', 3)
  assert 'mIoU, app        0.0688' in done.stdout
  assert 'unofficial' in done.stdout
  (folder / 'log.json').write_text(WHOLE[:-60])
  line = scripts.refusal(
      SCRIPT, '--accuracy_log={}'.format(folder / 'log.json'),
      '--test_dir={}'.format(folder))
  assert line.endswith('log.json: line 3: the log is cut off there; run again')
  assert '--accuracy_log=' in line


def test_a_log_may_be_formatted_differently(folder):
  """Blanks and letter case may differ from LoadGen's."""
  text = '[\n' + ',\n'.join(json.dumps(
      {'data': entry['data'].lower(), 'qsl_idx': entry['qsl_idx'],
       'seq_id': entry['seq_id'], 'token_count': 1})
                            for entry in json.loads(WHOLE)) + '\n]'
  assert score(folder, text).matrix.tolist() == score(
      folder, WHOLE).matrix.tolist()


LINES = WHOLE.splitlines(True)


@pytest.mark.parametrize('text, problem', [
    (WHOLE[:-3], 'line 4: the log is cut off there; run again'),
    (WHOLE[:-100], 'line 3: the log is cut off there; run again'),
    (''.join(LINES[:2] + LINES[3:]),
     'lacks 1 of 3 images: img_0.png'),
    (''.join(LINES[:2] + LINES[1:]), 'has image 2 (img_2.png) more than once'),
    (WHOLE.replace('"qsl_idx" : 1', '"qsl_idx" : 3'),
     'has image 3; expected 0 to 2, as there are 3'),
    (WHOLE.replace('"qsl_idx" : 1', '"qsl_idx" : -1'), 'line 4: expected {'),
    (WHOLE.replace('"data" : "01', '"data" : "0X'), 'line 2: expected {'),
    (text_of([(0, [])]), 'line 2: "data" is empty: there is no class map in '
     'the log. The MLPerf Mobile app writes such logs'),
    (WHOLE.replace('"data" : "01', '"data" : "'),
     'line 2: 5 bytes of image 2; expected a class map of 2x3'),
    (WHOLE.replace('"data" : "01', '"data" : "20'),
     'image 2 (img_2.png): class 32; expected 0 to 31'),
    (WHOLE.replace('"data" : "01', '"data" : "' + '01' * 400),
     'line 2: longer than any class map of 2x3'),
    ('[\n]\n', 'lacks 3 of 3 images: img_0.png, img_1.png, img_2.png'),
    (json.dumps(json.loads(WHOLE)), 'line 1 is not "["; expected'),
    ('', 'line 1 is not "["; expected an mlperf_log'),
    ('[\n{}\n]\n', 'line 2: expected {'),
    ('[\n' + '[' * 300 + '\n]\n', 'line 2: expected {'),
])
def test_truncated_or_edited_logs_are_refused(folder, text, problem):
  with pytest.raises(InputError) as error:
    score(folder, text)
  assert problem in str(error.value)
  assert str(error.value).startswith('accuracy_log={}: '.format(
      folder / 'log.json'))
  assert '\n' not in str(error.value)


def test_a_log_is_checked_against_its_summary(folder):
  """A changed class map or label is valid by itself."""
  (folder / 'run' / 'accuracy').mkdir(parents=True)
  log = os.path.join('run', 'accuracy', 'log.json')
  score(folder, WHOLE, log)
  (folder / 'run' / 'summary.json').write_text(json.dumps({
      'accuracy': {'log_sha256': files.sha256_of(str(folder / log))},
      'images': {'folder': 'FOLDER', 'sha256': png_folder.identity(
          png_folder.list_pairs(str(folder)).pairs)}}))
  score(folder, WHOLE, log)
  with pytest.raises(InputError, match='has changed since LoadGen wrote it'):
    score(folder, WHOLE.replace('"data" : "01', '"data" : "02'), log)
  save_png(folder / 'annotations' / 'img_0.png', np.full(SIZE, 1))
  with pytest.raises(InputError) as error:
    score(folder, WHOLE, log)
  assert str(error.value) == (
      'test_dir={}: images or labels differ from those of the log, which '
      '../summary.json names: FOLDER'.format(folder / 'images'))


def test_without_a_summary_the_order_of_images_must_be_unambiguous(folder):
  for kind in ('images', 'annotations'):
    (folder / kind / 'img_0.png').rename(folder / kind / 'img_10.png')
  with pytest.raises(InputError, match=(
      'without summary.json above its folder, the order of images is '
      'ambiguous: loadgen.py takes img_2.png before img_10.png, the app does '
      'not; put the log back, or use a folder that gen_preprocessed_data.py '
      'made with layout=mlperf_app')):
    score(folder, WHOLE)


# --- Comparing -------------------------------------------------------------


def compare(folder, text):
  (folder / 'sampled.json').write_text(text)
  found = accuracy_log.compare(
      str(folder / 'log.json'), str(folder / 'sampled.json'), SIZE)
  return tuple(found[name] for name in (
      'responses', 'different', 'different_bytes', 'samples', 'bytes'))


def test_all_bytes_are_compared(folder):
  equal = [(0, PREDICTIONS[0]), (2, PREDICTIONS[2]), (0, PREDICTIONS[0])]
  assert compare(folder, text_of(equal)) == (3, 0, 0, 2, 18)
  last = np.array(PREDICTIONS[2])
  last[-1, -1] += 1
  other = [(0, PREDICTIONS[0]), (2, last), (1, PREDICTIONS[0])]
  # PREDICTIONS 0 and 1 have one pixel in common.
  assert compare(folder, text_of(other)) == (3, 2, 1 + 5, 3, 18)


def test_logs_that_cannot_be_compared_are_refused(folder):
  with pytest.raises(InputError, match='has no response to compare'):
    compare(folder, '[\n]\n')
  with pytest.raises(InputError, match='has image 7, which .* lacks'):
    compare(folder, text_of([(7, PREDICTIONS[0])]))


# --- Size ------------------------------------------------------------------


def test_a_large_log_takes_little_memory(tmp_path):
  count, size = 20, (512, 512)
  path = tmp_path / 'log.json'
  path.write_text(text_of(
      [(number, np.full(size, 5)) for number in range(count)]))
  assert path.stat().st_size > 10e6
  tracemalloc.start()
  try:
    assert sum(1 for _ in accuracy_log.responses(str(path), size)) == count
    assert tracemalloc.get_traced_memory()[1] < 5e6
  finally:
    tracemalloc.stop()
