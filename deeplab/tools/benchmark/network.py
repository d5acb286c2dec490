"""Measures training steps, inference and evaluation."""
import contextlib
import time
from typing import Any, List, Optional, Sequence
from unittest import mock

import numpy as np
import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab.config import options as options_lib
from deeplab.data import dataset
from deeplab.errors import InputError
from deeplab.evaluation import counting
from deeplab.models import interface
from deeplab.models import predictors
from deeplab.nets import layers
from deeplab.tools.benchmark import cases
from deeplab.training import losses
from deeplab.training import mixed_precision
from deeplab.training import step as step_lib

_SEED = 4
_EVALUATED_SPLIT = 'val'  # the smaller one
# Flags of the documented command.
_FLOAT_TRAINING = {'optimizer': 'adam', 'adam_learning_rate': 5e-6,
                   'fine_tune_batch_norm': False}
_QAT_TRAINING = {'base_learning_rate': 1e-6, 'fine_tune_batch_norm': True}


def model_options(sizes: cases.Sizes,
                  **changes: Any) -> options_lib.ModelOptions:
  """Returns options of the published network at the benchmark's size."""
  return options_lib.ModelOptions(
      crop_size=(sizes.side, sizes.side), decoder_output_stride=(4,), **changes)


def preprocess_options(sizes: cases.Sizes) -> options_lib.PreprocessOptions:
  """Returns resizing options of the documented commands."""
  return options_lib.PreprocessOptions(
      crop_size=(sizes.side, sizes.side), min_resize_value=sizes.side,
      max_resize_value=sizes.side, resize_factor=16)


def initialize(session: tf.Session) -> None:
  """Initializes the variables of the session's graph.

  Weights are scaled to preserve the magnitude of activations, like trained
  ones. The network's own initial values make activations vanish, and arithmetic
  on numbers of almost 0 is slow.

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
    sizes: cases.Sizes, unused_paths: cases.Paths, *, one_hot: bool = False,
    quantization: Optional[str] = None, fused: Optional[bool] = None,
    mixed: bool = False) -> cases.Measured:
  """Measures a training step on a batch in memory.

  Args:
    sizes: cases.Sizes.
    unused_paths: not needed.
    one_hot: compute the loss like the reference.
    quantization: implementation of fake quantization, or None for float.
    fused: TrainOptions.fused_step.
    mixed: TrainOptions.mixed_precision.
  """
  settings = _QAT_TRAINING if quantization else _FLOAT_TRAINING
  shape = [sizes.batch, sizes.side, sizes.side]
  random = np.random.RandomState(_SEED)
  with tf.Graph().as_default(), contextlib.ExitStack() as patches:
    if one_hot:
      patches.enter_context(mock.patch.object(
          losses, 'sum_over_pixels', one_hot_sum))
    images = tf.placeholder(tf.float32, shape + [3])
    labels = tf.placeholder(tf.int32, shape + [1])
    step = step_lib.build_step(
        images, labels,
        model_options(sizes, quantize_delay_step=0 if quantization else -1,
                      fake_quant=quantization),
        options_lib.TrainOptions(
            train_logdir='', fused_step=fused, mixed_precision=mixed,
            **settings))
    config = tf.ConfigProto()
    if mixed:
      mixed_precision.configure(config)
    session = tf.Session(config=config)
    initialize(session)
  run = session.make_callable(step.train_op, [images, labels])
  batch = (random.uniform(0, 255, shape + [3]).astype(np.float32),
           random.randint(0, constants.NUM_CLASSES, shape + [1], np.int32))
  # Warm-up runs are not measured.
  for _ in range(2):
    run(*batch)
  return cases.seconds_each(lambda: run(*batch), sizes.seconds), ''


def gpu_train_step(sizes: cases.Sizes, paths: cases.Paths, *, batch: int,
                   **settings: Any) -> cases.Measured:
  """Measures a training step on a GPU, and its memory there.

  Args:
    sizes: cases.Sizes.
    paths: not needed.
    batch: batch size.
    **settings: see train_step.

  Raises:
    InputError: TensorFlow sees no GPU.
  """
  if not predictors.gpus():
    raise InputError('TensorFlow {} sees no GPU here'.format(tf.__version__))
  seconds, _ = train_step(sizes._replace(batch=batch), paths, **settings)
  memory = tf.config.experimental.get_memory_info('GPU:0')
  return seconds, '{:.0f} MiB on the GPU'.format(memory['peak'] / 2.0 ** 20)


def one_hot_sum(logits: tf.Tensor, labels: tf.Tensor,
                unused_label_weights: Sequence[float] = (), *,
                is_fused: bool = False) -> losses.Sum:
  """Replaces losses.sum_over_pixels by the reference's computation."""
  assert not is_fused
  logits = layers.resize_bilinear(
      logits, labels.shape.as_list()[1:3], align_corners=True)
  labels = tf.reshape(labels, [-1])
  weights = tf.cast(tf.not_equal(labels, constants.IGNORE_LABEL), tf.float32)
  one_hot = tf.one_hot(labels, constants.NUM_CLASSES)
  of_pixels = tf.nn.softmax_cross_entropy_with_logits_v2(
      labels=tf.stop_gradient(one_hot),
      logits=tf.reshape(logits, [-1, constants.NUM_CLASSES]))
  return losses.Sum(tf.reduce_sum(of_pixels * weights), tf.reduce_sum(weights))


# --- Evaluation ------------------------------------------------------------


def forward(sizes: cases.Sizes, paths: cases.Paths, *,
            frozen: bool = False) -> cases.Measured:
  """Measures inference on an image, by a checkpoint or its frozen graph."""
  predictor: interface.Predictor = (
      predictors.open_frozen_graph(paths('float', constants.FROZEN_GRAPH))
      if frozen else _predictor(sizes, paths))
  images = np.random.RandomState(_SEED).uniform(
      0, 255, [1, sizes.side, sizes.side, 3]).astype(np.float32)
  for _ in range(2):
    predictor.predict(images)
  return cases.seconds_each(
      lambda: predictor.predict(images), sizes.seconds), ''


def evaluate(sizes: cases.Sizes, paths: cases.Paths) -> cases.Measured:
  """Measures eval.py for each image after the first one."""
  predictor = _predictor(sizes, paths)
  predict = predictor.predict
  starts: List[float] = []

  def timed(images):
    starts.append(time.perf_counter())
    return predict(images)

  predictor.predict = timed
  for _ in range(2):  # the first pass takes longer
    del starts[:]
    counting.count(predictor, dataset.Batches(
        options_lib.DatasetOptions(paths('records'), _EVALUATED_SPLIT),
        preprocess_options(sizes)))
  return (starts[-1] - starts[0]) / (len(starts) - 1), ''


def _predictor(sizes, paths):
  predictor = predictors.CheckpointPredictor(model_options(sizes))
  predictor.restore(paths('float', 'model.ckpt-0'))
  return predictor
