"""Tests batches from shards: order, values, seeds and errors."""
import io
import json
import os

import numpy as np
from PIL import Image
import pytest
import tensorflow.compat.v1 as tf

from deeplab.config.options import DatasetOptions
from deeplab.config.options import EvalOptions
from deeplab.config.options import PreprocessOptions
from deeplab.data import dataset
from deeplab.data import records
from deeplab.data import splits
from deeplab.errors import InputError
from deeplab.evaluation import evaluate
from deeplab.evaluation import report as report_lib
from deeplab.models import interface
from deeplab.system import memory
from tests import record_sets
from tests.record_sets import encode
from tests.record_sets import numbered
from tests.record_sets import pair

# Shards are read in these environments.
pytestmark = [pytest.mark.tf1, pytest.mark.modern]


def split_options(folder, batch_size=2, split='val', seed=None):
  return DatasetOptions(dataset_dir=str(folder), split=split,
                        batch_size=batch_size, seed=seed)


CROP = PreprocessOptions(crop_size=(4, 5))


@pytest.fixture
def five(tmp_path):
  """A folder with images 1 to 5 in both splits, in shards of 2, 0, 1 and 2."""
  for split in ('train', 'val'):
    record_sets.write_shards(output_dir=str(tmp_path), split=split, shards=[
        [numbered(1), numbered(2, height=2)], [], [numbered(3, width=5)],
        [numbered(4), numbered(5)]])
  return tmp_path


def write_val(folder, *examples):
  return record_sets.write_shards(
      output_dir=str(folder), split='val', shards=[examples])


@pytest.mark.parametrize('make', [
    lambda folder: list(dataset.Batches(split_options(folder), CROP)),
    lambda folder: dataset.training_batches(split_options(folder), CROP),
])
def test_autotuning_is_off(five, monkeypatch, make):
  """With autotuning, TensorFlow 2.21 would run some parallel calls serially."""
  tuned, real = [], tf.data.make_initializable_iterator

  def make_iterator(made_of):
    known = hasattr(tf.data.Options(), 'autotune')
    tuned.append(known and made_of.options().autotune.enabled)
    return real(made_of)

  monkeypatch.setattr(tf.data, 'make_initializable_iterator', make_iterator)
  with tf.Graph().as_default():
    make(five)
  assert tuned == [False]


# --- Evaluation ------------------------------------------------------------


@pytest.mark.tf2
def test_batches_keep_the_order_and_the_last_partial_batch(five):
  val = dataset.Batches(split_options(five), CROP)
  assert val.num_images == 5
  found = list(val)
  assert [batch['filename'] for batch in found] == [
      ['image_1.png', 'image_2.png'], ['image_3.png', 'image_4.png'],
      ['image_5.png']]
  assert [batch['height'].tolist() for batch in found] == [[3, 2], [3, 3], [3]]
  assert [batch['width'].tolist() for batch in found] == [[4, 4], [5, 4], [4]]
  assert [batch['image'].shape for batch in found] == [
      (2, 4, 5, 3), (2, 4, 5, 3), (1, 4, 5, 3)]
  assert found[0]['image'].dtype == np.float32
  assert found[0]['label'].dtype == np.int32
  np.testing.assert_array_equal(found[0]['label'][1], [
      [2, 2, 2, 2, 0], [2, 2, 2, 2, 0], [0] * 5, [0] * 5])
  np.testing.assert_array_equal(found[0]['image'][1, :, :, 0], [
      [2, 2, 2, 2, 127.5], [2, 2, 2, 2, 127.5], [127.5] * 5, [127.5] * 5])


@pytest.mark.slow
def test_batches_can_be_iterated_again_and_left_early(five):
  val = dataset.Batches(split_options(five, batch_size=1), CROP)
  for batch in val:
    assert batch['filename'] == ['image_1.png']
    break
  assert [batch['filename'][0] for batch in val] == [
      'image_{}.png'.format(number) for number in range(1, 6)]


