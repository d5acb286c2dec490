"""Tests of deeplab.system.memory."""
import os
import resource

import pytest

from deeplab import errors
from deeplab.errors import InputError
from deeplab.system import memory

_GIB = 2 ** 30


def _machine(root, files):
  for name, text in files.items():
    path = os.path.join(str(root), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'w') as out:
      out.write(text)
  return str(root)


@pytest.mark.parametrize('files, expected', [
    ({'proc/meminfo': 'MemTotal: 9000 kB\nMemAvailable:  4000 kB\n'},
     4000 * 1024),
    ({'proc/meminfo': 'MemAvailable:  4000 kB\n',
      'sys/fs/cgroup/memory.max': '3000\n',
      'sys/fs/cgroup/memory.current': '2500\n',
      'sys/fs/cgroup/memory.stat': 'anon 7\ninactive_file 400\n'}, 900),
    ({'proc/meminfo': 'MemAvailable:  4000 kB\n',
      'sys/fs/cgroup/memory.max': 'max\n',
      'sys/fs/cgroup/memory.current': '2500\n'}, 4000 * 1024),
    ({'proc/self/cgroup': '0::/jobs/7/step\n',
      'sys/fs/cgroup/jobs/7/memory.max': '3000\n',
      'sys/fs/cgroup/jobs/7/memory.current': '2000\n',
      'sys/fs/cgroup/jobs/7/step/memory.max': 'max\n'}, 1000),
    ({'sys/fs/cgroup/memory/memory.limit_in_bytes': '3000\n',
      'sys/fs/cgroup/memory/memory.usage_in_bytes': '3500\n',
      'sys/fs/cgroup/memory/memory.stat': 'total_inactive_file 100\n'}, 0),
])
def test_the_smaller_of_machine_and_cgroup_is_available(
    tmp_path, monkeypatch, files, expected):
  monkeypatch.setattr(resource, 'getrlimit',
                      lambda unused: (resource.RLIM_INFINITY,) * 2)
  assert memory.available_bytes(_machine(tmp_path, files)) == expected


def test_a_limit_on_the_process_includes_what_it_uses(
    tmp_path, monkeypatch):
  monkeypatch.setattr(resource, 'getrlimit', lambda name: (10 * 1024, 0))
  root = _machine(tmp_path, {'proc/meminfo': 'MemAvailable:  4000 kB\n',
                             'proc/self/status': 'VmSize:\t 4 kB\n'})
  assert memory.available_bytes(root) == 6 * 1024


def test_unknown_memory_refuses_nothing(tmp_path, monkeypatch):
  monkeypatch.setattr(resource, 'getrlimit',
                      lambda unused: (resource.RLIM_INFINITY,) * 2)
  assert memory.available_bytes(str(tmp_path)) is None
  monkeypatch.setattr(memory, 'available_bytes', lambda: None)
  memory.check(1e30, 'all of it')


def test_work_that_needs_too_much_memory_is_refused_by_name(monkeypatch):
  monkeypatch.setattr(memory, 'available_bytes', lambda: 2 * _GIB)
  memory.check(2 * _GIB, '{}', errors.option('crop_size', (65, 65)))
  with pytest.raises(InputError) as refused:
    memory.check(2.5 * _GIB, '{}', errors.option('crop_size', (65, 65)))
  assert str(refused.value) == (
      'crop_size=65,65: needs about 2.5 GiB of memory, 2.0 GiB are available')


def test_available_memory_is_known_on_this_machine():
  assert 0 < memory.available_bytes() < 2 ** 60
