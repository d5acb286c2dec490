#!/usr/bin/env bash
# Lints the tree, then runs every test; makes the environments first if needed.
#
#   ./scripts/test.sh [PYTEST_ARGUMENT...]
#
# A test runs in each environment that it is marked for: tf1, tf2, modern. One
# without such a mark runs in .venvs/tf1, or in .venvs/modern where there is no
# Python for .venvs/tf1. Arguments go to pytest, in every environment.
# Tests on real data need DEEPLAB_REFERENCE_DIR and DEEPLAB_ADE20K_SAMPLE_DIR.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly NO_TEST_SELECTED=5  # pytest's exit status

# run_tests ENVIRONMENT MARKS PYTEST_ARGUMENT...: adds to statuses.
run_tests() {
  local python=.venvs/$1/bin/python marks=$2 status=0
  shift 2
  echo "== $python -m pytest -m '$marks' $*"
  "$python" -m pytest -m "$marks" "$@" || status=$?
  statuses+=("$status")
}

# Prints "ready: .venvs/tf1 (...) .venvs/modern (...)", and the like.
ready=$(./scripts/setup.sh all)
echo "$ready"
if [[ $ready == *'.venvs/tf1 '* ]]; then
  home=tf1
else
  home=modern
  echo 'no Python 3.7 or 3.6: tests run in .venvs/modern, but for those that' \
    'are marked tf1 or tf2 only'
fi

# Ruff is installed where the Python has it: from 3.7 on.
if ".venvs/$home/bin/python" -c 'import ruff' 2>/dev/null; then
  echo '== ruff check'
  ".venvs/$home/bin/python" -m ruff check .
fi

# Home comes last, so that the summary of most tests is what the output ends on.
statuses=()
for name in tf2 modern; do
  if [[ $name != "$home" && $ready == *".venvs/$name "* ]]; then
    run_tests "$name" "$name" "$@"
  fi
done
run_tests "$home" "$home or not (tf1 or tf2 or modern)" "$@"

# An argument may select tests of one environment only.
result=$NO_TEST_SELECTED
for status in "${statuses[@]}"; do
  if ((status != 0 && status != NO_TEST_SELECTED)); then
    exit "$status"
  fi
  ((status != 0)) || result=0
done
exit "$result"
