"""Bounds of tests: how much results differ between processors.

TensorFlow's matrix kernels depend on the processor's vector extensions and
cache sizes, so sums differ in the last bit. Most results stay that close. The
last bit decides between two values when values are rounded to 8 bits, when a
ReLU is near 0, or when a batch of two is normalized by its own statistics.
Training steps enlarge such differences. Two recordings of the reference differ
too.

So a test asks for one of three things:

-  a tight tolerance everywhere, for what does not amplify differences:
   preprocessing, logits, first losses, regularization, learning rates, the
   update of one step with given gradients;
-  equality with one of the recordings (`golden`: AVX-512, `golden_avx2`: only
   AVX2) if this processor's kernels give the same bits;
-  otherwise, and on other TensorFlow versions, a bound of BOUNDS.

Bounds are about three times the largest difference seen between these: the two
recordings, and TensorFlow 1.15.5 and 2.21.0 on a third processor, with and
without AVX-512 (tests/without_avx512.c), with one and two threads, and with
smaller caches. They bound the median over all variables if single variables
jump. tests/mutants.py shows that they still detect a wrong optimizer, decay or
multiplier.
"""
import functools
import os
import zlib

import numpy as np
import tensorflow.compat.v1 as tf

IS_REFERENCE_TENSORFLOW = tf.__version__.startswith('1.15')

# Folders of the reference's recordings, by vector extension.
RECORDINGS = {'avx512': 'golden', 'avx2': 'golden_avx2'}
# Values of `_kernels` on TensorFlow 1.15.5 with which fake-quantized logits
# equal a recording bit for bit.
_KERNELS = {2052597831: 'avx512', 2249644879: 'avx2'}

# Largest relative differences allowed; comments give the largest seen.
BOUNDS = {
    # Relative to the largest logit, at 65 and 512 pixels: 2e-5.
    'logits': 5e-5,
    # Their cross-entropy: 2e-6.
    'loss': 1e-5,
    # Norm of each variable's gradient, (median, largest). At 65 pixels one ReLU
    # switches: (5e-5, 5e-4); at 512 many do: (5e-4, 1.4e-2).
    'gradient_norms_65': (2e-4, 2e-3),
    'gradient_norms_512': (1.5e-3, 4e-2),
    # Norm of the difference of fake-quantized logits, relative to their norm:
    # 3e-2 (1.15) and 4e-2 (2.21).
    'quantized_logits': 0.1,
    # Losses of steps 1, 2 and 3 of each run of train_steps.npz.
    'momentum_losses': (1e-5, 1.5e-3, 1.5e-2),  # 1e-6, 4e-4, 5e-3
    'adam_losses': (1e-5, 1e-3, 1e-2),  # 1e-6, 2e-4, 3e-3
    'momentum_batch_norm_losses': (2e-5, 5e-2, 7e-2),  # 7e-6, 2e-2, 2e-2
    'qat_losses': (8e-2, 0.3, 0.2),  # 3e-2, 0.12, 6e-2
    # Median over the norms of these variables after three steps. Frozen
    # statistics do not change.
    'momentum_weights': 3e-6,  # 7e-7
    'momentum_slots': 4e-2,  # 1e-2
    'momentum_averages': 1e-7,  # 0
    'adam_weights': 4e-6,  # 1e-6
    'adam_slots': 4e-2,  # 1e-2
    'adam_averages': 1e-7,  # 0
    'momentum_batch_norm_weights': 4e-6,  # 1e-6
    'momentum_batch_norm_averages': 6e-5,  # 2e-5
    'qat_weights': 3e-5,  # 9e-6
    'qat_slots': 0.3,  # 9e-2
    'qat_averages': 1e-7,  # 0
    'qat_ranges': 1e-6,  # 0
    # mIoU and IoU of a class of the quantized checkpoint on two real images,
    # absolute: (2e-3, 1e-2) with TensorFlow 1.15, (5e-3, 4e-2) with 2.21.
    'quantized_miou': 5e-3 if IS_REFERENCE_TENSORFLOW else 1.5e-2,
    'quantized_class_iou': 0.03 if IS_REFERENCE_TENSORFLOW else 0.12,
}


def config(grappler=True):
  """Returns the session configuration of the recordings.

  It always has two threads, because sums are split among threads.

  Args:
    grappler: False: the graph runs without rewriting, as in the recorded
      training steps. Rewriting changes last bits, which rounding enlarges.
  """
  configuration = tf.ConfigProto(
      intra_op_parallelism_threads=2, inter_op_parallelism_threads=2)
  configuration.graph_options.rewrite_options.disable_meta_optimizer = (
      not grappler)
  return configuration


@functools.lru_cache(maxsize=None)
def quantized_recording():
  """Returns the recording that fake-quantized logits must equal, or None."""
  if not IS_REFERENCE_TENSORFLOW:
    return None
  return _KERNELS.get(_kernels())


def _kernels():
  """Returns a checksum of plain matrix products on this processor.

  Their sizes are those of the network's 1x1 convolutions at 512 pixels. No code
  of the library is involved.
  """
  random = np.random.RandomState(0)
  with tf.Graph().as_default(), tf.Session(config=config()) as session:
    products, values = [], {}
    for side, inputs, outputs in ((32, 960, 160), (32, 320, 256),
                                  (128, 304, 256)):
      image = tf.placeholder(tf.float32, [1, side, side, inputs])
      weights = tf.placeholder(tf.float32, [1, 1, inputs, outputs])
      for tensor in (image, weights):
        values[tensor] = random.normal(size=tensor.shape.as_list())
      products.append(tf.nn.conv2d(image, weights, strides=[1, 1, 1, 1],
                                   padding='SAME'))
    return zlib.crc32(b''.join(
        product.tobytes() for product in session.run(products, values)))


def equals_a_recording(logits, file, reference_dir):
  """Finds a recording whose float logits equal these bit for bit.

  Args:
    logits: [height, width, 32] float32 of the image in `file`.
    file: 'network65.npz'.
    reference_dir: the folder of the recordings.

  Returns:
    The recording's name, or None.
  """
  for name, folder in RECORDINGS.items():
    recorded = np.load(os.path.join(reference_dir, folder, file))
    if np.array_equal(logits, recorded['logits_stride4']):
      return name
  return None


def relative(actual, expected):
  """Returns |actual - expected| / |expected| elementwise, as float64."""
  expected = np.asarray(expected, np.float64)
  return np.abs(actual - expected) / np.maximum(np.abs(expected), 1e-7)


def check_median(actual, expected, bound):
  """Asserts that the median relative difference is within a bound."""
  found = np.median(relative(actual, expected))
  assert found <= bound, 'median {:.2e}, bound {:.2e}'.format(found, bound)
