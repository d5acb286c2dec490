"""Tests merging the reports of shards."""
import json

import numpy as np
import pytest

from deeplab.config import options as options_lib
from deeplab.errors import InputError
from deeplab.evaluation import merging
from deeplab.evaluation import report as report_lib
from deeplab.models import interface
from tests import scripts

pytestmark = [pytest.mark.tf1, pytest.mark.modern]


@pytest.mark.parametrize('items, of', [(8, 3), (5, 5), (2000, 7)])
def test_shards_cover_all_items_and_differ_by_one(items, of):
  found = [merging.bounds(index, of, items) for index in range(of)]
  assert found[0][0] == 0 and found[-1][1] == items
  assert all(one[1] == other[0] for one, other in zip(found, found[1:]))
  assert {last - first for first, last in found} <= {
      items // of, items // of + 1}


def matrix_of(index):
  return np.random.RandomState(index).randint(0, 9, [4, 4])


def write(path, index=None, of=3, images=2, evaluation=None, **changes):
  """Writes the report of a shard, or of all images; returns the path."""
  report = report_lib.Report(
      kind=interface.TFLITE, path='m.tflite', step=None, split='val',
      images=images, seconds=2.0, geometry='4x4', runtime='here',
      matrix=matrix_of(index or 0), shard=None if index is None else
      report_lib.Shard(index, of, evaluation or {'model': 'a', 'images': 'b'}))
  report_lib.write(str(path), report._replace(**changes))
  return path


@pytest.fixture
def shards(tmp_path):
  return [write(tmp_path / '{}.json'.format(index), index)
          for index in range(3)]


def merge(tmp_path, *paths):
  return merging.merge([str(path) for path in paths], options_lib.MergeOptions(
      report_json=str(tmp_path / 'sum.json')))


def refusal(tmp_path, *paths):
  with pytest.raises(InputError) as refused:
    merge(tmp_path, *paths)
  assert not (tmp_path / 'sum.json').exists()
  message = str(refused.value)
  assert '\n' not in message
  for path in paths:
    message = message.replace(str(path), path.name)
  return message


def test_the_script_merges_reports(tmp_path, shards):
  paths = [str(path) for path in reversed(shards)]
  done = scripts.run('scripts/merge_reports.py', paths[0], '--report_json=' +
                     str(tmp_path / 'sum.json'), *paths[1:])
  assert done.stdout.splitlines()[-1].startswith('RESULT {')
  found = report_lib.from_json(json.loads((tmp_path / 'sum.json').read_text()))
  assert (found.images, found.seconds, found.shard) == (6, 6.0, None)
  np.testing.assert_array_equal(found.matrix, sum(map(matrix_of, range(3))))
  assert 'shards 1 of 3 are missing' in scripts.refusal(
      'scripts/merge_reports.py', paths[0], paths[2],
      '--report_json=' + str(tmp_path / 'sum.json'))


def test_a_report_names_its_shard(shards):
  report = report_lib.from_json(json.loads(shards[1].read_text()))
  assert '\nimages           2 of val, shard 1 of 3, 2.0 s' in (
      report_lib.table(report))
  assert '"shard"' not in report_lib.result_line(report)


def test_missing_and_repeated_shards_are_named(tmp_path, shards):
  assert refusal(tmp_path, shards[1]) == (
      'shards 0, 2 of 3 are missing (given: 1.json)')
  copy = write(tmp_path / 'copy.json', 1)
  assert refusal(tmp_path, *shards, copy) == (
      '1.json and copy.json are both shard 1; expected each once')


@pytest.mark.parametrize('changes, expected', [
    ({'of': 4}, 'shards 3, and 4'),
    ({'evaluation': {'model': 'x', 'images': 'b'}}, 'model a, and x'),
    ({'evaluation': {'model': 'a'}}, 'images b, and None'),
    ({'split': 'train'}, 'split val, and train'),
    ({'matrix': np.zeros([3, 3], int)}, 'classes 4, and 3')])
def test_shards_of_another_evaluation_are_refused(
    tmp_path, shards, changes, expected):
  other = write(tmp_path / 'other.json', 1, **changes)
  assert refusal(tmp_path, shards[0], other, shards[2]) == (
      '0.json and other.json are not of one evaluation: ' + expected)


def test_files_that_are_not_reports_of_shards_are_refused(tmp_path, shards):
  whole = write(tmp_path / 'all.json')
  assert refusal(tmp_path, whole).startswith(
      'all.json: a report of all 2 images; expected the report of a shard')
  for shard in ({'number': 3}, {'number': -1}, {'of': None}, {'of': True},
                {'evaluation': []}, {'more': 1}):
    content = json.loads(shards[1].read_text())
    content['shard'].update(shard)
    whole.write_text(json.dumps(content))
    assert refusal(tmp_path, whole).startswith(
        'all.json: expected the report of a shard')
  for content in ('{', '[]'):
    whole.write_text(content)
    assert 'all.json: ' in refusal(tmp_path, whole)
  with pytest.raises(InputError, match='no report given'):
    merge(tmp_path)


@pytest.mark.parametrize('given, expected', [
    ({'num_shards': 4}, 'num_shards=4: which of them is this run? Add '
                        'shard_index=0'),
    ({'shard_index': 1}, 'shard_index=1: expected less than num_shards=1'),
    ({'num_shards': 2, 'shard_index': 2},
     'shard_index=2: expected less than num_shards=2')])
def test_bad_shard_options_are_refused(given, expected):
  with pytest.raises(InputError) as refused:
    options_lib.TfliteEvalOptions(net_file='x', test_dir='y', **given)
  assert str(refused.value) == expected
