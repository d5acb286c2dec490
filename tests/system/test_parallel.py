"""Tests work in threads and processes: order, cancelling, errors."""
import concurrent.futures
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from deeplab.errors import InputError
from deeplab.system import parallel
from tests import scripts

pytestmark = [pytest.mark.tf1, pytest.mark.modern]


def test_ordered_map_keeps_the_order_and_limits_items_ahead():
  taken, yielded, excess = [], [], []

  def items():
    for item in range(50):
      taken.append(item)
      excess.append(len(taken) - len(yielded))
      yield item

  slow_first = threading.Event()

  def work(item):
    if item == 0:
      slow_first.wait(5)
    elif item == 3:
      slow_first.set()
    return item * item

  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    for result in parallel.ordered_map(pool, work, items(), ahead=6):
      yielded.append(result)
  assert yielded == [item * item for item in range(50)]
  assert max(excess) == 7  # six ahead, and one that waits


def test_ordered_map_cancels_pending_items():
  gate = threading.Event()
  done = []

  def work(item):
    if item == 1:
      gate.wait(5)
    done.append(item)
    if item == 0:
      raise InputError('bad item')

  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    with pytest.raises(InputError):
      list(parallel.ordered_map(pool, work, range(20), ahead=5))
    gate.set()
  assert done in ([0], [0, 1])


def test_worker_count():
  assert parallel.worker_count(3) == 3
  assert parallel.worker_count(0) == len(os.sched_getaffinity(0))
  assert parallel.worker_count(8, tasks=2) == 2
  assert parallel.worker_count(8, tasks=0) == 1


@pytest.mark.parametrize('workers', [0, 1, 3])
def test_all_items_are_checked_and_problems_are_ordered(workers):
  def check(item):
    if item % 3 == 1:
      raise InputError('{} is bad'.format(item))
    if item == 6:
      raise OSError(5, 'Input/output error', '/6.png')
    return item * item

  results, problems = parallel.check_all(
      check, range(9), title='checking', unit='item', num_workers=workers)
  assert results == [0, None, 4, 9, None, 25, None, None, 64]
  assert list(map(str, problems)) == [
      '1 is bad', '4 is bad', '/6.png: Input/output error', '7 is bad']


def test_a_defect_of_a_check_is_not_reported_as_a_bad_item():
  with pytest.raises(ZeroDivisionError):
    parallel.check_all(lambda item: 1 // item, [1, 0], title='', unit='item')


# --- Processes -------------------------------------------------------------

SCRIPT = """
import os, signal, sys, time
sys.path.insert(0, sys.argv.pop())
from deeplab.cli import runner
from deeplab.system import parallel

def work(unused_item):
  print(os.getpid(), flush=True)
  time.sleep(60)

def main():
  with parallel.processes(3) as pool:  # of which one has no work
    for future in [pool.submit(work, item) for item in range(2)]:
      future.result()

if __name__ == '__main__':
  runner.run(main)
"""


def start_workers(tmp_path):
  """Returns a running script and the process ids of its two workers."""
  (tmp_path / 'script.py').write_text(SCRIPT)
  process = subprocess.Popen(
      [sys.executable, str(tmp_path / 'script.py'), scripts.REPOSITORY],
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
      start_new_session=True)
  return process, [int(process.stdout.readline()) for _ in range(2)]


def runs(worker):
  try:
    with open('/proc/{}/stat'.format(worker)) as state:
      return state.read().rsplit(')', 1)[1].split()[0] != 'Z'
  except FileNotFoundError:
    return False


def wait_for_end(workers):
  deadline = time.time() + 30
  while any(map(runs, workers)):
    assert time.time() < deadline, 'stray processes'
    time.sleep(0.05)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_workers_without_further_output(tmp_path, number):
  process, workers = start_workers(tmp_path)
  if number == signal.SIGTERM:
    process.send_signal(number)  # other signals reach all processes
  else:
    os.killpg(process.pid, number)
  _, problems = scripts.output_of(process)
  assert problems.startswith('ERROR script.py: stopped by ' + number.name)
  assert problems.count('\n') == 1
  assert process.returncode == 128 + number
  wait_for_end(workers)


def test_workers_end_if_the_main_process_is_killed(tmp_path):
  process, workers = start_workers(tmp_path)
  process.kill()
  wait_for_end(workers)
  assert scripts.output_of(process)[1] == ''


def test_a_worker_ends_if_the_main_process_died_before_it():
  worker = os.fork()
  if not worker:
    parent = parallel._Parent()
    parent.pid = 1 + os.getpid()
    parallel._serve(parent)
    os._exit(0)
  assert os.WEXITSTATUS(os.waitpid(worker, 0)[1]) == 1


def test_a_worker_that_is_killed_ends_the_others(tmp_path):
  process, workers = start_workers(tmp_path)
  os.kill(workers[1], signal.SIGKILL)  # as the kernel does when out of memory
  _, problems = scripts.output_of(process)
  assert process.returncode == 1
  assert 'BrokenProcessPool' in problems
  wait_for_end(workers)
