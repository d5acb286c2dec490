#!/usr/bin/env bash
# Reproduces the published numbers: downloads ADE20K and the published files,
# evaluates them, makes graphs and TFLite files from the checkpoints again,
# evaluates these, and writes RESULTS.md.
#
#     ./scripts/reproduce.sh [--environment=tf|modern] [--output_dir=DIR]
#         [--zip=FILE] [--sample=DIR] [--published=DIR] [--help]
#
# It first prints the time and disk space that a full run needs. Steps that are
# done with the same command, inputs and code are skipped, so it can be rerun.
#
#   --environment=tf|modern  tf, the default: TensorFlow 1.15 and 2.2, as for the
#                      published numbers; modern: 2.21, which is faster
#   --output_dir=DIR   where everything goes; default: ./reproduced
#   --zip=FILE         a copy of ADEChallengeData2016.zip, instead of a download
#   --sample=DIR       a few pairs instead of ADE20K: images/ and annotations/,
#                      with training/ and validation/ in each
#   --published=DIR    the published files, instead of a download
#   --help             print this text
# Exit status: 0 done; 2 bad input, or a step failed.
set -euo pipefail

here="$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
names=(tf1 tf2)
for argument in "$@"; do
  case "$argument" in
    --environment=modern) names=(modern) ;;
    --environment=tf) names=(tf1 tf2) ;;
    --help | -h)
      sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p;}' "$here/reproduce.sh"
      exit 0
      ;;
    --*=?*) ;;
    *)
      printf 'ERROR reproduce.sh: unknown argument %s; expected --FLAG=VALUE or %s\n' \
        "$argument" --help >&2
      exit 2
      ;;
  esac
done
for name in "${names[@]}"; do
  [ -x "$here/../.venvs/$name/bin/python" ] || "$here/setup.sh" "$name"
done
exec "$here/../.venvs/${names[0]}/bin/python" "$here/reproduce.py" "$@"
