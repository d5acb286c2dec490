"""Tests progress on a terminal and in a log file."""
import io
import logging
import re
import types

import pytest

from deeplab.system import progress

_LOG = logging.getLogger('deeplab.somewhere')


class Terminal(io.StringIO):

  def isatty(self):
    return True

  def shown(self):
    """Returns the lines that the terminal shows at the end."""
    return [line.rstrip('\r').split('\r')[-1].rstrip()
            for line in self.getvalue().split('\n')]


@pytest.fixture
def clock(monkeypatch):
  """A list that holds the time; tests set it."""
  now = [1000.0]
  monkeypatch.setattr(progress.time, 'time', lambda: now[0])
  return now


def standard_error(monkeypatch, stream):
  """Replaces progress's standard error; pytest itself changes sys.stderr."""
  monkeypatch.setattr(progress, 'sys', types.SimpleNamespace(stderr=stream))
  return stream


@pytest.fixture
def terminal(monkeypatch):
  return standard_error(monkeypatch, Terminal())


# --- In a file -------------------------------------------------------------


@pytest.fixture
def stderr(monkeypatch):
  """Standard error that is not a terminal."""
  return standard_error(monkeypatch, io.StringIO())


def test_a_log_gets_a_line_at_intervals(clock, stderr, caplog):
  caplog.set_level('INFO')
  for item in progress.shown(iter(range(100)), 'checking', unit='pair',
                             total=100):
    clock[0] += 4
    del item
  lines = [record.getMessage() for record in caplog.records]
  assert lines[:2] == ['checking: 3 of 100 pairs, 00:06:28 left',
                       'checking: 6 of 100 pairs, 00:06:16 left']
  assert len(lines) == 33
  assert stderr.getvalue() == ''


def test_short_work_and_work_with_its_own_log_get_no_lines(
    clock, stderr, caplog):
  caplog.set_level('INFO')
  for _ in progress.shown([1, 2, 3], 'checking', unit='pair'):
    clock[0] += 3
  with progress.Bar(9, 'training', unit='step', logs=False) as bar:
    clock[0] += 1000
    bar.update(loss='1')
  assert caplog.records == [] and stderr.getvalue() == ''


def test_time_left_is_based_on_this_run(clock, stderr, caplog):
  del stderr
  caplog.set_level('INFO')
  with progress.Bar(1000, 'writing', unit='query', done=900) as bar:
    clock[0] += 100
    bar.update(50)
  assert caplog.messages == ['writing: 950 of 1000 queries, 00:01:40 left']


def test_counts():
  assert [progress.counted(count, unit) for count, unit in (
      (1, 'image'), (0, 'image'), (2, 'query'))] == [
          '1 image', '0 images', '2 queries']


def test_durations():
  assert progress.duration(0.4) == '00:00:00'
  assert progress.duration(86399) == '23:59:59'
  assert progress.duration(86400) == '1.0 days'


# --- On a terminal ---------------------------------------------------------


def test_a_bar_shows_progress_and_values(terminal):
  with progress.Bar(4, 'training', unit='step', done=2) as bar:
    bar.update()
    bar.update(loss='0.5000')
  last, end = terminal.shown()
  assert re.match(r'training: 100%\|.*\| 4/4 \[.*loss=0\.5000\]$', last)
  assert end == ''


def test_log_lines_do_not_break_a_bar(terminal, clock, caplog):
  caplog.set_level('INFO')
  handler = logging.StreamHandler(terminal)
  root = logging.getLogger()
  root.addHandler(handler)
  try:
    with progress.Bar(4, 'writing', unit='pair') as bar:
      bar.update()
      clock[0] += 1000
      _LOG.info('a line')
      bar.update(3)
    _LOG.info('the next')
  finally:
    root.removeHandler(handler)
  first, bar, last, end = terminal.shown()
  # The log lines are complete, and the bar appears once.
  assert (first, last, end) == ('a line', 'the next', '')
  assert '4/4' in bar
  assert not handler.filters
