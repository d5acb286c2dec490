"""Which interpreter and packages a script got, checked before TensorFlow loads.

Only the standard library is imported here, so that a script can say what is
missing in one line instead of failing inside an import.
"""
import contextlib
import ctypes
import importlib.util
import logging
import os
import re
import sys
import tempfile
import warnings

# The environments that scripts/setup.sh makes: name -> the TensorFlow series.
ENVIRONMENTS = {'tf1': '1.15', 'tf2': '2.2', 'modern': '2.21'}
# Among a script's environments, this one stands for whatever has a TFLite
# interpreter: every TensorFlow, or one of these packages.
TFLITE = 'tflite'
TFLITE_PACKAGES = ('ai-edge-litert', 'tflite-runtime')
# How a line begins that native code writes without being asked: of the TFLite
# interpreters, of TensorFlow's log at levels below error, and above that log.
_NOTICE = re.compile(
    br'INFO: |[IW]\d{4} \d|WARNING: All log messages before absl')
_STDERR = 2  # file descriptor
# TensorFlow's own switch for pool_memory.
MEMORY_POOL = 'TF_CPU_ALLOCATOR_USE_BFC'


def refuse(message):
  """Prints one line on standard error and leaves with exit status 2."""
  script = os.path.basename(sys.argv[0]) or 'python'
  line = ' '.join(message.split())
  # What follows names the nodes of a graph, at length.
  line = line.split(' [[')[0].split(' Original stack trace')[0]
  sys.stderr.write('ERROR {}: {}\n'.format(script, line))
  sys.stderr.flush()
  sys.exit(2)


def installed_version(package):
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


def tensorflow_version():
  """Returns the installed TensorFlow's version, or None."""
  for package in ('tensorflow', 'tensorflow-cpu', 'tensorflow-gpu',
                  'nvidia-tensorflow'):
    version = installed_version(package)
    if version:
      return version
  return None


def problem_with(environments):
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
    return None
  if version is None:
    return 'needs TensorFlow {} (none found for {}); {}'.format(
        wanted, sys.executable, remedy)
  series = '.'.join(version.split('.')[:2])
  if series not in [ENVIRONMENTS[name] for name in environments]:
    return 'needs TensorFlow {} (found {} for {}); {}'.format(
        wanted, version, sys.executable, remedy)
  return None


def pool_memory():
  """Has TensorFlow keep the memory that it frees, for the next step.

  TensorFlow 1.15 gives it back to the system, and gets it again page by page:
  a third of a training step. Call before TensorFlow is imported.
  """
  os.environ.setdefault(MEMORY_POOL, 'true')


def quieten_tensorflow(verbose=False):
  """Silences deprecation notices and device chatter of TensorFlow.

  Call before TensorFlow is imported; errors stay visible.

  Args:
    verbose: True leaves everything as TensorFlow has it.
  """
  if verbose:
    return
  # Newer versions call it an error that there is no GPU.
  os.environ.setdefault(
      'TF_CPP_MIN_LOG_LEVEL', '2' if _has_cuda_driver() else '3')
  warnings.filterwarnings('ignore', category=FutureWarning)
  warnings.filterwarnings('ignore', category=DeprecationWarning)
  # The supervisor of a finished training run stops its threads one by one.
  warnings.filterwarnings('ignore', message='Attempting to use a closed File')
  logging.getLogger('tensorflow').setLevel(logging.ERROR)
  sys.meta_path.insert(0, _QuietFinder('tensorflow'))


def _has_cuda_driver():
  try:
    ctypes.CDLL('libcuda.so.1')
  except OSError:
    return False
  return True


class _QuietFinder:
  """Finds one package as Python does, and has it loaded without notices.

  TensorFlow 2.21 writes some before it looks at any log level.
  """

  def __init__(self, package):
    self._package = package

  def find_spec(self, name, path=None, target=None):
    """Returns the package's spec the first time, None for anything else."""
    if name != self._package:
      return None
    sys.meta_path.remove(self)
    spec = importlib.util.find_spec(name)
    if spec is None:
      return None
    load = spec.loader.exec_module

    def load_quietly(module):
      with without_notices():
        load(module)

    spec.loader.exec_module = load_quietly
    return spec


@contextlib.contextmanager
def without_notices():
  """Keeps native code's notices off standard error; the rest comes at the end.

  Native libraries write to the file descriptor, past sys.stderr.
  """
  sys.stderr.flush()
  kept = os.dup(_STDERR)
  with tempfile.TemporaryFile() as written:
    os.dup2(written.fileno(), _STDERR)
    try:
      yield
    finally:
      os.dup2(kept, _STDERR)
      os.close(kept)
      written.seek(0)
      os.write(_STDERR, b''.join(
          line for line in written if not _NOTICE.match(line)))
