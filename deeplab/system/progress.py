"""Progress of long tasks: a bar on a terminal, log lines otherwise.

Log lines clear the bar first, so that both stay intact. Needs no TensorFlow.
"""
import logging
import sys
import time
from typing import Any, Iterable, Iterator, Optional, TypeVar

import tqdm

_LOG = logging.getLogger(__name__)
_Item = TypeVar('_Item')
# Time between two log lines; shorter tasks log none.
_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_A_DAY = 86400


class Bar:
  """A progress bar, and a context that closes it."""

  def __init__(self, total: int, title: str, *, unit: str, done: int = 0,
               logs: bool = True):
    """Shows the bar.

    Args:
      total: number of units.
      title: the task, such as 'checking'.
      unit: such as 'image'.
      done: number of units that were done before.
      logs: False: the task writes its own log lines if there is no terminal.
    """
    self._total, self._title, self._unit = total, title, unit
    self._logs = logs
    self._first = self._done = done
    self._started = self._said = time.time()
    self._bar: Optional[Any] = None
    self._handlers: list = []
    if sys.stderr is not None and sys.stderr.isatty():
      self._bar = tqdm.tqdm(total=total, desc=title, unit=unit, initial=done,
                            dynamic_ncols=True, file=sys.stderr)
      self._handlers = list(logging.getLogger().handlers)
      for handler in self._handlers:
        handler.addFilter(self._clear)

  def __enter__(self) -> 'Bar':
    return self

  def __exit__(self, *unused_exception: object) -> None:
    self.close()

  def update(self, count: int = 1, **notes: str) -> None:
    """Advances the bar.

    Args:
      count: number of units.
      **notes: values to show on the bar, such as loss='0.1234'.
    """
    self._done += count
    if self._bar is not None:
      if notes:
        # Shown when the bar is next redrawn, not at every step of a fast loop.
        self._bar.set_postfix(notes, refresh=False)
      self._bar.update(count)
      return
    now = time.time()
    if self._logs and now - self._said >= _SECONDS_BETWEEN_LINES:
      self._said = now
      pace = (now - self._started) / max(1, self._done - self._first)
      _LOG.info('%s: %d of %s, %s left', self._title, self._done,
                counted(self._total, self._unit),
                duration(pace * (self._total - self._done)))

  def close(self) -> None:
    """Leaves the bar on the terminal and starts a new line below it."""
    for handler in self._handlers:
      handler.removeFilter(self._clear)
    self._handlers = []
    if self._bar is not None:
      self._bar.close()

  def _clear(self, unused_record):
    """Clears the bar, as a log filter; the next update redraws it."""
    if self._bar is not None:
      self._bar.clear()
    return True


def shown(items: Iterable[_Item], title: str, *, unit: str,
          total: Optional[int] = None) -> Iterator[_Item]:
  """Yields items and advances a bar.

  Args:
    items: any iterable.
    title: the task, such as 'checking'.
    unit: such as 'image'.
    total: number of items; None: their len.
  """
  if total is None:
    total = len(items)  # type: ignore[arg-type]
  with Bar(total, title, unit=unit) as bar:
    for item in items:
      yield item
      bar.update()


def counted(count: int, unit: str) -> str:
  """Returns '1 image', '2 images' or '3 queries'."""
  if count != 1:
    unit = unit[:-1] + 'ies' if unit.endswith('y') else unit + 's'
  return '{} {}'.format(count, unit)


def duration(seconds: float) -> str:
  """Returns '01:02:03', or '1.5 days' for a day or more."""
  if seconds >= _SECONDS_A_DAY:
    return '{:.1f} days'.format(seconds / _SECONDS_A_DAY)
  return time.strftime('%H:%M:%S', time.gmtime(seconds))
