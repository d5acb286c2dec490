"""Tests of deeplab/data/archive.py: archives that attack what unpacks them."""
import errno
import io
import os
import random
import stat
import struct
import zipfile

import pytest

from deeplab.data import archive
from deeplab.errors import InputError

FOLDER = 'data'
GOOD = {'data/images/a.jpg': b'a' * 1000, 'data/b.png': bytes(range(256))}
CENTRAL = b'PK\x01\x02'  # begins a member's entry in the central directory
FLAGS, CRC, SIZE = 8, 16, 24  # offsets in such an entry


def zip_of(members, compression=zipfile.ZIP_DEFLATED):
  """Returns the bytes of an archive.

  Args:
    members: list of (name, content, mode): str, bytes, and int or None.
    compression: method for all of them.
  """
  written = io.BytesIO()
  with zipfile.ZipFile(written, 'w') as target:
    for name, content, mode in members:
      member = zipfile.ZipInfo(name)
      if mode is not None:
        member.external_attr = mode << 16
      target.writestr(member, content, compression)
  return written.getvalue()


def good_and(*members):
  return zip_of([(name, content, None) for name, content in GOOD.items()] +
                list(members))


def patched(content, offset, layout, value):
  """Writes a value into every entry of the central directory."""
  content = bytearray(content)
  at = content.find(CENTRAL)
  while at >= 0:
    struct.pack_into(layout, content, at + offset, value)
    at = content.find(CENTRAL, at + 1)
  return bytes(content)


@pytest.fixture
def unpack(tmp_path):
  """Writes an archive and unpacks it into tmp_path/out."""
  def write_and_unpack(content):
    (tmp_path / 'some.zip').write_bytes(content)
    (tmp_path / 'out').mkdir(exist_ok=True)
    archive.unpack(str(tmp_path / 'some.zip'), str(tmp_path / 'out'), FOLDER)
  return write_and_unpack


def unpacked(tmp_path):
  """Returns the files in tmp_path/out; checks that all else is as it was."""
  assert sorted(path.name for path in tmp_path.iterdir()) == ['out', 'some.zip']
  out = tmp_path / 'out'
  return {str(path.relative_to(out)): path.read_bytes()
          for path in out.rglob('*') if not path.is_dir()}


def assert_refused(unpack, content, tmp_path, *words):
  with pytest.raises(InputError) as refused:
    unpack(content)
  message = str(refused.value)
  assert message.startswith(str(tmp_path / 'some.zip'))
  assert '\n' not in message
  for word in words:
    assert word in message


@pytest.mark.parametrize('mode', [None, 0o644, stat.S_IFREG | 0o644])
def test_unpacks_files_and_folders(unpack, tmp_path, mode):
  unpack(good_and(('data/', b'', None),
                  ('data/empty/', b'', stat.S_IFDIR | 0o755),
                  ('data/c d.png', b'c', mode)))
  assert unpacked(tmp_path) == dict(GOOD, **{'data/c d.png': b'c'})
  assert (tmp_path / 'out' / 'data' / 'empty').is_dir()


@pytest.mark.parametrize('name', [
    '../x', 'data/../../x', 'data/../x', 'data/..', '/x', '//x', '/data/x',
    'data//x', 'data/./x', './data/x', 'C:/x', 'C:x', 'data/C:x', '..\\x',
    'data\\x', 'data\\..\\..\\x', '', '/', '..', '../'])
def test_refuses_names_that_lead_elsewhere(unpack, tmp_path, name):
  assert_refused(unpack, good_and((name, b'x', None)), tmp_path,
                 'not unpacked: {!r} is no plain relative path'.format(name))
  assert unpacked(tmp_path) == {}


@pytest.mark.parametrize('name', ['x', 'other/x', 'Data/x', 'data2/x'])
def test_refuses_what_lies_outside_the_folder(unpack, tmp_path, name):
  assert_refused(unpack, good_and((name, b'x', None)), tmp_path,
                 repr(name) + ' is not in data/')
  assert unpacked(tmp_path) == {}


@pytest.mark.parametrize('name', ['data/a\nb', 'data/\x1b[2J', 'data/\u202ex'])
def test_refuses_control_characters(unpack, tmp_path, name):
  assert_refused(unpack, good_and((name, b'x', None)), tmp_path,
                 repr(name) + ' has control characters')
  assert unpacked(tmp_path) == {}


def test_refuses_a_name_with_a_zero_byte(unpack, tmp_path):
  content = good_and(('data/x_y', b'x', None))
  assert_refused(unpack, content.replace(b'data/x_y', b'data/x\0y'), tmp_path,
                 r"'data/x\x00y' has two names")
  assert unpacked(tmp_path) == {}


