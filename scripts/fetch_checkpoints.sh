#!/usr/bin/env bash
# Downloads the published checkpoints, frozen graphs and TFLite files.
#
#     ./scripts/fetch_checkpoints.sh [FOLDER...] [--output_dir=DIR] [--help]
#
# FOLDER is float, post_train_quant or quantize_aware_training; default: all
# three. See --help. scripts/download.py does the work.
set -euo pipefail

here="$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=scripts/find_python.sh
. "$here/scripts/find_python.sh"
python="$(find_python "$here")"
exec "$python" "$here/scripts/download.py" fetch_checkpoints.sh "$@"
