"""Tests of download_and_convert_ade20k.sh against a server of its own."""
import hashlib
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading

import pytest

from deeplab.data import synthetic

SCRIPT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(
    __file__))), 'download_and_convert_ade20k.sh')
ZIP_NAME = 'ADEChallengeData2016.zip'

pytestmark = pytest.mark.skipif(
    not shutil.which('bash') or not (
        shutil.which('curl') or shutil.which('wget')),
    reason='bash and curl or wget are needed')


class _Handler(http.server.BaseHTTPRequestHandler):
  """Serves one file with ranges; cuts the first answers in the middle."""

  def do_HEAD(self):
    self._head(200, len(self.server.content))

  def do_GET(self):
    content = self.server.content
    wanted = re.match(r'bytes=(\d+)-', self.headers.get('Range', ''))
    first = int(wanted.group(1)) if wanted else 0
    self.server.starts.append(first)
    self._head(206 if wanted else 200, len(content) - first, first)
    rest = content[first:]
    if self.server.cuts > 0:
      self.server.cuts -= 1
      rest = rest[:len(rest) // 2]
    self.wfile.write(rest)

  def _head(self, status, length, first=0):
    self.send_response(status)
    self.send_header('Content-Length', str(length))
    if status == 206:
      total = len(self.server.content)
      self.send_header('Content-Range', 'bytes {}-{}/{}'.format(
          first, total - 1, total))
    self.end_headers()

  def log_message(self, *unused_args):
    pass


@pytest.fixture(scope='module')
def zip_bytes(tmp_path_factory):
  """A zip file of 3 training pairs and 1 validation pair."""
  folder = tmp_path_factory.mktemp('zip')
  synthetic.make_dataset(output_dir=str(folder / 'data'), train_images=3,
                         val_images=1, long_side=64)
  archive = shutil.make_archive(
      str(folder / 'made'), 'zip', str(folder / 'data'),
      synthetic.DATASET_FOLDER)
  with open(archive, 'rb') as source:
    return source.read()


@pytest.fixture
def server(zip_bytes):
  """A server on a free port; `starts` lists the first byte of each GET."""
  server = http.server.HTTPServer(('127.0.0.1', 0), _Handler)
  server.content = zip_bytes
  server.starts = []
  server.cuts = 0
  thread = threading.Thread(target=server.serve_forever, args=(0.05,))
  thread.start()
  yield server
  server.shutdown()
  thread.join()
  server.server_close()


@pytest.fixture
def run(server, zip_bytes, tmp_path):
  """Runs the script in tmp_path, with the server's zip as the right one."""
  def run_script(*arguments, **variables):
    environment = dict(
        os.environ, PYTHON=sys.executable,
        ADE20K_URL='http://127.0.0.1:{}/{}'.format(
            server.server_address[1], ZIP_NAME),
        ADE20K_SHA1=hashlib.sha1(zip_bytes).hexdigest(),
        ADE20K_EXPECT_COUNTS='3,1', no_proxy='127.0.0.1')
    environment.update(variables)
    return subprocess.run(
        [SCRIPT] + list(arguments), cwd=str(tmp_path), env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        universal_newlines=True, timeout=120)
  return run_script


def assert_refused(result, *words):
  """One line on standard error with all the words, and exit status 2."""
  assert result.returncode == 2, result.stderr
  assert result.stderr.startswith('ERROR download_and_convert_ade20k.sh: ')
  assert result.stderr.count('\n') == 1, result.stderr
  for word in words:
    assert word in result.stderr


def test_resumes_a_cut_download_converts_and_then_rests(
    run, server, zip_bytes, tmp_path):
  server.cuts = 1
  result = run()
  assert result.returncode == 0, result.stderr
  assert server.starts == [0, len(zip_bytes) // 2]
  assert 'train: 3 pairs in 4 shards' in result.stdout
  assert sorted(path.name for path in (tmp_path / 'ADE20K').iterdir()) == [
      'ADEChallengeData2016', ZIP_NAME, 'tfrecord']
  records = tmp_path / 'ADE20K' / 'tfrecord'
  written = {path.name: path.stat().st_mtime_ns for path in records.iterdir()}
  assert 'val-00003-of-00004.tfrecord' in written

  second = run()
  assert second.returncode == 0, second.stderr
  assert 'is complete, nothing to download' in second.stdout
  assert 'is complete; remove it to convert again' in second.stdout
  assert len(server.starts) == 2
  assert written == {
      path.name: path.stat().st_mtime_ns for path in records.iterdir()}


def test_a_second_run_resumes_where_the_first_gave_up(
    run, server, zip_bytes, tmp_path):
  server.cuts = 5
  result = run()
  part = tmp_path / 'ADE20K' / (ZIP_NAME + '.part')
  kept = part.stat().st_size
  assert 0 < kept < len(zip_bytes)
  assert_refused(result, '{} is {} KB of {} KB; rerun to resume'.format(
      ZIP_NAME, (kept + 500) // 1000, (len(zip_bytes) + 500) // 1000),
                 '--zip=PATH')
  assert part.read_bytes() == zip_bytes[:kept]
  assert not (tmp_path / 'ADE20K' / synthetic.DATASET_FOLDER).exists()

  server.starts = []
  result = run()
  assert result.returncode == 0, result.stderr
  assert server.starts == [kept]


def test_refuses_a_wrong_checksum(run, zip_bytes, tmp_path):
  assert_refused(run(ADE20K_SHA1='0' * 40),
                 hashlib.sha1(zip_bytes).hexdigest(), '0' * 40)
  assert [path.name for path in (tmp_path / 'ADE20K').iterdir()] == [
      ZIP_NAME + '.bad']


def test_downloads_nothing_where_the_folder_is_complete(
    run, server, tmp_path):
  synthetic.make_dataset(output_dir=str(tmp_path / 'ADE20K'), train_images=3,
                         val_images=1, long_side=64)
  result = run()
  assert result.returncode == 0, result.stderr
  assert server.starts == []
  assert (tmp_path / 'ADE20K' / 'tfrecord' / 'train.json').exists()


def test_refuses_an_incomplete_folder(run, server, tmp_path):
  folder = synthetic.make_dataset(
      output_dir=str(tmp_path / 'ADE20K'), train_images=2, val_images=1,
      long_side=64)
  assert_refused(run(), 'holds 2 images and 2 labels for training',
                 'expected 3', 'remove this folder')
  assert os.path.isdir(folder)
  assert server.starts == []


def test_refuses_a_zip_with_other_counts(run, tmp_path):
  assert_refused(run(ADE20K_EXPECT_COUNTS='3,2'),
                 'holds 1 images and 1 labels for validation', 'expected 2')
  assert [path.name for path in (tmp_path / 'ADE20K').iterdir()] == [ZIP_NAME]


def test_takes_a_local_zip(run, server, zip_bytes, tmp_path):
  local = tmp_path / 'my copy.zip'
  local.write_bytes(zip_bytes)
  result = run('--zip=my copy.zip')
  assert result.returncode == 0, result.stderr
  assert server.starts == []
  assert 'val: 1 pairs in 4 shards' in result.stdout


def test_refuses_a_damaged_local_zip(run, zip_bytes, tmp_path):
  (tmp_path / 'cut.zip').write_bytes(zip_bytes[:100])
  assert_refused(run('--zip=cut.zip'), 'cut.zip has SHA-1')
  assert not (tmp_path / 'ADE20K' / synthetic.DATASET_FOLDER).exists()


def test_checks_free_space_first(run, server, tmp_path):
  tools = tmp_path / 'tools'
  tools.mkdir()
  df = tools / 'df'
  df.write_text('#!/bin/sh\n'
                'echo Filesystem 1024-blocks Used Available Capacity Mounted\n'
                'echo /dev/disk 100 99 1 99% /\n')
  df.chmod(0o755)
  assert_refused(run(PATH='{}:{}'.format(tools, os.environ['PATH'])),
                 'free in ./ADE20K', 'have 1 KB')
  assert server.starts == []


@pytest.mark.parametrize('arguments, variables, words', [
    (['--zpi=x'], {}, ['unknown argument --zpi=x']),
    (['--zip=none.zip'], {}, ['--zip=none.zip: no such file']),
    ([], {'PYTHON': 'no-such-python'}, ['PYTHON=no-such-python: not found']),
    ([], {'ADE20K_EXPECT_COUNTS': '7'}, ['ADE20K_EXPECT_COUNTS=7']),
    ([], {'ADE20K_URL': 'http://127.0.0.1:1/x.zip'}, ['cannot download']),
])
def test_refuses_bad_input(run, server, tmp_path, arguments, variables, words):
  assert_refused(run(*arguments, **variables), *words)
  assert server.starts == []
  folder = tmp_path / 'ADE20K'
  assert not folder.exists() or not list(folder.iterdir())


def test_help_names_every_setting(run):
  result = run('--help')
  assert result.returncode == 0
  for word in ('--zip=PATH', 'ADE20K_URL', 'ADE20K_SHA1', 'PYTHON',
               'ADE20K_EXPECT_COUNTS'):
    assert word in result.stdout
