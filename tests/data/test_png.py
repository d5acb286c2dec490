"""Tests that other decoders read deeplab.data.png's output."""
import io
import threading

import numpy as np
from PIL import Image
import pytest
import tensorflow.compat.v1 as tf

from deeplab.data import png

pytestmark = [pytest.mark.tf1, pytest.mark.modern]

SHAPES = [(1, 1), (1, 7), (7, 1), (5, 3), (64, 48), (300, 2)]


def images_of(channels):
  random = np.random.RandomState(2)
  for shape in SHAPES:
    shape += (channels,) if channels else ()
    yield random.randint(0, 256, shape).astype(np.uint8)
    yield np.full(shape, 255, np.uint8)
  # These are not contiguous in memory.
  yield random.randint(0, 256, (9, 8) + shape[2:]).astype(np.uint8)[::2, ::-1]


@pytest.mark.parametrize('channels', [0, 3])
@pytest.mark.parametrize('deflates', ['isal', 'pillow'])
def test_decoders_read_equal_pixels(channels, deflates, monkeypatch):
  if deflates == 'isal':
    pytest.importorskip('isal')
  else:
    monkeypatch.setattr(png, 'isal_zlib', None)
  encoded = [(pixels, png.encode(pixels)) for pixels in images_of(channels)]
  with tf.Graph().as_default(), tf.Session() as session:
    content = tf.placeholder(tf.string)
    decoded = tf.image.decode_png(content)
    for pixels, data in encoded:
      # verify() checks the checksum of each chunk.
      with Image.open(io.BytesIO(data)) as image:
        image.verify()
      with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(np.asarray(image), pixels)
      np.testing.assert_array_equal(
          session.run(decoded, {content: data}),
          pixels.reshape(pixels.shape[:2] + (channels or 1,)))


def test_equal_pixels_give_equal_bytes():
  pixels = next(images_of(3))
  assert png.encode(pixels) == png.encode(pixels.copy())


def test_threads_give_equal_bytes():
  # The start of ISA-L's stream depends on the address of the stack: on one of
  # 32 it finds a match. Threads that run together have different stacks.
  pixels = np.full([3, 7], 1, np.uint8)
  encoded = []
  finish = threading.Event()

  def encode():
    encoded.append(png.encode(pixels))
    finish.wait()

  threads = [threading.Thread(target=encode) for _ in range(128)]
  before = threading.stack_size(1 << 19)
  try:
    for thread in threads:
      thread.start()
  finally:
    threading.stack_size(before)
    finish.set()
  for thread in threads:
    thread.join()
  assert len(encoded) == 128 and len(set(encoded)) == 1
