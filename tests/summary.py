"""Counts of a pytest run, for the lines that scripts/test.sh ends on.

As a plugin (-p tests.summary), it writes the counts of a run to the file that
DEEPLAB_TEST_SUMMARY names. As a program, it prints the counts of all runs:

  python tests/summary.py FOLDER
"""
import collections
import glob
import json
import os
import platform
import sys
import time

STARTED = time.time()
RESULTS = ('passed', 'failed', 'skipped')


def pytest_terminal_summary(terminalreporter):
  """Writes the counts of this run; pytest calls it at its end."""
  from deeplab.system import environment
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


def lines_for(folder):
  """Yields the closing lines for a folder with ENVIRONMENT.json files."""
  total, reasons = collections.Counter(), collections.Counter()
  for path in sorted(glob.glob(os.path.join(folder, '*.json'))):
    with open(path) as content:
      run = json.load(content)
    yield '{}: Python {}, TensorFlow {}: {}, {:.0f} s'.format(
        os.path.basename(path)[:-len('.json')], run['python'],
        run['tensorflow'], text_of(run), run['seconds'])
    total.update({result: run[result] for result in RESULTS})
    reasons.update(run['reasons'])
  for reason, count in sorted(reasons.items()):
    yield 'skipped: {}: {}'.format(reason, count)
  yield text_of(total)


if __name__ == '__main__':
  print('\n'.join(lines_for(sys.argv[1])))
