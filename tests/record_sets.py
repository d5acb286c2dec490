"""Small shards for tests, valid and damaged."""
import io
import os
import struct

import numpy as np
from PIL import Image
import tensorflow.compat.v1 as tf

from deeplab.data import records
from tests import png


def encode(array, image_format='PNG', **save):
  """Returns an array, or a PIL.Image, as the bytes of a file."""
  out = io.BytesIO()
  image = array if isinstance(array, Image.Image) else Image.fromarray(array)
  image.save(out, image_format, **save)
  return out.getvalue()


def picture(seed=0, size=(6, 8), image_format='JPEG'):
  """Returns a random RGB image of (height, width) as the bytes of a file."""
  return encode(np.random.RandomState(seed).randint(
      0, 256, size + (3,), np.uint8), image_format)


def label(value=1, size=(6, 8)):
  return encode(np.full(size, value, np.uint8))


def example(number=0, **changes):
  """Returns the serialized tf.Example of a pair of 6x8 pixels."""
  fields = dict(
      image_bytes=picture(number), label_bytes=label(),
      filename='image_{}.jpg'.format(number), image_format='jpeg',
      label_format='png', height=6, width=8)
  fields.update(changes)
  return records.make_example(**fields).SerializeToString(deterministic=True)


def pair(name, image, label, **encoded):
  """Returns the tf.Example of two arrays; `encoded` replaces their PNGs."""
  fields = dict(
      image_bytes=encode(image), label_bytes=encode(label), filename=name,
      image_format='png', label_format='png', height=image.shape[0],
      width=image.shape[1])
  fields.update(encoded)
  return records.make_example(**fields)


def numbered(number, height=3, width=4, name=None):
  """Returns a tf.Example whose image and label have one value."""
  return pair(name or 'image_{}.png'.format(number),
              np.full([height, width, 3], number, np.uint8),
              np.full([height, width], number, np.uint8))


def write_shards(*, output_dir, split, shards):
  """Writes a described split; returns the shards' paths."""
  return records.write_splits([records.Content(output_dir, split, shards)])[0]


def write(path, serialized):
  """Writes a shard without a description; returns its path."""
  with tf.io.TFRecordWriter(str(path)) as writer:
    for one in serialized:
      writer.write(one)
  return str(path)


def spans(path):
  """Returns (first byte, one past the last) of each record's data."""
  found = []
  with open(str(path), 'rb') as shard:
    content = shard.read()
  end = -4  # before the checksum of a record's data
  while end + 4 < len(content):
    begin = end + 4 + 12
    end = begin + struct.unpack('<Q', content[begin - 12:begin - 4])[0]
    found.append((begin, end))
  return found


def flip(path, position):
  """Flips a bit of a file, in place."""
  with open(str(path), 'r+b') as shard:
    shard.seek(position)
    byte = shard.read(1)[0]
    shard.seek(position)
    shard.write(bytes([byte ^ 1]))


def cut(path, length):
  os.truncate(str(path), length)


def bad_labels():
  """Returns dict from kind to (bytes of a bad 6x8 label, part of its error)."""
  values = np.ones([6, 8], np.uint8)
  palette = Image.fromarray(values, mode='P')
  palette.putpalette([index for index in range(256) for _ in range(3)])
  return {
      'rgb': (encode(np.ones([6, 8, 3], np.uint8)), 'is RGB; expected 8-bit'),
      'palette': (encode(palette), 'is a palette image; expected 8-bit gray'),
      '16-bit': (encode(values.astype(np.uint16)), 'is 16-bit gray; expected'),
      '1-bit': (encode(values.astype(np.bool_)), 'is 1-bit gray; expected'),
      'alpha': (encode(np.ones([6, 8, 2], np.uint8)), 'is gray with alpha; e'),
      'jpeg': (encode(values, 'JPEG'), 'is a JPEG; expected 8-bit gray'),
      'value': (label(200), 'holds label 200; expected 8-bit gray'),
      'rows': (too_few_rows(), '27 of 54 bytes of pixels'),
      'size': (label(size=(6, 7)), 'image 8x6, label 7x6'),
      'text': (b'a,b\n1,2\n', 'is neither JPEG nor PNG'),
      'empty': (b'', 'empty file'),
  }


def too_few_rows(size=(6, 8)):
  """Returns a gray PNG whose compressed data end after half of the rows."""
  return png.gray(size[0], size[1], rows=size[0] // 2)
