"""Tests which files a script may replace: only its own."""
import json
import os

import numpy as np
import pytest

from deeplab.config import options as options_lib
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.evaluation import report
from deeplab.models import interface
from deeplab.storage import checked_read
from deeplab.storage import files
from deeplab.system import streams

pytestmark = [pytest.mark.tf1, pytest.mark.modern]

_OURS = checked_read.json_with('miou', 'model.kind')


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)


def make(*paths, content='{"my": "numbers"}'):
  for path in paths:
    os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
    with open(path, 'w') as out:
      out.write(content)


def tree(folder='.'):
  return sorted(os.path.relpath(os.path.join(inner, name), folder)
                for inner, _, names in os.walk(folder) for name in names)


# --- One file --------------------------------------------------------------


def check(*paths, **options):
  files.check_outputs(option('report_json', paths[0]), *paths, **options)


@pytest.mark.parametrize('path', [
    'model.tflite', './sub/../model.tflite', 'link', 'data/a.png',
    'linked_data/a.png'])
def test_an_input_is_not_replaced(path):
  make('model.tflite', 'data/a.png', 'sub/x')
  os.symlink('model.tflite', 'link')
  os.symlink('data', 'linked_data')
  before = tree()
  with pytest.raises(InputError, match='is an input of this command'):
    check(path, inputs=['model.tflite', None, 'data'])
  assert tree() == before


def test_an_input_is_not_replaced_even_if_the_suite_wrote_it():
  make('part.json', content='{"miou": 1, "model": {"kind": 2}}')
  check('part.json', ours=_OURS)
  check('part.json', ours=_OURS, inputs=['.'])
  with pytest.raises(InputError, match='is an input of this command'):
    check('part.json', ours=_OURS, inputs=['part.json'])


@pytest.mark.parametrize('content', [
    '{"my": "numbers"}', '{"miou": 1}', '{"miou": 1, "model": 2}', '[]', '3',
    'no JSON', '[' * 100000, '\0'])
def test_a_file_that_the_suite_did_not_write_is_not_replaced(content):
  make('report.json', content=content)
  with pytest.raises(InputError, match='was not written by this command'):
    check('report.json', ours=_OURS)
  assert tree() == ['report.json']


def test_an_empty_file_and_a_new_one_can_be_written():
  make('report.json', content='')
  check('report.json', 'new/report.json', ours=_OURS, inputs=['.'])
  check('new/beside.json', inputs=['.'])


def test_a_folder_of_pictures_is_not_an_output_folder():
  make('photos/a.png')
  os.symlink('photos', 'link')
  with pytest.raises(InputError, match='is a folder of pictures'):
    files.check_folder(option('output_dir', 'link'), 'link', inputs=['photos'])


# --- A folder's own files --------------------------------------------------


def publish(folder, contents, meanwhile=lambda: None):
  with files.replacing_own(
      option('output_dir', folder), folder,
      ('page.html', 'images/[0-9].png', 'made.json'),
      checked_read.json_with('made')) as new:
    for name, content in contents.items():
      path = os.path.join(new, name)
      os.makedirs(os.path.dirname(path), exist_ok=True)
      with open(path, 'w') as out:
        out.write(content)
    meanwhile()


_FIRST = {'page.html': '1', 'images/1.png': '1', 'images/2.png': '1',
          'made.json': '{"made": 1}'}
_SECOND = {'page.html': '2', 'images/1.png': '2', 'made.json': '{"made": 2}'}


@pytest.mark.parametrize('folder', [
    'new', 'new/', 'a/new', '.', './sub/..', 'link', '[x]'])
def test_only_own_files_are_replaced(folder):
  os.makedirs('sub/real')
  os.symlink('sub/real', 'link')
  publish(folder, _FIRST)
  assert set(tree(folder)) == set(_FIRST)
  for name in ('notes.txt', 'images/mine.png', 'images/12.png'):
    make(os.path.join(folder, name), content='mine')
  publish(folder, _SECOND,
          lambda: make(os.path.join(folder, 'images/late.png')))
  assert set(tree(folder)) == set(_SECOND) | {
      'notes.txt', 'images/mine.png', 'images/12.png', 'images/late.png'}
  for name, content in _SECOND.items():
    with open(os.path.join(folder, name)) as found:
      assert found.read() == content
  assert os.path.islink('link') and not [
      name for name in tree() if 'deeplab' in name]


