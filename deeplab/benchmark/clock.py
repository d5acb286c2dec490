"""How long something takes."""
import time


def seconds_each(function, seconds, items=1):
  """Calls a function until time is up, at least once.

  Args:
    function: of no arguments.
    seconds: float, how long to go on calling it.
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
