"""Checks interpreter and packages before TensorFlow is imported.

This module and deeplab.errors import only the standard library, so that a
script can report a missing package in one line instead of a traceback.
"""
import contextlib
import os
import platform
import resource
import sys
from typing import NamedTuple, NoReturn, Optional, Sequence, Tuple

from deeplab import errors

# The folder of the scripts.
REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.realpath(__file__))))
# The environments that scripts/setup.sh makes, and their TensorFlow series.
ENVIRONMENTS = {'tf1': '1.15', 'tf2': '2.2', 'modern': '2.21'}


class Cuda(NamedTuple):
  """Requirements of a TensorFlow wheel on the GPU and its driver."""
  # Version of the CUDA libraries that the wheel is built for.
  version: str
  # NVIDIA's oldest driver for these libraries on Linux.
  driver: Tuple[int, ...]
  # Oldest and newest compute capability that the wheel has kernels for; None:
  # no upper limit.
  first: Tuple[int, int]
  last: Optional[Tuple[int, int]]


# Keys are environments. None: the pinned wheel is built for CPUs only.
CUDA = {'tf1': None,
        'tf2': Cuda('10.1', (418, 39), (3, 5), (7, 5)),
        'modern': Cuda('12.5', (525, 60, 13), (6, 0), None)}
# In a script's list of environments, this stands for anything with a TFLite
# interpreter: every TensorFlow, or one of these packages.
TFLITE = 'tflite'
TFLITE_PACKAGES = ('ai-edge-litert', 'tflite-runtime')
# Address space in GiB that TensorFlow takes on two cores at start. With less,
# it aborts with a core dump.
_ADDRESS_SPACE = {'1.15': 1.6, '2.2': 2.3, '2.21': 2.7}
# Environment variables of TensorFlow; see prepare_tensorflow.
MEMORY_POOL = 'TF_CPU_ALLOCATOR_USE_BFC'
OLD_KERAS = 'TF_USE_LEGACY_KERAS'


def refuse(message: str, status: int = 2) -> NoReturn:
  """Prints one line on standard error and leaves with an exit status."""
  _print_error(message)
  sys.exit(status)


def end_process(message: str, status: int = 2) -> NoReturn:
  """Prints one line and ends the process at once, from any thread.

  No temporary files are removed and no `finally` runs.
  """
  _print_error(message)
  with contextlib.suppress(OSError, ValueError):
    sys.stdout.flush()
  os._exit(status)


def _print_error(message):
  script = os.path.basename(sys.argv[0]) or 'python'
  line = errors.printable('ERROR {}: {}'.format(script, message.strip()))
  sys.stderr.write(line + '\n')
  sys.stderr.flush()


def installed_version(package: str) -> Optional[str]:
  """Returns a distribution's version, or None; does not import it."""
  try:
    from importlib import metadata  # Python 3.8 and later
    try:
      return metadata.version(package)
    except metadata.PackageNotFoundError:
      return None
  except ImportError:
    import pkg_resources
    try:
      return pkg_resources.get_distribution(package).version
    except pkg_resources.DistributionNotFound:
      return None


def tensorflow_version() -> Optional[str]:
  """Returns the installed TensorFlow's version, or None."""
  for package in ('tensorflow', 'tensorflow-cpu', 'tensorflow-gpu',
                  'nvidia-tensorflow'):
    version = installed_version(package)
    if version:
      return version
  return None


def versions() -> str:
  """Returns the versions of Python and of the main packages, as text."""
  found = [('Python', platform.python_version()),
           ('TensorFlow', tensorflow_version())]
  found += [(package, installed_version(package))
            for package in ('numpy', 'tf-slim', TFLITE_PACKAGES[0])]
  return ', '.join('{} {}'.format(*each) for each in found if each[1])


def python_of(name: str) -> str:
  """Returns the path of the Python of one of ENVIRONMENTS."""
  return os.path.join(REPOSITORY, '.venvs', name, 'bin', 'python')


def problem_with(environments: Sequence[str]) -> Optional[str]:
  """Returns why this interpreter cannot run a script, or None.

  Args:
    environments: names from ENVIRONMENTS, the script's first choice first,
      and TFLITE; empty if the script needs no TensorFlow.
  """
  if not environments:
    return None
  wanted = ' or '.join(
      ENVIRONMENTS.get(name, 'any other TFLite interpreter')
      for name in environments)
  remedy = 'run ./scripts/setup.sh {0}, then use .venvs/{0}/bin/python'.format(
      environments[0])
  if 'modern' in environments[1:]:
    remedy += '; or modern instead of ' + environments[0]
  version = tensorflow_version()
  if TFLITE in environments and (
      version or any(map(installed_version, TFLITE_PACKAGES))):
    return _too_little_address_space(version)
  if version is None:
    return 'needs TensorFlow {} (none found for {}); {}'.format(
        wanted, sys.executable, remedy)
  if _series(version) not in [ENVIRONMENTS[name] for name in environments]:
    return 'needs TensorFlow {} (found {} for {}); {}'.format(
        wanted, version, sys.executable, remedy)
  return _too_little_address_space(version)


def _too_little_address_space(version):
  """Returns why a TensorFlow cannot start here, or None."""
  limit = address_space_limit()
  needed = _ADDRESS_SPACE.get(_series(version), 0)
  if limit is None or limit >= needed * 2 ** 30:
    return None
  return ('TensorFlow {} needs {} GiB of address space, and more for the '
          'network; ulimit -v leaves {:.1f} GiB'.format(
              version, needed, limit / 2 ** 30))


def _series(version):
  return '.'.join((version or '').split('.')[:2])


def address_space_limit() -> Optional[int]:
  """Returns the bytes that `ulimit -v` allows a process; None: no limit."""
  limit = resource.getrlimit(resource.RLIMIT_AS)[0]
  return None if limit == resource.RLIM_INFINITY else limit


def prepare_tensorflow() -> None:
  """Makes TensorFlow start and train faster; call before it is imported.

  TensorFlow 1.15 returns freed memory to the system and faults it in again page
  by page, which takes a third of a training step; a pool keeps it.
  TensorFlow 2.21 imports Keras 3, and with it matplotlib, which takes a third
  of its start. The suite uses no Keras: the old one is not installed.
  """
  os.environ.setdefault(MEMORY_POOL, 'true')
  os.environ.setdefault(OLD_KERAS, 'true')
