#!/usr/bin/env python3
"""Implements download_and_convert_ade20k.sh and fetch_checkpoints.sh."""
import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from deeplab import constants  # found through the line above
from deeplab import errors  # found through the line above
from deeplab.data import download  # found through the line above
from deeplab.system import environment  # found through the line above

_ADE20K = """Downloads ADE20K (SceneParse150) and converts it into TFRecords.

Everything goes into the current folder's ./ADE20K, where the other scripts
look for it:

  ADE20K/ADEChallengeData2016.zip   as downloaded, 0.9 GB
  ADE20K/ADEChallengeData2016/      images and annotations, 0.9 GB
  ADE20K/tfrecord/                  TFRecords, 0.9 GB

What is there already is not done again, and a download that broke off is
resumed: run it again as often as needed. ADE20K is for research only; its terms
are on https://groups.csail.mit.edu/vision/datasets/ADE20K.
"""
_ADE20K_VARIABLES = """environment variables:
  ADE20K_URL            other addresses of the zip file, such as a mirror,
                        separated by blanks; each is tried if nothing comes from
                        the one before. Default: the authors' server by https,
                        then by http
  ADE20K_SHA1           its SHA-1, which decides wherever it came from
  ADE20K_EXPECT_COUNTS  pairs to expect as TRAIN,VAL (20210,2000), or "no"
  PYTHON                the interpreter that converts; default: .venvs/tf1 or
                        .venvs/modern beside the script if there, else python3
"""
_PUBLISHED = """Downloads the published checkpoints, graphs and TFLite files.

Every file is verified by its Git blob SHA-1 in checkpoints/git-blob-sha1.txt.
Files that are there and right are not downloaded again, and a download that
broke off is resumed: run it again as often as needed.
Exit status: 0 all there; 2 bad input, or files are missing.
"""
_PUBLISHED_VARIABLES = """environment variables:
  CHECKPOINTS_URL       another address of the folder checkpoints, such as a
                        mirror
  CHECKPOINTS_MANIFEST  another list of sums and paths
  PYTHON                the interpreter; default: as above, python3
"""


def _parser(description, variables):
  made = argparse.ArgumentParser(
      prog=os.path.basename(sys.argv[0]), description=description,
      epilog=variables, allow_abbrev=False,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  made.error = environment.refuse
  return made


def _pairs(counts):
  """Returns the expected pairs by split; counts is TRAIN,VAL, 'no' or None."""
  if not counts:
    return download.ADE20K_PAIRS
  if counts == 'no':
    return {}
  numbers = counts.split(',')
  if len(numbers) != 2 or not all(map(str.isdecimal, numbers)):
    environment.refuse('ADE20K_EXPECT_COUNTS={}: expected TRAIN,VAL or no'
                       .format(counts))
  return dict(zip(download.ADE20K_PAIRS, map(int, numbers)))


def ade20k(arguments):
  parser = _parser(_ADE20K, _ADE20K_VARIABLES)
  parser.add_argument('--zip', metavar='PATH', default='', help='unpack this '
                      'copy of the zip file instead of downloading one')
  parser.add_argument('--download_only', action='store_true',
                      help='make no TFRecords')
  options = parser.parse_args(arguments)
  # An hour of downloading should not end in a missing package.
  problem = environment.problem_with(tuple(environment.ENVIRONMENTS))
  if problem and not options.download_only:
    environment.refuse(problem)
  download.get_ade20k(
      options.zip,
      os.environ.get('ADE20K_URL', '').split() or download.ADE20K_URLS,
      os.environ.get('ADE20K_SHA1') or download.ADE20K_SHA1,
      _pairs(os.environ.get('ADE20K_EXPECT_COUNTS')))
  records = os.path.join(download.ADE20K, download.RECORDS)
  if options.download_only:
    return
  if _has_records(records):
    print('{} is complete; remove it to convert again'.format(records))
    return
  script = os.path.join(environment.REPOSITORY, 'build_ade20k_data.py')
  os.execv(sys.executable, [sys.executable, script])


def _has_records(folder):
  names = [constants.description_name(split) for split in constants.SPLITS] + [
      constants.shard_name(split, index) for split in constants.SPLITS
      for index in range(constants.NUM_SHARDS)]
  # A run removes its markers last.
  return all(os.path.isfile(os.path.join(folder, name)) for name in names) and (
      not any(os.path.exists(os.path.join(
          folder, constants.incomplete_name(split)))
              for split in constants.SPLITS))


def published(arguments):
  parser = _parser(_PUBLISHED, _PUBLISHED_VARIABLES)
  parser.add_argument(
      'folders', metavar='FOLDER', nargs='*',
      help='{}; default: all'.format(', '.join(download.PUBLISHED_FOLDERS)))
  parser.add_argument(
      '--output_dir', metavar='DIR',
      default=os.path.join(environment.REPOSITORY, 'checkpoints'),
      help='where to put the folders; default: checkpoints/ beside scripts/')
  options = parser.parse_args(arguments)
  for folder in options.folders:
    if folder not in download.PUBLISHED_FOLDERS:
      parser.error('unknown folder {}; expected {}'.format(
          folder, ', '.join(download.PUBLISHED_FOLDERS)))
  sums = {
      path: checksum for path, checksum in download.published(os.environ.get(
          'CHECKPOINTS_MANIFEST') or download.PUBLISHED_LIST).items()
      if path.split('/')[0] in (options.folders or download.PUBLISHED_FOLDERS)}
  if not sums:
    environment.refuse('the list has no file of ' + ' '.join(options.folders))
  download.get_published(
      sums, os.environ.get('CHECKPOINTS_URL') or download.PUBLISHED_URL,
      options.output_dir)


def main(arguments):
  """Runs the command of the first argument, a shell script's name."""
  sys.argv[0] = arguments[0]
  {'download_and_convert_ade20k.sh': ade20k,
   'fetch_checkpoints.sh': published}[arguments[0]](arguments[1:])


if __name__ == '__main__':
  try:
    main(sys.argv[1:])
  except errors.InputError as error:
    environment.refuse(str(error))
  except OSError as error:
    environment.refuse(errors.of_system(error))
  except KeyboardInterrupt:
    environment.refuse('stopped by SIGINT', 130)
