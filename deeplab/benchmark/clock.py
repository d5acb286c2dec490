"""How long something takes."""
import time
from typing import Callable


def seconds_each(function: Callable[[], object], seconds: float,
                 items: float = 1,
                 before: Callable[[], object] = lambda: None) -> float:
  """Calls a function until time is up, at least once.

  Args:
    function: of no arguments.
    seconds: how long to go on calling it.
    items: number of things that one call does.
    before: called before each call; its time does not count.

  Returns:
    Seconds for each item, by the wall clock.
  """
  calls = 0
  passed = 0.0
  while not calls or passed < seconds:
    before()
    started = time.perf_counter()
    function()
    passed += time.perf_counter() - started
    calls += 1
  return passed / (calls * items)
