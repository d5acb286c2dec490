"""Records in a file: found, and held against their checksums."""
import struct

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from deeplab import contract
from deeplab.data import framing
from deeplab.errors import InputError
from tests import record_sets

pytestmark = [pytest.mark.tf1, pytest.mark.tf2, pytest.mark.modern]


def random_bytes(length):
  return np.random.RandomState(length).bytes(length)


def header(length):
  packed = struct.pack('<Q', length)
  return packed + struct.pack('<I', framing.masked_checksum(packed))


def read_until_damaged(path):
  """Returns (data of the records before the damage, what is said of it)."""
  found = []
  with pytest.raises(InputError) as caught:
    for frame in framing.frames(str(path)):
      found.append(frame.data)
  return found, str(caught.value)


def test_checksum_of_the_standard_s_example():
  # RFC 3720, B.4: 32 zeros give 0x8a9136aa; masked as TFRecords are.
  crc = 0x8a9136aa
  assert framing.masked_checksum(bytes(32)) == (
      (crc >> 15 | crc << 17 & 0xffffffff) + 0xa282ead8) & 0xffffffff


def test_checksums_are_tensorflow_s_for_all_lengths(tmp_path):
  records = [random_bytes(length) for length in
             [*range(9), *range(250, 262), 511, 512, 513, 4096, 50001]]
  frames = list(framing.frames(record_sets.write(tmp_path / 'x', records)))
  assert [frame.data for frame in frames] == records
  for frame in frames:
    frame.check()
    assert framing.read(str(tmp_path / 'x'), frame.offset) == frame


@pytest.mark.parametrize('compression', ['GZIP', 'ZLIB'])
def test_compressed_shards_are_named(tmp_path, compression):
  path = str(tmp_path / 'x')
  with tf.io.TFRecordWriter(path, options=compression) as writer:
    writer.write(b'one')
  assert read_until_damaged(path) == ([], (
      'is compressed by gzip or zlib; expected TFRecords without compression: '
      'write the shards again'))


@pytest.mark.parametrize('length', [1, 300, 5000])
def test_any_changed_byte_changes_the_checksum(length):
  data = random_bytes(length)
  for position in {0, 3, 4, length // 2, length - 5, length - 1}:
    if 0 <= position < length:
      changed = bytearray(data)
      changed[position] ^= 1
      with pytest.raises(InputError, match='fails its CRC'):
        framing.Frame(
            0, bytes(changed), framing.masked_checksum(data)).check()


def test_no_records(tmp_path):
  assert not list(framing.frames(record_sets.write(tmp_path / 'x', [])))


@pytest.mark.parametrize('cut', [1, 4, 5, 100, 104, 115])
def test_the_end_inside_a_record(tmp_path, cut):
  path = tmp_path / 'x'
  record_sets.write(path, [random_bytes(100)] * 3)
  path.write_bytes(path.read_bytes()[:-cut])
  assert read_until_damaged(path) == ([random_bytes(100)] * 2, 'is cut short')


def test_a_damaged_length(tmp_path):
  path = tmp_path / 'x'
  record_sets.write(path, [random_bytes(100)] * 3)
  content = bytearray(path.read_bytes())
  content[116] ^= 1
  path.write_bytes(content)
  found, message = read_until_damaged(path)
  assert found == [random_bytes(100)]
  assert message.startswith('fails its CRC (of its length')


@pytest.mark.parametrize('length', [2 ** 64 - 1, 2 ** 63, 2 ** 33, 200])
def test_a_length_beyond_the_file_takes_no_memory(tmp_path, length):
  (tmp_path / 'x').write_bytes(header(length) + bytes(100))
  assert read_until_damaged(tmp_path / 'x') == ([], 'is cut short')


def test_a_record_larger_than_any_image_takes_no_memory(tmp_path, monkeypatch):
  record_sets.write(tmp_path / 'x', [random_bytes(101)])
  monkeypatch.setattr(contract, 'MAX_FILE_BYTES', 50)
  assert read_until_damaged(tmp_path / 'x') == (
      [], 'has 101 bytes; expected at most 100')
