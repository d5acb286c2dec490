"""Tests of download_and_convert_ade20k.sh against a server of its own."""
import hashlib
import http.server
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import threading
import zipfile

import pytest

from deeplab import locks
from deeplab.data import synthetic
from deeplab.options import SyntheticOptions
from tests import downloads
from tests import names
from tests import readme
from tests import scripts

SCRIPT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(
    __file__))), 'download_and_convert_ade20k.sh')
ZIP_NAME = 'ADEChallengeData2016.zip'

pytestmark = pytest.mark.skipif(
    not shutil.which('bash') or not (
        shutil.which('curl') or shutil.which('wget')),
    reason='bash and curl or wget are needed')


class _Handler(http.server.BaseHTTPRequestHandler):
  """Serves one file with ranges; cuts the first answers in the middle.

  The path /other is another file, and others in server.moved are redirects.
  """

  def do_HEAD(self):
    if not self._redirected():
      self._head(200, len(self.server.content))

  def do_GET(self):
    if self._redirected():
      return
    content = b'other' if self.path == '/other' else self.server.content
    wanted = re.match(r'bytes=(\d+)-', self.headers.get('Range', ''))
    first = int(wanted.group(1)) if wanted else 0
    self.server.starts.append(first)
    self._head(206 if wanted else 200, len(content) - first, first)
    rest = content[first:]
    if self.server.cuts > 0:
      self.server.cuts -= 1
      rest = rest[:len(rest) // 2]
    self.wfile.write(rest)

  def _redirected(self):
    if self.path not in self.server.moved:
      return False
    self.send_response(302)
    self.send_header('Location', self.server.moved[self.path])
    self.send_header('Content-Length', '0000777000')
    self.end_headers()
    return True

  def _head(self, status, length, first=0):
    self.send_response(status)
    stated = self.server.stated.get(self.command, [length])
    for value in stated:
      self.send_header('Content-Length', str(value))
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
  synthetic.make_dataset(SyntheticOptions(
      output_dir=str(folder / 'data'), train_images=3, val_images=1,
      long_side=64))
  archive = shutil.make_archive(
      str(folder / 'made'), 'zip', str(folder / 'data'),
      synthetic.DATASET_FOLDER)
  with open(archive, 'rb') as source:
    return source.read()


@pytest.fixture
def server(zip_bytes):
  """A server on a free port; `starts` lists the first byte of each GET.

  `stated` maps GET and HEAD to Content-Lengths to answer, true or not.
  """
  server = http.server.HTTPServer(('127.0.0.1', 0), _Handler)
  server.content = zip_bytes
  server.starts = []
  server.cuts = 0
  server.stated = {}
  server.moved = {}
  thread = threading.Thread(target=server.serve_forever, args=(0.05,))
  thread.start()
  yield server
  server.shutdown()
  thread.join()
  server.server_close()


def url_of(server, path):
  return 'http://127.0.0.1:{}/{}'.format(server.server_address[1], path)


@pytest.fixture
def run(server, zip_bytes, tmp_path):
  """Runs the script in tmp_path, with the server's zip as the right one."""
  def run_script(*arguments, script=SCRIPT, cwd=tmp_path, **variables):
    environment = dict(
        os.environ, PYTHON=sys.executable,
        ADE20K_URL=url_of(server, ZIP_NAME),
        ADE20K_SHA1=hashlib.sha1(zip_bytes).hexdigest(),
        ADE20K_EXPECT_COUNTS='3,1', no_proxy='127.0.0.1')
    environment.update(variables)
    environment = {name: value for name, value in environment.items()
                   if value is not None}
    return subprocess.run(
        [script] + list(arguments), cwd=str(cwd), env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        encoding='utf-8', timeout=120)
  return run_script


@pytest.fixture
def converted(tmp_path):
  """TFRecords of an earlier run, by their names: nothing is left to convert."""
  records = tmp_path / 'ADE20K' / 'tfrecord'
  records.mkdir(parents=True)
  for split in ('train', 'val'):
    (records / (split + '.json')).touch()
    for shard in range(4):
      (records / '{}-0000{}-of-00004.tfrecord'.format(split, shard)).touch()


def assert_refused(result, *words):
  """One line on standard error with all the words, and exit status 2."""
  assert result.returncode == 2, result.stderr
  assert result.stderr.startswith('ERROR download_and_convert_ade20k.sh: ')
  assert result.stderr.count('\n') == 1, result.stderr
  for word in words:
    assert word in result.stderr


@pytest.mark.slow
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


@pytest.mark.slow
def test_any_folder_and_locale_will_do(run, zip_bytes, tmp_path):
  folder = tmp_path / names.ANY[1]
  folder.mkdir()
  (folder / names.ANY[0]).write_bytes(zip_bytes)
  result = run('--zip=' + names.ANY[0], cwd=folder, LC_ALL='C')
  assert result.returncode == 0, result.stderr
  assert (folder / 'ADE20K' / 'tfrecord' / 'val.json').exists()
  assert_refused(run('--zip=a\nb', cwd=folder), '--zip=a b: no such file')


@pytest.mark.slow
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


@pytest.mark.slow
def test_downloads_nothing_where_the_folder_is_complete(
    run, server, tmp_path):
  synthetic.make_dataset(SyntheticOptions(
      output_dir=str(tmp_path / 'ADE20K'), train_images=3, val_images=1,
      long_side=64))
  result = run()
  assert result.returncode == 0, result.stderr
  assert server.starts == []
  assert (tmp_path / 'ADE20K' / 'tfrecord' / 'train.json').exists()


def test_refuses_an_incomplete_folder(run, server, tmp_path):
  folder = synthetic.make_dataset(SyntheticOptions(
      output_dir=str(tmp_path / 'ADE20K'), train_images=2, val_images=1,
      long_side=64))
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


def df_that_prints(line, tmp_path):
  """Returns a PATH with a df of that output."""
  return downloads.path_with('df', (
      'echo Filesystem 1024-blocks Used Available Capacity Mounted\n'
      "echo '{}'\n".format(line)), tmp_path)


@pytest.mark.parametrize('device', ['/dev/disk', '//server/my share'])
def test_checks_free_space_first(run, server, tmp_path, device):
  assert_refused(
      run(PATH=df_that_prints(device + ' 100 99 1 99% /', tmp_path)),
      'free in ./ADE20K', 'have 1 KB')
  assert server.starts == []


@pytest.mark.usefixtures('converted')
@pytest.mark.parametrize('line', [
    '/dev/disk 100 99 {} 99% /'.format(downloads.ATTACK),
    '/dev/disk 100 99 -5 99% /', '/dev/disk - - - - /', ''])
def test_takes_no_text_for_free_space(run, tmp_path, line):
  result = run(PATH=df_that_prints(line, tmp_path))
  assert result.returncode == 0, result.stderr
  assert result.stderr == ''
  assert not (tmp_path / 'x').exists()


@pytest.mark.parametrize('arguments, variables, words', [
    (['--zpi=x'], {}, ['unknown argument --zpi=x']),
    (['--zip=none.zip'], {}, ['--zip=none.zip: no such file']),
    ([], {'PYTHON': 'no-such-python'}, ['PYTHON=no-such-python: not found']),
    ([], {'ADE20K_EXPECT_COUNTS': '7'}, ['ADE20K_EXPECT_COUNTS=7']),
    ([], {'PYTHON': 'eval'}, ['PYTHON=eval: not found']),
    ([], {'PYTHON': 'false'}, ['false cannot run this suite']),
    ([], {'ADE20K_EXPECT_COUNTS': downloads.ATTACK + ',1'},
     ['expected TRAIN,VAL or no']),
    ([], {'ADE20K_SHA1': downloads.ATTACK}, ['ADE20K_SHA1=5+A', '40 hexad']),
    ([], {'ADE20K_SHA1': 'A' * 40}, ['40 hexadecimal digits in small']),
    ([], {'ADE20K_URL': 'http://127.0.0.1:1/x.zip'}, ['cannot download']),
    ([], {'ADE20K_URL': ' '}, ['ADE20K_URL is blank']),
    ([], {'ADE20K_URL': 'ftp://127.0.0.1/x.zip'},
     ['ADE20K_URL: "ftp://127.0.0.1/x.zip": expected an address']),
    ([], {'ADE20K_URL': 'file:///etc/passwd'}, ['https:// or http://']),
    ([], {'ADE20K_URL': 'http://127.0.0.1:1/x.zip --output=x'},
     ['ADE20K_URL: "--output=x": expected']),
    ([], {'ADE20K_URL': 'http://127.0.0.1:1/\x1b[2J'}, ['expected']),
    ([], {'ADE20K_URL': 'https://'}, ['"https://": expected']),
])
def test_refuses_bad_input(run, server, tmp_path, arguments, variables, words):
  assert_refused(run(*arguments, **variables), *words)
  assert server.starts == []
  folder = tmp_path / 'ADE20K'
  assert not folder.exists() or not list(folder.iterdir())
  assert not (tmp_path / 'x').exists()


# --- What the server says --------------------------------------------------


def size_shown(result, url):
  """Returns what follows "downloading URL" in the output."""
  return re.search(
      r'^downloading {}(.*)$'.format(re.escape(url)), result.stdout,
      re.M).group(1)


@pytest.mark.usefixtures('converted')
@pytest.mark.parametrize('values', [
    [downloads.ATTACK], ['0'], ['-1'], [10**30], ['text'], [''], ['1 2'],
    ['0x10'], ['1e3'], [], ['5', '6']])
def test_takes_only_a_plain_number_for_the_size(
    run, server, tmp_path, values):
  server.stated['HEAD'] = values
  result = run()
  assert result.returncode == 0, result.stderr
  assert result.stderr == ''
  assert size_shown(result, url_of(server, ZIP_NAME)) == ''
  assert not (tmp_path / 'x').exists()


@pytest.mark.usefixtures('converted')
def test_takes_no_size_for_octal(run, server, zip_bytes):
  server.stated['HEAD'] = ['0{}'.format(len(zip_bytes))] * 2
  result = run()
  assert result.returncode == 0, result.stderr
  assert size_shown(result, url_of(server, ZIP_NAME)) == ' ({} KB)'.format(
      (len(zip_bytes) + 500) // 1000)


@pytest.mark.usefixtures('converted')
@pytest.mark.parametrize('value, words', [
    (downloads.ATTACK, []), ('0', ['has SHA-1 da39a3ee5e6b4b0d3255']),
    ('-1', []), ('08', ['SHA-1']), (10**30, []), ('text', [])])
def test_a_wrong_length_of_the_download_is_one_line(
    run, server, zip_bytes, tmp_path, value, words):
  server.stated = {'HEAD': [value], 'GET': [value]}
  result = run()
  # curl or wget may get it all the same, as the connection ends there.
  if result.returncode == 0 and not words:
    assert (tmp_path / 'ADE20K' / ZIP_NAME).read_bytes() == zip_bytes
  else:
    assert_refused(result, *words)
    assert not (tmp_path / 'ADE20K' / ZIP_NAME).exists()
  assert not (tmp_path / 'x').exists()


@pytest.mark.usefixtures('converted')
@pytest.mark.parametrize('stated, shown', [([], ''), (['5000'], ' (5 KB)')])
def test_the_size_is_the_last_answers(run, server, stated, shown):
  server.moved['/moved'] = '/' + ZIP_NAME
  server.stated['HEAD'] = stated
  result = run(ADE20K_URL=url_of(server, 'moved'))
  assert result.returncode == 0, result.stderr
  assert size_shown(result, url_of(server, 'moved')) == shown


def test_a_size_beyond_the_disk_is_refused(run, server):
  server.stated['HEAD'] = ['9' * 15]
  assert_refused(run(), 'need 3000000000 MB', 'free in ./ADE20K')
  assert server.starts == []


@pytest.mark.skipif(not shutil.which('curl'), reason='wget has no such limit')
def test_follows_no_redirect_to_another_protocol(run, server):
  with socket.socket() as other:
    other.bind(('127.0.0.1', 0))
    other.listen(1)
    other.settimeout(0)
    server.moved['/moved'] = 'ftp://127.0.0.1:{}/x.zip'.format(
        other.getsockname()[1])
    assert_refused(run(ADE20K_URL=url_of(server, 'moved')), 'cannot download')
    with pytest.raises(BlockingIOError):
      other.accept()


@pytest.mark.usefixtures('converted')
def test_leaves_patterns_in_an_address_alone(run, server):
  url = url_of(server, '[1-2]{a,b}/' + ZIP_NAME)
  result = run(ADE20K_URL=url)
  assert result.returncode == 0, result.stderr
  assert server.starts == [0]


# --- Several addresses -----------------------------------------------------


def test_asks_the_authors_by_https_first_then_by_http(run, tmp_path):
  calls = tmp_path / 'calls'
  path = downloads.path_with(
      'curl', 'printf "%s\\n" "$*" >> "{}"\nexit 7\n'.format(calls), tmp_path)
  result = run(ADE20K_URL=None, PATH=path)
  address = '://data.csail.mit.edu/places/ADEchallenge/' + ZIP_NAME
  assert_refused(result, 'cannot download http' + address)
  assert result.stdout.splitlines()[1] == (
      'nothing comes from https{} (status 7), trying the next one'.format(
          address))
  lines = calls.read_text().splitlines()
  assert [line.split()[-1] for line in lines] == [
      'https' + address] * 2 + ['http' + address] * 2
  for line in lines:
    assert '--proto =http,https --proto-redir =http,https ' in line
    assert ' -- http' in line


@pytest.mark.usefixtures('converted')
@pytest.mark.parametrize('scheme, port', [('http', 1), ('https', None)])
def test_goes_on_where_an_address_cannot_be_reached(run, server, scheme, port):
  # With https: the server does not speak it.
  first = '{}://127.0.0.1:{}/a.zip'.format(
      scheme, port or server.server_address[1])
  second = url_of(server, ZIP_NAME)
  result = run(ADE20K_URL='{}  {}'.format(first, second))
  assert result.returncode == 0, result.stderr
  assert re.search(r'^nothing comes from {} \(status \d+\), trying the next '
                   'one\ndownloading {}'.format(first, second),
                   result.stdout, re.M)


def test_another_file_is_no_reason_to_go_on(run, server, tmp_path):
  first = url_of(server, 'other')
  assert_refused(
      run(ADE20K_URL='{} {}'.format(first, url_of(server, ZIP_NAME))),
      first + ' has SHA-1 ' + hashlib.sha1(b'other').hexdigest())
  assert server.starts == [0]
  assert [path.name for path in (tmp_path / 'ADE20K').iterdir()] == [
      ZIP_NAME + '.bad']


@pytest.mark.usefixtures('converted')
def test_resumes_from_another_address(run, server, zip_bytes, tmp_path):
  part = tmp_path / 'ADE20K' / (ZIP_NAME + '.part')
  part.write_bytes(zip_bytes[:100])
  result = run(ADE20K_URL='http://127.0.0.1:1/a.zip ' + url_of(
      server, ZIP_NAME))
  assert result.returncode == 0, result.stderr
  assert server.starts == [100]


# --- What is there before --------------------------------------------------


@pytest.mark.usefixtures('converted')
@pytest.mark.slow
def test_records_of_a_run_that_was_stopped_are_made_anew(run, tmp_path):
  records = tmp_path / 'ADE20K' / 'tfrecord'
  (records / 'val.INCOMPLETE').touch()
  result = run()
  assert result.returncode == 0, result.stderr
  assert 'train: 3 pairs in 4 shards' in result.stdout
  assert not (records / 'val.INCOMPLETE').exists()


@pytest.mark.usefixtures('converted')
def test_one_run_at_a_time(run, server, tmp_path):
  """A dead one's unpacked files are removed, not those of a live one."""
  unpacked = tmp_path / 'ADE20K' / '.unpack.1'
  unpacked.mkdir()
  with locks.exclusive(str(tmp_path / 'ADE20K')):
    assert_refused(run(), 'another run is at work in ./ADE20K')
  assert unpacked.exists() and server.starts == []
  result = run()
  assert result.returncode == 0, result.stderr
  assert not unpacked.exists()


@pytest.mark.usefixtures('converted')
def test_a_complete_part_is_not_downloaded_again(
    run, server, zip_bytes, tmp_path):
  part = tmp_path / 'ADE20K' / (ZIP_NAME + '.part')
  part.write_bytes(zip_bytes)
  result = run()
  assert result.returncode == 0, result.stderr
  assert server.starts == []
  assert not part.exists()


def test_follows_no_link_from_the_part(run, server, tmp_path):
  mine = tmp_path / 'mine'
  mine.write_bytes(b'mine')
  part = tmp_path / 'ADE20K' / (ZIP_NAME + '.part')
  part.parent.mkdir()
  part.symlink_to(mine)
  assert_refused(run(), ZIP_NAME + '.part is no plain file; remove it')
  assert mine.read_bytes() == b'mine'
  assert server.starts == []


def test_a_folder_in_the_place_of_the_zip_is_refused(run, server, tmp_path):
  (tmp_path / 'ADE20K' / ZIP_NAME).mkdir(parents=True)
  assert_refused(run(), ZIP_NAME + ' is no file; remove it')
  assert server.starts == []


def test_where_nobody_sees_a_bar_lines_say_how_much_there_is(tmp_path):
  """A download that goes on until its line has been read."""
  library = readme.read('scripts', 'lib_download.sh')
  assert 'readonly NOTICE_SECS=30\n' in library
  (tmp_path / 'lib.sh').write_text(
      library.replace('NOTICE_SECS=30', 'NOTICE_SECS=1'))
  process = subprocess.Popen(
      ['bash', '-euc', '. ./lib.sh; download http://nowhere part; echo done'],
      cwd=str(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
      universal_newlines=True, start_new_session=True,
      env=dict(os.environ, PATH=downloads.path_with(
          'curl', 'head -c 3000000 /dev/zero > part\n'
          'while [ ! -e seen ]; do sleep 0.1; done\n', tmp_path)))
  line = process.stdout.readline()
  (tmp_path / 'seen').write_text('')
  output, errors = scripts.output_of(process)
  assert line == 'part: 3 MB so far\n'
  # It ends with the download, and leaves no word of its end.
  assert set(output.splitlines()) <= {line.strip(), 'done'}
  assert output.endswith('done\n') and errors == ''
  assert process.returncode == 0


@pytest.mark.usefixtures('converted')
def test_imports_nothing_from_the_current_folder(run, tmp_path):
  for name in ('signal', 'zipfile', 'tqdm'):
    (tmp_path / (name + '.py')).write_text("open('x', 'w')\n")
  result = run()
  assert result.returncode == 0, result.stderr
  assert not (tmp_path / 'x').exists()


@pytest.mark.usefixtures('converted')
def test_runs_from_a_folder_with_blanks(run, tmp_path):
  (tmp_path / 'my checkout').symlink_to(os.path.dirname(SCRIPT))
  (tmp_path / 'elsewhere' / 'my checkout').mkdir(parents=True)
  result = run(script=os.path.join('my checkout', os.path.basename(SCRIPT)),
               CDPATH='elsewhere')
  assert result.returncode == 0, result.stderr


@pytest.mark.usefixtures('converted')
def test_wget_does_where_there_is_no_curl(run, server, zip_bytes, tmp_path):
  server.cuts = 1
  server.stated['HEAD'] = [downloads.ATTACK]
  result = run(PATH=downloads.path_without_curl(tmp_path))
  assert result.returncode == 0, result.stderr
  assert server.starts == [0, len(zip_bytes) // 2]
  assert not (tmp_path / 'x').exists()


# --- Archives that must not be unpacked; more in test_archive.py -----------


@pytest.mark.parametrize('name, mode, words', [
    ('ADEChallengeData2016/images/link', stat.S_IFLNK, 'is a link'),
    ('ADEChallengeData2016/../../x', stat.S_IFREG, 'is no plain relative path'),
])
def test_unpacks_no_hostile_zip(
    run, zip_bytes, tmp_path, name, mode, words):
  hostile = tmp_path / 'hostile.zip'
  hostile.write_bytes(zip_bytes)
  with zipfile.ZipFile(str(hostile), 'a') as archive:
    member = zipfile.ZipInfo(name)
    member.external_attr = (mode | 0o777) << 16
    archive.writestr(member, '../../../secret')
  sha1 = hashlib.sha1(hostile.read_bytes()).hexdigest()
  assert_refused(run('--zip=hostile.zip', ADE20K_SHA1=sha1),
                 'hostile.zip: not unpacked', repr(name), words)
  assert list((tmp_path / 'ADE20K').iterdir()) == []
  assert not (tmp_path / 'x').exists()


def test_help_names_every_setting(run):
  result = run('--help')
  assert result.returncode == 0
  for word in ('--zip=PATH', 'ADE20K_URL', 'ADE20K_SHA1', 'PYTHON',
               'ADE20K_EXPECT_COUNTS'):
    assert word in result.stdout
