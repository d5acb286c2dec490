"""Reads and scores LoadGen's mlperf_log_accuracy.json.

A log is a JSON list with a line for each response, whose data is a class map in
hexadecimal, a byte for each pixel. The log of 2000 images has 1 GB, so it is
read line by line. Needs neither LoadGen nor TensorFlow.
"""
import collections
import itertools
import json
import os
from typing import Dict, Iterator, NamedTuple, Sequence, Tuple, Union

import numpy as np

from deeplab import constants
from deeplab.config import options as options_lib
from deeplab.data import pairs as pairs_lib
from deeplab.data import png_folder
from deeplab.errors import InputError
from deeplab.errors import Message
from deeplab.errors import Option
from deeplab.errors import option
from deeplab.errors import some_of
from deeplab.evaluation import counting
from deeplab.evaluation import metrics
from deeplab.evaluation import report as report_lib
from deeplab.storage import checked_read
from deeplab.storage import files

NAME = 'mlperf_log_accuracy.json'
# The file that loadgen.py writes above the folder of the log.
SUMMARY = 'summary.json'
_KIND = 'an ' + NAME + ' of LoadGen'
Name = Union[str, Option]


class Response(NamedTuple):
  """One response in a log."""
  # Number of the image; LoadGen's qsl_idx.
  sample: int
  # uint8 [height, width].
  classes: np.ndarray


# --- Reading ---------------------------------------------------------------


def responses(path: str, size: Tuple[int, int],
              name: Name = '') -> Iterator[Response]:
  """Reads a log, response by response.

  Args:
    path: the log.
    size: (height, width) of the class maps.
    name: the option with the path, for messages; '': the path.

  Yields:
    Each Response.

  Raises:
    InputError: there is no such file, or it is truncated or malformed.
  """
  name = name or path
  checked_read.check(path, name, _KIND)
  # Twice a byte in hexadecimal; numbers, names and blanks are shorter.
  most = 2 * size[0] * size[1] + 512
  with open(path, 'rb') as log:
    if log.readline(most).strip() != b'[':
      raise InputError('{}: line 1 is not "["; expected {}', name, _KIND)
    for number in itertools.count(2):
      line = log.readline(most)
      if line.strip() == b']':
        return
      if not line.endswith(b'\n'):
        raise InputError(
            '{}: line {}: {}', name, number, 'longer than any class map of '
            '{}x{}'.format(*size) if len(line) == most else
            'the log is cut off there; run again')
      yield _response(line, size, Message('{}: line {}', name, number))


def _response(line, size, place):
  """Parses a line; messages begin with its `place`."""
  try:
    content = json.loads(line.decode('ascii').strip().rstrip(','))
    data = bytes.fromhex(content['data'])
    sample = content['qsl_idx']
    if type(sample) is not int or sample < 0:
      raise ValueError
  except (ValueError, KeyError, TypeError, RecursionError):
    raise InputError('{}: expected {{"seq_id": N, "qsl_idx": N, "data": HEX}}',
                     place)
  if not data:
    raise InputError(
        '{}: "data" is empty: there is no class map in the log. The MLPerf '
        'Mobile app writes such logs; its own result has the score', place)
  if len(data) != size[0] * size[1]:
    raise InputError(
        '{}: {} bytes of image {}; expected a class map of {}x{}', place,
        len(data), sample, *size)
  return Response(sample, np.frombuffer(data, np.uint8).reshape(size))


# --- The score -------------------------------------------------------------


def score(path: str, pairs: Sequence[pairs_lib.Pair], size: Tuple[int, int], *,
          runtime: str, name: Name) -> report_lib.Report:
  """Scores all class maps of a log against the labels.

  Args:
    path: the log of a run in accuracy mode.
    pairs: sample N of the log is the N-th pair.
    size: (height, width) of the class maps.
    runtime: description of the program that made the log.
    name: the path of the log, or the option with it, for messages.

  Returns:
    The report.

  Raises:
    InputError: the log cannot be read, does not have one response for each
      image, or has one that is no class map.
  """
  counts = counting.total(
      _counted(path, pairs, size, name), num_images=len(pairs))
  return report_lib.Report(
      kind=report_lib.ACCURACY_LOG, path=path, step=None,
      images=counts.images, seconds=counts.seconds, runtime=runtime,
      matrix=counts.matrix, **png_folder.origin(pairs, size))


