"""Work spread over threads or processes, without piling up."""
import collections
import concurrent.futures
import contextlib
import os

import tqdm

from deeplab.errors import InputError
from deeplab.errors import Message


def worker_count(wanted, tasks=None):
  """Returns how many workers to start.

  Args:
    wanted: int; 0 means one for each processor.
    tasks: number of tasks, which more workers would not help; None: unknown.
  """
  count = wanted or os.cpu_count() or 1
  return count if tasks is None else max(1, min(count, tasks))


def ordered_map(executor, function, items, *, ahead):
  """Maps items in an executor and yields the results in the items' order.

  Unlike executor.map it takes an item only when there is room for it, so that
  memory does not grow with their number. What has not begun is cancelled
  where the caller stops early.

  Args:
    executor: concurrent.futures.Executor.
    function: function of one item.
    items: iterable.
    ahead: largest number of items that wait, are worked on, or are done and
      not yet yielded.
  """
  waiting = collections.deque()
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
def mapped_in_threads(function, items, num_workers=0):
  """Context that gives a function's results in the items' order.

  Args:
    function: function of one item, which leaves Python's lock to others most
      of the time: Pillow decodes and compresses without it, so threads do as
      well as processes, and need no copies of the images.
    items: iterable.
    num_workers: number of threads; 0: one for each processor.

  Yields:
    An iterator; see ordered_map.
  """
  workers = worker_count(num_workers)
  with concurrent.futures.ThreadPoolExecutor(workers) as pool, (
      contextlib.closing(ordered_map(
          pool, function, items, ahead=2 * workers))) as results:
    yield results


def check_all(check, items, *, title, unit, num_workers=0):
  """Checks items in threads, all of them, and shows progress.

  Args:
    check: function of one item that raises InputError or OSError where the
      item cannot be used.
    items: sequence.
    title: what to call the progress, such as 'checking'.
    unit: what to call an item there.
    num_workers: number of threads; 0: one for each processor.

  Returns:
    (results, problems): what check returned for each item, None for those that
    cannot be used; and a list of errors.Messages about these, in order.
  """
  def check_one(item):
    try:
      return check(item), None
    except InputError as error:
      return None, error
    except OSError as error:
      return None, Message(str(error))

  with mapped_in_threads(check_one, items, num_workers) as checked:
    outcomes = list(tqdm.tqdm(
        checked, title, len(items), unit=unit, disable=None))
  return ([result for result, _ in outcomes],
          [problem for _, problem in outcomes if problem is not None])
