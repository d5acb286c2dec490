"""Tests preprocessing, alone and inside tf.data."""
import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from deeplab.config.options import PreprocessOptions
from deeplab.data import preprocess

# Both environments read records.
pytestmark = [pytest.mark.tf1, pytest.mark.tf2, pytest.mark.modern]


def evaluate(build):
  """Evaluates build()'s tensors in a new graph."""
  with tf.Graph().as_default(), tf.Session() as session:
    return session.run(build())


def evaluate_in_dataset(function, *arrays):
  """Evaluates function(*arrays) inside Dataset.map."""
  with tf.Graph().as_default(), tf.Session() as session:
    dataset = tf.data.Dataset.from_tensors(arrays).map(function)
    iterator = tf.data.make_initializable_iterator(dataset)
    element = iterator.get_next()
    session.run(iterator.initializer)
    return session.run(element)


def options_of(crop_size, *, min_scale_factor=1.0, max_scale_factor=1.0,
               scale_factor_step_size=0.0, **kwargs):
  return PreprocessOptions(
      crop_size=crop_size, min_scale_factor=min_scale_factor,
      max_scale_factor=max_scale_factor,
      scale_factor_step_size=scale_factor_step_size, **kwargs)


def image_of(values):
  """Returns float32 [h, w, 3] with equal channels from rows of numbers."""
  return np.repeat(np.array(values, np.float32)[:, :, None], 3, axis=2)


def label_of(values):
  return np.array(values, np.int32)[:, :, None]


# --- Against the reference -------------------------------------------------


@pytest.mark.parametrize('inside_dataset', [False, True])
@pytest.mark.parametrize('case', range(8))
def test_for_evaluation_matches_the_reference(
    reference_dir, case, inside_dataset):
  golden = np.load(os.path.join(reference_dir, 'golden', 'preprocess.npz'))
  golden = {key: golden['case{}_{}'.format(case, key)] for key in (
      'image_in', 'label_in', 'args', 'resized_shape', 'image_stride8',
      'image_mean', 'label')}
  factor = int(golden['args'][2])
  options = options_of((512, 512))
  if factor:
    options = options_of((512, 512), min_resize_value=512,
                         max_resize_value=512, resize_factor=factor)
  arrays = golden['image_in'], golden['label_in'][:, :, None]

  def function(image, label):
    return preprocess.for_evaluation(image, label, options)

  if inside_dataset:
    image, label = evaluate_in_dataset(function, *arrays)
  else:
    image, label = evaluate(lambda: function(*arrays))
  assert image.dtype == np.float32 and label.dtype == np.int32
  np.testing.assert_allclose(image[::8, ::8], golden['image_stride8'],
                             rtol=5e-5, atol=1e-4)
  # The golden mean was summed in float32, which loses three digits.
  np.testing.assert_allclose(image.mean(axis=(0, 1)), golden['image_mean'],
                             rtol=5e-5)
  np.testing.assert_array_equal(label[:, :, 0], golden['label'])
  assert tuple(evaluate(lambda: preprocess.resized_size(
      *golden['image_in'].shape[:2], options))) == tuple(
          golden['resized_shape'][:2])


# --- Sizes -----------------------------------------------------------------

# Size; minimum, maximum and factor; resized size. Sizes are height, width.
SIZES = [
    ((75, 100), (512, 512, 16), (385, 497)),
    ((60, 125), (512, 512, 16), (241, 497)),
    ((150, 113), (512, 512, 16), (497, 385)),
    ((75, 100), (512, 512, 1), (384, 512)),
    ((150, 113), (512, 512, 1), (512, 385)),
    ((512, 683), (512, 512, None), (383, 512)),
    ((512, 512), (512, 512, 16), (497, 497)),
    # The shorter side counts as long as the longer one is within its limit.
    ((100, 150), (50, 75, None), (50, 75)),
    ((100, 150), (50, 74, None), (49, 74)),
    ((100, 300), (50, None, None), (50, 150)),
    ((100, 300), (50, None, 16), (65, 161)),
    ((30, 40), (None, None, 16), (30, 40)),
    # 41 * (512 / 41) is just below 512 in float32, and 512 in float64.
    ((41, 41), (512, None, None), (511, 511)),
    # A side has at least one pixel.
    ((1, 1000), (10, 10, None), (1, 10)),
]


