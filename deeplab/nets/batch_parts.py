"""A batch in equal parts, each worked on by a network of its own.

The networks have one set of weights. What a network makes of single images is
the same in a part as in the whole batch; what follows from the batch goes
through the methods of a Part, so that parts together do what the whole would.
Parts are on several devices of a process, on several hosts, or both: each host
has a graph and the values of all variables, which are the same on all hosts
after every step.
"""
import contextlib
from typing import Any, Callable, Iterator, List, NamedTuple, Sequence, Tuple

import tensorflow.compat.v1 as tf

from deeplab import collectives

# What the parts of all hosts exchange, in this order, has numbers from here.
_FIRST_EXCHANGE = 1000


class Part:
  """The whole batch, as the only part of it."""

  @contextlib.contextmanager
  def scope(self) -> Iterator[None]:
    """Context in which the network of this part is built."""
    yield

  @property
  def is_first(self) -> bool:
    """Whether no other part is built before this one in this graph."""
    return True

  def extremes(self, smallest: tf.Tensor,
               largest: tf.Tensor) -> Tuple[tf.Tensor, tf.Tensor]:
    """Returns the extremes over all parts of a value that each has.

    Args:
      smallest: float32 scalar.
      largest: float32 scalar.
    """
    return smallest, largest

  def settled(self, make: Callable[[], Any]) -> Any:
    """Returns what is made once for all parts of a graph.

    Args:
      make: changes variables, by what is the same in all parts.
    """
    return make()

  def move(self, average: tf.Variable, change: tf.Tensor) -> None:
    """Has a step subtract a change from a moving average.

    Args:
      average: the variable.
      change: as this part has it; float32 of the same shape.
    """
    tf.add_to_collection(
        tf.GraphKeys.UPDATE_OPS, tf.assign_sub(average, change))

  def draws(self, shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Returns this part's share of numbers that are drawn for the whole batch.

    Args:
      shape: int32 [rank]; the first is the number of images of the part.
      seed: two integers.

    Returns:
      float32 in [0, 1), of that shape.
    """
    return tf.random.stateless_uniform(shape, seed)


WHOLE = Part()


class Split(NamedTuple):
  """Into which parts a batch is split, and which of them are here."""
  hosts: int = 1
  # Which of the hosts this one is, counted from 0.
  host: int = 0
  # Parts of each host.
  clones: int = 1
  # Where they are, such as 'GPU', each on one of its own.
  device: str = 'CPU'

  @property
  def parts(self) -> int:
    """Number of parts of all hosts."""
    return self.hosts * self.clones

  def over_hosts(self, tensors: Sequence[tf.Tensor],
                 exchange: int) -> List[tf.Tensor]:
    """Returns the means over hosts of tensors that each host has.

    All in one exchange; a host's graph may have others at the same time.

    Args:
      tensors: float32, of static shapes.
      exchange: number of the exchange, one of its own.
    """
    if self.hosts == 1:
      return list(tensors)
    with tf.name_scope('over_hosts'), tf.device('/cpu:0'):
      sums = collectives.sums(
          tensors, members=self.hosts, group=collectives.HOSTS,
          exchange=exchange)
      return [total / self.hosts for total in sums]


# One part, on one host.
UNSPLIT = Split()


class Parts:
  """The parts of one graph: iterate to build the network of each."""

  def __init__(self, split: Split):
    """Remembers the split.

    Args:
      split: of the batch.
    """
    self.split = split
    # What the first part has settled, for the others.
    self.made: List[Any] = []
    # (average, change in each part), in the order in which the first has them.
    self.changes: List[Tuple[tf.Variable, List[tf.Tensor]]] = []

  def __iter__(self) -> Iterator[Part]:
    if self.split.parts == 1:
      yield WHOLE
      return
    for clone in range(self.split.clones):
      yield _PartOfSeveral(self, clone)

  def of(self, batch: tf.Tensor) -> List[tf.Tensor]:
    """Splits what has a row for each image of this host."""
    return (tf.split(batch, self.split.clones) if self.split.clones > 1
            else [batch])

  def changes_of_host(self) -> List[Tuple[tf.Variable, tf.Tensor]]:
    """Returns (average, mean change over the parts of this host) of each."""
    return [(average, tf.add_n(changes) / len(changes))
            for average, changes in self.changes]


class _PartOfSeveral(Part):
  """One of several parts; of each Part's method, what makes it like a whole."""

  def __init__(self, parts, clone):
    self._parts = parts
    self._split = parts.split
    self._clone = clone
    self._exchanges = self._settled = self._moved = 0
    # What has been exchanged and not been settled by.
    self._pending: List[tf.Tensor] = []

  @contextlib.contextmanager
  def scope(self):
    with contextlib.ExitStack() as stack:
      if self._split.clones > 1:
        stack.enter_context(tf.device(
            '/device:{}:{}'.format(self._split.device, self._clone)))
      if not self.is_first:
        stack.enter_context(
            tf.variable_scope(tf.get_variable_scope(), reuse=True))
      yield

  @property
  def is_first(self):
    return not self._clone

  @property
  def _number(self):
    """Which of the parts of all hosts it is."""
    return self._split.host * self._split.clones + self._clone

  def extremes(self, smallest, largest):
    # TensorFlow 1.15 has no exchange but sums: each part has a row of its own.
    with tf.name_scope('extremes'), (
        tf.device('/device:CPU:{}'.format(self._clone))):
      rows = tf.pad(
          tf.stack([[smallest, largest]]),
          [[self._number, self._split.parts - self._number - 1], [0, 0]])
      [rows] = collectives.sums(
          [rows], members=self._split.parts, group=collectives.PARTS,
          exchange=_FIRST_EXCHANGE + self._exchanges)
      self._exchanges += 1
      self._pending = [rows]
      return tf.reduce_min(rows[:, 0]), tf.reduce_max(rows[:, 1])

  def settled(self, make):
    if self.is_first:
      self._parts.made.append(make())
    self._settled += 1
    made = self._parts.made[self._settled - 1]
    if not self.is_first:
      # The first part waits for what this one gives, without being read here.
      with tf.control_dependencies(self._pending):
        made = tf.nest.map_structure(tf.identity, made)
    self._pending = []
    return made

  def move(self, average, change):
    if self.is_first:
      self._parts.changes.append((average, []))
    self._parts.changes[self._moved][1].append(change)
    self._moved += 1

  def draws(self, shape, seed):
    images = shape[0]
    draws = tf.random.stateless_uniform(
        tf.concat([[images * self._split.parts], shape[1:]], 0), seed)
    return draws[self._number * images:(self._number + 1) * images]
