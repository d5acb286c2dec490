"""Tests counting records by their lengths."""
import struct

import pytest

from deeplab import constants
from deeplab.data import framing
from tests import record_sets


def header(length):
  packed = struct.pack('<Q', length)
  return packed + struct.pack('<I', framing.masked_checksum(packed))


def test_checksum_of_the_example_in_the_standard():
  # In RFC 3720, B.4, 32 zeros have the checksum 0x8a9136aa; TFRecords mask it.
  crc = 0x8a9136aa
  assert framing.masked_checksum(bytes(32)) == (
      (crc >> 15 | crc << 17 & 0xffffffff) + 0xa282ead8) & 0xffffffff


def test_whole_records_are_counted(tmp_path):
  lengths = [0, 1, 255, 256, 50001]
  path = record_sets.write(tmp_path / 'x', map(bytes, lengths))
  size = sum(map(framing.framed_size, lengths))
  assert framing.tally(path) == (size, 5, '')
  assert framing.tally(record_sets.write(tmp_path / 'x', [])) == (0, 0, '')


@pytest.mark.parametrize('cut', [1, 4, 5, 100, 104, 115])
def test_a_file_that_ends_inside_a_record(tmp_path, cut):
  path = tmp_path / 'x'
  record_sets.write(path, [bytes(100)] * 3)
  path.write_bytes(path.read_bytes()[:-cut])
  assert framing.tally(str(path))[1:] == (2, 'is cut short')


@pytest.mark.parametrize('length', [2 ** 64 - 1, 2 ** 63, 2 ** 33, 200])
def test_a_length_beyond_the_end_of_the_file(tmp_path, length):
  (tmp_path / 'x').write_bytes(header(length) + bytes(100))
  assert framing.tally(str(tmp_path / 'x'))[1:] == (0, 'is cut short')


def test_a_record_larger_than_any_image_is_not_read(tmp_path):
  length = 2 * constants.MAX_FILE_BYTES + 1
  with open(str(tmp_path / 'x'), 'wb') as shard:
    shard.write(header(length))
    shard.truncate(framing.framed_size(length))
  assert framing.tally(str(tmp_path / 'x'))[1:] == (
      0, 'has {} bytes; expected at most {}'.format(length, length - 1))