@pytest.mark.parametrize('size, limits, expected', SIZES)
def test_resized_size(size, limits, expected):
  assert tuple(evaluate(lambda: preprocess.resized_size(*size, options_of(
      (512, 512), min_resize_value=limits[0], max_resize_value=limits[1],
      resize_factor=limits[2])))) == expected


def test_resizing_aligns_corners():
  options = options_of((3, 3), min_resize_value=3, max_resize_value=3)
  image, label = evaluate(lambda: preprocess.resize_to_range(
      image_of([[0, 2], [4, 6]]), label_of([[1, 2], [3, 4]]), options))
  np.testing.assert_array_equal(
      image, image_of([[0, 1, 2], [2, 3, 4], [4, 5, 6]]))
  np.testing.assert_array_equal(
      label, label_of([[1, 2, 2], [3, 4, 4], [3, 4, 4]]))


# --- Evaluation ------------------------------------------------------------


def test_classes_that_are_not_kept_become_other():
  image, label = evaluate(lambda: preprocess.for_evaluation(
      np.zeros([1, 6, 3], np.uint8),
      np.array([0, 1, 31, 32, 150, 255], np.uint8).reshape([1, 6, 1]),
      options_of((1, 6))))
  assert image.shape == (1, 6, 3)
  np.testing.assert_array_equal(label, label_of([[0, 1, 31, 0, 0, 0]]))


@pytest.mark.parametrize('size', [(5, 7), (12, 9), (40, 61)])
def test_resizing_bytes_equals_resizing_floats(size):
  random = np.random.RandomState(1)
  image = random.randint(0, 256, size + (3,), np.uint8)
  label = random.randint(0, 256, size + (1,), np.uint8)
  options = options_of((23, 23), min_resize_value=17, max_resize_value=23)

  def function(image, label):
    return preprocess.for_evaluation(image, label, options)

  of_bytes = evaluate_in_dataset(function, image, label)
  of_floats = evaluate_in_dataset(
      function, image.astype(np.float32), label.astype(np.int32))
  for one, other in zip(of_bytes, of_floats):
    assert one.dtype == other.dtype
    np.testing.assert_array_equal(one, other)


def test_padding_is_at_the_bottom_and_on_the_right():
  image, label = evaluate(lambda: preprocess.for_evaluation(
      image_of([[1, 2], [3, 4]]), label_of([[5, 6], [7, 8]]),
      options_of((3, 4))))
  np.testing.assert_array_equal(image, image_of([
      [1, 2, 127.5, 127.5], [3, 4, 127.5, 127.5], [127.5] * 4]))
  np.testing.assert_array_equal(label, label_of([
      [5, 6, 0, 0], [7, 8, 0, 0], [0] * 4]))


def test_padding_rounds_like_the_reference():
  """Padding subtracts mid-grey and adds it again, which changes a last bit."""
  image = np.random.RandomState(0).uniform(0, 1, [4, 5, 3]).astype(np.float32)
  padded, _ = evaluate_in_dataset(
      lambda image, label: preprocess.pad_to_crop(
          image, label, options_of((6, 7))), image, label_of(
              np.zeros([4, 5], int)))
  grey = np.float32(127.5)
  np.testing.assert_array_equal(padded[:4, :5], (image - grey) + grey)
  assert (padded[:4, :5] != image).mean() > 0.5
  assert (padded[4:] == grey).all() and (padded[:, 5:] == grey).all()


def test_static_shapes_are_set():
  with tf.Graph().as_default():
    image = tf.placeholder(tf.uint8, [None, None, 3])
    label = tf.placeholder(tf.uint8, [None, None, 1])
    options = options_of((3, 4), min_resize_value=3, max_scale_factor=2.0)
    for outputs in (preprocess.for_evaluation(image, label, options),
                    preprocess.for_training(image, label, options, (1, 2))):
      assert [x.shape.as_list() for x in outputs] == [[3, 4, 3], [3, 4, 1]]
      assert [x.dtype for x in outputs] == [tf.float32, tf.int32]
    alone, none = preprocess.for_evaluation(image, None, options)
    assert alone.shape.as_list() == [3, 4, 3] and none is None