@pytest.mark.parametrize('names', [
    ['made.json'], ['page.html'], ['images/1.png'],
    ['made.json', 'images/7.png']])
def test_a_foreign_file_with_a_needed_name_is_refused_before_any_work(names):
  make(*names)
  with pytest.raises(InputError, match='no earlier run .* wrote there'):
    publish('.', {}, lambda: pytest.fail('works'))
  assert tree() == sorted(names)


def test_files_that_appear_during_the_run_are_kept():
  with pytest.raises(InputError, match='holds images/1.png'):
    publish('new', _FIRST, lambda: make('new/images/1.png', 'new/mine'))
  assert tree('new') == ['images/1.png', 'mine']


@pytest.mark.parametrize('link', ['images', 'page.html', 'images/1.png'])
def test_nothing_is_written_through_a_link(link):
  make('elsewhere/1.png', 'elsewhere/made.json', content='{"made": 0}')
  make('new/made.json', content='{"made": 0}')
  os.makedirs(os.path.dirname(os.path.join('new', link)), exist_ok=True)
  os.symlink(os.path.abspath('elsewhere'), os.path.join('new', link))
  before = tree()
  with pytest.raises(InputError, match='no earlier run'):
    publish('new', _SECOND, lambda: pytest.fail('works'))
  assert tree() == before


def test_a_failure_leaves_the_folder_as_it_was():
  publish('new', _FIRST)
  with pytest.raises(ValueError):
    publish('new', _SECOND, lambda: json.loads('?'))
  assert set(tree('new')) == set(_FIRST)


def test_an_interrupted_run_is_replaced_completely(monkeypatch):
  replace = os.replace

  def interrupted(source, path):
    if path.endswith('page.html'):
      raise KeyboardInterrupt
    replace(source, path)

  monkeypatch.setattr(os, 'replace', interrupted)
  with pytest.raises(KeyboardInterrupt):
    publish('new', _FIRST)
  assert tree('new') == ['INCOMPLETE', 'images/1.png', 'images/2.png']
  monkeypatch.setattr(os, 'replace', replace)
  publish('new', _SECOND)
  assert set(tree('new')) == set(_SECOND)


def test_two_runs_do_not_write_to_one_folder():
  with pytest.raises(InputError, match='another run writes there'):
    publish('new', _FIRST, lambda: publish('./new', _SECOND))
  assert tree('new') == []


# --- Scripts ---------------------------------------------------------------


@pytest.mark.parametrize('path, content', [
    ('val-00000-of-00004.tfrecord', 'x'), ('model.tflite', 'x'),
    ('manifest.json', '{"images": [], "geometry": ""}'),
    ('mlperf_log_accuracy.json', '[]'), ('img_0.png', 'x'),
    ('freeze.json', '{"checkpoint": "", "model": {}}')])
def test_a_report_replaces_only_a_report(path, content):
  make(path, content=content)
  with pytest.raises(InputError, match='was not written by this command'):
    report.check_outputs(options_lib.EvalOptions(report_json=path))
  report.write('report.json', report.Report(
      kind=interface.TFLITE, path='x', step=None, split='val', images=1,
      seconds=1., geometry='', runtime='', matrix=np.eye(32, dtype=int)))
  report.check_outputs(options_lib.EvalOptions(report_json='report.json'))
  with pytest.raises(InputError, match='is a folder of pictures'):
    report.check_outputs(options_lib.EvalOptions(vis_dir='x'), ['./x'])


def test_control_characters_in_a_name_are_escaped(capsys):
  streams.show('a\nRESULT {}', '\033[31mred', 'é')
  assert capsys.readouterr().out == 'a\\nRESULT {}\n\\x1b[31mred\né\n'
  assert 'RESULT' not in [line[:6] for line in report.table(report.Report(
      kind=interface.TFLITE, path='x\nRESULT {}', step=None, split='val',
      images=1, seconds=1., geometry='', runtime='',
      matrix=np.eye(32, dtype=int))).split('\n')]
