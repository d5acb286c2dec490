#!/usr/bin/env bash
# Lints the tree, then runs every test; makes the environments first if needed.
#
#   ./scripts/test.sh [PYTEST_ARGUMENT...]
#
# Tests run in .venvs/tf1; those marked tf2 run in .venvs/tf2 instead, and those
# marked both ways in both. Arguments go to pytest, in both environments.
# Tests on real data need DEEPLAB_REFERENCE_DIR and DEEPLAB_ADE20K_SAMPLE_DIR.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly NO_TEST_SELECTED=5  # pytest's exit status

# run_tests ENVIRONMENT MARKS PYTEST_ARGUMENT...: sets status.
run_tests() {
  local python=.venvs/$1/bin/python marks=$2
  shift 2
  echo "== $python -m pytest -m '$marks' $*"
  status=0
  "$python" -m pytest -m "$marks" "$@" || status=$?
}

./scripts/setup.sh all

# Ruff is installed where the Python has it: from 3.7 on.
if .venvs/tf1/bin/python -c 'import ruff' 2>/dev/null; then
  echo '== ruff check'
  .venvs/tf1/bin/python -m ruff check .
fi

# tf1 comes last, so that the summary of most tests is what the output ends on.
run_tests tf2 'tf2' "$@"
tf2_status=$status
run_tests tf1 'tf1 or not tf2' "$@"
tf1_status=$status

# An argument may select tests of one environment only.
for status in "$tf2_status" "$tf1_status"; do
  if ((status != 0 && status != NO_TEST_SELECTED)); then
    exit "$status"
  fi
done
exit $((tf2_status && tf1_status ? NO_TEST_SELECTED : 0))
