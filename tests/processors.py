"""How far results go apart from one processor to another: the bounds of tests.

TensorFlow's matrix kernels choose instructions by the processor's vector
extensions, and the blocks in which they sum by its caches. Sums then differ in
their last bit. Most results stay as close as that. Where a value is rounded to
8 bits, where a ReLU is near 0, or where a batch of two is normalized by its own
statistics, the last bit decides between two values, and steps of training make
more of it: the reference itself, recorded on two processors, goes apart.

So a test asks for one of three things:

-  a tight tolerance everywhere, of what does not amplify: preprocessing,
   logits, first losses, regularization, learning rates, the update that one
   step makes of given gradients;
-  equality with one of the recordings (`golden` has AVX-512, `golden_avx2` has
   AVX2 alone) where this processor's kernels give the same bits as theirs;
-  a bound of BOUNDS elsewhere, and on other TensorFlow versions.

Bounds are about three times the largest difference seen between: the two
recordings; and against both of them, TensorFlow 1.15.5 and 2.21.0 on a third
processor, with and without its AVX-512 (tests/without_avx512.c), on one and on
two threads, and with smaller caches. They hold the median over all variables
where single ones jump; tests/mutants.py shows that they still tell a wrong
optimizer, decay or multiplier.
"""
import functools
import os
import zlib

import numpy as np
import tensorflow.compat.v1 as tf

IS_REFERENCE_TENSORFLOW = tf.__version__.startswith('1.15')

# The reference's recordings, by what the processor had.
RECORDINGS = {'avx512': 'golden', 'avx2': 'golden_avx2'}
# What `_kernels` gives on TensorFlow 1.15.5 where fake-quantized logits equal
# a recording bit for bit.
_KERNELS = {2052597831: 'avx512', 2249644879: 'avx2'}

# Largest relative differences, with the largest that was seen.
BOUNDS = {
    # Of the largest logit, 65 and 512 pixels: 2e-5.
    'logits': 5e-5,
    # Cross-entropy of the same: 2e-6.
    'loss': 1e-5,
    # Norm of each variable's gradient, (median, largest). At 65 pixels, one
    # ReLU that switches: (5e-5, 5e-4); at 512 many do: (5e-4, 1.4e-2).
    'gradient_norms_65': (2e-4, 2e-3),
    'gradient_norms_512': (1.5e-3, 4e-2),
    # Fake-quantized logits: norm of the difference, of the norm: 3e-2 (1.15)
    # and 4e-2 (2.21).
    'quantized_logits': 0.1,
    # Losses of steps 1, 2 and 3 of each run of train_steps.npz.
    'momentum_losses': (1e-5, 1.5e-3, 1.5e-2),  # 1e-6, 4e-4, 5e-3
    'adam_losses': (1e-5, 1e-3, 1e-2),  # 1e-6, 2e-4, 3e-3
    'momentum_batch_norm_losses': (2e-5, 5e-2, 7e-2),  # 7e-6, 2e-2, 2e-2
    'qat_losses': (8e-2, 0.3, 0.2),  # 3e-2, 0.12, 6e-2
    # Median over the norms of these variables after three steps. Statistics
    # that are frozen do not move at all.
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
  """Returns the session's configuration that the recordings were made with.

  Two threads, whatever the number of cores: sums are split among threads.

  Args:
    grappler: False: the graph runs as it was built. The recorded training
      steps did: rewriting changes last bits, which rounding makes more of.
  """
  configuration = tf.ConfigProto(
      intra_op_parallelism_threads=2, inter_op_parallelism_threads=2)
  configuration.graph_options.rewrite_options.disable_meta_optimizer = (
      not grappler)
  return configuration


@functools.lru_cache(maxsize=None)
def quantized_recording():
  """Names the recording that fake-quantized logits must equal here, or None."""
  if not IS_REFERENCE_TENSORFLOW:
    return None
  return _KERNELS.get(_kernels())


def _kernels():
  """Sums up what plain matrix products give here, to the last bit.

  Their sizes are those of the network's 1x1 convolutions at 512 pixels; no code
  of the suite takes part.
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
  """Whether float logits equal those of a recording bit for bit.

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
