"""Sizes of any image after resizing, against fractions and the graph."""
from fractions import Fraction

from hypothesis import strategies
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from deeplab.config.options import PreprocessOptions
from deeplab.data import preprocess
from deeplab.errors import InputError
from tests import fuzz

SIDES = strategies.one_of(strategies.integers(1, 4000),
                          strategies.sampled_from([1, 2, 3, 512, 513, 4000]))


@strategies.composite
def resizings(draw, largest):
  """Draws PreprocessOptions in use, or None if they contradict each other."""
  least = draw(strategies.integers(1, largest))
  try:
    return PreprocessOptions(
        crop_size=(8, 8), min_resize_value=least,
        max_resize_value=draw(
            strategies.none() | strategies.integers(1, 2 * largest)),
        resize_factor=draw(strategies.none() | strategies.integers(1, least)))
  except InputError:
    return None


def exact_sides(height, width, options):
  """Returns the sides before rounding down, as fractions."""
  scale = Fraction(options.min_resize_value, min(height, width))
  limit, factor = options.max_resize_value, options.resize_factor
  if limit is not None:
    # The largest multiple of the factor, plus one, within the limit.
    while factor and (limit - 1) % factor:
      limit -= 1
    if int(max(height, width) * scale) > limit:
      scale = Fraction(limit, max(height, width))
  return [side * scale for side in (height, width)]


def resized_size(height, width, options):
  with tf.Graph().as_default(), tf.Session() as session:
    return tuple(session.run(preprocess.resized_size(height, width, options)))


@fuzz.given(SIDES, SIDES, resizings(2000), examples=50)
def test_the_size_matches_exact_arithmetic(height, width, options):
  if options is None:
    return
  sizes = resized_size(height, width, options)
  factor = options.resize_factor or 1
  limit = options.max_resize_value
  assert limit is None or max(sizes) <= limit
  for size, exact in zip(sizes, exact_sides(height, width, options)):
    assert size >= 1 and (size - 1) % factor == 0
    # float32 may round such values to the other side of a whole number.
    margin = exact / 10 ** 6
    candidates = {max(1, int(side)) for side in (
        exact - margin, exact, exact + margin)}
    assert size in {side + -(side - 1) % factor for side in candidates}


@fuzz.given(strategies.integers(1, 40), strategies.integers(1, 40),
            resizings(40), examples=20)
@pytest.mark.slow
def test_the_graph_resizes_to_the_same_size(height, width, options):
  if options is None:
    return
  with tf.Graph().as_default(), tf.Session() as session:
    image, label = session.run(preprocess.resize_to_range(
        tf.zeros([height, width, 3]), tf.zeros([height, width, 1], tf.int32),
        options))
  expected = resized_size(height, width, options)
  assert image.shape == expected + (3,) and label.shape == expected + (1,)
  assert np.all(image == 0)
