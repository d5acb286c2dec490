#!/usr/bin/env bash
# Downloads ADE20K (SceneParse150) and converts it into TFRecords.
#
#     ./download_and_convert_ade20k.sh [--zip=PATH] [--help]
#
# --help describes the outputs and the environment variables.
# scripts/download.py does the work.
set -euo pipefail

here="$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=scripts/find_python.sh
. "$here/scripts/find_python.sh"
python="$(find_python "$here")"
exec "$python" "$here/scripts/download.py" download_and_convert_ade20k.sh "$@"
