"""Work in threads: order, room, cancelling, and checks of many items."""
import concurrent.futures
import os
import threading

import pytest

from deeplab import parallel
from deeplab.errors import InputError

pytestmark = [pytest.mark.tf1, pytest.mark.tf2, pytest.mark.modern]


def test_ordered_map_keeps_the_order_and_takes_items_only_when_there_is_room():
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
  assert max(excess) == 7  # six ahead and the one that asks for room


def test_ordered_map_cancels_what_has_not_begun():
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
  assert parallel.worker_count(0) == os.cpu_count()
  assert parallel.worker_count(8, tasks=2) == 2
  assert parallel.worker_count(8, tasks=0) == 1


@pytest.mark.parametrize('workers', [0, 1, 3])
def test_all_items_are_checked_and_problems_come_in_order(workers):
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


def test_a_defect_of_a_check_is_no_problem_of_the_item():
  with pytest.raises(ZeroDivisionError):
    parallel.check_all(lambda item: 1 // item, [1, 0], title='', unit='item')
