"""Compares the memory available to this process with an estimate of its use."""
import os
import resource
from typing import Any, Dict, Iterator, Optional

from deeplab import errors
from deeplab.errors import InputError

_GIB = 2 ** 30
# For both versions of control groups: folder, file with the limit, file with
# the usage, and the field of memory.stat with the reclaimable page cache.
_CGROUPS = (('sys/fs/cgroup', 'memory.max', 'memory.current', 'inactive_file'),
            ('sys/fs/cgroup/memory', 'memory.limit_in_bytes',
             'memory.usage_in_bytes', 'total_inactive_file'))


def check(needed_bytes: float, template: str, *values: Any) -> None:
  """Raises an InputError if a task needs more memory than is available.

  Otherwise a failed allocation in TensorFlow, or the kernel, ends the process.

  Args:
    needed_bytes: a lower bound.
    template: names the task, for errors.Message.
    *values: values for the template.
  """
  available = available_bytes()
  if available is not None and needed_bytes > available:
    raise InputError(
        '{}: needs about {:.1f} GiB of memory, {:.1f} GiB are available',
        errors.Message(template, *values), needed_bytes / _GIB,
        available / _GIB)


def available_bytes(root: str = '/') -> Optional[int]:
  """Returns the bytes that this process can still allocate; None: unknown.

  It is the minimum of the machine's available memory (without swap) and of the
  limits of control groups and `ulimit -v`.

  Args:
    root: folder with proc and sys.
  """
  return min((max(0, bytes_) for bytes_ in _bounds(root)), default=None)


def _bounds(root: str) -> Iterator[int]:
  total = _fields(root, 'proc/meminfo').get('MemAvailable:')
  if total is not None:
    yield 1024 * total
  limit = resource.getrlimit(resource.RLIMIT_AS)[0]
  if limit != resource.RLIM_INFINITY:
    yield limit - 1024 * _fields(root, 'proc/self/status').get('VmSize:', 0)
  # Lines are 'NUMBER:CONTROLLERS:/PATH'. Limits of parent groups apply, too. In
  # a container the path may not exist, but the root's files are its own.
  groups = {line.split(':', 2)[-1].strip('/')
            for line in _text(root, 'proc/self/cgroup').splitlines()}
  for group in groups | {''}:
    while True:
      for folder, limit_file, use_file, kept in _CGROUPS:
        folder = os.path.join(folder, group)
        most, use = (_text(root, folder, name).strip()
                     for name in (limit_file, use_file))
        if most.isdigit() and use.isdigit():  # not 'max'
          yield int(most) - int(use) + _fields(
              root, folder, 'memory.stat').get(kept, 0)
      if not group:
        break
      group = os.path.dirname(group)


def _fields(*path: str) -> Dict[str, int]:
  """Returns the numbers of a file whose lines have a name and a number."""
  lines = [line.split() for line in _text(*path).splitlines()]
  return {words[0]: int(words[1]) for words in lines
          if len(words) > 1 and words[1].isdigit()}


def _text(*path: str) -> str:
  try:
    with open(os.path.join(*path), encoding='utf-8', errors='replace') as lines:
      return lines.read()
  except OSError:
    return ''
