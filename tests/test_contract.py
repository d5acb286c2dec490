"""Constants that files and graphs share, to the last bit of rounding."""
import numpy as np

from deeplab import constants

PIXELS = np.arange(256, dtype=np.float32)


def test_pixels_are_scaled_as_in_the_graph():
  scaled = constants.scale_to_model_range(PIXELS)
  assert scaled.dtype == np.float32
  np.testing.assert_array_equal(
      scaled, PIXELS * np.float32(2.0 / 255.0) - np.float32(1))
  assert scaled[0] == -1 and abs(scaled[255] - 1) < 1e-6


def test_pixels_are_scaled_as_in_the_reference_tflite_scripts():
  """post_training_quant.py computes in float64, the evaluation in float32."""
  scaled = constants.scale_as_tflite_scripts(PIXELS)
  assert scaled.dtype == np.float32
  np.testing.assert_array_equal(
      scaled, (PIXELS.astype(np.uint8) / 127.5 - 1).astype(np.float32))
  np.testing.assert_array_equal(
      scaled, (PIXELS - np.float32(127.5)) / np.float32(127.5))
  # The two formulas differ only in the last bit.
  difference = np.abs(scaled - constants.scale_to_model_range(PIXELS))
  assert 0 < difference.max() < 2e-7


def test_every_class_has_a_name_and_a_colour():
  assert constants.NUM_CLASSES == len(constants.PALETTE) == 32
  assert len(set(constants.CLASS_NAMES)) == len(set(constants.PALETTE)) == 32
  assert constants.CLASS_NAMES[1] == 'wall'
  assert constants.CLASS_NAMES[31] == 'armchair'


def test_shard_names():
  name = constants.shard_name('val', 3)
  assert name == 'val-00003-of-00004.tfrecord'
  assert constants.parse_shard_name(name) == ('val', 3, 4)
  assert constants.parse_shard_name('val-notes.txt') is None
