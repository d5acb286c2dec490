"""Tests the download scripts with a local server."""
import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile

import pytest

from deeplab.config.options import SyntheticOptions
from deeplab.data import download
from deeplab.data import synthetic
from deeplab.storage import locks
from tests import downloads
from tests import names
from tests import scripts

PUBLISHED = {'float/freeze.pb': b'graph' * 5000, 'float/checkpoint': b'text',
             'quantize_aware_training/checkpoint': b'other text'}


def blob_sha1(content):
  return hashlib.sha1(b'blob %d\0' % len(content) + content).hexdigest()


@pytest.fixture(scope='module')
def zip_bytes(tmp_path_factory):
  """A zip file with 3 training pairs and 1 validation pair."""
  folder = tmp_path_factory.mktemp('zip')
  data = synthetic.make_dataset(SyntheticOptions(
      output_dir=str(folder), train_images=3, val_images=1, long_side=64))
  content = io.BytesIO()
  with zipfile.ZipFile(content, 'w') as archive:
    for path in sorted((folder / synthetic.DATASET_FOLDER).rglob('*')):
      archive.write(str(path), str(path.relative_to(os.path.dirname(data))))
  return content.getvalue()


@pytest.fixture
def server(zip_bytes):
  with downloads.serving(
      dict(PUBLISHED, **{download.ZIP: zip_bytes}), pause_secs=0) as found:
    yield found


@pytest.fixture
def run(server, zip_bytes, tmp_path):
  """Returns a function that runs a script in tmp_path."""
  sums = tmp_path / 'sums.txt'
  sums.write_text('# a comment\n\n' + ''.join(
      '{}  {}\n'.format(blob_sha1(content), name)
      for name, content in sorted(PUBLISHED.items())))

  def run_script(script, *arguments, cwd=tmp_path, **variables):
    environment = dict(
        os.environ, PYTHON=sys.executable, no_proxy='127.0.0.1',
        ADE20K_URL='{}/{}'.format(server.address, download.ZIP),
        ADE20K_SHA1=hashlib.sha1(zip_bytes).hexdigest(),
        ADE20K_EXPECT_COUNTS='3,1', CHECKPOINTS_URL=server.address,
        CHECKPOINTS_MANIFEST=str(sums))
    environment.update(variables)
    process = subprocess.Popen(
        [os.path.join(scripts.REPOSITORY, script)] + list(arguments),
        cwd=str(cwd), env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, universal_newlines=True,
        start_new_session=True)
    output, errors = scripts.output_of(process)
    return process.returncode, output, errors

  return run_script


@pytest.fixture
def get_zip(run):
  def get(*arguments, **variables):
    return run('download_and_convert_ade20k.sh', '--download_only', *arguments,
               **variables)
  return get


@pytest.fixture
def fetch(run):
  def get(*arguments, **variables):
    return run('scripts/fetch_checkpoints.sh', '--output_dir=out', *arguments,
               **variables)
  return get


def assert_refused(result, *words):
  """Asserts one error line with all the words, and exit status 2."""
  status, output, errors = result
  assert status == 2, output + errors
  assert errors.count('\n') == 1 and errors.startswith('ERROR '), errors
  for word in words:
    assert word in errors


def contents(folder):
  return {str(path.relative_to(str(folder))): path.read_bytes()
          for path in folder.rglob('*') if path.is_file()}


# --- ADE20K ----------------------------------------------------------------


