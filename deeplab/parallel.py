"""Work spread over threads or processes, without piling up."""
import collections
import os


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
