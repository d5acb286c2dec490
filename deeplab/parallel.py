"""Work spread over threads or processes, without piling up."""
import collections
import concurrent.futures
import contextlib
import multiprocessing
import multiprocessing.util
import os
import signal
import sys
import threading
import time
from typing import (
  Any,
  Callable,
  Deque,
  Dict,
  Generator,
  Iterable,
  Iterator,
  List,
  Optional,
  Sequence,
  Tuple,
  TypeVar,
)

from deeplab import errors
from deeplab import machine
from deeplab import progress
from deeplab import stops
from deeplab.errors import InputError
from deeplab.errors import Message

_Item = TypeVar('_Item')
_Result = TypeVar('_Result')
# Seconds after which a process notices that the one that started it is dead.
_PARENT_CHECK_SECS = 1


def worker_count(wanted: int, tasks: Optional[int] = None) -> int:
  """Returns how many workers to start.

  Args:
    wanted: 0 means one for each core that this process may use.
    tasks: number of tasks, which more workers would not help; None: unknown.
  """
  count = wanted or machine.usable_cores()
  return count if tasks is None else max(1, min(count, tasks))


def ordered_map(
    executor: concurrent.futures.Executor, function: Callable[[_Item], _Result],
    items: Iterable[_Item], *, ahead: int) -> Generator[_Result, None, None]:
  """Maps items in an executor and yields the results in the items' order.

  Unlike executor.map it takes an item only when there is room for it, so that
  memory does not grow with their number. What has not begun is cancelled
  where the caller stops early.

  Args:
    executor: what does the work.
    function: what becomes of an item.
    items: taken one by one.
    ahead: largest number of items that wait, are worked on, or are done and
      not yet yielded.
  """
  waiting: Deque[concurrent.futures.Future] = collections.deque()
  try:
    for item in items:
      if len(waiting) == ahead:
        yield waiting.popleft().result()
      waiting.append(executor.submit(function, item))
    while waiting:
      yield waiting.popleft().result()
  finally:
    for future in waiting:
      future.cancel()


@contextlib.contextmanager
def mapped_in_threads(
    function: Callable[[_Item], _Result], items: Iterable[_Item],
    num_workers: int = 0) -> Iterator[Iterator[_Result]]:
  """Context that gives a function's results in the items' order.

  Args:
    function: leaves Python's lock to others most of the time: Pillow decodes
      and compresses without it, so threads do as well as processes, and need
      no copies of the images.
    items: taken one by one.
    num_workers: number of threads; 0: one for each processor.

  Yields:
    An iterator; see ordered_map.
  """
  workers = worker_count(num_workers)
  with concurrent.futures.ThreadPoolExecutor(workers) as pool, (
      contextlib.closing(ordered_map(
          pool, function, items, ahead=2 * workers))) as results:
    yield results


@contextlib.contextmanager
def processes(num_workers: int) -> Iterator[concurrent.futures.Executor]:
  """Context with an executor of processes; an error does not wait for them.

  Args:
    num_workers: number of processes, at least 1.

  Yields:
    The executor, whose results raise BrokenProcessPool once a process is dead.
  """
  begin: Dict[str, Any] = {}
  if sys.version_info >= (3, 7):
    begin = {'initializer': _serve, 'initargs': (os.getpid(),)}
  else:
    # Python 3.6 has no such arguments. What is registered with an object lasts
    # as long as that does, here to the end of the context.
    parent = _Parent(os.getpid())
    multiprocessing.util.register_after_fork(
        parent, lambda parent: _serve(parent.pid))
  with concurrent.futures.ProcessPoolExecutor(num_workers, **begin) as pool:
    try:
      yield pool
    except BaseException:
      for process in multiprocessing.active_children():
        process.terminate()
      raise


class _Parent:
  """The process that starts others, while it has them."""

  def __init__(self, pid: int):
    self.pid = pid


def _serve(parent):
  """Has a process of `processes` leave it to the main one when to end.

  Ctrl-C reaches them all, and none but the main one has anything to say of it.
  Where that one is killed, this one ends too.

  Args:
    parent: the main process, which may be dead before this one gets here.
  """
  for number in stops.SIGNALS:
    signal.signal(number, signal.SIG_IGN)
  # Python 3.6 waits for ever for one that was ended while it held the lock of
  # the results: there it ends in its own time.
  signal.signal(signal.SIGTERM, signal.SIG_DFL
                if sys.version_info >= (3, 7) else _leave)
  threading.Thread(
      target=_end_after, args=(parent,), daemon=True).start()


def _leave(unused_number, unused_frame):
  raise SystemExit(1)


def _end_after(parent):
  while os.getppid() == parent:
    time.sleep(_PARENT_CHECK_SECS)
  os._exit(1)


def check_all(
    check: Callable[[_Item], _Result], items: Sequence[_Item], *, title: str,
    unit: str, num_workers: int = 0
) -> Tuple[List[Optional[_Result]], List[Message]]:
  """Checks items in threads, all of them, and shows progress.

  Args:
    check: raises InputError or OSError where an item cannot be used.
    items: what to check.
    title: what to call the progress, such as 'checking'.
    unit: what to call an item there.
    num_workers: number of threads; 0: one for each processor.

  Returns:
    (results, problems): what check returned for each item, None for those that
    cannot be used; and what is wrong with these, in order.
  """
  def check_one(item):
    try:
      return check(item), None
    except InputError as error:
      return None, error
    except OSError as error:
      return None, Message(errors.of_system(error))

  with mapped_in_threads(check_one, items, num_workers) as checked:
    outcomes = list(progress.shown(
        checked, title, unit=unit, total=len(items)))
  return ([result for result, _ in outcomes],
          [problem for _, problem in outcomes if problem is not None])
