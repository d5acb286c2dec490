#!/usr/bin/env bash
# One command to the published numbers: downloads ADE20K and the published files,
# evaluates these, makes graphs and TFLite files of the checkpoints anew,
# evaluates those too, and writes RESULTS.md.
#
#     ./scripts/reproduce.sh [--environment=tf|modern] [--output_dir=DIR]
#         [--zip=FILE] [--sample=DIR] [--published=DIR] [--help]
#
# It says first how much time and disk it needs. A step that is done is not done
# again: run it again as often as needed.
#
#   --environment=tf|modern  tf, the default: TensorFlow 1.15 and 2.2, of which
#                      the published numbers are; modern: 2.21, in less time
#   --output_dir=DIR   where everything goes; default: ./reproduced
#   --zip=FILE         a copy of ADEChallengeData2016.zip, not to download it
#   --sample=DIR       a few pairs in place of ADE20K: images/ and annotations/,
#                      with training/ and validation/ in each
#   --published=DIR    the published files, not to download them
#   --help             print this text
# Exit status: 0 done; 2 bad input, or a step failed.
set -euo pipefail

readonly HERE="$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"

# shellcheck source=scripts/lib_download.sh
. "$HERE/lib_download.sh"

names=(tf1 tf2)
for argument in "$@"; do
  case "$argument" in
    --environment=modern) names=(modern) ;;
    --environment=tf) names=(tf1 tf2) ;;
    --help | -h) usage; exit 0 ;;
    --*=?*) ;;
    *) die "unknown argument $argument; expected --FLAG=VALUE or --help" ;;
  esac
done
for name in "${names[@]}"; do
  [ -x "$HERE/../.venvs/$name/bin/python" ] || "$HERE/setup.sh" "$name"
done
exec "$HERE/../.venvs/${names[0]}/bin/python" "$HERE/reproduce.py" "$@"
