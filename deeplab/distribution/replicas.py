"""One batch over several replicas of the network, on devices and hosts.

All replicas have the same weights. Results that depend on the whole batch go
through the methods of a Replica, so that a step equals that of one device. Each
host has a graph with the replicas of its devices (clones), and its own copy of
all variables. After every step, the variables are equal on all hosts.
"""
import contextlib
import itertools
from typing import Any, Callable, Iterator, List, Optional, Tuple

import tensorflow.compat.v1 as tf

from deeplab.distribution import collectives

# Instance keys of the replicas' collectives start here. Every replica assigns
# them in the same order.
_FIRST_INSTANCE_KEY = 1000


class Replica:
  """The only replica, which gets the whole batch."""

  # Whether it is the first replica built in its graph.
  is_first = True

  @contextlib.contextmanager
  def scope(self) -> Iterator[None]:
    """Context in which the network of this replica is built."""
    yield

  def extremes(self, smallest: tf.Tensor,
               largest: tf.Tensor) -> Tuple[tf.Tensor, tf.Tensor]:
    """Returns the minimum and maximum over all replicas.

    Args:
      smallest: float32 scalar, this replica's minimum.
      largest: float32 scalar, this replica's maximum.
    """
    return smallest, largest

  def update_once(self, update: Callable[[], Any]) -> Any:
    """Updates variables once per graph and returns the update's result.

    Args:
      update: assigns values that are the same in all replicas.
    """
    return update()

  def subtract(self, average: tf.Variable, change: tf.Tensor) -> None:
    """Makes a step subtract the mean of a change over replicas from an average.

    Args:
      average: the variable.
      change: float32 of the same shape, this replica's change.
    """
    tf.add_to_collection(
        tf.GraphKeys.UPDATE_OPS, tf.assign_sub(average, change))

  def changes(self) -> List[Tuple[tf.Variable, tf.Tensor]]:
    """Returns each average's mean change over this host's replicas, if any.

    The caller averages them over hosts and subtracts them. It is called on the
    first replica, once all replicas are built.
    """
    return []

  def random_uniform(self, shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Returns this replica's rows of random numbers for the whole batch.

    Args:
      shape: int32 [rank]; the first element is the replica's number of images.
      seed: two integers.

    Returns:
      float32 in [0, 1), of the given shape.
    """
    return tf.random.stateless_uniform(shape, seed)


ONLY = Replica()


class _OneOfSeveral(Replica):
  """One of several replicas; combines their results."""

  def __init__(self, clone: int, device: Optional[str], number: int, count: int,
               first: Optional['_OneOfSeveral']):
    self.is_first = first is None
    self._device = device
    self._cpu = '/device:CPU:{}'.format(clone)
    self._number = number
    self._count = count
    self._instance_keys = itertools.count(_FIRST_INSTANCE_KEY)
    # Collectives of this replica that no update depends on yet.
    self._pending: List[tf.Tensor] = []
    # The first replica records the results of updates, and per average each
    # replica's change. The other replicas read them in the same order.
    self._updates: List[Any] = []
    self._changes: List[Tuple[tf.Variable, List[tf.Tensor]]] = []
    if first:
      self._updates_of_first = iter(first._updates)
      self._changes_of_first = iter(first._changes)

  @contextlib.contextmanager
  def scope(self):
    with contextlib.ExitStack() as stack:
      stack.enter_context(tf.device(self._device))
      if not self.is_first:
        stack.enter_context(
            tf.variable_scope(tf.get_variable_scope(), reuse=True))
      yield

  def extremes(self, smallest, largest):
    # TensorFlow 1.15 can only sum, so each replica fills its own row.
    with tf.name_scope('extremes'), tf.device(self._cpu):
      rows = tf.pad(
          tf.stack([[smallest, largest]]),
          [[self._number, self._count - self._number - 1], [0, 0]])
      [rows] = collectives.all_reduce_sum(
          [rows], members=self._count, group=collectives.REPLICAS,
          instance_key=next(self._instance_keys))
      self._pending = [rows]
      return tf.reduce_min(rows[:, 0]), tf.reduce_max(rows[:, 1])

  def update_once(self, update):
    pending, self._pending = self._pending, []
    if self.is_first:
      self._updates.append(update())
      return self._updates[-1]
    # The first replica's update waits for this replica's collectives; nothing
    # reads their results here.
    with tf.control_dependencies(pending):
      return tf.nest.map_structure(
          tf.identity, next(self._updates_of_first))

  def subtract(self, average, change):
    if self.is_first:
      self._changes.append((average, [change]))
    else:
      next(self._changes_of_first)[1].append(change)

  def changes(self):
    return [(average, tf.add_n(changes) / len(changes))
            for average, changes in self._changes]

  def random_uniform(self, shape, seed):
    images = shape[0]
    draws = tf.random.stateless_uniform(
        tf.concat([[images * self._count], shape[1:]], 0), seed)
    return draws[self._number * images:(self._number + 1) * images]


def of_host(*, hosts: int = 1, host: int = 0, clones: int = 1,
            device: str = 'CPU') -> List[Replica]:
  """Returns the replicas of one host, in the order in which to build them.

  Args:
    hosts: number of hosts.
    host: index of this host.
    clones: number of replicas of each host.
    device: kind of their devices, such as 'GPU'; if there are several clones,
      each has its own device.
  """
  if hosts * clones == 1:
    return [ONLY]
  replicas: List[_OneOfSeveral] = []
  for clone in range(clones):
    replicas.append(_OneOfSeveral(
        clone, '/device:{}:{}'.format(device, clone) if clones > 1 else None,
        host * clones + clone, hosts * clones,
        replicas[0] if replicas else None))
  return list(replicas)
