"""The graph of one training step: network, loss and update."""
from typing import NamedTuple, Optional

import tensorflow.compat.v1 as tf

from deeplab import constants
from deeplab.config import options as options_lib
from deeplab.distribution import hosts
from deeplab.nets import batch_norm
from deeplab.nets import deeplab_v3
from deeplab.system import signals as signals_lib
from deeplab.training import losses
from deeplab.training import mixed_precision
from deeplab.training import schedules

LOSS_NOT_FINITE = 'Loss is inf or nan.'
# Instance keys of the collectives of a step.
_COUNT_KEY, _STEP_KEY = 1, 2


class TrainStep(NamedTuple):
  """The tensors of one training step."""
  # Runs the step; float32 scalar, the total loss before the update.
  train_op: tf.Tensor
  # float32 scalar, the loss without regularization.
  cross_entropy: tf.Tensor
  # float32 scalar, the optimizer's learning rate.
  learning_rate: tf.Tensor
  # int64 scalar, the number of steps done.
  global_step: tf.Variable
  # int64 scalar, the number of steps done after this one.
  steps_done: tf.Tensor
  # [batch, height', width', num_classes] float32, of this host's images.
  logits: tf.Tensor
  # [len(signals.SIGNALS)] float32, to be fed: 1 for a signal that this host has
  # received.
  signals: tf.Tensor
  # Same shape: above 0 if any host has received the signal.
  signals_of_all: tf.Tensor


def build_step(
    images: tf.Tensor, labels: tf.Tensor,
    model_options: options_lib.ModelOptions,
    options: options_lib.TrainOptions,
    host: Optional[hosts.SingleHost] = None) -> TrainStep:
  """Builds network, loss and update.

  Args:
    images: [batch, height, width, 3] float32 RGB in [0, 255], on this host.
    labels: [batch, height, width, 1] int32 in [0, num_classes).
    model_options: the network's structure.
    options: loss weights, optimizer, rates.
    host: this host; None: this process trains alone. The split into replicas
      affects only batch norm in training mode.
  """
  host = host or hosts.SingleHost()
  replicas = host.replicas()
  global_step = tf.train.get_or_create_global_step()
  logits, sums = _forward(
      replicas, images, labels, model_options, options, global_step)
  # Divided by the mean count of all hosts, so that the mean of the hosts'
  # losses is the loss of the whole batch.
  cross_entropy = losses.mean(
      sums, lambda count: host.all_reduce_mean([count], _COUNT_KEY)[0])
  total_loss = tf.losses.get_total_loss(name='sum_of_losses')
  learning_rate, optimizer = _optimizer(options, global_step)
  if options.mixed_precision:
    optimizer, loss_scale = mixed_precision.scaling(optimizer)
  gradients, variables = _gradients(
      optimizer, total_loss, options, colocate=host.clones > 1)
  averages = replicas[0].changes()
  signals = tf.placeholder_with_default(
      tf.zeros([len(signals_lib.SIGNALS)]), [len(signals_lib.SIGNALS)])
  of_host = [total_loss, cross_entropy, signals, gradients,
             [change for _, change in averages]]
  total_loss, cross_entropy, signals_of_all, gradients, changes = (
      tf.nest.pack_sequence_as(of_host, host.all_reduce_mean(
          tf.nest.flatten(of_host), _STEP_KEY)))
  total_loss = tf.check_numerics(total_loss, LOSS_NOT_FINITE)
  pairs = list(zip(gradients, variables))
  # No weight changes before the loss is known to be finite, and the learning
  # rate is computed before the step is counted.
  with tf.control_dependencies([total_loss, learning_rate]):
    update = (
        mixed_precision.apply_gradients(
            optimizer, loss_scale, pairs, global_step)
        if options.mixed_precision
        else optimizer.apply_gradients(pairs, global_step=global_step))
    updates = [update] + [tf.assign_sub(average, change) for (
        average, _), change in zip(averages, changes)]
  with tf.control_dependencies(
      tf.get_collection(tf.GraphKeys.UPDATE_OPS) + updates):
    train_op = tf.identity(total_loss, name='train_op')
    steps_done = global_step.read_value()
  return TrainStep(
      train_op, cross_entropy, learning_rate, global_step, steps_done,
      logits, signals, signals_of_all)


def _forward(replicas, images, labels, model_options, options, global_step):
  """Builds the network of each replica; returns (logits, sums of losses)."""
  is_fused = options.fused_step
  if is_fused is None:
    # Sums by matrix products need more precision than 16 bits.
    is_fused = batch_norm.folds_by_default() and not options.mixed_precision
  # Checkpoints lack the state of TensorFlow's own generators.
  dropout_seed = None if options.seed is None else tf.stack([
      tf.constant(options.seed, tf.int64), tf.cast(global_step, tf.int64)])
  rows = [(images, labels)] if len(replicas) == 1 else list(zip(
      tf.split(images, len(replicas)), tf.split(labels, len(replicas))))
  logits, sums = [], []
  for replica, (replica_images, replica_labels) in zip(replicas, rows):
    with replica.scope():
      logits.append(deeplab_v3.logits(
          constants.scale_to_model_range(replica_images), model_options,
          weight_decay=options.weight_decay, is_training=True,
          train_batch_norm=options.fine_tune_batch_norm,
          fold_batch_norm=is_fused, dropout_seed=dropout_seed,
          replica=replica))
      sums.append(losses.sum_over_pixels(
          logits[-1], replica_labels, options.label_weights,
          is_fused=is_fused))
  return tf.concat(logits, 0), sums


def _optimizer(options, global_step):
  """Returns (learning rate, optimizer)."""
  if options.optimizer == 'adam':
    # Parity: mobile_open's train.py gives Adam a separate constant rate.
    # Deviates: it logs the policy's rate, although Adam does not use it.
    return tf.constant(options.adam_learning_rate), tf.train.AdamOptimizer(
        options.adam_learning_rate, epsilon=options.adam_epsilon)
  learning_rate = schedules.learning_rate(options, global_step)
  return learning_rate, tf.train.MomentumOptimizer(
      learning_rate, options.momentum)


def _gradients(optimizer, loss, options, colocate):
  """Returns (gradients times multipliers, variables)."""
  gradients, variables = zip(*optimizer.compute_gradients(
      loss, colocate_gradients_with_ops=colocate))
  multipliers = schedules.gradient_multipliers(
      [variable.op.name for variable in tf.model_variables()], options)
  scaled = [gradient * multipliers.get(variable.op.name, 1.0)
            for gradient, variable in zip(gradients, variables)]
  for gradient, variable in zip(scaled, variables):
    gradient.set_shape(variable.shape)
  return scaled, variables
