"""The process that does one piece of work, and says how long it took.

It is asked by lines on standard input and answers each with a line of JSON:

    {"work": "network.forward", ...}   prepared: versions, details
    measure                            {"seconds": for each item}
    peak                               {"peak_bytes": of memory, so far}
"""
import functools
import importlib
import json
import os
import platform
import resource
import sys

from deeplab import environment
from deeplab import quiet

_PACKAGES = ('numpy', 'tf-slim', 'ai-edge-litert')


def _prepare(job):
  """Does everything that is not to be measured.

  Args:
    job: dict with 'work', 'settings', 'sizes', 'folder'. If its setting
      'pooled' is False, TensorFlow allocates memory in its own way; 'cores' is
      how many processors this process may use.

  Returns:
    (function that measures, or None; what there is to know about it).
  """
  from deeplab.benchmark import cases

  settings = dict(job['settings'])
  if settings.pop('pooled', True):
    environment.pool_memory()
  else:  # the driver, which started this process, has it on
    os.environ[environment.MEMORY_POOL] = 'false'
  cores = settings.pop('cores', None)
  if cores:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
  module, name = job['work'].split('.')
  function = getattr(
      importlib.import_module('deeplab.benchmark.' + module), name)
  return function(cases.Sizes(**job['sizes']), functools.partial(
      os.path.join, job['folder']), **settings) or (None, '')


def _versions():
  """Returns a dict from package to version."""
  versions = {'Python': platform.python_version(),
              'TensorFlow': environment.tensorflow_version()}
  for package in _PACKAGES:
    versions[package] = environment.installed_version(package)
  return {name: version for name, version in versions.items() if version}


def _peak_bytes():
  """The largest resident memory of this process or of one it started."""
  return 1024 * max(  # Linux counts in KiB
      resource.getrusage(who).ru_maxrss
      for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def main() -> None:
  """Serves until standard input ends."""
  # Whatever libraries print must not get between the answers.
  answers = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)
  quiet.silence_tensorflow()

  def answer(content):
    answers.write(json.dumps(content) + '\n')
    answers.flush()

  measure, detail = _prepare(json.loads(sys.stdin.readline()))
  answer({'versions': _versions(), 'detail': detail})
  for line in sys.stdin:
    answer({'seconds': measure()} if line.strip() == 'measure'
           else {'peak_bytes': _peak_bytes()})
