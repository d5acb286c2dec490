"""All-reduce over devices and hosts; the only use of TensorFlow's private API.

Collective operations are not public in the supported versions. Sum is the only
reduction that all versions have.
"""
from typing import List, Sequence

import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow.python.ops import collective_ops

# Group keys. The members of a group are fixed within a process: one device of
# each host, or one device of each replica.
HOSTS = 1
REPLICAS = 2
JOB = 'worker'


def all_reduce_sum(tensors: Sequence[tf.Tensor], *, members: int, group: int,
                   instance_key: int) -> List[tf.Tensor]:
  """Sums tensors over all members, in one all-reduce.

  The operation ends once all members have run it. The result is bitwise equal
  on all members.

  Args:
    tensors: of one type (float32, int64) and of static shapes, the same in all
      members.
    members: number of members; each runs this on its own device.
    group: HOSTS or REPLICAS.
    instance_key: number that identifies this sum on all members.

  Returns:
    The sums, with the tensors' shapes.
  """
  shapes = [tensor.shape.as_list() for tensor in tensors]
  packed = tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)
  total = collective_ops.all_reduce(
      packed, members, group, instance_key, 'Add', 'Id')
  return [tf.reshape(one, shape) for one, shape in zip(
      tf.split(total, [int(np.prod(shape)) for shape in shapes]), shapes)]


def configure(config: tf.ConfigProto, task: int) -> None:
  """Configures sessions for one of several hosts.

  Args:
    config: modified in place.
    task: index of the host.
  """
  # Separates the collectives of this cluster from other collectives.
  config.experimental.collective_group_leader = (
      '/job:{}/replica:0/task:0'.format(JOB))
  # The operations of a host stay on its own devices.
  config.device_filters.append('/job:{}/task:{}'.format(JOB, task))
