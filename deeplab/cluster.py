"""This process as one of the tasks that train together, or alone.

Each task has a server of TensorFlow's, which the collectives of others reach,
and a Watch: where a task is lost, all others end within a minute.
"""
import contextlib
import hashlib
import json
import logging
import os
import signal
import socket
import threading
import time
from typing import Any, Iterator, List, NoReturn, Sequence

import numpy as np
import tensorflow.compat.v1 as tf

from deeplab import collectives
from deeplab import environment
from deeplab import options as options_lib
from deeplab import stops
from deeplab import tf_texts
from deeplab import watch
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.nets import batch_parts

_LOG = logging.getLogger(__name__)
# Numbers of this module's own exchanges, which are few, follow.
_FIRST_EXCHANGE = 10
# For all tasks to start.
_JOIN_SECS = 600.0
# After an error of TensorFlow: to find the task whose loss was its reason.
_FIND_SECS = 12.0
# A save in progress may take so long, when another task is lost.
_SAVE_SECS = 30.0
_RESUME = ('the last checkpoint of task 0 is kept: run the same command again '
           'on all hosts to resume')
# Before the server goes: so that the last answer has left.
_LAST_ANSWER_SECS = 0.5


class Alone:
  """A process that trains on its own.

  Attributes:
    task: which one it is, counted from 0.
    split: how batches are split.
    config: of sessions.
    target: what sessions connect to.
  """

  task = 0
  target = ''

  def __init__(self, split: batch_parts.Split, config: tf.ConfigProto):
    self.split = split
    self.config = config

  @property
  def saves(self) -> bool:
    """Whether checkpoints and events are this task's to write."""
    return self.task == 0

  def agreed(self, number: int) -> int:
    """Returns task 0's number, in every task."""
    return number

  def check_equal(self, what: Any, value: Any) -> None:
    """Refuses a value that is not equal in all tasks.

    Args:
      what: its name or option, for the message.
      value: what json can write.

    Raises:
      InputError: in every task, naming those that differ from task 0.
    """

  def start_from_task_0(self, variables: Sequence[tf.Variable]) -> Any:
    """Adds to the default graph what gives variables task 0's values.

    Args:
      variables: all of the graph, the same in every task.

    Returns:
      The operation, which all tasks are to run.
    """
    return tf.no_op()

  @contextlib.contextmanager
  def running(self) -> Iterator[None]:
    """Context of what waits for other tasks, and fails where one is lost."""
    yield

  @contextlib.contextmanager
  def saving(self) -> Iterator[None]:
    """Context of what is not cut off where another task is lost."""
    yield

  @contextlib.contextmanager
  def hearing_signals(self) -> Iterator[None]:
    """Context of the main thread: a second signal ends its waiting."""
    yield

  def finish(self) -> None:
    """Waits for all tasks to come here; then each may end."""