def test_takes_no_other_name_from_an_extra_field(unpack, tmp_path):
  # "Unicode path", which newer versions of zipfile read: version, CRC of the
  # name that it replaces, and the name.
  name = b'data/x'
  other = b'../../x'
  extra = struct.pack('<BI', 1, archive.zlib.crc32(name)) + other
  member = zipfile.ZipInfo(name.decode())
  member.extra = struct.pack('<HH', 0x7075, len(extra)) + extra
  written = io.BytesIO()
  with zipfile.ZipFile(written, 'w') as target:
    target.writestr(member, b'x')
  try:
    unpack(written.getvalue())
  except InputError as error:
    assert 'has two names' in str(error)
    assert unpacked(tmp_path) == {}
  else:
    assert unpacked(tmp_path) == {'data/x': b'x'}


@pytest.mark.parametrize('kind', [
    stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_refuses_links_and_devices(unpack, tmp_path, kind):
  assert_refused(
      unpack, good_and(('data/x', b'/etc/passwd', kind | 0o777)), tmp_path,
      "'data/x' is a link or a device")
  assert unpacked(tmp_path) == {}


@pytest.mark.parametrize('name', ['data/b.png', 'data/B.PNG', 'data/b.png/'])
@pytest.mark.filterwarnings('ignore:Duplicate name')
def test_refuses_a_name_that_is_there_twice(unpack, tmp_path, name):
  assert_refused(unpack, good_and((name, b'', None)), tmp_path,
                 repr(name) + ' is there twice')
  assert unpacked(tmp_path) == {}


def test_refuses_a_file_that_is_a_folder_too(unpack, tmp_path):
  assert_refused(unpack, good_and(('data/b.png/x', b'', None)), tmp_path,
                 'cannot be unpacked')


def test_refuses_encrypted_members(unpack, tmp_path):
  assert_refused(unpack, patched(good_and(), FLAGS, '<H', 1), tmp_path,
                 "'data/b.png' is encrypted")
  assert unpacked(tmp_path) == {}


@pytest.mark.parametrize('method', [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_refuses_other_compression(unpack, tmp_path, method):
  content = zip_of([('data/x', b'x', None)], method)
  assert_refused(unpack, content, tmp_path, 'method {}'.format(method))
  assert unpacked(tmp_path) == {}


def test_names_the_first_few(unpack, tmp_path):
  content = zip_of([('other/{}'.format(index), b'', None)
                    for index in range(9)])
  assert_refused(unpack, content, tmp_path, "'other/2'", 'and 6 more')


def test_refuses_a_bomb(unpack, tmp_path):
  members = [('data/{}'.format(index), b'x', None) for index in range(3)]
  content = patched(zip_of(members), SIZE, '<I', 0xf0000000)
  assert_refused(unpack, content, tmp_path, 'not unpacked',
                 'would be 12079 MB, expected at most 8589 MB')
  assert unpacked(tmp_path) == {}


def test_takes_large_archives_of_large_files(unpack, tmp_path, monkeypatch):
  content = good_and()
  size = sum(map(len, GOOD.values()))
  monkeypatch.setattr(archive, '_LARGEST_SIZE', size - 1)
  monkeypatch.setattr(archive, '_LARGEST_RATIO', size // len(content) + 1)
  unpack(content)
  assert unpacked(tmp_path) == GOOD
  monkeypatch.setattr(archive, '_LARGEST_RATIO', 0)
  assert_refused(unpack, content, tmp_path, 'not unpacked: would be')


def test_writes_no_more_than_was_stated(unpack, tmp_path):
  content = patched(zip_of([('data/x', b'x' * 100000, None)]), SIZE, '<I', 9)
  assert_refused(unpack, content, tmp_path, 'cannot be unpacked')
  assert all(len(data) <= 9 for data in unpacked(tmp_path).values())


def test_refuses_a_wrong_crc(unpack, tmp_path):
  content = zip_of([('data/x', b'some content', None)], zipfile.ZIP_STORED)
  assert_refused(unpack, content.replace(b'some content', b'SOME CONTENT'),
                 tmp_path, 'cannot be unpacked', 'Bad CRC-32', 'data/x')
  assert_refused(unpack, patched(content, CRC, '<I', 0), tmp_path, 'Bad CRC-32')


@pytest.mark.parametrize('content', [
    b'', b'<html>Sign in</html>', good_and()[:-30], good_and()[30:],
    good_and()[-22:]])
def test_refuses_what_is_no_archive(unpack, tmp_path, content):
  assert_refused(unpack, content, tmp_path, 'cannot be unpacked')


def test_damage_anywhere_is_found_or_harmless(unpack, tmp_path):
  content = good_and()
  source = random.Random(0)
  refused = 0
  for _ in range(200):
    damaged = bytearray(content)
    for _ in range(source.randint(1, 4)):
      damaged[source.randrange(len(damaged))] = source.randrange(256)
    try:
      unpack(bytes(damaged))
    except InputError:
      refused += 1
    assert all(name.startswith('data/') for name in unpacked(tmp_path))
  assert refused > 80


def test_a_disk_that_is_full_is_said_in_words(unpack, tmp_path, monkeypatch):
  def fail(unused_archive, member, folder):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), '/out/a')

  monkeypatch.setattr(zipfile.ZipFile, 'extract', fail)
  assert_refused(unpack, good_and(), tmp_path,
                 'cannot be unpacked: /out/a: No space left on device')
