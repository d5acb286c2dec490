#!/usr/bin/env bash
# Checks the tree's style and types, then runs every test; makes the environments
# first if needed.
#
#   ./scripts/test.sh [--quick|--all] [PYTEST_ARGUMENT...]
#
# A test runs in each environment that it is marked for: tf1, tf2, modern. One
# without such a mark runs in .venvs/tf1, or in .venvs/modern where there is no
# Python for .venvs/tf1. With --quick only that environment runs, without the
# tests that are marked slow. Those that are marked extended, which show over
# whole runs what others show of their parts, need --all; CI runs them. All other
# arguments go to pytest, each time.
# Tests on real data need DEEPLAB_REFERENCE_DIR and DEEPLAB_ADE20K_SAMPLE_DIR.
#
# The output ends on a line for each environment, the reasons why tests were
# skipped, and the counts of all environments together. A test that hangs fails
# after the time that pyproject.toml sets.
# Exit status: 0 where every test passed, else that of pytest where one did not.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly NO_TEST_SELECTED=5  # pytest's exit status

# run_tests ENVIRONMENT.PART MARKS PYTEST_ARGUMENT...: notes counts, and pytest's
# exit status. Tests run in processes of their own: pytest replaces one that a
# test has ended.
run_tests() {
  local run=$1 python=.venvs/${1%.*}/bin/python marks=$2 status=0
  shift 2
  echo "== $python -m pytest -m '$marks' $*"
  DEEPLAB_TEST_SUMMARY=$work/$run.json nice -n "${niceness:-0}" \
    "$python" -m pytest -m "$marks" -p tests.summary --dist=loadfile "$@" ||
    status=$?
  echo "$status $work/$run.json" >>"$work/runs"
}

# run_others PART MARKS PYTEST_ARGUMENT...: one environment after the other, all
# but home.
run_others() {
  local name part=$1 marks=$2
  shift 2
  for name in tf2 modern; do
    if [[ $name != "$home" && $ready == *".venvs/$name "* ]]; then
      run_tests "$name.$part" "$name and $marks" "$@"
    fi
  done
}

extent=most
case ${1:-} in
  --quick | --all) extent=${1#--}; shift ;;
esac

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
# Mypy, from 3.10 on. It gets to know packages by the newest ones.
if [[ $ready == *'.venvs/modern '* ]] &&
    .venvs/modern/bin/python -c 'import mypy' 2>/dev/null; then
  echo '== mypy'
  .venvs/modern/bin/python -m mypy
fi

work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT
marks="($home or not (tf1 or tf2 or modern))"
slow='slow and not extended'
quick='not (slow or extended)'
if [[ $extent == all ]]; then
  slow='(slow or extended)'
fi
if [[ $extent == quick ]]; then
  run_tests "$home.quick" "$marks and $quick" -n2 "$@"
else
  # The first has the longest way: of two cores, the others leave it one.
  run_tests "$home.slow" "$marks and $slow" -n1 "$@" >"$work/slow" 2>&1 &
  niceness=5
  run_others quick "$quick" -n1 "$@" >"$work/others" 2>&1 &
  run_tests "$home.quick" "$marks and $quick" -n1 "$@"
  # The last that are left: they get both cores once there is nothing else.
  run_others slow "$slow" -n2 "$@"
  wait
  cat "$work/others" "$work/slow"
fi

# An argument may select tests of one environment only.
result=$NO_TEST_SELECTED
counts=()
while read -r status file; do
  counts+=("$file")
  case $status in
    "$NO_TEST_SELECTED") ;;
    0) ((result != NO_TEST_SELECTED)) || result=0 ;;
    *) result=$status ;;
  esac
done <"$work/runs"
".venvs/$home/bin/python" tests/summary.py "${counts[@]}"
exit "$result"
