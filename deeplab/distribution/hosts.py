"""A host that trains alone, and one of several hosts that train together.

Both classes have the same methods; for a single host each is the identity. In
a cluster, every host runs a TensorFlow server for the collectives and a
Heartbeat: if a host is lost, all others end within a minute.
"""
import contextlib
import hashlib
import itertools
import json
import logging
import os
import signal
import socket
import threading
import time
from typing import (
  Any,
  ContextManager,
  Iterator,
  List,
  NoReturn,
  Optional,
  Sequence,
)

import numpy as np
import tensorflow.compat.v1 as tf

from deeplab.config import options as options_lib
from deeplab.distribution import collectives
from deeplab.distribution import heartbeat
from deeplab.distribution import replicas as replicas_lib
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.system import environment
from deeplab.system import signals
from deeplab.system import tf_errors

_LOG = logging.getLogger(__name__)
# Instance keys of this module's collectives start here. Callers of
# `all_reduce_mean` use smaller ones.
_FIRST_INSTANCE_KEY = 10
# Longest wait for all hosts to start.
_JOIN_SECS = 600.0
# After a TensorFlow error: longest wait for the Heartbeat to find a lost host.
_FIND_SECS = 12.0
# Longest wait for a save in progress if another host is lost.
_SAVE_SECS = 30.0
_RESUME = ('the last checkpoint of task 0 is kept: run the same command again '
           'on all hosts to resume')
# Time for the server to send its last answer before the process ends.
_LAST_ANSWER_SECS = 0.5


class SingleHost:
  """A host that trains alone.

  Attributes:
    hosts: number of hosts.
    task: index of this host.
    clones: number of replicas of each host.
    config: configuration for sessions.
    target: target for sessions.
  """

  hosts = 1
  task = 0
  target = ''

  def __init__(self, *, clones: int = 1, device: str = 'CPU',
               config: Optional[tf.ConfigProto] = None):
    """Stores the arguments.

    Args:
      clones: number of replicas of each host.
      device: kind of the replicas' devices, such as 'GPU'.
      config: configuration for sessions.
    """
    self.clones = clones
    self._device = device
    self.config = config or tf.ConfigProto()

  @property
  def is_chief(self) -> bool:
    """Whether this host writes checkpoints and events."""
    return self.task == 0

  def replicas(self) -> List[replicas_lib.Replica]:
    """Returns new replicas for one graph of this host."""
    return replicas_lib.of_host(hosts=self.hosts, host=self.task,
                                clones=self.clones, device=self._device)

  def all_reduce_mean(self, tensors: Sequence[tf.Tensor],
                      instance_key: int) -> List[tf.Tensor]:
    """Returns the means of tensors over hosts, in one all-reduce.

    Args:
      tensors: float32, of static shapes.
      instance_key: below 10; unique in a graph.
    """
    return list(tensors)

  def stop_signal(self, own: Optional[str],
                  received: np.ndarray) -> Optional[str]:
    """Returns the signal that makes all hosts stop after this step, or None.

    Args:
      own: name of the signal that this host has received, or None.
      received: float32, above 0 for each of signals.SIGNALS that any host had
        received before the step.
    """
    return own

  def broadcast_from_chief(self, number: int) -> int:
    """Returns the chief's number, on every host."""
    return number

  def broadcast_variables(self, variables: Sequence[tf.Variable]) -> Any:
    """Returns an operation that assigns the chief's values to variables.

    Args:
      variables: all variables of the graph, the same on every host.
    """
    return tf.no_op()

  def check_same_on_all_hosts(self, what: Any, value: Any) -> None:
    """Checks that a value is equal on all hosts.

    Args:
      what: its name or option, for the message.
      value: a value that json can write.

    Raises:
      InputError: raised on every host; names the hosts that differ from task 0.
    """

  def barrier(self) -> None:
    """Waits until all hosts have called this; then each may end."""

  def delaying_the_end(self) -> ContextManager[Any]:
    """Delays termination for a lost host while a checkpoint is saved."""
    return contextlib.ExitStack()