class _Cluster(Alone):
  """One task of several."""

  def __init__(self, split, config, addresses, task):
    super().__init__(split, config)
    self.task = task
    self._busy = threading.Lock()
    self._exchanges = _FIRST_EXCHANGE
    self._watch = watch.Watch(addresses, task, self._end)
    self._server = _start_server(addresses, task, config)
    self.target = self._server.target
    missing = self._watch.wait_for_all(_JOIN_SECS)
    impostors = [task for task, reason in missing.items()
                 if isinstance(reason, watch.OtherServiceError)]
    if impostors:
      raise InputError(
          '{}: another service than train.py answers at {}; expected a free '
          'port of each host', option('cluster', addresses),
          self._watch.names(impostors))
    if missing:
      raise InputError(
          '{}: {} did not start within {:.0f} s; start the same command there, '
          'with its own {}', option('cluster', addresses),
          self._watch.names(list(missing)), _JOIN_SECS, option('task'))
    self._watch.start()
    _LOG.info('task %d of %d: all are there', task, len(addresses))

  def agreed(self, number):
    return int(self._gathered(number)[0])

  def check_equal(self, what, value):
    digest = hashlib.sha256(
        json.dumps(value, sort_keys=True).encode()).digest()
    digests = self._gathered(int.from_bytes(digest[:7], 'big'))
    others = [task for task, other in enumerate(digests)
              if other != digests[0]]
    if others:
      raise InputError('{} has other {} than task 0; expected the same in all '
                       'tasks', self._watch.names(others), what)

  def start_from_task_0(self, variables):
    assignments = []
    with tf.name_scope('from_task_0'):
      for dtype in (tf.float32, tf.int64):
        chosen = [variable for variable in variables
                  if variable.dtype.base_dtype == dtype]
        # Exact: zeros are added.
        values = [variable.read_value() if self.saves
                  else tf.zeros_like(variable) for variable in chosen]
        with tf.device('/cpu:0'):
          values = collectives.sums(
              values, members=self.split.hosts, group=collectives.HOSTS,
              exchange=self._next_exchange())
        assignments += [tf.assign(variable, value)
                        for variable, value in zip(chosen, values)]
    assert len(assignments) == len(variables), 'a variable of another type'
    return tf.group(*assignments)

  @contextlib.contextmanager
  def running(self):
    try:
      yield
    except tf.errors.OpError as error:
      # What may come of another task's end; if that is so, it is found soon.
      if not tf_texts.is_of_input(error) and (
          self._watch.finds_loss(_FIND_SECS)):
        threading.Event().wait()  # for _end, in the watch's thread
      raise

  @contextlib.contextmanager
  def saving(self):
    with self._busy:
      yield

  def hearing_signals(self):
    return stops.heard_while_waiting(self._end_for_signal)

  def finish(self):
    with self.running():
      self._gathered(0)
    self._watch.stop()
    time.sleep(_LAST_ANSWER_SECS)

  def stop(self) -> None:
    """Ends the watch."""
    self._watch.stop()

  def _next_exchange(self):
    self._exchanges += 1
    return self._exchanges

  def _gathered(self, number: int) -> np.ndarray:
    """Returns every task's number, in their order: int64 [tasks]."""
    row = np.zeros([self.split.hosts], np.int64)
    row[self.task] = number
    with tf.Graph().as_default(), self.running():
      with tf.device('/cpu:0'):
        [total] = collectives.sums(
            [tf.constant(row)], members=self.split.hosts,
            group=collectives.HOSTS, exchange=self._next_exchange())
      with tf.Session(self.target, config=self.config) as session:
        return session.run(total)

  def _end_for_signal(self, number: int) -> NoReturn:
    """Ends the process, whatever it waits for."""
    self._busy.acquire(timeout=_SAVE_SECS)
    environment.end_process(
        'a second {} ended this task while it waited for others; {}'.format(
            signal.Signals(number).name, _RESUME), 128 + number)

  def _end(self, lost: List[int]) -> NoReturn:
    """Ends the process, for the loss of other tasks."""
    self._busy.acquire(timeout=_SAVE_SECS)
    environment.end_process(
        '{} ended or fell silent before the training did; {}'.format(
            self._watch.names(lost), _RESUME))


@contextlib.contextmanager
def joined(options: options_lib.DistributionOptions) -> Iterator[Alone]:
  """Context of a task, from its start until it ends or fails.

  Args:
    options: devices, cluster and task.

  Yields:
    The task, once all others have started.

  Raises:
    InputError: more clones than GPUs; a port in use; tasks that do not come.
  """
  split, config = _split_of(options)
  if split.hosts == 1:
    yield Alone(split, config)
    return
  cluster = _Cluster(split, config, options.cluster, options.task)
  try:
    yield cluster
  finally:
    cluster.stop()


def _split_of(options):
  """Returns (Split, configuration of sessions)."""
  config = tf.ConfigProto(allow_soft_placement=True)
  gpus = tf.config.experimental.list_physical_devices('GPU')
  if gpus and options.num_clones > len(gpus):
    raise InputError('{}: there are {} GPUs here',
                     option('num_clones', options.num_clones), len(gpus))
  if options.num_clones > 1:
    config.device_count['CPU'] = options.num_clones
    if not gpus:
      _LOG.info('%s without a GPU: %d parts share the processor',
                option('num_clones', options.num_clones), options.num_clones)
  hosts = max(1, len(options.cluster))
  if hosts > 1:
    collectives.join(config, options.task)
  return batch_parts.Split(
      hosts=hosts, host=options.task, clones=options.num_clones,
      device='GPU' if gpus else 'CPU'), config


def _start_server(addresses: Sequence[str], task: int, config: tf.ConfigProto):
  """Starts TensorFlow's server at the task's port, on all interfaces."""
  port = int(addresses[task].rpartition(':')[2])
  given = option('cluster', addresses)
  # TensorFlow says a page of it.
  try:
    with socket.socket() as trial:
      trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      trial.bind(('', port))
  except OSError as error:
    raise InputError('{}: port {} of task {} cannot be used here ({})', given,
                     port, task, error.strerror)
  # Tasks reach each other; a proxy would not reach them.
  os.environ.setdefault('no_grpc_proxy', ','.join(
      address.rpartition(':')[0].strip('[]') for address in addresses))
  try:
    return tf.train.Server(
        tf.train.ClusterSpec({collectives.JOB: list(addresses)}),
        job_name=collectives.JOB, task_index=task, config=config)
  except tf.errors.OpError as error:
    raise InputError('{}: task {} cannot start ({})', given, task,
                     tf_texts.message(error))
