#!/usr/bin/env bash
# Checks style and types, then runs the tests of each environment. It makes the
# environments first if needed.
#
#   ./scripts/test.sh [--quick|--all] [PYTEST_ARGUMENT...]
#
# A test runs in each environment of its markers: tf1, tf2, modern. A test without
# such a marker runs in .venvs/tf1, or in .venvs/modern if there is no
# Python for .venvs/tf1. --quick runs this one environment, without tests that are
# marked slow. Tests marked extended check whole runs; only --all runs them,
# like CI. Other arguments go to pytest.
#
# The last lines count the tests of each environment. A test that hangs fails
# after the timeout of pyproject.toml.
# Exit status: 0 if every test passed, else pytest's status for a failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly NO_TEST_SELECTED=5  # pytest's exit status

extent=most
case ${1:-} in
  --quick | --all) extent=${1#--}; shift ;;
esac

# Prints "ready: .venvs/tf1 (...) .venvs/modern (...)".
ready=$(./scripts/setup.sh all)
echo "$ready"
environments=()
for name in tf1 tf2 modern; do
  [[ $ready != *".venvs/$name "* ]] || environments+=("$name")
done
home=${environments[0]}
if [[ $home == modern ]]; then
  echo 'no Python 3.7 or 3.6: tests run in .venvs/modern, except those that are' \
    'marked tf1 or tf2 only'
fi

# Ruff runs on Python 3.7 or newer, mypy on 3.10 or newer.
if ".venvs/$home/bin/python" -c 'import ruff' 2>/dev/null; then
  echo '== ruff check'
  ".venvs/$home/bin/python" -m ruff check .
fi
if [[ ${environments[*]} == *modern ]] &&
    .venvs/modern/bin/python -c 'import mypy' 2>/dev/null; then
  echo '== mypy'
  .venvs/modern/bin/python -m mypy
fi

[[ $extent != quick ]] || environments=("$home")
# Every start of a script would compile its modules again.
unset PYTHONDONTWRITEBYTECODE
output=$(mktemp)
trap 'rm -f "$output"' EXIT
counts=()
result=$NO_TEST_SELECTED
for name in "${environments[@]}"; do
  marks=$name
  [[ $name != "$home" ]] || marks="($home or not (tf1 or tf2 or modern))"
  case $extent in
    quick) marks+=' and not (slow or extended)' ;;
    most) marks+=' and not extended' ;;
  esac
  echo "== .venvs/$name/bin/python -m pytest -m '$marks' $*"
  status=0
  # More processes than CI has cores, as some tests wait. Pytest replaces one that
  # a test has killed.
  ".venvs/$name/bin/python" -m pytest -m "$marks" -n3 --dist=loadfile "$@" |
    tee "$output" || status=$?
  counts+=("$name: $(tail -n1 "$output")")
  # An argument may select tests of one environment only.
  case $status in
    "$NO_TEST_SELECTED") ;;
    0) ((result != NO_TEST_SELECTED)) || result=0 ;;
    *) result=$status ;;
  esac
done
printf '%s\n' "${counts[@]}"
exit "$result"
