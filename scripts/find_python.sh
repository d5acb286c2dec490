# Sourced by scripts that run without an environment.
# shellcheck shell=bash

# find_python ROOT: prints $PYTHON, an environment's Python, or the system's.
find_python() {
  local candidate
  for candidate in "${PYTHON:-}" "$1/.venvs/tf1/bin/python" \
    "$1/.venvs/modern/bin/python" python3 python; do
    if [ -n "$candidate" ] && type -P -- "$candidate" > /dev/null; then
      echo "$candidate"
      return
    fi
    [ -z "${PYTHON:-}" ] || break
  done
  echo "ERROR $(basename -- "$0"): ${PYTHON:+PYTHON=$PYTHON: }no such Python;" \
    'run ./scripts/setup.sh all' >&2
  exit 2
}
