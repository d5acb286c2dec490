"""Runs tasks in threads or processes, with a bounded queue."""
import collections
import concurrent.futures
import contextlib
import ctypes
import multiprocessing
import multiprocessing.util
import os
import signal
import sys
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
# Linux's PR_SET_PDEATHSIG: the signal that a process gets when its parent ends.
_SIGNAL_AT_PARENTS_END = 1


def worker_count(wanted: int, tasks: Optional[int] = None) -> int:
  """Returns how many workers to start.

  Args:
    wanted: 0: one for each core that this process may use.
    tasks: number of tasks, an upper limit; None: unknown.
  """
  count = wanted or hardware.usable_cores()
  return count if tasks is None else max(1, min(count, tasks))


def ordered_map(
    executor: concurrent.futures.Executor, function: Callable[[_Item], _Result],
    items: Iterable[_Item], *, ahead: int) -> Generator[_Result, None, None]:
  """Maps items in an executor and yields the results in the items' order.

  Unlike executor.map, it takes an item only when fewer than `ahead` wait,
  so memory does not grow with their number. Closing it cancels waiting items.

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
  """Context that gives an iterator over results in the items' order.

  Threads are as fast as processes and copy no images, because Pillow releases
  the GIL while it decodes and compresses.

  Args:
    function: maps an item to its result.
    items: taken one by one.
    num_workers: number of threads; 0: one for each core.
  """
  workers = worker_count(num_workers)
  with concurrent.futures.ThreadPoolExecutor(workers) as pool, (
      contextlib.closing(ordered_map(
          pool, function, items, ahead=2 * workers))) as results:
    yield results


@contextlib.contextmanager
def processes(num_workers: int) -> Iterator[concurrent.futures.Executor]:
  """Context with an executor of processes, which are terminated on an error.

  Args:
    num_workers: at least 1.

  Yields:
    The executor; its results raise BrokenProcessPool if a process dies.
  """
  # Python 3.6 lacks the executor's `initializer`. The registered call is made
  # as long as the object exists.
  parent = _Parent()
  multiprocessing.util.register_after_fork(parent, _serve)
  with concurrent.futures.ProcessPoolExecutor(num_workers) as pool:
    try:
      yield pool
    except BaseException:
      for process in multiprocessing.active_children():
        process.terminate()
      raise


class _Parent:
  """The process that starts workers."""

  def __init__(self) -> None:
    self.pid = os.getpid()


def _serve(parent):
  """Makes a worker ignore signals and end when its parent does.

  Ctrl-C reaches all processes, but only the parent reports it.
  """
  for number in signals.SIGNALS:
    signal.signal(number, signal.SIG_IGN)
  # Python 3.6 waits forever for a worker that was killed while it held the
  # lock of the results, so the worker ends by an exception there.
  signal.signal(signal.SIGTERM, signal.SIG_DFL
                if sys.version_info >= (3, 7) else lambda *_: sys.exit(1))
  ctypes.CDLL(None).prctl(_SIGNAL_AT_PARENTS_END, signal.SIGKILL)
  if os.getppid() != parent.pid:  # it has died already
    os._exit(1)


def check_all(
    check: Callable[[_Item], _Result], items: Sequence[_Item], *, title: str,
    unit: str, num_workers: int = 0
) -> Tuple[List[Optional[_Result]], List[Message]]:
  """Checks all items in threads and shows progress.

  Args:
    check: raises InputError or OSError if an item cannot be used.
    items: its arguments.
    title: title of the progress bar, such as 'checking'.
    unit: an item's name there.
    num_workers: number of threads; 0: one for each core.

  Returns:
    (results, problems): each item's result, None if it cannot be used; and the
    messages of the errors, in the items' order.
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
