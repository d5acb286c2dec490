"""Sums over devices and hosts: the one place that uses what is private there.

TensorFlow's collective operations have no public name in the versions that the
suite runs in; of what they do, all versions have sums.
"""
from typing import List, Sequence

import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow.python.ops import collective_ops

# Who takes part in a sum: each group has the same members throughout a process.
# One device of each host; one device of each part of a batch.
HOSTS = 1
PARTS = 2
# Where sums of the operations are kept apart from those of other sessions.
_LEADER = '/job:{}/replica:0/task:0'
JOB = 'worker'


def sums(tensors: Sequence[tf.Tensor], *, members: int, group: int,
         exchange: int) -> List[tf.Tensor]:
  """Adds up tensors over all members, in one exchange.

  An operation that ends once all members have run theirs. The result has the
  same bits everywhere.

  Args:
    tensors: of one type (float32, int64) and of static shapes, the same in all
      members.
    members: how many there are; each is on a device of its own, which is the
      one that the operations are put on.
    group: HOSTS or PARTS.
    exchange: a number that all members give this sum, and no other one.

  Returns:
    The sums, of the same shapes.
  """
  shapes = [tensor.shape.as_list() for tensor in tensors]
  packed = tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)
  total = collective_ops.all_reduce(
      packed, members, group, exchange, 'Add', 'Id')
  return [tf.reshape(part, shape) for part, shape in zip(
      tf.split(total, [int(np.prod(shape)) for shape in shapes]), shapes)]


def join(config: tf.ConfigProto, task: int) -> None:
  """Changes a session's configuration to one of a task that takes part.

  Args:
    config: what is changed.
    task: which one it is, counted from 0.
  """
  config.experimental.collective_group_leader = _LEADER.format(JOB)
  # What a task runs stays on its own devices.
  config.device_filters.append('/job:{}/task:{}'.format(JOB, task))