def test_images_and_labels_larger_than_the_crop_are_refused():
  with tf.Graph().as_default(), tf.Session() as session:
    image = tf.placeholder(tf.uint8, [None, None, 3])
    label = tf.placeholder(tf.uint8, [None, None, 1])
    cropped = preprocess.for_evaluation(image, label, options_of((3, 4)))
    fitting = {image: np.zeros([3, 4, 3]), label: np.zeros([3, 4, 1])}
    session.run(cropped, fitting)
    for larger, value in fitting.items():
      with pytest.raises(tf.errors.InvalidArgumentError):
        session.run(cropped, {**fitting, larger: np.pad(
            value, [(0, 0), (0, 1), (0, 0)], 'constant')})


def test_gray_image_is_refused():
  with tf.Graph().as_default(), pytest.raises(ValueError):
    preprocess.for_evaluation(tf.zeros([3, 4, 1]), None, options_of((3, 4)))


# --- Training --------------------------------------------------------------


@pytest.mark.parametrize('draw, step, expected', [
    (0.0, 0.25, (5, 10)),  # x 0.5
    (0.15, 0.25, (7, 15)),  # x 0.75: 7.5 is rounded down
    (0.3, 0.25, (10, 20)),  # x 1
    (0.99, 0.25, (20, 40)),  # x 2
    (0.5, 0.0, (12, 25)),  # x 1.25, the middle of the range
    (0.99, 3.0, (5, 10)),  # a step beyond the range leaves only the minimum
    (0.99, 0.7, (20, 40)),  # both ends are factors for any step
])
def test_random_scale(draw, step, expected):
  options = options_of((8, 8), min_scale_factor=0.5, max_scale_factor=2.0,
                       scale_factor_step_size=step)
  image, label = evaluate(lambda: preprocess.random_scale(
      np.zeros([10, 20, 3], np.float32), np.zeros([10, 20, 1], np.int32),
      options=options, draw=tf.constant(draw)))
  assert image.shape == expected + (3,)
  assert label.shape == expected + (1,)


def test_number_of_scale_factors_survives_rounding():
  options = options_of((8, 8), min_scale_factor=0.5, max_scale_factor=1.9,
                       scale_factor_step_size=0.1)
  factors = preprocess._scale_factors(options)
  np.testing.assert_allclose(factors, 0.1 * np.arange(5, 20))


def test_scaling_resizes_bilinearly_and_by_nearest_neighbour():
  options = options_of((8, 8), min_scale_factor=1.5, max_scale_factor=1.5)
  image, label = evaluate(lambda: preprocess.random_scale(
      image_of([[0, 2], [4, 6]]), label_of([[1, 2], [3, 4]]),
      options=options, draw=tf.constant(0.5)))
  np.testing.assert_array_equal(
      image, image_of([[0, 1, 2], [2, 3, 4], [4, 5, 6]]))
  np.testing.assert_array_equal(
      label, label_of([[1, 2, 2], [3, 4, 4], [3, 4, 4]]))


def test_scale_factor_of_one_adds_no_operation():
  with tf.Graph().as_default():
    given = tf.zeros([2, 2, 3]), tf.zeros([2, 2, 1], tf.int32)
    image, label = preprocess.random_scale(
        *given, options=options_of((2, 2)), draw=tf.constant(0.5))
    assert image is given[0] and label is given[1]


@pytest.mark.parametrize('draws, row, column', [
    ((0.0, 0.0), 0, 0), ((0.49, 0.34), 0, 1), ((0.5, 0.67), 1, 2),
    ((1 - 2.0 ** -23, 1 - 2.0 ** -23), 1, 2)])
def test_random_crop(draws, row, column):
  values = np.arange(15).reshape([3, 5])
  image, label = evaluate(lambda: preprocess.random_crop(
      image_of(values), label_of(values), options=options_of((2, 3)),
      draws=tf.constant(draws)))
  expected = values[row:row + 2, column:column + 3]
  np.testing.assert_array_equal(image, image_of(expected))
  np.testing.assert_array_equal(label, label_of(expected))


@pytest.mark.parametrize('draw, expected', [
    (0.49, [[2, 1], [4, 3]]), (0.5, [[1, 2], [3, 4]])])