def _counted(path, pairs, size, name):
  """Yields the Counts of each response."""
  seen = set()
  for response in responses(path, size, name):
    sample = response.sample
    if sample >= len(pairs):
      raise InputError('{}: has image {}; expected 0 to {}, as there are {}',
                       name, sample, len(pairs) - 1, len(pairs))
    if sample in seen:
      raise InputError('{}: has image {} ({}) more than once', name, sample,
                       pairs[sample].name)
    seen.add(sample)
    largest = response.classes.max()
    if largest >= constants.NUM_CLASSES:
      raise InputError('{}: image {} ({}): class {}; expected 0 to {}', name,
                       sample, pairs[sample].name, largest,
                       constants.NUM_CLASSES - 1)
    yield counting.Counts(metrics.confusion_matrix(
        png_folder.read_label(pairs[sample], size), response.classes), 1, {})
  missing = [pairs[sample].name for sample in range(len(pairs))
             if sample not in seen]
  if missing:
    raise InputError('{}: lacks {} of {} images: {}', name, len(missing),
                     len(pairs), some_of(missing))


def score_log(options: options_lib.AccuracyLogOptions,
              eval_options: options_lib.EvalOptions) -> report_lib.Report:
  """Scores the log of an earlier run, and publishes the report.

  Raises:
    InputError: the log or the images cannot be used, or do not belong together.
  """
  path = options.accuracy_log
  pairs = png_folder.list_pairs(options.test_dir, options.val_label_dir).pairs
  report_lib.check_outputs(eval_options, png_folder.folders_in(pairs))
  size = png_folder.size_of(pairs)
  png_folder.check(pairs, size)
  _check_summary(path, pairs)
  report = score(path, pairs, size, name=option('accuracy_log', path),
                 runtime='whatever wrote the log; unofficial')
  report_lib.publish(report, {}, eval_options)
  return report


def _check_summary(path, pairs):
  """Raises InputError unless a log is of these images in this order.

  The summary that loadgen.py wrote beside the log has their checksum. Without a
  summary, numeric and alphabetical order must be equal: the suite sorts by the
  numbers in names, and the app by letters.
  """
  summary = os.path.join(os.path.dirname(os.path.dirname(
      os.path.abspath(path))), SUMMARY)
  try:
    with open(summary, encoding='utf-8') as content:
      found = json.load(content)
    checksum, images = found['accuracy']['log_sha256'], dict(found['images'])
  except (OSError, ValueError, KeyError, TypeError):
    names = [pair.name for pair in pairs]
    exchanged = [two for two in zip(names, names[1:]) if two[0] > two[1]]
    if exchanged:
      raise InputError(
          '{}: without {} above its folder, the order of images is ambiguous: '
          'loadgen.py takes {} before {}, the app does not; put the log back, '
          'or use a folder that gen_preprocessed_data.py made with {}',
          option('accuracy_log', path), SUMMARY, *exchanged[0],
          option('layout', 'mlperf_app'))
    return
  if os.path.isfile(path) and files.sha256_of(path) != checksum:
    raise InputError('{}: has changed since LoadGen wrote it: its SHA-256 is '
                     'not that in ../{}', option('accuracy_log', path), SUMMARY)
  # Earlier releases wrote no checksum of the images.
  if images.get('sha256') not in (None, png_folder.identity(pairs)):
    raise InputError(
        '{}: images or labels differ from those of the log, which ../{} names: '
        '{}', option('test_dir', os.path.dirname(pairs[0].image_path)),
        SUMMARY, images.get('folder'))


# --- Comparing -------------------------------------------------------------


def compare(path: str, sampled: str, size: Tuple[int, int]) -> Dict[str, int]:
  """Compares the responses of a performance run and an accuracy run.

  Args:
    path: the log of the accuracy run.
    sampled: the log of the performance run, with some responses.
    size: (height, width) of the class maps.

  Returns:
    'responses', 'samples', 'bytes': numbers of responses in `sampled`, of their
    images and of their bytes. 'different', 'different_bytes': numbers of
    responses and bytes that differ from `path`.

  Raises:
    InputError: a log cannot be read, or `sampled` has no response or an image
      that `path` lacks.
  """
  # Deviates: MLCommons' script for TEST01 compares one byte of each response,
  # in which two class maps rarely differ.
  logged = collections.defaultdict(list)
  for response in responses(sampled, size):
    logged[response.sample].append(response.classes)
  if not logged:
    raise InputError('{}: has no response to compare', sampled)
  samples, unequal = len(logged), []
  for response in responses(path, size):
    unequal += [int(np.count_nonzero(classes != response.classes))
                for classes in logged.pop(response.sample, ())]
  if logged:
    raise InputError('{}: has image {}, which {} lacks', sampled, min(logged),
                     path)
  return {'responses': len(unequal), 'different': sum(map(bool, unequal)),
          'different_bytes': sum(unequal), 'samples': samples,
          'bytes': len(unequal) * size[0] * size[1]}
