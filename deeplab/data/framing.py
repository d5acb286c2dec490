"""Counts the records of a shard without reading their data.

A record is 8 bytes of length (little endian), 4 of the length's checksum, the
data, 4 of the data's checksum.
"""
import struct
from typing import NamedTuple

from deeplab import constants
from deeplab import errors
from deeplab.errors import InputError
from deeplab.storage import remote

_HEADER = struct.Struct('<QI')
_LENGTH_BYTES = 8
_CHECKSUM_BYTES = 4
# First bytes of files that TensorFlow compressed by gzip or zlib.
_COMPRESSED = (b'\x1f\x8b', b'\x78\x01', b'\x78\x5e', b'\x78\x9c',
               b'\x78\xda')
# Largest record: an image and a label.
_MOST_BYTES = 2 * constants.MAX_FILE_BYTES
# Reversed polynomial of CRC-32C, and constant of TFRecord's masking.
_POLYNOMIAL = 0x82f63b78
_MASK_DELTA = 0xa282ead8
_ONES = 0xffffffff


class Tally(NamedTuple):
  """Number of records in a shard, by their length fields."""
  # Size of the file.
  bytes: int
  # Number of records up to the first problem.
  records: int
  # Problem of the next record; its text follows 'record N'. '': none.
  problem: str


def tally(path: str) -> Tally:
  """Counts the records of a shard by their lengths.

  Args:
    path: file of uncompressed TFRecords.

  Raises:
    InputError: the file cannot be read.
  """
  count = 0
  problem = ''
  try:
    size = remote.size(path)
    with remote.reading(path) as shard:
      position = 0
      while position < size and not problem:
        shard.seek(position)
        header = shard.read(_HEADER.size)
        problem = _problem(header, position, size)
        if not problem:
          position += framed_size(_HEADER.unpack(header)[0])
          count += 1
  except OSError as error:
    raise InputError(errors.of_system(error))
  return Tally(size, count, problem)


def framed_size(length: int) -> int:
  """Returns the size in a file of a record with `length` bytes of data."""
  return _HEADER.size + length + _CHECKSUM_BYTES


def _problem(header, position, size):
  """Returns the problem of the record at a position; '': none."""
  if len(header) < _HEADER.size:
    return 'is cut short'
  length, checksum = _HEADER.unpack(header)
  if masked_checksum(header[:_LENGTH_BYTES]) != checksum:
    if position == 0 and header.startswith(_COMPRESSED):
      return ('is compressed by gzip or zlib; expected TFRecords without '
              'compression: write the shards again')
    return 'fails its CRC (of its length: what follows cannot be found)'
  if framed_size(length) > size - position:
    return 'is cut short'
  if length > _MOST_BYTES:
    return 'has {} bytes; expected at most {}'.format(length, _MOST_BYTES)
  return ''


def masked_checksum(data: bytes) -> int:
  """Returns the masked CRC-32C of a few bytes."""
  crc = _ONES
  for byte in data:
    crc ^= byte
    for _ in range(8):
      crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
  crc ^= _ONES
  return ((crc >> 15 | crc << 17) + _MASK_DELTA) & _ONES
