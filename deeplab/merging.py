"""One report from those of the parts of an evaluation.

Confusion matrices add up, whatever the order; every score is read off the sum,
so that it is that of one run over all images. Needs no TensorFlow.
"""
import re
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

_CHECKSUM = re.compile(r'[0-9a-f]{40,}\Z')
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
  files.check_files(option('report_json', options.report_json),
                    options.report_json, example='report.json')
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
    differing = _differences(first.report, other.report)
    if differing:
      raise InputError('{} and {} are not of one evaluation: {}'.format(
          first.path, other.path, errors.some_of(differing, '; ')))


def _differences(one, other):
  """Returns what two reports contradict each other in, as texts."""
  return [
      '{} {}, and {}'.format(name, *map(_short, (value, _facts(other)[name])))
      for name, value in _facts(one).items()
      if value != _facts(other).get(name)] + [
          '{} in one alone'.format(name)
          for name in sorted(set(_facts(other)) - set(_facts(one)))]


def _facts(report):
  """Returns what the parts of one evaluation have in common, by name."""
  facts: Dict[str, object] = {
      'number of parts': report.part.of, 'images': report.part.total,
      'classes': len(report.matrix)}
  for name, value in report._asdict().items():
    if name not in _OWN:
      facts[name] = value
  for name, value in report.part.evaluation.items():
    if isinstance(value, dict):
      facts.update({'{} of {}'.format(inner, name): one
                    for inner, one in value.items()})
    else:
      facts[name] = value
  return facts


def _short(value):
  """Says a value; of a checksum, as much as one can compare by eye."""
  text = str(value)
  return text[:12] + '...' if _CHECKSUM.match(text) else text


def _check_cover(given):
  """Raises InputError unless every image is in one of the parts."""
  by_part: Dict[parts.Part, str] = {}
  for path, report in given:
    part = report.part.part
    if part in by_part:
      raise InputError('{} and {} are both {}; expected each part once'.format(
          by_part[part], path, part))
    by_part[part] = path
  first = given[0].report.part
  missing = parts.missing_of(list(by_part), first.of)
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
