"""How records lie in a file, read without TensorFlow.

A record is 8 bytes of length (little endian), 4 of the length's checksum, the
data, 4 of the data's checksum. TensorFlow's reader stops at the first damage;
what follows it can be read here, as long as lengths are sound.
"""
import functools
import os
import struct
from typing import Iterator, NamedTuple, Tuple

import numpy as np

from deeplab import contract
from deeplab import storage
from deeplab.errors import InputError

_LENGTH = struct.Struct('<Q')
_CHECKSUM = struct.Struct('<I')
_HEADER_BYTES = _LENGTH.size + _CHECKSUM.size
# How a file begins that TensorFlow compressed: by gzip, or by zlib.
_COMPRESSED = (b'\x1f\x8b', b'\x78\x01', b'\x78\x5e', b'\x78\x9c',
               b'\x78\xda')


class Frame(NamedTuple):
  """One record of a file."""
  # Where its data begin in the file.
  offset: int
  data: bytes
  # What the file says is the checksum of the data.
  checksum: int

  def check(self) -> None:
    """Raises InputError where data and checksum differ."""
    if masked_checksum(self.data) != self.checksum:
      raise InputError('fails its CRC')


def frames(path: str) -> Iterator[Frame]:
  """Yields the records of a file; checks their lengths, not their data.

  Args:
    path: file of TFRecords, not compressed.

  Raises:
    InputError: where the next record cannot be found, in words that go after
      'record N'; OSError where the file cannot be read.
  """
  with storage.reading(path) as source:
    size = _size_of(source, path)
    while source.tell() < size:
      yield _next_frame(source, size)


def read(path: str, offset: int) -> Frame:
  """Reads one record.

  Args:
    path: file of TFRecords.
    offset: Frame.offset, from `frames`.

  Raises:
    InputError: where there is no such record any more.
  """
  with storage.reading(path) as source:
    source.seek(offset - _HEADER_BYTES)
    return _next_frame(source, _size_of(source, path))


def _size_of(source, path):
  """Returns the size of an open file, which may have another name by now."""
  if storage.is_remote(path):
    return storage.size(path)
  return os.fstat(source.fileno()).st_size


def framed_size(length: int) -> int:
  """Returns how many bytes a record of so much data takes in a file."""
  return _HEADER_BYTES + length + _CHECKSUM.size


def _next_frame(source, size):
  header = source.read(_HEADER_BYTES)
  if len(header) < _HEADER_BYTES:
    raise InputError('is cut short')
  length, = _LENGTH.unpack_from(header)
  if masked_checksum(header[:_LENGTH.size]) != _CHECKSUM.unpack_from(
      header, _LENGTH.size)[0]:
    if source.tell() == _HEADER_BYTES and header.startswith(_COMPRESSED):
      raise InputError('is compressed by gzip or zlib; expected TFRecords '
                       'without compression: write the shards again')
    raise InputError('fails its CRC (of its length: what follows cannot be '
                     'found)')
  offset = source.tell()
  if length + _CHECKSUM.size > size - offset:
    raise InputError('is cut short')
  # Image and label, each of which may be as large as that.
  if length > 2 * contract.MAX_FILE_BYTES:
    raise InputError('has {} bytes; expected at most {}'.format(
        length, 2 * contract.MAX_FILE_BYTES))
  data = source.read(length)
  footer = source.read(_CHECKSUM.size)
  if len(footer) < _CHECKSUM.size:  # the file has become shorter
    raise InputError('is cut short')
  return Frame(offset, data, _CHECKSUM.unpack(footer)[0])


# --- Checksums -------------------------------------------------------------

# CRC-32C, bits reversed.
_POLYNOMIAL = 0x82f63b78
_ONES = 0xffffffff
_MASK_DELTA = 0xa282ead8
# Data are worked on in parts of so many bytes, all parts at once.
_PART = 64


def masked_checksum(data: bytes) -> int:
  """Returns the checksum that TFRecords have of data: CRC-32C, masked.

  Hundreds of times as fast as a loop over bytes, which takes minutes for a
  data set.

  Args:
    data: of any length.
  """
  crc = (_crc_of_few if len(data) < 4 * _PART else _crc_of_many)(data)
  return ((crc >> 15 | crc << 17) + _MASK_DELTA) & _ONES


def _crc_of_few(data):
  table = _byte_table()
  crc = _ONES
  for byte in data:
    crc = table[(crc ^ byte) & 255] ^ crc >> 8
  return crc ^ _ONES


def _crc_of_many(data):
  """Folds parts of the data by halves: CRC(ab) = CRC(a, then zeros) ^ CRC(b).

  Args:
    data: at least 4 bytes.
  """
  levels = (-(-len(data) // _PART) - 1).bit_length()
  # Zeros in front change nothing where the register begins as 0; beginning as
  # ones is the same as inverting the first 4 bytes.
  padded = np.zeros(_PART << levels, np.uint8)
  start = len(padded) - len(data)
  padded[start:] = np.frombuffer(data, np.uint8)
  padded[start:start + 4] ^= 255
  table = _pair_table()
  crcs = np.zeros(1 << levels, np.uint32)
  for column in padded.view('<u2').reshape(len(crcs), -1).T:
    crcs ^= column
    crcs = table[crcs & 0xffff] ^ crcs >> 16
  for level in range(levels):
    low, high = _zeros_tables(level)
    first = crcs[::2]
    crcs = low[first & 0xffff] ^ high[first >> 16] ^ crcs[1::2]
  return int(crcs[0]) ^ _ONES


def _after_zero_bits(crcs, bits):
  """What becomes of registers, a NumPy array, after zero bits."""
  for _ in range(bits):
    crcs = crcs >> 1 ^ (crcs & 1) * np.uint32(_POLYNOMIAL)
  return crcs


@functools.lru_cache(maxsize=None)
def _byte_table():
  """List: a register's lowest byte to what it makes of the others."""
  return _after_zero_bits(np.arange(256, dtype=np.uint32), 8).tolist()


@functools.lru_cache(maxsize=None)
def _pair_table():
  """Array: the same for the two lowest bytes."""
  return _after_zero_bits(np.arange(1 << 16, dtype=np.uint32), 16)


@functools.lru_cache(maxsize=None)
def _zeros_tables(level: int) -> Tuple[np.ndarray, np.ndarray]:
  """What becomes of both halves of a register after _PART << level zeros."""
  if level:
    # Twice as many zeros are those of the level below, two times.
    low, high = _zeros_tables(level - 1)
    images = np.concatenate([low[1 << np.arange(16)], high[1 << np.arange(16)]])
    images = low[images & 0xffff] ^ high[images >> 16]
  else:
    images = _after_zero_bits(
        np.uint32(1) << np.arange(32, dtype=np.uint32), 8 * _PART)
  return _linear_table(images[:16]), _linear_table(images[16:])


def _linear_table(images):
  """Array: 16 bits to the sum of the images of those that are 1."""
  table = np.zeros(1, np.uint32)
  for image in images:
    table = np.concatenate([table, table ^ image])
  return table