@pytest.mark.slow
def test_two_iterations_at_once_are_independent(five):
  with tf.Graph().as_default() as graph, tf.Session() as session:
    val = dataset.Batches(split_options(five, batch_size=1), CROP)
    for one, other in zip(val, val):
      assert one['filename'] == other['filename']
      assert tf.get_default_graph() is graph
      assert tf.get_default_session() is session
    assert not graph.get_operations()


@pytest.mark.tf2
def test_formats_are_recognized_by_content(tmp_path):
  rng = np.random.RandomState(0)
  image = rng.randint(0, 256, [8, 8, 3]).astype(np.uint8)
  gray = np.full([8, 8], 77, np.uint8)
  with_alpha = np.concatenate([image, image[:, :, :1]], axis=2)
  label = rng.randint(0, 32, [8, 8]).astype(np.uint8)
  jpeg = encode(image, 'JPEG')
  write_val(
      tmp_path, pair('png', image, label),
      pair('jpeg', image, label, image_bytes=jpeg),
      pair('gray', image, label, image_bytes=encode(gray, 'JPEG')),
      pair('alpha', image, label, image_bytes=encode(with_alpha, 'PNG')))
  found, = dataset.Batches(
      split_options(tmp_path, 4), PreprocessOptions(crop_size=(8, 8)))
  with tf.Graph().as_default(), tf.Session() as session:
    decoded_jpeg = session.run(tf.image.decode_jpeg(jpeg))
  for index, expected in enumerate([
      image, decoded_jpeg, np.stack([gray] * 3, axis=2), image]):
    np.testing.assert_array_equal(found['image'][index], expected)
    np.testing.assert_array_equal(found['label'][index], label)


@pytest.mark.tf2
@pytest.mark.slow
def test_real_images(ade20k_sample_dir, tmp_path):
  names = ['ADE_val_00000001', 'ADE_val_00000002']
  examples, sizes, expected_images, expected_labels = [], [], [], []
  for name in names:
    path = os.path.join(ade20k_sample_dir, '{}', 'validation', name + '.{}')
    contents = []
    for folder, extension in (('images', 'jpg'), ('annotations', 'png')):
      with open(path.format(folder, extension), 'rb') as source:
        contents.append(source.read())
    image, label = [np.array(Image.open(io.BytesIO(x))) for x in contents]
    examples.append(pair(name, image, label, image_bytes=contents[0],
                            label_bytes=contents[1]))
    sizes.append(label.shape)
    expected_images.append(image)
    expected_labels.append(np.where(label < 32, label, 0))
  write_val(tmp_path, *examples)
  side = max(max(size) for size in sizes)
  found, = dataset.Batches(
      split_options(tmp_path), PreprocessOptions(crop_size=(side, side)))
  assert found['filename'] == names
  for index, (height, width) in enumerate(sizes):
    assert (found['height'][index], found['width'][index]) == (height, width)
    np.testing.assert_array_equal(
        found['label'][index, :height, :width], expected_labels[index])
    # TensorFlow's fast DCT and Pillow's exact one differ by about 1 here; a
    # shift by one pixel would give more than 5.
    difference = (found['image'][index, :height, :width] -
                  expected_images[index].astype(np.float32))
    assert np.abs(difference).mean() < 2


# --- Evaluation: bad input -------------------------------------------------


@pytest.mark.parametrize('options, message', [
    (CROP, r'^image_7.png is 4x6 but the crop is 4x5; set '
           r'min_resize_value=4 max_resize_value=4 \(or a larger crop\)$'),
    (CROP._replace(min_resize_value=4),
     r'^image_7.png is 4x6 after resizing but the crop is 4x5; '),
])
@pytest.mark.slow
def test_an_image_larger_than_the_crop_is_named(tmp_path, options, message):
  small = [numbered(number, height=4) for number in range(7)]
  write_val(tmp_path, *(small + [numbered(7, height=4, width=6), numbered(8)]))
  read = []
  with pytest.raises(InputError, match=message):
    for batch in dataset.Batches(split_options(tmp_path), options):
      read.extend(batch['filename'])
  assert len(read) == 6


def damage(path):
  """Flips a byte of the last record's data."""
  with open(path, 'rb') as source:
    content = bytearray(source.read())
  content[-20] ^= 255
  with open(path, 'wb') as out:
    out.write(bytes(content))


