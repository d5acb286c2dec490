#!/usr/bin/env bash
# Makes the suite's Python environments; a second run finds them ready.
#
# TensorFlow 1.15 and 2.2 need Python 3.7 or 3.6, which is looked for in
# $DEEPLAB_PYTHON, on PATH, and among what pyenv, uv and conda have installed.
# Exit status: 0 ready; 1 the installation failed; 2 bad input, or no Python.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_PYTHON_VERSION_WARNING=1
export PIP_ROOT_USER_ACTION=ignore
# Modules from elsewhere must not stand in for the pinned ones.
unset PYTHONHOME PYTHONPATH

usage() {
  cat <<'USAGE'
usage: ./scripts/setup.sh tf1|tf2|all
  tf1   .venvs/tf1: training, evaluation of checkpoints and frozen graphs
  tf2   .venvs/tf2: post-training quantization, evaluation of TFLite models
  all   both
DEEPLAB_PYTHON=/path/to/python3.7 chooses the Python to make them from.
USAGE
}

# fail STATUS WORD...: one line on standard error, then exit.
fail() {
  local status=$1
  shift
  echo "ERROR setup.sh: $*" >&2
  exit "$status"
}

# --- Finding a Python ------------------------------------------------------

# Prints "3.7 /path/to/python3.7" for a suitable interpreter, else nothing. The
# path is the base installation's, never a virtual environment's: that one may
# be about to be rebuilt.
probe() {
  "$1" -c '
import ensurepip, os, sys, venv
version = "%d.%d" % sys.version_info[:2]
base = os.path.join(sys.base_prefix, "bin", "python" + version)
path = base if os.path.exists(base) else sys.executable
if version in ("3.7", "3.6"):
  sys.stdout.write(version + " " + path + "\n")
' 2>/dev/null || true
}

# Prints interpreters that may be suitable, one a line, the best first.
candidates() {
  local name version
  for name in python3.7 python3.6 python3 python; do
    type -P "$name" || true
  done
  for version in 3.7 3.6; do
    ls -d "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python \
      2>/dev/null || true
  done
  if type -P uv >/dev/null; then
    for version in 3.7 3.6; do
      UV_PYTHON_DOWNLOADS=never uv python find "$version" 2>/dev/null || true
    done
  fi
  if type -P conda >/dev/null; then
    conda env list 2>/dev/null | sed -n 's|^[^#/]*\(/.*\)|\1/bin/python|p' ||
      true
  fi
}

# Prints "3.7 /path/to/python3.7", or says how to get one and exits.
find_python() {
  local path found
  if [[ -n ${DEEPLAB_PYTHON:-} ]]; then
    found=$(probe "$DEEPLAB_PYTHON")
    [[ -n $found ]] || fail 2 "DEEPLAB_PYTHON=$DEEPLAB_PYTHON: expected a" \
      "Python 3.7 or 3.6 with the modules venv and ensurepip"
    echo "$found"
    return
  fi
  while read -r path; do
    found=$(probe "$path")
    if [[ -n $found ]]; then
      echo "$found"
      return
    fi
  done < <(candidates)
  cat >&2 <<'WAYS'
ERROR setup.sh: found no Python 3.7 or 3.6, which TensorFlow 1.15 and 2.2 need
Looked on PATH and among what pyenv, uv and conda have installed. Ways to get
one, after which this script finds it:
  uv python install 3.7
  pyenv install 3.7
  conda create -n python37 python=3.7
One that is elsewhere can be named:
  DEEPLAB_PYTHON=/path/to/python3.7 ./scripts/setup.sh all
WAYS
  exit 2
}

# --- Making an environment -------------------------------------------------

tensorflow_version() { sed -n 's/^tensorflow==//p' "requirements-$1.txt"; }

# Prints the version of an environment's Python; fails where it does not run.
python_version() {
  ".venvs/$1/bin/python" -c \
    'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null
}

# What the stamp of a finished environment holds. Its programs name the folder
# they were installed in, so a moved repository needs new ones.
stamp() {
  echo "$PWD, Python $(python_version "$1")," \
    "requirements $(cat "requirements-$1.txt" requirements-dev.txt | cksum)"
}

# Whether an environment is finished, unchanged, and of the Python asked for.
is_ready() {
  local file=.venvs/$1/ready asked
  [[ -f $file && $(<"$file") == "$(stamp "$1")" ]] || return 1
  if [[ -n ${DEEPLAB_PYTHON:-} ]]; then
    asked=$(find_python) || exit
    [[ $(python_version "$1") == "${asked%% *}".* ]]
  fi
}

make_environment() {
  local folder=.venvs/$1 found base
  found=$(find_python) || exit
  base=${found#* }
  echo "$1: installing TensorFlow $(tensorflow_version "$1") into $folder," \
    "with $base; this takes a few minutes" >&2
  rm -rf "$folder"
  mkdir -p .venvs
  "$base" -m venv "$folder" || fail 1 "$1: $base -m venv $folder failed"
  # The last pip for Python 3.6; from 24.1 on, pip refuses the metadata of
  # packages as old as these.
  "$folder/bin/python" -m pip install -qq pip==21.3.1 wheel==0.37.1 &&
    "$folder/bin/python" -m pip install -qq \
      -r "requirements-$1.txt" -r requirements-dev.txt ||
    fail 1 "$1: pip could not install requirements-$1.txt and" \
      "requirements-dev.txt; see above"
  TF_CPP_MIN_LOG_LEVEL=3 "$folder/bin/python" -W ignore \
    -c 'import tensorflow' ||
    fail 1 "$1: TensorFlow is installed but cannot be imported; see above"
  # Written last: an interrupted run leaves none, and the next one starts over.
  stamp "$1" >"$folder/ready"
}

# --- Command line ----------------------------------------------------------

case "$#:${1:-}" in
  1:tf1 | 1:tf2) names=("$1") ;;
  1:all) names=(tf1 tf2) ;;
  1:-h | 1:--help)
    usage
    exit 0
    ;;
  *)
    echo "ERROR setup.sh: ${*:-no argument}: expected tf1, tf2 or all" >&2
    usage >&2
    exit 2
    ;;
esac

summary=()
for name in "${names[@]}"; do
  is_ready "$name" || make_environment "$name"
  summary+=(".venvs/$name (TensorFlow $(tensorflow_version "$name"), Python $(
    python_version "$name"))")
done
echo "ready: ${summary[*]}"
