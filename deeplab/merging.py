"""One report from those of the parts of an evaluation.

Confusion matrices add up, whatever the order; every score is read off the sum,
so that it is that of one run over all images. Needs no TensorFlow.
"""
from typing import Dict, List, NamedTuple, Sequence

import numpy as np

from deeplab import errors
from deeplab import files
from deeplab import inputs
from deeplab import options as options_lib
from deeplab import parts
from deeplab import report as report_lib
from deeplab.errors import InputError
from deeplab.errors import option

# What may differ between the parts of one evaluation.
_OWN = ('path', 'images', 'seconds', 'runtime', 'matrix', 'part')


class _Given(NamedTuple):
  """A report that was read."""
  path: str
  report: report_lib.Report


def merge(paths: Sequence[str],
          options: options_lib.MergeOptions) -> report_lib.Report:
  """Adds up the reports of all parts, writes and prints that of the whole.

  Args:
    paths: files that evaluations of parts wrote, in any order.
    options: where the sum goes.

  Returns:
    The sum. Its seconds are those of all parts together; its path is what the
    first part says.

  Raises:
    InputError: a file that is no report of a part; parts that are missing,
      overlap or are not of one evaluation, named by their files.
  """
  if not paths:
    raise InputError('no report given; expected those of all parts, such as '
                     'part-0.json part-1.json')
  given = [_read(path) for path in paths]
  given.sort(key=lambda one: one.report.part.number)
  _check_agreement(given)
  _check_cover(given)
  files.check_outputs(option('report_json', options.report_json),
                      options.report_json, inputs=paths,
                      ours=report_lib.IS_REPORT, example='report.json')
  result = _sum([one.report for one in given])
  report_lib.write(options.report_json, result)
  report_lib.show(result, options.report_json)
  return result


def _read(path):
  """Returns the _Given of a file."""
  kind = 'the report of a part, as {} has it written with {}'.format(
      '--report_json', '--num_shards')
  content = inputs.read_json(path, path, kind)
  try:
    report = report_lib.from_json(content)
  except InputError:
    raise InputError('{}: expected {}'.format(path, kind))
  if report.part is None:
    raise InputError(
        '{}: a report of all {} images, not of a part; expected {}'.format(
            path, report.images, kind))
  return _Given(path, report)


def _check_agreement(given):
  """Raises InputError unless all are of one evaluation in so many parts."""
  first = given[0]
  for other in given[1:]:
    differing = parts.differences(_facts(first.report), _facts(other.report))
    if differing:
      raise InputError('{} and {} are not of one evaluation: {}'.format(
          first.path, other.path, errors.some_of(differing, '; ')))


def _facts(report):
  """Returns what the parts of one evaluation have in common, by name."""
  facts = dict(report.part.evaluation)
  facts.update((name, value)
               for name, value in report_lib.to_json(report).items()
               if name in report_lib.Report._fields and name not in _OWN)
  facts.update({'number of parts': report.part.of,
                'number of images': report.part.total,
                'number of classes': len(report.matrix)})
  return facts


def _check_cover(given):
  """Raises InputError unless every image is in one of the parts."""
  by_number: Dict[int, str] = {}
  first = given[0].report.part
  for path, report in given:
    number = report.part.number
    if number in by_number:
      raise InputError('{} and {} are both {}; expected each part once'.format(
          by_number[number], path, report.part.part))
    by_number[number] = path
  missing = parts.missing_of(by_number, first.of)
  if missing:
    raise InputError('{} missing (given: {})'.format(
        missing, errors.some_of([one.path for one in given])))
  done, last = 0, None
  for one in given + [None]:
    begin = one.report.part.first if one else first.total
    if begin != done:
      raise InputError('{} and {}: images {} to {} {}'.format(
          last.path if last else 'the beginning',
          one.path if one else 'the end', min(begin, done),
          max(begin, done) - 1,
          'are in neither' if begin > done else 'are in both'))
    if one:
      done, last = begin + one.report.images, one


def _sum(reports: List[report_lib.Report]) -> report_lib.Report:
  """Returns the report of all parts."""
  return reports[0]._replace(
      images=sum(report.images for report in reports),
      seconds=sum(report.seconds for report in reports),
      runtime='; '.join(sorted({report.runtime for report in reports})),
      matrix=np.sum([report.matrix for report in reports], axis=0), part=None)
