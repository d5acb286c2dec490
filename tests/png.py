"""PNG files that Pillow does not write."""
import struct
import zlib


def chunk(kind, data):
  return (struct.pack('>I', len(data)) + kind + data +
          struct.pack('>I', zlib.crc32(kind + data)))


def gray(height, width, *, rows, depth=8, value=1, interlaced=0, color_type=0):
  """Returns a gray or RGB (color_type 2) PNG that has only its first `rows`."""
  header = struct.pack(
      '>IIBBBBB', width, height, depth, color_type, 0, 0, interlaced)
  samples = 3 if color_type == 2 else 1
  row = b'\0' + bytes([value]) * -(-width * samples * depth // 8)
  return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) +
          chunk(b'IDAT', zlib.compress(row * rows)) + chunk(b'IEND', b''))
