"""Encodes PNG files several times faster than Pillow.

Rows are stored as differences from the row above, and compressed by Intel's
ISA-L if python-isal is installed. Without it Pillow encodes.
"""
import importlib
import io
import struct
from typing import Any
import zlib

import numpy as np
from PIL import Image

from deeplab.data import pairs


def _isal_zlib():
  try:
    return importlib.import_module('isal.isal_zlib')
  except ImportError:
    return None


isal_zlib: Any = _isal_zlib()
# ISA-L's levels are 0 to 3; its files are some percent larger than Pillow's.
_ISAL_LEVEL = 1
# For so few bytes, ISA-L uses its code for the end of the input.
_BEGINNING = 16
# Pillow's levels are 0 to 9. Level 1 is six times as fast as the default of 6,
# with files 7 % larger.
_PILLOW_LEVEL = 1
_UP_FILTER = 2
# Colour types by number of channels.
_COLOR_TYPES = {1: 0, 3: 2}
_BITS = 8


def encode(pixels: np.ndarray) -> bytes:
  """Encodes an image.

  Args:
    pixels: [height, width] gray or [height, width, 3] RGB, uint8, not empty.

  Returns:
    The content of a PNG file. Equal pixels give equal bytes with the same
    library and the same kind of processor.
  """
  if isal_zlib is None:
    file = io.BytesIO()
    Image.fromarray(pixels).save(
        file, format='PNG', compress_level=_PILLOW_LEVEL)
    return file.getvalue()
  height, width = pixels.shape[:2]
  rows = np.ascontiguousarray(pixels).reshape(height, -1)
  filtered = np.empty([height, 1 + rows.shape[1]], np.uint8)
  filtered[:, 0] = _UP_FILTER
  filtered[0, 1:] = rows[0]
  # The format takes differences modulo 256.
  np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
  header = struct.pack(
      '>IIBBBBB', width, height, _BITS,
      _COLOR_TYPES[rows.shape[1] // width], 0, 0, 0)
  return pairs.SIGNATURES[pairs.PNG] + b''.join([
      _chunk(b'IHDR', header),
      _chunk(b'IDAT', _deflated(filtered.data.cast('B'))),
      _chunk(b'IEND', b'')])


def _deflated(content):
  """Compresses bytes by ISA-L in zlib's format."""
  deflating = isal_zlib.compressobj(_ISAL_LEVEL)
  # At the beginning of a stream, levels 1 and 2 search for a match by a
  # register that holds a stack address (igzip_icf_body_h1_gr_bt.asm,
  # write_first_byte), so the output would depend on the thread. Flushing a few
  # bytes first avoids that code.
  return b''.join([
      deflating.compress(content[:_BEGINNING]),
      deflating.flush(zlib.Z_SYNC_FLUSH),
      deflating.compress(content[_BEGINNING:]),
      deflating.flush()])


def _chunk(kind, content):
  """Builds a PNG chunk: length, kind, content and checksum."""
  checksum = isal_zlib.crc32(content, isal_zlib.crc32(kind))
  return struct.pack('>I', len(content)) + kind + content + struct.pack(
      '>I', checksum)
