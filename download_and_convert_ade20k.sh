#!/usr/bin/env bash
# Downloads ADE20K (SceneParse150) and converts it into TFRecords.
#
#     ./download_and_convert_ade20k.sh [--zip=PATH] [--help]
#
# --help says what is made, and which environment variables there are. The work
# is done by scripts/download.py.
set -euo pipefail

here="$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source=scripts/find_python.sh
. "$here/scripts/find_python.sh"
python="$(find_python "$here")"
exec "$python" "$here/scripts/download.py" download_and_convert_ade20k.sh "$@"