def test_vanished_records_are_noticed(five):
  val = dataset.Batches(split_options(five), CROP)
  open(str(five / 'val-00003-of-00004.tfrecord'), 'wb').close()
  with pytest.raises(InputError, match='read 3 records of val, expected 5'):
    list(val)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['rgb', 'jpeg', 'value'])
@pytest.mark.tf2
def test_labels_are_checked_during_reading(tmp_path, kind):
  """They are checked even without verify_records."""
  content, words = record_sets.bad_labels()[kind]
  names = [record_sets.write(
      tmp_path / '{}-00000-of-00001.tfrecord'.format(split), [
          record_sets.example(0),
          record_sets.example(1, label_bytes=content)])
           for split in ('train', 'val')]
  options = PreprocessOptions(crop_size=(6, 8))
  with pytest.raises(InputError) as training:
    with dataset.explaining_read_errors([names[0]]):
      train_steps(tmp_path, 1, 2, options=options)
  with pytest.raises(InputError) as evaluation:
    list(dataset.Batches(split_options(tmp_path), options))
  for name, caught in zip(names, (training, evaluation)):
    message = str(caught.value)
    assert message.startswith('{}: record 1 (image_1.jpg): '.format(name))
    assert words in message


def test_replaced_records_are_noticed(five):
  val = dataset.Batches(split_options(five), CROP)
  path = str(five / 'val-00000-of-00004.tfrecord')
  record_sets.write(path, [numbered(number).SerializeToString()
                           for number in (2, 1)])
  with pytest.raises(InputError, match='have the files changed'):
    list(val)


# --- Evaluation: bad records left out, memory ------------------------------


def spoil(folder, split):
  """Damages three of the five records; returns their numbers."""
  path = str(folder / (split + '-{:05d}-of-00004.tfrecord'))
  record_sets.flip(path.format(0), record_sets.spans(path.format(0))[1][1] - 9)
  record_sets.write(path.format(2), [b'\xff\xfe'])
  record_sets.cut(path.format(3), record_sets.spans(path.format(3))[1][0] + 9)
  os.remove(str(folder / (split + '.json')))
  return [2, 3, 5]


@pytest.mark.slow
@pytest.mark.tf2
def test_bad_records_are_skipped(five):
  spoil(five, 'val')
  val = dataset.Batches(
      split_options(five)._replace(on_bad_record='skip'), CROP)
  assert (val.num_images, val.num_skipped, val.split) == (2, 3, 'val')
  for _ in range(2):
    batch, = val
    assert batch['filename'] == ['image_1.png', 'image_4.png']
    assert batch['label'][:, 0, 0].tolist() == [1, 4]


@pytest.mark.slow
def test_listed_images_that_are_skipped_are_named(five):
  spoil(five, 'val')
  options = split_options(five)._replace(on_bad_record='skip')
  val = dataset.Batches(options, CROP, names=['image_4.png'])
  assert [batch['filename'] for batch in val] == [['image_4.png']]
  with pytest.raises(InputError, match='1 of 2 listed images are not in the 2 '
                     'good records of val in .*: image_5.png'):
    dataset.Batches(options, CROP, names=['image_5.png', 'image_1.png'])


@pytest.mark.slow
def test_the_report_counts_skipped_records(five):
  class Ones(interface.Predictor):
    def predict(self, images):
      return np.ones(images.shape[:3], np.int32)

    def close(self):
      pass

  spoil(five, 'val')
  report = evaluate.evaluate(
      Ones(), dataset.Batches(
          split_options(five)._replace(on_bad_record='skip'), CROP),
      CROP, EvalOptions(report_json=str(five / 'report.json')),
      kind=interface.FROZEN_GRAPH)
  assert (report.images, report.skipped) == (2, 3)
  content = json.loads((five / 'report.json').read_text())
  assert (content['images'], content['skipped']) == (2, 3)
  assert ' a second; 3 bad ones left out\n' in report_lib.table(report)


