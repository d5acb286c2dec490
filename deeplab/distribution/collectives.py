"""All-reduce over devices and hosts: the one use of TensorFlow's private parts.

Collective operations have no public name in the versions that the suite runs
in. Sums are the only kind that all versions have.
"""
from typing import List, Sequence

import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow.python.ops import collective_ops

# Group keys. A group has the same members throughout a process: one device of
# each host, or one device of each replica.
HOSTS = 1
REPLICAS = 2
JOB = 'worker'


def all_reduce_sum(tensors: Sequence[tf.Tensor], *, members: int, group: int,
                   instance_key: int) -> List[tf.Tensor]:
  """Adds up tensors over all members, in one operation.

  The operation ends once all members have run theirs. The result has the same
  bits everywhere.

  Args:
    tensors: of one type (float32, int64) and of static shapes, the same in all
      members.
    members: their number; each runs this on a device of its own.
    group: HOSTS or REPLICAS.
    instance_key: a number that all members give to this sum, and to no other.

  Returns:
    The sums, of the same shapes.
  """
  shapes = [tensor.shape.as_list() for tensor in tensors]
  packed = tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)
  total = collective_ops.all_reduce(
      packed, members, group, instance_key, 'Add', 'Id')
  return [tf.reshape(one, shape) for one, shape in zip(
      tf.split(total, [int(np.prod(shape)) for shape in shapes]), shapes)]


def configure(config: tf.ConfigProto, task: int) -> None:
  """Changes a session's configuration to that of one host of several.

  Args:
    config: is changed.
    task: which host it is, counted from 0.
  """
  # Keeps the collectives of these sessions apart from those of others.
  config.experimental.collective_group_leader = (
      '/job:{}/replica:0/task:0'.format(JOB))
  # The operations of a host stay on its own devices.
  config.device_filters.append('/job:{}/task:{}'.format(JOB, task))
