"""Which interpreter and packages a script got, checked before TensorFlow loads.

Only the standard library is imported here, and by deeplab.errors, so that a
script can say what is missing in one line instead of failing inside an import.
"""
import contextlib
import os
import resource
import sys
from typing import NamedTuple, NoReturn, Optional, Sequence, Tuple

from deeplab import errors

# The folder of the scripts.
REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.realpath(__file__))))
# The environments that scripts/setup.sh makes: name -> the TensorFlow series.
ENVIRONMENTS = {'tf1': '1.15', 'tf2': '2.2', 'modern': '2.21'}


class Cuda(NamedTuple):
  """What the wheel of a TensorFlow needs of a GPU and of its driver."""
  # Of the libraries it is built for.
  version: str
  # NVIDIA's oldest driver that those work with, on Linux.
  driver: Tuple[int, ...]
  # Compute capabilities it has kernels for: the first one, and the last one, or
  # None where newer ones are served too.
  first: Tuple[int, int]
  last: Optional[Tuple[int, int]]


# By environment. None: the pinned wheel is built for the processor alone.
CUDA = {'tf1': None,
        'tf2': Cuda('10.1', (418, 39), (3, 5), (7, 5)),
        'modern': Cuda('12.5', (525, 60, 13), (6, 0), None)}
# Among a script's environments, this one stands for whatever has a TFLite
# interpreter: every TensorFlow, or one of these packages.
TFLITE = 'tflite'
TFLITE_PACKAGES = ('ai-edge-litert', 'tflite-runtime')
# Address space in GiB that a TensorFlow takes on two processors before it does
# anything: with less it is ended in the middle, with a dump.
_ADDRESS_SPACE = {'1.15': 1.6, '2.2': 2.3, '2.21': 2.7}
# TensorFlow's own switch for pool_memory.
MEMORY_POOL = 'TF_CPU_ALLOCATOR_USE_BFC'


def refuse(message: str, status: int = 2) -> NoReturn:
  """Prints one line on standard error and leaves with an exit status."""
  _print_error(message)
  sys.exit(status)


def end_process(message: str, status: int = 2) -> NoReturn:
  """The same from any thread, whatever the others are in the middle of.

  For what cannot be waited for: nothing is tidied up.
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


def problem_with(environments: Sequence[str]) -> Optional[str]:
  """Says what keeps this interpreter from serving, or returns None.

  Args:
    environments: names from ENVIRONMENTS, the script's first choice first,
      and TFLITE; empty where the script needs no TensorFlow.
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
  """Says that a TensorFlow cannot start here, or returns None."""
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
  """Returns the bytes that `ulimit -v` leaves a process; None: all."""
  limit = resource.getrlimit(resource.RLIMIT_AS)[0]
  return None if limit == resource.RLIM_INFINITY else limit


def pool_memory() -> None:
  """Has TensorFlow keep the memory that it frees, for the next step.

  TensorFlow 1.15 gives it back to the system, and gets it again page by page:
  a third of a training step. Call before TensorFlow is imported.
  """
  os.environ.setdefault(MEMORY_POOL, 'true')
