"""PNG files that Pillow does not write."""
import struct
import zlib


def chunk(kind, data):
  return (struct.pack('>I', len(data)) + kind + data +
          struct.pack('>I', zlib.crc32(kind + data)))


def gray(height, width, *, rows, depth=8, value=1, interlaced=0):
  """Returns a gray PNG, of which only some rows are there."""
  header = struct.pack('>IIBBBBB', width, height, depth, 0, 0, 0, interlaced)
  row = b'\0' + bytes([value]) * -(-width * depth // 8)
  return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) +
          chunk(b'IDAT', zlib.compress(row * rows)) + chunk(b'IEND', b''))
