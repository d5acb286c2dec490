"""Script that runs one work of `cases` in its own process.

Its arguments are a job as JSON and the path of the result. It is started by its
path, so that it imports its own package, not one in the current folder.
"""
import functools
import importlib
import json
import os
import resource
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.dirname(os.path.realpath(__file__))))))

from deeplab.system import environment  # found through the line above
from deeplab.system import silence
from deeplab.tools.benchmark import cases


def _work(job):
  """Runs the work of a job.

  Args:
    job: dict with 'work', 'settings', 'sizes', 'folder'. The setting 'pooled':
      False selects TensorFlow's default memory allocation. 'cores' is the
      number of processors that this process may use.

  Returns:
    (seconds for each item, details), or None.
  """
  settings = dict(job['settings'])
  # The parent process may have set it.
  os.environ[environment.MEMORY_POOL] = (
      'true' if settings.pop('pooled', True) else 'false')
  cores = settings.pop('cores', None)
  if cores:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
  module, name = job['work'].split('.')
  function = getattr(
      importlib.import_module('deeplab.tools.benchmark.' + module), name)
  return function(cases.Sizes(**job['sizes']), functools.partial(
      os.path.join, job['folder']), **settings)


def main() -> None:
  """Runs a job and writes the result."""
  silence.silence_tensorflow()
  seconds, detail = _work(json.loads(sys.argv[1])) or (None, '')
  peak = 1024 * max(  # Linux counts in KiB
      resource.getrusage(who).ru_maxrss
      for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
  with open(sys.argv[2], 'w') as answer:
    json.dump({'seconds': seconds, 'detail': detail, 'peak_bytes': peak,
               'versions': environment.versions()}, answer)


if __name__ == '__main__':
  main()