@pytest.mark.slow
def test_a_broken_download_is_resumed_and_converted_once(
    run, server, zip_bytes, tmp_path):
  server.cuts = 1
  status, output, errors = run('download_and_convert_ade20k.sh')
  assert status == 0, errors
  assert server.requests == [
      (download.ZIP, 0), (download.ZIP, len(zip_bytes) // 2)]
  assert 'train: 3 pairs in 4 shards' in output
  assert sorted(path.name for path in (tmp_path / 'ADE20K').iterdir()) == [
      download.DATA, download.ZIP, download.RECORDS]
  before = contents(tmp_path / 'ADE20K')
  status, output, errors = run('download_and_convert_ade20k.sh')
  assert status == 0, errors
  assert 'is complete, nothing to download' in output
  assert 'is complete; remove it to convert again' in output
  assert len(server.requests) == 2 and contents(tmp_path / 'ADE20K') == before
  # The marker of a run that ended during publishing.
  (tmp_path / 'ADE20K' / download.RECORDS / 'val.INCOMPLETE').touch()
  status, output, errors = run('download_and_convert_ade20k.sh')
  assert status == 0, errors
  assert 'val: 1 pairs in 4 shards' in output
  assert contents(tmp_path / 'ADE20K') == before


def test_the_next_run_resumes(get_zip, server, zip_bytes, tmp_path):
  server.cuts = 5
  result = get_zip()
  part = tmp_path / 'ADE20K' / (download.ZIP + '.part')
  kept = part.stat().st_size
  assert 0 < kept < len(zip_bytes)
  assert_refused(result, 'broke off after {} bytes'.format(kept),
                 'rerun to resume')
  assert part.read_bytes() == zip_bytes[:kept]
  assert not (tmp_path / 'ADE20K' / download.DATA).exists()
  # The second address is used if the first one cannot be reached.
  del server.requests[:]
  status, output, errors = get_zip(ADE20K_URL='http://127.0.0.1:1/a.zip  ' + (
      '{}/{}'.format(server.address, download.ZIP)))
  assert status == 0, errors
  assert server.requests == [(download.ZIP, kept)]
  assert '(Connection refused); trying the next address' in output


@pytest.mark.parametrize('extra, first', [(b'', None), (b'more', 0)])
def test_a_partial_file_that_is_complete_or_too_long(
    get_zip, server, zip_bytes, tmp_path, extra, first):
  part = tmp_path / 'ADE20K' / (download.ZIP + '.part')
  part.parent.mkdir()
  part.write_bytes(zip_bytes + extra)
  assert get_zip()[0] == 0
  assert [start for unused_path, start in server.requests][-1:] == (
      [] if first is None else [first])
  assert not part.exists()
  assert (part.parent / download.ZIP).read_bytes() == zip_bytes


def test_the_sha1_is_checked(get_zip, server, zip_bytes, tmp_path):
  server.files['other'] = b'other'
  assert_refused(
      get_zip(ADE20K_URL=server.address + '/other'),
      '/other: has SHA-1 {}; expected {}'.format(
          hashlib.sha1(b'other').hexdigest(),
          hashlib.sha1(zip_bytes).hexdigest()))
  (tmp_path / 'cut.zip').write_bytes(zip_bytes[:100])
  assert_refused(get_zip('--zip=cut.zip'), 'cut.zip: has SHA-1')
  assert list((tmp_path / 'ADE20K').iterdir()) == []


def test_https_is_tried_before_http():
  assert [url.split(':')[0] for url in download.ADE20K_URLS] == [
      'https', 'http']
  assert download.ADE20K_SHA1 == '219e1696abb36c8ba3a3afe7fb2f4b4606a897c7'


def test_a_local_zip_file_is_used(get_zip, server, zip_bytes, tmp_path):
  folder = tmp_path / names.ANY[1]
  folder.mkdir()
  (folder / 'my copy.zip').write_bytes(zip_bytes)
  # Python must not import modules from the working folder.
  (folder / 'zipfile.py').write_text('raise SystemExit(9)\n')
  status, _, errors = get_zip(
      '--zip=my copy.zip', cwd=folder, LC_ALL='C', CDPATH='elsewhere')
  assert status == 0, errors
  assert len(list((folder / 'ADE20K' / download.DATA).rglob('*.jpg'))) == 4
  assert server.requests == []


def test_pairs_are_counted(get_zip, server, tmp_path):
  folder = tmp_path / 'ADE20K' / download.DATA / 'images' / 'training'
  folder.mkdir(parents=True)
  assert_refused(get_zip(), 'images/training: holds 0 files *.jpg; expected 3',
                 'remove this folder')
  assert folder.is_dir() and server.requests == []


def test_only_one_run_uses_a_folder(get_zip, server, tmp_path):
  """Unpacked files of a dead run are removed, not those of a live one."""
  unpacked = tmp_path / 'ADE20K' / '.unpack.1'
  unpacked.mkdir(parents=True)
  with locks.exclusive(str(tmp_path / 'ADE20K')):
    assert_refused(get_zip(), 'ADE20K: another run writes there')
  assert unpacked.exists() and server.requests == []
  assert get_zip()[0] == 0
  assert not unpacked.exists()


def test_a_hostile_zip_stays_in_its_folder(get_zip, zip_bytes, tmp_path):
  content = io.BytesIO(zip_bytes)
  with zipfile.ZipFile(content, 'a') as archive:
    archive.writestr(download.DATA + '/../../../x', 'x')
    link = zipfile.ZipInfo(download.DATA + '/link')
    link.external_attr = 0o120777 << 16
    archive.writestr(link, '/etc/passwd')
  (tmp_path / 'hostile.zip').write_bytes(content.getvalue())
  status, _, errors = get_zip('--zip=hostile.zip', ADE20K_SHA1=hashlib.sha1(
      content.getvalue()).hexdigest())
  assert status == 0, errors
  assert not (tmp_path / 'x').exists() and not (tmp_path.parent / 'x').exists()
  assert not (tmp_path / 'ADE20K' / download.DATA / 'link').is_symlink()


@pytest.mark.parametrize('arguments, variables, words', [
    (['data'], {}, 'unrecognized arguments: data'),
    (['--zip=a\nb'], {}, '--zip=a\\nb: no such file'),
    ([], {'ADE20K_EXPECT_COUNTS': '3'}, 'expected TRAIN,VAL or no'),
    ([], {'ADE20K_SHA1': 'A' * 40}, 'expected 40 hexadecimal digits'),
    ([], {'ADE20K_URL': 'file:///etc/passwd'}, 'begins with https:// or'),
    ([], {'ADE20K_URL': 'http://127.0.0.1:1/x'},
     'cannot download http://127.0.0.1:1/x (Connection refused); rerun'),
    ([], {'PYTHON': 'no such'}, 'PYTHON=no such: no such Python')])
def test_bad_input_is_refused(get_zip, server, arguments, variables, words):
  assert_refused(get_zip(*arguments, **variables), words)
  assert server.requests == []


# --- The published files ---------------------------------------------------


def test_published_files_are_fetched_once(fetch, server, tmp_path):
  server.cuts = 1
  status, output, errors = fetch()
  assert status == 0, errors
  assert contents(tmp_path / 'out') == PUBLISHED
  assert 'out: 3 of 3 files verified' in output
  del server.requests[:]
  assert fetch()[0] == 0
  assert server.requests == []


def test_folders_can_be_chosen(fetch, tmp_path):
  assert fetch('quantize_aware_training', LC_ALL='C')[0] == 0
  assert list(contents(tmp_path / 'out')) == [
      'quantize_aware_training/checkpoint']


def test_missing_and_changed_files_are_named(fetch, server, tmp_path):
  del server.files['float/freeze.pb']
  server.files['float/checkpoint'] = b'something else'
  mine = tmp_path / 'out' / 'quantize_aware_training' / 'checkpoint'
  mine.parent.mkdir(parents=True)
  mine.write_bytes(b'mine')
  result = fetch()
  assert_refused(result, '3 of 3 files are missing')
  for line in ('float/freeze.pb: cannot download', '(HTTP status 404)',
               'float/checkpoint: {}/float/checkpoint: has SHA-1 {}'.format(
                   server.address, blob_sha1(b'something else')),
               'quantize_aware_training/checkpoint: is another file'):
    assert line in result[1]
  assert mine.read_bytes() == b'mine'
  assert list(contents(tmp_path / 'out')) == [
      'quantize_aware_training/checkpoint']


@pytest.mark.parametrize('path', [
    'float/../../x.bin', '..', '/x.bin', './x.bin', 'float/x y',
    'float/freeze.pb'])
def test_a_list_with_paths_outside_the_folder_is_refused(tmp_path, path):
  listed = tmp_path / 'sums.txt'
  listed.write_text('{0}  float/freeze.pb\n{0}  {1}'.format('0' * 40, path))
  with pytest.raises(download.InputError, match='sums.txt: line 2: 0+ '):
    download.published(str(listed))


@pytest.mark.parametrize('arguments, variables, words', [
    (['flaot'], {}, 'unknown folder flaot; expected float, post_train_quant'),
    (['post_train_quant'], {}, 'the list has no file of post_train_quant'),
    ([], {'CHECKPOINTS_MANIFEST': 'none.txt'}, 'none.txt: no such file'),
    ([], {'CHECKPOINTS_URL': 'ftp://127.0.0.1'}, 'begins with https:// or')])
def test_bad_input_of_fetch_checkpoints_is_refused(
    fetch, server, arguments, variables, words):
  assert_refused(fetch(*arguments, **variables), words)
  assert server.requests == []


@pytest.mark.parametrize('script, words', [
    ('download_and_convert_ade20k.sh', ['--zip', 'ADE20K_URL', 'ADE20K_SHA1',
                                        'ADE20K_EXPECT_COUNTS', 'PYTHON']),
    ('scripts/fetch_checkpoints.sh', ['--output_dir', 'CHECKPOINTS_URL',
                                      'CHECKPOINTS_MANIFEST'])])
def test_help_names_every_setting(run, script, words):
  status, output, _ = run(script, '--help')
  assert status == 0
  assert all(word in output for word in words)


def test_the_list_matches_the_reference(reference_dir):
  with open(os.path.join(reference_dir, 'numbers.json')) as content:
    numbers = json.load(content)
  assert download.published() == {
      name.split('/', 1)[1]: sha1
      for name, sha1 in numbers['git_blob_sha1'].items()}
  for name in ('post_train_quant/freeze_ptq.tflite',
               'quantize_aware_training/freeze_qat.tflite'):
    assert download.published()[name] == download.blob_sha1_of(
        os.path.join(reference_dir, os.path.basename(name)))