def test_random_flip(draw, expected):
  image, label = evaluate(lambda: preprocess.random_flip(
      image_of([[1, 2], [3, 4]]), label_of([[1, 2], [3, 4]]),
      draw=tf.constant(draw)))
  np.testing.assert_array_equal(image, image_of(expected))
  np.testing.assert_array_equal(label, label_of(expected))


def train_many(options, image, label, *, seed, count):
  """Returns for_training's outputs for seeds (seed, 0) .. (seed, count - 1)."""
  def build():
    return tf.map_fn(
        lambda index: preprocess.for_training(
            image, label, options, tf.stack([seed, index])),
        tf.range(count), dtype=(tf.float32, tf.int32))
  return evaluate(build)


def test_training_transforms_image_and_label_equally():
  values = np.arange(1, 31).reshape([5, 6])
  images, labels = train_many(
      options_of((4, 4)), image_of(values), label_of(values), seed=3, count=300)
  np.testing.assert_array_equal(images[:, :, :, :1], labels)
  seen = {tuple(label.ravel()) for label in labels}
  expected = set()
  for row in range(2):
    for column in range(3):
      window = values[row:row + 4, column:column + 4]
      expected.add(tuple(window.ravel()))
      expected.add(tuple(window[:, ::-1].ravel()))
  assert seen == expected


def test_training_draws_every_scale_and_pads():
  options = options_of((8, 8), min_scale_factor=0.5, max_scale_factor=2.0,
                       scale_factor_step_size=0.25)
  images, labels = train_many(
      options, np.full([4, 4, 3], 9, np.uint8), np.full([4, 4, 1], 7, np.uint8),
      seed=3, count=100)
  is_image = labels[:, :, :, 0] == 7
  np.testing.assert_array_equal(images[is_image], 9.0)
  np.testing.assert_array_equal(images[~is_image], 127.5)
  areas = is_image.sum(axis=(1, 2))
  assert set(areas) == {side * side for side in range(2, 9)}


def test_scale_place_and_flip_are_independent():
  values = np.arange(1, 17).reshape([4, 4])
  options = options_of((4, 4), min_scale_factor=1.0, max_scale_factor=2.0,
                       scale_factor_step_size=1.0)
  _, labels = train_many(
      options, image_of(values), label_of(values), seed=3, count=200)
  seen = set()
  for label in labels[:, :, :, 0]:
    scaled = len(np.unique(label)) < 16
    flipped = bool(label[0, 0] > label[0, -1])
    seen.add((scaled, flipped, label.min() <= 4, label.min() % 4 == 1))
  whole = {(False, flipped, True, True) for flipped in (False, True)}
  parts = {(True, flipped, top, left) for flipped in (False, True)
           for top in (False, True) for left in (False, True)}
  assert seen == whole | parts


def test_equal_seeds_give_equal_results():
  values = np.random.RandomState(0).randint(0, 32, [20, 20])
  options = options_of((8, 8), min_scale_factor=0.5, max_scale_factor=2.0)
  arguments = options, image_of(values), label_of(values)
  first = train_many(*arguments, seed=5, count=4)
  np.testing.assert_array_equal(
      first[0], train_many(*arguments, seed=5, count=4)[0])
  other = train_many(*arguments, seed=6, count=4)
  assert not np.array_equal(first[0], other[0])
  assert not np.array_equal(first[0][0], first[0][1])


@pytest.mark.slow
def test_training_gives_the_same_inside_a_dataset():
  values = np.random.RandomState(0).randint(0, 32, [20, 20])
  options = options_of((8, 8), min_scale_factor=0.5, max_scale_factor=2.0,
                       scale_factor_step_size=0.25)
  arrays = image_of(values), label_of(values)
  alone = evaluate(lambda: preprocess.for_training(*arrays, options, (5, 9)))
  inside = evaluate_in_dataset(
      lambda image, label: preprocess.for_training(
          image, label, options, (5, 9)), *arrays)
  # TensorFlow simplifies this rounding away for constants.
  np.testing.assert_allclose(inside[0], alone[0], rtol=1e-6)
  np.testing.assert_array_equal(inside[1], alone[1])
