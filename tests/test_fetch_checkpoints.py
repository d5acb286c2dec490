"""scripts/fetch_checkpoints.sh against a server of its own."""
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import threading

import pytest

from tests import downloads
from tests import names

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCRIPT = os.path.join(REPOSITORY, 'scripts', 'fetch_checkpoints.sh')
MANIFEST = os.path.join(REPOSITORY, 'checkpoints', 'git-blob-sha1.txt')
FILES = {
    'float/freeze.pb': b'a graph' * 1000,
    'float/model.ckpt-200000.data-00000-of-00001': bytes(range(256)) * 50,
    'quantize_aware_training/checkpoint': b'a state file\n',
}

pytestmark = pytest.mark.skipif(
    not shutil.which('bash') or not (
        shutil.which('curl') or shutil.which('wget')),
    reason='bash and curl or wget are needed')


def blob_sha1(content):
  return hashlib.sha1(b'blob %d\0' % len(content) + content).hexdigest()


class _Handler(http.server.BaseHTTPRequestHandler):
  """Serves server.files with ranges; cuts the first answers in the middle."""

  def do_GET(self):
    self.server.paths.append(self.path)
    content = self.server.files.get(self.path.lstrip('/'))
    if content is None:
      self.send_error(404)
      return
    first = downloads.first_wanted(self)
    if (first or 0) >= len(content):
      self.send_error(416)
      return
    self.server.starts.append(first or 0)
    rest = downloads.send_head(self, content, first)
    if self.server.cuts > 0:
      self.server.cuts -= 1
      rest = rest[:len(rest) // 2]
    self.wfile.write(rest)

  def log_message(self, *unused_args):
    pass


@pytest.fixture
def server():
  """A server on a free port: `paths` asked for, first bytes in `starts`."""
  server = http.server.HTTPServer(('127.0.0.1', 0), _Handler)
  server.files = dict(FILES)
  server.paths, server.starts, server.cuts = [], [], 0
  thread = threading.Thread(target=server.serve_forever, args=(0.05,))
  thread.start()
  yield server
  server.shutdown()
  thread.join()
  server.server_close()


@pytest.fixture
def manifest(tmp_path):
  path = tmp_path / 'sums.txt'
  path.write_text('# a comment\n\n' + ''.join(
      '{}  {}\n'.format(blob_sha1(content), name)
      for name, content in sorted(FILES.items())))
  return path


@pytest.fixture
def run(server, manifest, tmp_path):
  """Runs the script in tmp_path, by default into its folder out."""
  def run_script(*arguments, script=SCRIPT, **variables):
    environment = dict(
        os.environ, no_proxy='127.0.0.1', CHECKPOINTS_MANIFEST=str(manifest),
        CHECKPOINTS_URL='http://127.0.0.1:{}'.format(
            server.server_address[1]))
    environment.update(variables)
    return subprocess.run(
        [script, '--output_dir=out'] + list(arguments), cwd=str(tmp_path),
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        encoding='utf-8', errors='replace', timeout=60)
  return run_script


def assert_refused(result, *words):
  """One line on standard error with all the words, and exit status 2."""
  assert result.returncode == 2, result.stdout + result.stderr
  assert result.stderr.startswith('ERROR fetch_checkpoints.sh: ')
  assert result.stderr.count('\n') == 1, result.stderr
  for word in words:
    assert word in result.stderr


def contents(folder):
  return {str(path.relative_to(folder)): path.read_bytes()
          for path in folder.rglob('*') if path.is_file()}


def test_any_folder_and_locale_will_do(run, tmp_path):
  for name in names.ANY:
    result = run('--output_dir=' + name, LC_ALL='C')
    assert result.returncode == 0, result.stderr
    assert contents(tmp_path / name) == FILES
  assert not (tmp_path / 'out').exists()


def test_fetches_everything_then_nothing(run, server, tmp_path):
  result = run()
  assert result.returncode == 0, result.stderr
  assert contents(tmp_path / 'out') == FILES
  assert '3 of 3 files verified, 3 of them' in result.stdout

  server.paths.clear()
  result = run()
  assert result.returncode == 0, result.stderr
  assert '3 of 3 files verified, 0 of them' in result.stdout
  assert server.paths == []


def test_fetches_the_folders_asked_for(run, tmp_path):
  assert run('quantize_aware_training').returncode == 0
  assert list(contents(tmp_path / 'out')) == [
      'quantize_aware_training/checkpoint']


def test_resumes_within_a_run(run, server, tmp_path):
  server.cuts = 1
  result = run('float')
  assert result.returncode == 0, result.stderr
  assert server.starts == [0, len(FILES['float/freeze.pb']) // 2, 0]
  assert '{}'.format(tmp_path / 'out') in result.stdout
  assert 'float/freeze.pb.part' not in contents(tmp_path / 'out')


def test_the_next_run_resumes(run, server, tmp_path):
  server.cuts = 5
  result = run('float')
  name = 'float/freeze.pb'
  kept = contents(tmp_path / 'out')[name + '.part']
  assert 0 < len(kept) < len(FILES[name])
  assert FILES[name].startswith(kept)
  # The other file is fetched all the same.
  assert '1 of 2 files verified' in result.stdout
  assert 'missing: {} broke off after {} bytes'.format(
      name, len(kept)) in result.stdout
  assert_refused(result, '1 of 2 files are missing', name, 'rerun')

  server.starts.clear()
  assert run('float').returncode == 0
  assert server.starts == [len(kept)]
  assert contents(tmp_path / 'out')[name] == FILES[name]


def test_completes_a_part_that_lacks_nothing(run, server, tmp_path):
  name = 'quantize_aware_training/checkpoint'
  part = tmp_path / 'out' / (name + '.part')
  part.parent.mkdir(parents=True)
  part.write_bytes(FILES[name])
  assert run('quantize_aware_training').returncode == 0
  assert contents(tmp_path / 'out') == {name: FILES[name]}
  assert server.paths == []


def test_says_which_files_the_server_lacks(run, server, tmp_path):
  del server.files['float/freeze.pb']
  result = run()
  assert_refused(result, '1 of 3 files are missing',
                 'float/freeze.pb cannot download http://127.0.0.1')
  assert sorted(contents(tmp_path / 'out')) == sorted(server.files)


def test_refuses_other_content(run, server, tmp_path):
  server.files['float/freeze.pb'] = b'something else'
  assert_refused(run(), 'float/freeze.pb has Git blob SHA-1 ' +
                 blob_sha1(b'something else'),
                 'expected ' + blob_sha1(FILES['float/freeze.pb']))
  assert 'float/freeze.pb' not in contents(tmp_path / 'out')
  assert 'float/freeze.pb.part' not in contents(tmp_path / 'out')


def test_leaves_files_of_the_user_alone(run, tmp_path):
  mine = tmp_path / 'out' / 'float' / 'freeze.pb'
  mine.parent.mkdir(parents=True)
  mine.write_bytes(b'mine')
  assert_refused(run(), 'float/freeze.pb is another file than the published')
  assert mine.read_bytes() == b'mine'


@pytest.mark.parametrize('arguments, variables, words', [
    (['flaot'], {}, ['unknown argument flaot', 'post_train_quant']),
    (['post_train_quant'], {}, ['lists no file of post_train_quant']),
    ([], {'CHECKPOINTS_MANIFEST': 'none.txt'}, ['none.txt: no such file']),
    ([], {'CHECKPOINTS_URL': 'http://127.0.0.1:1'}, ['3 of 3', 'cannot']),
    ([], {'CHECKPOINTS_URL': 'ftp://127.0.0.1'},
     ['CHECKPOINTS_URL: "ftp://127.0.0.1": expected an address']),
    ([], {'CHECKPOINTS_URL': 'file:///etc'}, ['https:// or http://']),
    ([], {'CHECKPOINTS_URL': '--output=x'}, ['"--output=x": expected']),
    ([], {'CHECKPOINTS_URL': 'http://a\nhttp://b'}, ['"http://a http://b"']),
    (['--output_dir=sums.txt'], {}, ['cannot make ./sums.txt']),
])
def test_refuses_bad_input(run, server, arguments, variables, words):
  assert_refused(run(*arguments, **variables), *words)
  assert server.paths == []


def test_refuses_a_damaged_manifest(run, manifest):
  manifest.write_text('123  float/freeze.pb\n')
  assert_refused(run(), '"123 float/freeze.pb": expected a SHA-1 and a path')


@pytest.mark.parametrize('path', [
    'float/../../x.bin', '../x.bin', '..', 'float/..', '/x.bin',
    '//x.bin', './x.bin', 'float/./x.bin', 'float//x.bin', 'float/',
    '-x', 'float/-x', 'float/x y', 'float/$(touch${IFS}x)', 'float/*',
    'float/x\ty', 'float\\x', 'float/\u00e9', 'float/x\x1b[2J', 'float/x\r',
    'float/freeze.pb.part', '~/x'])
def test_refuses_a_path_that_may_lead_elsewhere(
    run, server, manifest, tmp_path, path):
  with open(str(manifest), 'ab') as lines:
    # The last line counts even where it lacks its end.
    lines.write('{}  {}'.format('0' * 40, path).encode())
  # Wherever it belongs, and although all others are right.
  result = run('quantize_aware_training')
  assert_refused(result, 'sums.txt: line 6: "' + '0' * 40,
                 'expected a relative path')
  assert server.paths == []
  assert [path.name for path in tmp_path.iterdir()] == ['sums.txt']


def test_refuses_a_path_that_is_listed_again(run, server, manifest):
  with open(str(manifest), 'a') as lines:
    lines.write('{}  float/freeze.pb\n'.format('0' * 40))
  assert_refused(run(), 'sums.txt: line 6', 'lists this path again')
  assert server.paths == []


def test_refuses_a_folder_that_leads_out(run, server, tmp_path):
  (tmp_path / 'elsewhere').mkdir()
  (tmp_path / 'out').mkdir()
  (tmp_path / 'out' / 'quantize_aware_training').symlink_to('../elsewhere')
  assert_refused(
      run(), 'out/quantize_aware_training is {}, which is not in {}'.format(
          tmp_path / 'elsewhere', tmp_path / 'out'))
  assert server.paths == []
  assert list((tmp_path / 'elsewhere').iterdir()) == []


def test_takes_a_link_that_stays_inside_or_is_the_folder(run, tmp_path):
  (tmp_path / 'disk' / 'big').mkdir(parents=True)
  (tmp_path / 'disk' / 'float').symlink_to('big')
  (tmp_path / 'out').symlink_to('disk')
  assert run().returncode == 0
  assert (tmp_path / 'disk' / 'big' / 'freeze.pb').read_bytes() == (
      FILES['float/freeze.pb'])


@pytest.mark.parametrize('name', ['freeze.pb', 'freeze.pb.part'])
@pytest.mark.parametrize('target', ['mine', 'missing'])
def test_writes_through_no_link(run, tmp_path, name, target):
  (tmp_path / 'mine').mkdir()
  link = tmp_path / 'out' / 'float' / name
  link.parent.mkdir(parents=True)
  link.symlink_to(tmp_path / target)
  assert_refused(run('float'), 'float/freeze.pb or its .part is a link')
  assert link.is_symlink()
  assert list((tmp_path / 'mine').iterdir()) == []
  assert not (tmp_path / 'missing').exists()


@pytest.mark.parametrize('name', ['-', '-rf', '--help', 'my models', '$(x)'])
def test_takes_any_name_for_the_folder(run, tmp_path, name):
  result = run('--output_dir=' + name, CDPATH='elsewhere')
  assert result.returncode == 0, result.stderr
  assert contents(tmp_path / name) == FILES


def test_a_folder_is_not_looked_for_in_cdpath(run, tmp_path):
  (tmp_path / 'elsewhere' / 'out').mkdir(parents=True)
  result = run(CDPATH='elsewhere')
  assert result.returncode == 0, result.stderr
  assert contents(tmp_path / 'out') == FILES


def test_runs_from_a_folder_with_blanks(run, tmp_path):
  (tmp_path / 'my checkout').symlink_to(REPOSITORY)
  (tmp_path / 'elsewhere' / 'my checkout' / 'scripts').mkdir(parents=True)
  result = run(script='my checkout/scripts/fetch_checkpoints.sh',
               CDPATH='elsewhere')
  assert result.returncode == 0, result.stderr
  assert contents(tmp_path / 'out') == FILES


@pytest.mark.skipif(not shutil.which('curl'), reason='wget says it is complete')
def test_starts_over_where_a_part_is_longer_than_the_file(run, tmp_path):
  name = 'quantize_aware_training/checkpoint'
  part = tmp_path / 'out' / (name + '.part')
  part.parent.mkdir(parents=True)
  part.write_bytes(b'sign in to this network' * 9)
  result = run('quantize_aware_training')
  assert result.returncode == 0, result.stderr
  assert contents(tmp_path / 'out') == {name: FILES[name]}


def test_wget_does_where_there_is_no_curl(run, server, tmp_path):
  server.cuts = 1
  result = run(PATH=downloads.path_without_curl(tmp_path))
  assert result.returncode == 0, result.stderr
  assert contents(tmp_path / 'out') == FILES


def test_help_names_every_setting(run):
  result = run('--help')
  assert result.returncode == 0
  for word in ('--output_dir', 'CHECKPOINTS_URL', 'CHECKPOINTS_MANIFEST',
               'quantize_aware_training'):
    assert word in result.stdout


# --- The published list ----------------------------------------------------


def published():
  with open(MANIFEST) as lines:
    entries = [line.split() for line in lines if not line.startswith('#')]
  return {name: sha1 for sha1, name in entries}


def test_manifest_is_the_reference_one(reference_dir):
  with open(os.path.join(reference_dir, 'numbers.json')) as content:
    numbers = json.load(content)
  assert published() == {
      name.split('/', 1)[1]: sha1
      for name, sha1 in numbers['git_blob_sha1'].items()}


@pytest.mark.parametrize('name', [
    'post_train_quant/freeze_ptq.tflite',
    'quantize_aware_training/freeze_qat.tflite'])
def test_manifest_has_the_sums_of_the_published_files(reference_dir, name):
  with open(os.path.join(reference_dir, os.path.basename(name)),
            'rb') as content:
    assert published()[name] == blob_sha1(content.read())
