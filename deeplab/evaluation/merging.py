"""Evaluates in shards: selects the images of a run, and merges reports.

Confusion matrices add up, so the merged scores equal the scores of one run over
all images. Needs no TensorFlow.
"""
from typing import Sequence, Tuple

import numpy as np

from deeplab import errors
from deeplab.config import options as options_lib
from deeplab.errors import InputError
from deeplab.errors import option
from deeplab.evaluation import report as report_lib
from deeplab.storage import files

# Fields that may differ between the shards of one evaluation.
_OWN = ('path', 'images', 'seconds', 'runtime', 'matrix', 'shard', 'model',
        'host_ms')
_KIND = ('the report of a shard, as the evaluation of a TFLite file writes it '
         'with --report_json and --num_shards')


def bounds(index: int, of: int, items: int) -> Tuple[int, int]:
  """Returns the (start, end) of a shard; `end` is exclusive.

  Shards are contiguous, and their sizes differ by at most one item.
  """
  return index * items // of, (index + 1) * items // of


def merge(paths: Sequence[str],
          options: options_lib.MergeOptions) -> report_lib.Report:
  """Merges the reports of all shards; writes and prints the result.

  Args:
    paths: report files of the shards, in any order.
    options: path of the merged report.

  Returns:
    The merged report. Its seconds are the sum over all shards; its path is the
    first shard's.

  Raises:
    InputError: a file is no report of a shard; or shards are missing, duplicate
      or of different evaluations.
  """
  if not paths:
    raise InputError('no report given; expected those of all shards, such as '
                     'shard-0.json shard-1.json')
  given = sorted(((_read(path), path) for path in paths),
                 key=lambda one: one[0].shard.number)
  _check_shards(given)
  files.check_outputs(option('report_json', options.report_json),
                      options.report_json, inputs=paths,
                      ours=report_lib.IS_REPORT, example='report.json')
  reports = [report for report, _ in given]
  result = reports[0]._replace(
      images=sum(report.images for report in reports),
      seconds=sum(report.seconds for report in reports),
      runtime='; '.join(sorted({report.runtime for report in reports})),
      matrix=np.sum([report.matrix for report in reports], axis=0), shard=None,
      host_ms=_mean_ms(reports))
  report_lib.write(options.report_json, result)
  report_lib.show(result, options.report_json)
  return result


def _read(path):
  """Returns the report of a shard."""
  report = report_lib.read(path, kind=_KIND)
  shard = report.shard
  if not shard:
    raise InputError('{}: a report of all {} images; expected {}'.format(
        path, report.images, _KIND))
  if (type(shard.number) is not int or type(shard.of) is not int or
      not 0 <= shard.number < shard.of or
      not isinstance(shard.evaluation, dict)):
    raise InputError('{}: expected {}'.format(path, _KIND))
  return report


def _check_shards(given):
  """Raises InputError unless these are all shards of one evaluation.

  Args:
    given: list of (report, path), sorted by shard.
  """
  first, first_path = given[0]
  expected = _facts(first)
  for report, path in given[1:]:
    facts = _facts(report)
    differing = ['{} {:.40}, and {:.40}'.format(
        name, str(expected[name]), str(facts.get(name)))
                 for name in sorted(expected)
                 if facts.get(name) != expected[name]]
    if differing:
      raise InputError('{} and {} are not of one evaluation: {}'.format(
          first_path, path, errors.some_of(differing, '; ')))
  for (one, path), (other, other_path) in zip(given, given[1:]):
    if one.shard.number == other.shard.number:
      raise InputError('{} and {} are both shard {}; expected each once'.format(
          path, other_path, one.shard.number))
  missing = set(range(first.shard.of)).difference(
      report.shard.number for report, _ in given)
  if missing:
    raise InputError('shards {} of {} are missing (given: {})'.format(
        errors.some_of(list(map(str, sorted(missing))), limit=9),
        first.shard.of, errors.some_of([path for _, path in given])))


def _facts(report):
  """Returns the facts that all shards of an evaluation share, by name."""
  facts = {name: value for name, value in report._asdict().items()
           if name not in _OWN}
  return dict(facts, classes=len(report.matrix), shards=report.shard.of,
              **report.shard.evaluation)


def _mean_ms(reports):
  """Returns the mean of the shards' medians, or None if one has none."""
  times = [report.host_ms for report in reports]
  return None if None in times else float(np.average(
      times, weights=[report.images for report in reports]))
