"""Damaged shards give the same elements, or an error that names the shard.

On TensorFlow 1.15, damage that Python does not notice ends the process.
"""
import contextlib
import os
import tempfile

from hypothesis import strategies
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from deeplab.config.options import DatasetOptions
from deeplab.config.options import PreprocessOptions
from deeplab.data import dataset
from deeplab.data import decoding
from deeplab.data import splits
from deeplab.errors import InputError
from tests import fuzz
from tests import record_sets

pytestmark = pytest.mark.extended

EXAMPLES = [record_sets.example(number) for number in range(3)]
CROP = PreprocessOptions(crop_size=(6, 8))
# Bytes at the start of each record, which describe its structure.
HEAD = 80

DECODER = decoding.Decoder()

# (position, number of bytes to remove, bytes to insert).
EDITS = strategies.lists(strategies.tuples(
    strategies.floats(0, 1), strategies.integers(0, 40),
    strategies.binary(max_size=20)), min_size=1, max_size=3)


def edited(data, edits):
  for place, removed, inserted in edits:
    position = int(place * len(data))
    data = data[:position] + inserted + data[position + removed:]
  return data


def flipped(data, bits):
  changed = bytearray(data)
  for bit in bits:
    changed[bit // 8 % len(data)] ^= 1 << bit % 8
  return bytes(changed)


@strategies.composite
def damaged(draw, data):
  """Draws bytes with flips, deletions and insertions, or a missing end."""
  if draw(strategies.booleans()):
    return flipped(data, draw(strategies.sets(
        strategies.integers(0, 8 * len(data) - 1), min_size=1, max_size=4)))
  if draw(strategies.booleans()):
    return data[:draw(strategies.integers(0, len(data) - 1))]
  return edited(data, draw(EDITS))


def described_set():
  """Returns a shard's name and the files of its set, by name."""
  with tempfile.TemporaryDirectory() as folder:
    path, = record_sets.write_shards(output_dir=folder, split='val', shards=[
        map(tf.train.Example.FromString, EXAMPLES)])
    contents = {}
    for name in os.listdir(folder):
      with open(os.path.join(folder, name), 'rb') as source:
        contents[name] = source.read()
    return os.path.basename(path), contents


SHARD_NAME, FILES = described_set()
SHARD = FILES[SHARD_NAME]


def val_of(folder, **options):
  return DatasetOptions(folder, 'val', batch_size=2, **options)


@contextlib.contextmanager
def set_with(content):
  """Yields a folder of a described set with the shard replaced."""
  with tempfile.TemporaryDirectory() as folder:
    for name, found in dict(FILES, **{SHARD_NAME: content}).items():
      with open(os.path.join(folder, name), 'wb') as out:
        out.write(found)
    yield folder


def in_a_set(read, content):
  """Calls a function with such a folder.

  Returns:
    Its result, or None if it refused the shard by name.
  """
  with set_with(content) as folder:
    try:
      return read(folder)
    except InputError as error:
      assert os.path.join(folder, SHARD_NAME) in str(error) or (
          '0 records in ' + folder in str(error))
      assert '\n' not in str(error)
      return None


def elements(options):
  return [(name, image, label)
          for batch in dataset.Batches(options, CROP)
          for name, image, label in zip(
              batch['filename'], batch['image'], batch['label'])]


EXPECTED = []


def assert_expected(found, numbers):
  """Compares elements with those of an undamaged shard, by number."""
  if not EXPECTED:
    EXPECTED.extend(in_a_set(lambda folder: elements(val_of(folder)), SHARD))
  assert len(found) == len(numbers)
  for element, number in zip(found, numbers):
    for one, other in zip(element, EXPECTED[number]):
      np.testing.assert_array_equal(one, other)


def test_undamaged_shards_are_read():
  """Otherwise the tests below would show nothing."""
  found = in_a_set(lambda folder: elements(val_of(folder)), SHARD)
  assert [name for name, _, _ in found] == [
      'image_0.jpg', 'image_1.jpg', 'image_2.jpg']
  DECODER.check(EXAMPLES[0])


@fuzz.given(damaged(SHARD), examples=15)
def test_elements_are_unchanged_or_refused(content):
  found = in_a_set(lambda folder: elements(val_of(folder)), content)
  if found is not None:
    assert_expected(found, range(3))


@fuzz.given(damaged(SHARD), examples=15)
def test_elements_that_are_not_skipped_are_unchanged(content):
  with set_with(content) as folder:
    options = val_of(folder, on_bad_record='skip')
    try:
      split, found = splits.open_split(options), elements(options)
    except InputError as error:
      # Nothing is left, or it is not a shard of this set.
      assert 'can be used' in str(error) or 'run build_ade20k_data.py' in (
          str(error))
      return
  assert split.skipped + len(found) == 3
  assert_expected(found, [int(name[6:-4]) for name, _, _ in found])


@fuzz.given(data=strategies.one_of(
    damaged(EXAMPLES[0]), strategies.binary(max_size=100),
    # Damage in the structure of the example, not in the pixels.
    damaged(EXAMPLES[0][:HEAD]).map(lambda head: head + EXAMPLES[0][HEAD:])),
            examples=400)
def test_any_data_is_decoded_or_refused(data):
  try:
    DECODER.check(data)
  except InputError as error:
    assert '\n' not in str(error)


@fuzz.given(damaged(EXAMPLES[1]), examples=15)
def test_damaged_examples_with_right_checksums_are_read_or_refused(data):
  """Checksums are right here, whatever the data."""
  def read(folder):
    record_sets.write(folder + '/val-00000-of-00001.tfrecord',
                      [EXAMPLES[0], data, EXAMPLES[2]])
    return elements(val_of(folder)), elements(
        val_of(folder, on_bad_record='skip'))

  with tempfile.TemporaryDirectory() as folder:
    try:
      found, left = read(folder)
    except InputError as error:
      assert 'record 1 ' in str(error) or 'larger crop' in str(error)
      return
  assert [element[0] for element in found] == [
      element[0] for element in left]