@pytest.mark.parametrize('read', [dataset.Batches, dataset.training_batches])
def test_batches_that_do_not_fit_into_memory_are_refused(
    five, monkeypatch, read):
  monkeypatch.setattr(memory, 'available_bytes', lambda: 2 ** 30)
  large = PreprocessOptions(crop_size=(8192, 8192))
  with pytest.raises(InputError, match='batch_size=1 of crop_size=8192,8192: '
                     'needs about 3.0 GiB of memory, 1.0 GiB are available'):
    read(split_options(five, batch_size=1), large)
  # One batch holds the whole split, so no second one is in memory.
  assert dataset.Batches(split_options(five, batch_size=5),
                         large._replace(crop_size=(1800, 1800)))


@pytest.mark.slow
@pytest.mark.parametrize('size', [(1, 1), (4000, 3), (3, 4000)])
def test_images_of_extreme_shapes(tmp_path, size):
  path = record_sets.write(tmp_path / 'val-00000-of-00001.tfrecord', [
      record_sets.example(image_bytes=record_sets.picture(size=size),
                          label_bytes=record_sets.label(size=size))])
  resized = PreprocessOptions(
      crop_size=(65, 65), min_resize_value=65, max_resize_value=65)
  for factor in (None, 64):
    batch, = dataset.Batches(split_options(tmp_path), resized._replace(
        resize_factor=factor))
    assert batch['image'].shape == (1, 65, 65, 3)
    assert (batch['label'] == 1).sum() >= 65
  if size != (1, 1):
    # 65x86666 is refused before memory is allocated.
    unlimited = resized._replace(max_resize_value=None)
    with pytest.raises(InputError, match='is (65x86666|86666x65) after resizi'):
      list(dataset.Batches(split_options(tmp_path), unlimited))
    os.rename(path, path.replace('val', 'train'))
    with pytest.raises(tf.errors.InvalidArgumentError,
                       match='too many pixels after resizing'):
      train_steps(tmp_path, 1, 1, options=unlimited._replace(
          min_resize_value=500))


def test_errors_of_the_network_are_not_explained(five, monkeypatch):
  monkeypatch.setattr(splits, 'diagnose', lambda *unused: 'searched')
  paths = records.find_shards(str(five), 'val')
  with tf.Graph().as_default(), tf.Session() as session:
    value = tf.placeholder(tf.float32, [])
    checked = tf.check_numerics(value, 'not finite')
    with pytest.raises(tf.errors.InvalidArgumentError, match='not finite'):
      with dataset.explaining_read_errors(paths):
        session.run(checked, {value: np.nan})


@pytest.mark.slow
def test_a_read_error_without_explanation_is_raised(five, monkeypatch):
  monkeypatch.setattr(splits, 'diagnose', lambda *unused: None)
  damage(str(five / 'val-00003-of-00004.tfrecord'))
  with pytest.raises(tf.errors.DataLossError):
    list(dataset.Batches(split_options(five), CROP))


# --- Training --------------------------------------------------------------

AUGMENTED = CROP._replace(min_scale_factor=0.5, max_scale_factor=2.0,
                          scale_factor_step_size=0.25)


def train_steps(folder, count, batch_size=5, seed=None, options=AUGMENTED,
                before=0):
  """Returns `count` batches, initialized as in training."""
  with tf.Graph().as_default(), tf.Session() as session:
    tensors = dataset.training_batches(
        split_options(folder, batch_size, 'train', seed), options, before)
    session.run(tf.tables_initializer())
    return [session.run(tensors) for _ in range(count)]


def names_of(steps):
  return [[name.decode('utf-8') for name in step['filename']]
          for step in steps]


def test_training_tensors_have_static_shapes(five):
  with tf.Graph().as_default():
    tensors = dataset.training_batches(
        split_options(five, 2, 'train'), AUGMENTED)
  assert {name: (tensor.dtype, tensor.shape.as_list())
          for name, tensor in tensors.items()} == {
              'image': (tf.float32, [2, 4, 5, 3]),
              'label': (tf.int32, [2, 4, 5, 1]),
              'filename': (tf.string, [2]),
              'height': (tf.int32, [2]), 'width': (tf.int32, [2])}


