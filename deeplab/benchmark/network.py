"""Measured: training steps, the forward pass, evaluation.

Each function prepares a measurement and returns (function that gives seconds
for each item, what there is to know about it).
"""
import contextlib
import time
from typing import Any, List, Optional, Tuple
from unittest import mock

import numpy as np
import tensorflow.compat.v1 as tf

from deeplab import contract
from deeplab import counting
from deeplab import losses
from deeplab import options as options_lib
from deeplab import predictors
from deeplab import training
from deeplab.benchmark import cases
from deeplab.data import dataset
from deeplab.nets import layers

_SEED = 4
_EVALUATED_SPLIT = 'val'  # the smaller one
# What the documented command lines say.
_FLOAT_TRAINING = {'optimizer': 'adam', 'adam_learning_rate': 5e-6,
                   'fine_tune_batch_norm': False}
_QAT_TRAINING = {'base_learning_rate': 1e-6, 'fine_tune_batch_norm': True}


def model_options(sizes: cases.Sizes,
                  **changes: Any) -> options_lib.ModelOptions:
  """The published network at the benchmark's size, but for the changes."""
  return options_lib.ModelOptions(
      crop_size=(sizes.side, sizes.side), decoder_output_stride=(4,), **changes)


def preprocess_options(sizes: cases.Sizes) -> options_lib.PreprocessOptions:
  """Resizing as the documented command lines have it."""
  return options_lib.PreprocessOptions(
      crop_size=(sizes.side, sizes.side), min_resize_value=sizes.side,
      max_resize_value=sizes.side, resize_factor=16)


def initialize(session: tf.Session) -> None:
  """Gives the variables of the session's graph values.

  Weights are scaled to keep the size of activations, as trained ones do: the
  network's own initial values make them vanish, and arithmetic on numbers
  that are all but 0 is slow.

  Args:
    session: its graph is the default graph.
  """
  random = np.random.RandomState(_SEED)
  values = {}
  for variable in tf.model_variables():
    if variable.op.name.endswith('weights'):
      shape = variable.shape.as_list()
      inputs = np.prod(shape[:2]) * (
          1 if variable.op.name.endswith('depthwise_weights') else shape[2])
      values[variable.initial_value] = random.normal(
          0, np.sqrt(2.0 / inputs), shape)
  session.run(tf.global_variables_initializer(), values)
  session.run(tf.local_variables_initializer())


# --- Training --------------------------------------------------------------


def train_step(
    sizes: cases.Sizes, unused_files: cases.Files, *, one_hot: bool = False,
    quantization: Optional[str] = None,
    fused: Optional[bool] = None) -> cases.Measurement:
  """A training step on a batch that is there already.

  Args:
    sizes: cases.Sizes.
    unused_files: as in worker.
    one_hot: compute the loss as the reference does, not as the suite does.
    quantization: implementation of fake quantization, or None for float.
    fused: TrainOptions.fused_step.
  """
  settings = _QAT_TRAINING if quantization else _FLOAT_TRAINING
  shape = [sizes.batch, sizes.side, sizes.side]
  random = np.random.RandomState(_SEED)
  with tf.Graph().as_default(), contextlib.ExitStack() as patches:
    if one_hot:
      patches.enter_context(mock.patch.object(
          losses, 'softmax_cross_entropy', one_hot_loss))
    images = tf.placeholder(tf.float32, shape + [3])
    labels = tf.placeholder(tf.int32, shape + [1])
    step = training.build_step(
        images, labels,
        model_options(sizes, quantize_delay_step=0 if quantization else -1,
                      fake_quant=quantization),
        options_lib.TrainOptions(
            train_logdir='', fused_step=fused, **settings))
    session = tf.Session()
    initialize(session)
  run = session.make_callable(step.train_op, [images, labels])
  batch = (random.uniform(0, 255, shape + [3]).astype(np.float32),
           random.randint(0, contract.NUM_CLASSES, shape + [1], np.int32))
  # The first runs take longer; they are not to be measured.
  for _ in range(2):
    run(*batch)
  return lambda: cases.seconds_each(lambda: run(*batch), sizes.seconds), ''


def one_hot_loss(logits: tf.Tensor, labels: tf.Tensor,
                 unused_label_weights: Tuple[float, ...] = (), *,
                 is_fused: bool = False) -> tf.Tensor:
  """losses.softmax_cross_entropy as the reference computes it, not fused."""
  assert not is_fused
  logits = layers.resize_bilinear(
      logits, labels.shape.as_list()[1:3], align_corners=True)
  labels = tf.reshape(labels, [-1])
  weights = tf.cast(tf.not_equal(labels, contract.IGNORE_LABEL), tf.float32)
  one_hot = tf.one_hot(labels, contract.NUM_CLASSES)
  pixel_losses = tf.nn.softmax_cross_entropy_with_logits_v2(
      labels=tf.stop_gradient(one_hot),
      logits=tf.reshape(logits, [-1, contract.NUM_CLASSES]))
  loss = tf.reduce_sum(pixel_losses * weights) / tf.maximum(
      tf.reduce_sum(weights), 1e-5)
  tf.losses.add_loss(loss)
  return loss


# --- Evaluation ------------------------------------------------------------


def forward(sizes: cases.Sizes, files: cases.Files, *,
            frozen: bool = False, batch: int = 1) -> cases.Measurement:
  """Labels of images that are there already.

  Args:
    sizes: cases.Sizes.
    files: as in worker.
    frozen: run the frozen graph, not its checkpoint.
    batch: number of images at a time.
  """
  predictor: counting.Predictor = (
      predictors.FrozenGraphPredictor(
          files('float', contract.FROZEN_GRAPH),
          crop_size=(sizes.side, sizes.side))
      if frozen else _predictor(sizes, files))
  images = np.random.RandomState(_SEED).uniform(
      0, 255, [batch, sizes.side, sizes.side, 3]).astype(np.float32)
  for _ in range(2):
    predictor.predict(images)
  return lambda: cases.seconds_each(
      lambda: predictor.predict(images), sizes.seconds, batch), ''


def evaluate(sizes: cases.Sizes, files: cases.Files) -> cases.Measurement:
  """All that eval.py does for an image, once it is under way."""
  predictor = _Clocked(_predictor(sizes, files))

  def measure():
    batches = dataset.batches(
        options_lib.DatasetOptions(files('records'), _EVALUATED_SPLIT),
        preprocess_options(sizes))
    predictor.starts = []
    counting.count(predictor, batches)
    return predictor.seconds_each()

  measure()
  return measure, ''


def _predictor(sizes, files):
  predictor = predictors.CheckpointPredictor(model_options(sizes))
  predictor.restore(files('float', 'model.ckpt-0'))
  return predictor


class _Clocked(counting.Predictor):
  """A predictor that remembers when it was called."""

  def __init__(self, predictor):
    self._predictor = predictor
    # (time, number of images before).
    self.starts: List[Tuple[float, int]] = []
    self._images = 0

  def predict(self, images: np.ndarray) -> np.ndarray:
    """Returns the predictor's labels."""
    self.starts.append((time.perf_counter(), self._images))
    self._images += len(images)
    return self._predictor.predict(images)

  def close(self) -> None:
    """Closes the predictor."""
    self._predictor.close()

  def seconds_each(self) -> float:
    """Seconds from image to image, without the way to the first one."""
    (first, before), (last, after) = self.starts[0], self.starts[-1]
    return (last - first) / (after - before)
