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

# run_tests ENVIRONMENT MARKS PYTEST_ARGUMENT...: notes pytest's exit status.
run_tests() {
  local python=.venvs/$1/bin/python marks=$2 status=0
  shift 2
  echo "== $python -m pytest -m '$marks' $*"
  "$python" -m pytest -m "$marks" "$@" || status=$?
  echo "$status" >>"$work/statuses"
}

# run_others PYTEST_ARGUMENT...: one after the other, all but home.
run_others() {
  local name
  for name in tf2 modern; do
    if [[ $name != "$home" && $ready == *".venvs/$name "* ]]; then
      run_tests "$name" "$name" "$@"
    fi
  done
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

# One process of these tests keeps little more than one core busy.
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT
run_others "$@" >"$work/others" 2>&1 &
run_tests "$home" "$home or not (tf1 or tf2 or modern)" "$@"
wait
cat "$work/others"

# An argument may select tests of one environment only.
result=$NO_TEST_SELECTED
while read -r status; do
  if ((status != 0 && status != NO_TEST_SELECTED)); then
    exit "$status"
  fi
  ((status != 0)) || result=0
done <"$work/statuses"
exit "$result"
