"""Memory that is left to this process, against what a work will take."""
import os
import resource
from typing import Any, Dict, Iterator, Optional, Tuple

from deeplab import errors
from deeplab.errors import InputError

_GIB = 2 ** 30
# Of each control group system: folder, limit, use.
_CGROUPS = (('sys/fs/cgroup', 'memory.max', 'memory.current', 'inactive_file'),
            ('sys/fs/cgroup/memory', 'memory.limit_in_bytes',
             'memory.usage_in_bytes', 'total_inactive_file'))


def check(needed_bytes: float, template: str, *parts: Any) -> None:
  """Raises an InputError where a work needs more memory than there is.

  To be asked before the memory is taken: an allocation that fails in TensorFlow
  ends the process, or the machine's kernel does.

  Args:
    needed_bytes: an estimate that is rather too low: what is refused could not
      have been done.
    template: what needs it, for errors.Message.
    *parts: what the template takes.
  """
  available = available_bytes()
  if available is not None and needed_bytes > available:
    raise InputError(
        '{}: needs about {:.1f} GiB of memory, {:.1f} GiB are available',
        errors.Message(template, *parts), needed_bytes / _GIB,
        available / _GIB)


def available_bytes(root: str = '/') -> Optional[int]:
  """Returns how much more this process may take; None where nothing tells.

  The least of what the machine has (without swap), its control group's limit
  and the limits on a process (`ulimit -v`, `ulimit -d`) leave.

  Args:
    root: folder that has proc and sys in it.
  """
  return min((max(0, bytes_) for bytes_ in _bounds(root)), default=None)


def _bounds(root: str) -> Iterator[int]:
  total = _fields(os.path.join(root, 'proc/meminfo')).get('MemAvailable:')
  if total is not None:
    yield total * 1024
  taken = _fields(os.path.join(root, 'proc/self/status'))
  for limit, field in ((resource.RLIMIT_AS, 'VmSize:'),
                       (resource.RLIMIT_DATA, 'VmData:')):
    bound = resource.getrlimit(limit)[0]
    if bound != resource.RLIM_INFINITY:
      yield bound - taken.get(field, 0) * 1024
  for folder, limit_file, use_file, cache in _CGROUPS:
    folder = os.path.join(root, folder)
    most = _number(os.path.join(folder, limit_file))
    use = _number(os.path.join(folder, use_file))
    if most is not None and use is not None:
      # Files that the kernel keeps in memory give way to who needs it.
      kept = _fields(os.path.join(folder, 'memory.stat')).get(cache, 0)
      yield most - use + kept


def _fields(path: str) -> Dict[str, int]:
  """Returns the numbers of a file with a name and a number on each line."""
  return dict(_named_numbers(path))


def _named_numbers(path: str) -> Iterator[Tuple[str, int]]:
  for line in _text(path).splitlines():
    words = line.split()
    if len(words) > 1 and words[1].isdigit():
      yield words[0], int(words[1])


def _number(path: str) -> Optional[int]:
  text = _text(path).strip()
  # 'max': no limit.
  return int(text) if text.isdigit() else None


def _text(path: str) -> str:
  try:
    with open(path, encoding='utf-8', errors='replace') as lines:
      return lines.read()
  except OSError:
    return ''
