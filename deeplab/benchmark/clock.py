"""How long something takes."""
import time
from typing import Callable


def seconds_each(function: Callable[[], object], seconds: float,
                 items: float = 1) -> float:
  """Calls a function until time is up, at least once.

  Args:
    function: of no arguments.
    seconds: how long to go on calling it.
    items: number of things that one call does.

  Returns:
    Seconds for each item, by the wall clock.
  """
  calls = 0
  started = time.perf_counter()
  while True:
    function()
    calls += 1
    passed = time.perf_counter() - started
    if passed >= seconds:
      return passed / (calls * items)