@pytest.mark.slow
def test_each_epoch_has_every_record_once_in_a_new_order(tmp_path):
  # With one shard, the order of shards has no influence.
  record_sets.write_shards(
      output_dir=str(tmp_path), split='train',
      shards=[[numbered(number) for number in range(1, 6)]])
  names = names_of(train_steps(tmp_path, 4, seed=1))
  for epoch in names:
    assert sorted(epoch) == [
        'image_{}.png'.format(number) for number in range(1, 6)]
  assert len({tuple(epoch) for epoch in names}) > 1


@pytest.mark.slow
def test_each_epoch_augments_images_differently(five):
  areas = {(step['label'] == 1).sum() for step in train_steps(five, 8, seed=1)}
  assert len(areas) > 2


@pytest.mark.slow
def test_a_training_batch_may_be_larger_than_the_split(five):
  step, = train_steps(five, 1, batch_size=12)
  numbers = {int(name[6:-4]) for name in names_of([step])[0]}
  assert numbers == {1, 2, 3, 4, 5}
  assert step['image'].shape == (12, 4, 5, 3)


def test_image_label_and_name_stay_together(five):
  for step in train_steps(five, 3):
    for index, name in enumerate(names_of([step])[0]):
      label = step['label'][index]
      assert set(np.unique(label)) <= {0, int(name[6:-4])}
      np.testing.assert_array_equal(
          step['image'][index], np.where(label > 0, label, 127.5) *
          np.ones([1, 1, 3]))


@pytest.mark.slow
def test_equal_seeds_give_equal_batches(five):
  first = train_steps(five, 5, batch_size=3, seed=7)
  again = train_steps(five, 5, batch_size=3, seed=7)
  for one, other in zip(first, again):
    assert sorted(one) == sorted(other)
    for name in one:
      np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.slow
def test_a_resumed_run_continues_with_the_next_batch(five):
  whole = train_steps(five, 9, batch_size=3, seed=2 ** 32 - 1)
  for before in (1, 4, 5, 8):  # an epoch starts at 5
    rest = train_steps(five, 9 - before, batch_size=3, seed=2 ** 32 - 1,
                       before=before)
    for one, other in zip(whole[before:], rest):
      for name in one:
        np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.slow
def test_past_epochs_are_not_read_again(five, monkeypatch):
  """Otherwise a resumed run would read all earlier records."""
  skipped = []
  skip = tf.data.Dataset.skip
  monkeypatch.setattr(tf.data.Dataset, 'skip', lambda self, count: (
      skipped.append(count), skip(self, count))[1])
  train_steps(five, 1, batch_size=4, seed=3, before=10 ** 9 + 2)
  assert skipped == [4 * (10 ** 9 + 2) % 5]


@pytest.mark.parametrize('seeds', [(7, 8), (None, None)])
@pytest.mark.slow
def test_other_seeds_give_other_batches(five, seeds):
  first, second = [train_steps(five, 5, seed=seed) for seed in seeds]
  assert any(not np.array_equal(one['label'], other['label'])
             for one, other in zip(first, second))


@pytest.mark.slow
def test_bad_training_records_are_skipped(five):
  bad = {'image_{}.png'.format(number) for number in spoil(five, 'train')}
  with tf.Graph().as_default(), tf.Session() as session:
    tensors = dataset.training_batches(
        split_options(five, 4, 'train', 1)._replace(on_bad_record='skip'),
        AUGMENTED)
    session.run(tf.tables_initializer())
    for _ in range(3):
      names = [name.decode() for name in session.run(tensors)['filename']]
      assert sorted(names) == ['image_1.png'] * 2 + ['image_4.png'] * 2
      assert not bad & set(names)


@pytest.mark.slow
def test_a_damaged_training_record_is_named(five):
  path = str(five / 'train-00003-of-00004.tfrecord')
  damage(path)
  paths = records.find_shards(str(five), 'train')
  with pytest.raises(InputError) as caught:
    with dataset.explaining_read_errors(paths):
      train_steps(five, 2)
  assert str(caught.value).startswith('{}: record 1 '.format(path))
