"""Describes this machine: processor, memory, GPUs. Needs no package."""
import datetime
import os
import platform
import subprocess
import tempfile
from typing import Dict, List, NamedTuple, Optional, Tuple

from deeplab.system import environment

# Flags in /proc/cpuinfo by which TensorFlow chooses its kernels.
VECTOR_EXTENSIONS = (
    'sse4_2', 'avx', 'fma', 'avx2', 'avx512f', 'avx512_vnni', 'avx512_bf16',
    'amx_tile')
_GPU_QUERY = ('name', 'driver_version', 'memory.total', 'compute_cap')
_GPU_SECONDS = 20


class Gpu(NamedTuple):
  """A GPU, as nvidia-smi describes it."""
  name: str
  # Version of NVIDIA's driver, such as '535.104.05'.
  driver: str
  # Total memory, such as '81559 MiB'.
  memory: str
  # Compute capability, such as '9.0'; '': the driver does not report it.
  capability: str


def processor() -> str:
  """Returns the processor's name."""
  return _of_first_processor('model name') or (
      platform.processor() or platform.machine())


def vector_extensions() -> List[str]:
  """Returns the processor's VECTOR_EXTENSIONS; []: unknown."""
  return [flag for flag in _of_first_processor('flags').split()
          if flag in VECTOR_EXTENSIONS]


def usable_cores() -> int:
  """Returns the number of cores that this process may use."""
  return len(os.sched_getaffinity(0))


def memory_bytes() -> int:
  """Returns the size of the machine's memory in bytes."""
  return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')


def _of_first_processor(wanted):
  """Returns a field of /proc/cpuinfo, or '' if it has none."""
  try:
    with open('/proc/cpuinfo') as lines:
      for line in lines:
        name, unused_separator, value = line.partition(':')
        if name.strip() == wanted:
          return value.strip()
  except OSError:
    pass
  return ''


def gpus() -> Tuple[List[Gpu], Optional[str]]:
  """Asks nvidia-smi and returns (GPUs, reason if there are none or None)."""
  failure = ''
  # Older drivers do not know the last field.
  for names in (_GPU_QUERY, _GPU_QUERY[:-1]):
    try:
      status, text = _output_of(
          ['nvidia-smi', '--query-gpu=' + ','.join(names),
           '--format=csv,noheader'])
    except FileNotFoundError:
      return [], 'nvidia-smi is not there'
    except (OSError, subprocess.TimeoutExpired) as error:
      return [], 'nvidia-smi: {}'.format(error)
    rows = [[value.strip() for value in line.split(',')]
            for line in text.splitlines()]
    if status == 0 and rows and (
        all(len(row) == len(names) for row in rows)):
      return [Gpu(*(row + [''])[:len(_GPU_QUERY)]) for row in rows], None
    failure = text.strip().split('\n')[0]
  return [], 'nvidia-smi: {}'.format(failure or 'names no GPU')


def _output_of(command):
  """Returns (exit status, output) of a command; raises TimeoutExpired.

  A command that hangs in a driver cannot be killed, and its children keep a
  pipe open. So the output goes to a file, and nothing waits for its end.
  """
  with tempfile.TemporaryFile() as output:
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=output,
        stderr=subprocess.STDOUT)
    try:
      status = process.wait(_GPU_SECONDS)
    except subprocess.TimeoutExpired:
      process.kill()
      raise
    output.seek(0)
    return status, output.read().decode('utf-8', 'replace')


def describe() -> Dict[str, str]:
  """Describes the machine and the suite's commit, for a report."""
  found, _ = gpus()
  return {
      'processor': processor(),
      'vector extensions': ', '.join(vector_extensions()) or 'unknown',
      'cores': str(os.cpu_count()),
      'memory': '{:.0f} GiB'.format(memory_bytes() / 2 ** 30),
      'GPU': ', '.join(gpu.name for gpu in found) or 'none',
      'system': platform.platform(),
      'date': datetime.date.today().isoformat(),
      'commit': _commit(),
  }


def _commit():
  """Returns the suite's commit, and whether the working tree differs."""
  try:
    commit, changes = (
        subprocess.check_output(
            ['git', '-C', environment.REPOSITORY] + arguments,
            universal_newlines=True, stderr=subprocess.DEVNULL).strip()
        for arguments in (['rev-parse', '--short', 'HEAD'],
                          ['status', '--porcelain', '-uno']))
  except (OSError, subprocess.CalledProcessError):
    return 'unknown'
  return commit + (' with changes' if changes else '')
