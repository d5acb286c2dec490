"""Counts of a pytest run, for the lines that scripts/test.sh ends on.

As a plugin (-p tests.summary), writes the counts of a run to the file that
DEEPLAB_TEST_SUMMARY names. As a program, prints those of several runs:

  python tests/summary.py FOLDER/tf1.slow.json FOLDER/tf2.all.json
"""
import collections
import json
import os
import platform
import sys
import time

STARTED = time.time()
RESULTS = ('passed', 'failed', 'skipped')


def pytest_terminal_summary(terminalreporter):
  """Writes the counts of this run; pytest calls it at its end."""
  from deeplab import environment
  stats = terminalreporter.stats
  skipped = stats.get('skipped', [])
  content = {
      'python': platform.python_version(),
      'tensorflow': environment.tensorflow_version(),
      'seconds': time.time() - STARTED,
      'passed': len(stats.get('passed', [])),
      # An error is a failure outside of the test itself.
      'failed': len(stats.get('failed', [])) + len(stats.get('error', [])),
      'skipped': len(skipped),
      'reasons': collections.Counter(
          report.longrepr[2].replace('Skipped: ', '', 1)
          for report in skipped)}
  with open(os.environ['DEEPLAB_TEST_SUMMARY'], 'w') as output:
    json.dump(content, output)


def text_of(counts):
  return ', '.join('{} {}'.format(counts[result], result) for result in RESULTS)


def lines_for(paths):
  """Yields the closing lines for files of counts.

  Args:
    paths: paths of ENVIRONMENT.PART.json; a run that did not end has no file.
  """
  environments = collections.OrderedDict()
  for path in sorted(paths):
    name = os.path.basename(path).split('.')[0]
    environments.setdefault(name, []).append(path)
  total, reasons = collections.Counter(), collections.Counter()
  for name, runs in environments.items():
    counts = collections.Counter()
    for path in runs:
      if not os.path.exists(path):
        yield '{}: a run did not end, see above'.format(name)
        continue
      with open(path) as content:
        run = json.load(content)
      counts.update({key: run[key] for key in RESULTS + ('seconds',)})
      reasons.update(run['reasons'])
    if counts:
      yield '{}: Python {}, TensorFlow {}: {}, {:.0f} s'.format(
          name, run['python'], run['tensorflow'], text_of(counts),
          counts['seconds'])
    total.update(counts)
  for reason, count in sorted(reasons.items()):
    yield 'skipped: {}: {}'.format(reason, count)
  yield text_of(total)


if __name__ == '__main__':
  print('\n'.join(lines_for(sys.argv[1:])))
