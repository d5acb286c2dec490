"""The rows of a model card, from the report of an evaluation."""
from typing import Dict

from deeplab.evaluation import report as report_lib


def rows(report: report_lib.Report) -> Dict[str, str]:
  """Returns the rows of a model card: dict from name to text.

  They are the file's size, SHA-256, precision and input; the time of an image
  on this machine; and the score with its convention and geometry. Facts that
  the report does not have are left out.
  """
  score, found = report_lib.score_of(report), {}
  if report.model:
    source = report.model['input']
    found = {
        'bytes': str(report.model['bytes']), 'SHA-256': report.model['sha256'],
        'precision': report.model['precision'],
        'input': '{} {}, {} {}; pixels 0 and 255 are {:g} and {:g}'.format(
            source['dtype'], 'x'.join(map(str, source['shape'])),
            source['layout'], source['channels'], *source['range'])}
  if report.host_ms is not None:
    found['ms an image'] = '{:.1f}, {}'.format(report.host_ms, report.runtime)
  value = score['value']
  return dict(found, score='-' if value is None else '{:.4f}'.format(value),
              convention=score['convention'], geometry=score['geometry'],
              images='{} of {}'.format(score['images'], score['split']))
