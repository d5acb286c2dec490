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
  Callable,
  Deque,
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
from deeplab.errors import InputError
from deeplab.errors import Message
from deeplab.system import hardware
from deeplab.system import progress
from deeplab.system import signals

_Item = TypeVar('_Item')
_Result = TypeVar('_Result')
# Seconds after which a worker notices that its parent is dead.
_PARENT_CHECK_SECS = 1


def worker_count(wanted: int, tasks: Optional[int] = None) -> int:
  """Returns how many workers to start.

  Args:
    wanted: 0 means one for each core that this process may use.
    tasks: number of tasks, which more workers would not help; None: unknown.
  """
  count = wanted or hardware.usable_cores()
  return count if tasks is None else max(1, min(count, tasks))


def ordered_map(
    executor: concurrent.futures.Executor, function: Callable[[_Item], _Result],
    items: Iterable[_Item], *, ahead: int) -> Generator[_Result, None, None]:
  """Maps items in an executor and yields the results in the items' order.

  Unlike executor.map it takes an item only when there is room for it, so that
  memory does not grow with their number. Closing it cancels waiting items.

  Args:
    executor: runs the function.
    function: maps an item to its result.
    items: taken one by one.
    ahead: largest number of items that are taken and not yet yielded.
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
  """Context that gives an iterator over results; see ordered_map.

  Threads do as well as processes and copy no images, because Pillow releases
  Python's lock while it decodes and compresses.

  Args:
    function: maps an item to its result.
    items: taken one by one.
    num_workers: number of threads; 0: one for each processor.
  """
  workers = worker_count(num_workers)
  with concurrent.futures.ThreadPoolExecutor(workers) as pool, (
      contextlib.closing(ordered_map(
          pool, function, items, ahead=2 * workers))) as results:
    yield results


@contextlib.contextmanager
def processes(num_workers: int) -> Iterator[concurrent.futures.Executor]:
  """Context with an executor of processes, which end on an error.

  Args:
    num_workers: number of processes, at least 1.

  Yields:
    The executor; its results raise BrokenProcessPool if a process dies.
  """
  # Not the executor's `initializer`, which Python 3.6 lacks. It is called as
  # long as the object exists.
  parent = _Parent(os.getpid())
  multiprocessing.util.register_after_fork(parent, _Parent.serve)
  with concurrent.futures.ProcessPoolExecutor(num_workers) as pool:
    try:
      yield pool
    except BaseException:
      for process in multiprocessing.active_children():
        process.terminate()
      raise


class _Parent:
  """The process that starts workers."""

  def __init__(self, pid: int):
    self._pid = pid

  def serve(self) -> None:
    """Makes a worker leave signals to its parent, and end with it.

    Ctrl-C reaches all of them, but only the parent reports it.
    """
    for number in signals.SIGNALS:
      signal.signal(number, signal.SIG_IGN)
    # Python 3.6 waits for ever for a worker that was killed while it held the
    # lock of the results: there it ends in its own time.
    signal.signal(signal.SIGTERM, signal.SIG_DFL
                  if sys.version_info >= (3, 7) else _leave)
    threading.Thread(target=self._end_with_it, daemon=True).start()

  def _end_with_it(self):
    # The parent may be dead before a worker gets here.
    while os.getppid() == self._pid:
      time.sleep(_PARENT_CHECK_SECS)
    os._exit(1)


def _leave(unused_number, unused_frame):
  raise SystemExit(1)


def check_all(
    check: Callable[[_Item], _Result], items: Sequence[_Item], *, title: str,
    unit: str, num_workers: int = 0
) -> Tuple[List[Optional[_Result]], List[Message]]:
  """Checks all items in threads and shows progress.

  Args:
    check: raises InputError or OSError if an item cannot be used.
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
      return check(item)
    except InputError as error:
      return error
    except OSError as error:
      return InputError(errors.of_system(error))

  with mapped_in_threads(check_one, items, num_workers) as checked:
    outcomes = list(progress.shown(
        checked, title, unit=unit, total=len(items)))
  problems: List[Message] = [
      outcome for outcome in outcomes if isinstance(outcome, InputError)]
  return ([None if isinstance(outcome, InputError) else outcome
           for outcome in outcomes], problems)
