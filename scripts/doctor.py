#!/usr/bin/env python3
"""Reports what this machine can run, and the next steps, on one page.

    python3 scripts/doctor.py

It needs only Python 3.6 or newer and no package. Run it before the environments
are made, or if something does not work.
Exit status: 0 the suite runs here after the printed commands; 1 it does not; 2
bad input.
"""
import argparse
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from deeplab import errors  # found through the line above
from deeplab.system import environment  # found through the line above
from deeplab.system import signals  # found through the line above
from deeplab.system import streams  # found through the line above
from deeplab.tools import doctor  # found through the line above


def parser():
  made = argparse.ArgumentParser(
      prog='doctor.py', description=__doc__, allow_abbrev=False,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  made.add_argument(
      '--data', metavar='DIR', help='folder with ADE20K, as '
      'download_and_convert_ade20k.sh makes it, or with TFRecords; default: '
      './ADE20K')
  made.add_argument(
      '--checkpoints', metavar='DIR', help='folder with the published files; '
      'default: where scripts/fetch_checkpoints.sh puts them')
  made.add_argument('--json', action='store_true',
                    help='print it as JSON, for programs')
  made.error = environment.refuse
  return made


def main(arguments):
  options = parser().parse_args(arguments)
  for flag in ('data', 'checkpoints'):
    folder = getattr(options, flag)
    if folder is not None and not os.path.isdir(folder):
      environment.refuse('--{}={}: no such folder'.format(flag, folder))
  root = sys.path[0]
  findings = doctor.examine(
      root, options.data or 'ADE20K',
      options.checkpoints or os.path.join(root, 'checkpoints'))
  print(json.dumps(findings, indent=2) if options.json
        else doctor.page(findings, root))
  return 0 if findings['usable'] else 1


if __name__ == '__main__':
  try:
    with signals.Request(), streams.checked():
      status = main(sys.argv[1:])
  except errors.InputError as error:
    environment.refuse(str(error))
  except streams.OutputError as error:
    environment.refuse(errors.of_system(error))
  except signals.Stopped as stopped:
    environment.refuse('stopped by ' + stopped.name, stopped.status)
  sys.exit(status)