class _MultiHost(SingleHost):
  """One host of several."""

  def __init__(self, addresses: Sequence[str], task: int,
               **options: Any):
    """Starts the server and waits for the other hosts.

    Args:
      addresses: HOST:PORT of every host.
      task: index of this host.
      **options: arguments of SingleHost.

    Raises:
      InputError: a port is in use, or a host did not start.
    """
    super().__init__(**options)
    self.hosts = len(addresses)
    self.task = task
    collectives.configure(self.config, task)
    self._busy = threading.Lock()
    self._instance_keys = itertools.count(_FIRST_INSTANCE_KEY)
    self._heartbeat = heartbeat.Heartbeat(
        addresses, task, self._end_for_lost)
    self._server = _start_server(addresses, task, self.config)
    self.target = self._server.target
    self._heartbeat.start(_JOIN_SECS)
    _LOG.info('task %d of %d: all are there', task, self.hosts)

  def all_reduce_mean(self, tensors, instance_key):
    with tf.name_scope('over_hosts'):
      return [total / self.hosts for total in self._all_reduce_sum(
          tensors, instance_key)]

  def stop_signal(self, own, received):
    # A signal received during a step is reduced over hosts in the next step, so
    # that all hosts stop after the same step.
    return signals.SIGNALS[received.argmax()].name if received.any() else None

  def broadcast_from_chief(self, number):
    return int(self._all_gather(number)[0])

  def broadcast_variables(self, variables):
    assignments = []
    with tf.name_scope('from_chief'):
      for dtype in (tf.float32, tf.int64):
        chosen = [variable for variable in variables
                  if variable.dtype.base_dtype == dtype]
        # Exact, because the other hosts add zeros.
        values = self._all_reduce_sum([
            variable.read_value() if self.is_chief
            else tf.zeros_like(variable) for variable in chosen],
                                      next(self._instance_keys))
        assignments += [tf.assign(variable, value)
                        for variable, value in zip(chosen, values)]
    assert len(assignments) == len(variables), 'a variable of another type'
    return tf.group(*assignments)

  def check_same_on_all_hosts(self, what, value):
    digest = hashlib.sha256(
        json.dumps(value, sort_keys=True).encode()).digest()
    digests = self._all_gather(int.from_bytes(digest[:7], 'big'))
    others = [task for task, other in enumerate(digests)
              if other != digests[0]]
    if others:
      raise InputError('{} has other {} than task 0; expected the same in all '
                       'tasks', self._heartbeat.names(others), what)

  def barrier(self):
    self._all_gather(0)
    self._heartbeat.stop()
    time.sleep(_LAST_ANSWER_SECS)

  @contextlib.contextmanager
  def running(self) -> Iterator[None]:
    """Context in which a lost host or a second signal ends the process."""
    with contextlib.ExitStack() as stack:
      stack.callback(self._heartbeat.stop)
      if threading.current_thread() is threading.main_thread():
        stack.enter_context(signals.heard_while_waiting(self._end_for_signal))
      try:
        yield
      except tf.errors.OpError:
        # If a lost host caused the error, the Heartbeat finds it soon.
        if self._heartbeat.finds_loss(_FIND_SECS):
          threading.Event().wait()  # until _end_for_lost, in another thread
        raise

  def delaying_the_end(self):
    return self._busy

  def _all_reduce_sum(self, tensors, instance_key):
    with tf.device('/cpu:0'):
      return collectives.all_reduce_sum(
          tensors, members=self.hosts, group=collectives.HOSTS,
          instance_key=instance_key)

  def _all_gather(self, number: int) -> np.ndarray:
    """Returns every host's number in the hosts' order: int64 [hosts]."""
    row = np.zeros([self.hosts], np.int64)
    row[self.task] = number
    with tf.Graph().as_default():
      [total] = self._all_reduce_sum(
          [tf.constant(row)], next(self._instance_keys))
      with tf.Session(self.target, config=self.config) as session:
        return session.run(total)

  def _end_for_signal(self, number: int) -> NoReturn:
    """Ends the process without waiting for other hosts."""
    self._busy.acquire(timeout=_SAVE_SECS)
    environment.end_process(
        'a second {} ended this task while it waited for others; {}'.format(
            signal.Signals(number).name, _RESUME), 128 + number)

  def _end_for_lost(self, lost: List[int]) -> NoReturn:
    """Ends the process because other hosts are lost."""
    self._busy.acquire(timeout=_SAVE_SECS)
    environment.end_process(
        '{} ended or stopped answering before training ended; {}'.format(
            self._heartbeat.names(lost), _RESUME))


@contextlib.contextmanager
def joined(options: options_lib.DistributionOptions) -> Iterator[SingleHost]:
  """Context that gives this host, once all others have started.

  Args:
    options: devices, cluster and task.

  Raises:
    InputError: more clones than GPUs; a port in use; a host that did not start.
  """
  clones = options.num_clones
  config = tf.ConfigProto(allow_soft_placement=True)
  gpus = tf.config.experimental.list_physical_devices('GPU')
  if gpus and clones > len(gpus):
    raise InputError('{}: there are {} GPUs here',
                     option('num_clones', clones), len(gpus))
  if clones > 1:
    config.device_count['CPU'] = clones
    if not gpus:
      _LOG.info('%s without a GPU: %d replicas share the processor',
                option('num_clones', clones), clones)
  settings = dict(
      clones=clones, device='GPU' if gpus else 'CPU', config=config)
  if len(options.cluster) <= 1:
    yield SingleHost(**settings)
    return
  host = _MultiHost(options.cluster, options.task, **settings)
  with host.running():
    yield host


def _start_server(addresses: Sequence[str], task: int, config: tf.ConfigProto):
  """Starts TensorFlow's server on the task's port, on all interfaces."""
  port = int(addresses[task].rpartition(':')[2])
  given = option('cluster', addresses)
  # Checked here because TensorFlow's own message is a page long.
  try:
    with socket.socket() as trial:
      trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      trial.bind(('', port))
  except OSError as error:
    raise InputError('{}: port {} of task {} cannot be used here ({})', given,
                     port, task, error.strerror)
  # Tasks connect directly, because a proxy may not reach them.
  os.environ.setdefault('no_grpc_proxy', ','.join(
      address.rpartition(':')[0].strip('[]') for address in addresses))
  try:
    return tf.train.Server(
        tf.train.ClusterSpec({collectives.JOB: list(addresses)}),
        job_name=collectives.JOB, task_index=task, config=config)
  except tf.errors.OpError as error:
    raise InputError('{}: task {} cannot start ({})', given, task,
                     tf_errors.message(error))
