#!/usr/bin/env bash
# Makes the suite's Python environments; a second run finds them ready.
#
# TensorFlow 1.15 and 2.2 need Python 3.7 or 3.6, TensorFlow 2.21 needs 3.10 to
# 3.13. They are searched for in $DEEPLAB_PYTHON and $DEEPLAB_MODERN_PYTHON, on
# PATH, and in the installations of pyenv, uv and conda.
# Exit status: 0 ready; 1 the installation failed; 2 bad input, or no Python.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_PYTHON_VERSION_WARNING=1
export PIP_ROOT_USER_ACTION=ignore
# Modules from elsewhere must not replace the pinned ones.
unset PYTHONHOME PYTHONPATH

usage() {
  cat <<'USAGE'
usage: ./scripts/setup.sh tf1|tf2|modern|all
  tf1     .venvs/tf1: training, evaluation of checkpoints and frozen graphs
  tf2     .venvs/tf2: post-training quantization, evaluation of TFLite models
  modern  .venvs/modern: everything, with TensorFlow 2.21
  all     those of the three that there is a Python for
./scripts/setup.sh --state makes nothing: it says what there is, a line for each
environment, as scripts/doctor.py reads it.
DEEPLAB_PYTHON=/path/to/python3.7 chooses the Python to make tf1 and tf2 from,
DEEPLAB_MODERN_PYTHON=/path/to/python3.11 the one to make modern from.
USAGE
}

# fail STATUS WORD...: one line on standard error, then exit.
fail() {
  local status=$1
  shift
  echo "ERROR setup.sh: $*" >&2
  exit "$status"
}

# --- Which Python ----------------------------------------------------------

# choose_family NAME: sets the facts about an environment's Python: versions,
# preferred first; their text; its TensorFlow; the variable that names a Python;
# and the packages that install others.
choose_family() {
  case $1 in
    modern)
      versions=(3.11 3.12 3.13 3.10)
      versions_text='3.10 to 3.13'
      series=2.21
      variable=DEEPLAB_MODERN_PYTHON
      installers=(pip==26.3)
      ;;
    *)
      versions=(3.7 3.6)
      versions_text='3.7 or 3.6'
      series='1.15 and 2.2'
      variable=DEEPLAB_PYTHON
      # The last pip for Python 3.6. From 24.1 on, pip refuses the metadata of
      # such old packages.
      installers=(pip==21.3.1 wheel==0.37.1)
      ;;
  esac
}

# Prints "3.7 /path/to/python3.7" for a suitable interpreter, else nothing. The
# path is the base installation's, never a virtual environment's: that one may
# be about to be rebuilt.
probe() {
  local found
  found=$("$1" -c '
import ensurepip, os, sys, venv
version = "%d.%d" % sys.version_info[:2]
base = os.path.join(sys.base_prefix, "bin", "python" + version)
path = base if os.path.exists(base) else sys.executable
sys.stdout.write(version + " " + path + "\n")
' 2>/dev/null) || return 0
  if [[ " ${versions[*]} " == *" ${found%% *} "* ]]; then
    echo "$found"
  fi
}

# Prints possible interpreters, one on each line, preferred first.
candidates() {
  local name version
  for name in "${versions[@]/#/python}" python3 python; do
    type -aP "$name" || true
  done
  for version in "${versions[@]}"; do
    ls -d "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python \
      2>/dev/null || true
  done
  if type -P uv >/dev/null; then
    for version in "${versions[@]}"; do
      UV_PYTHON_DOWNLOADS=never uv python find "$version" 2>/dev/null || true
    done
  fi
  if type -P conda >/dev/null; then
    conda env list 2>/dev/null | sed -n 's|^[^#/]*\(/.*\)|\1/bin/python|p' ||
      true
  fi
}

# Prints "3.7 /path/to/python3.7", or nothing if there is no suitable one.
find_python() {
  local path found
  if [[ -n ${!variable:-} ]]; then
    found=$(probe "${!variable}")
    [[ -n $found ]] || fail 2 "$variable=${!variable}: expected a Python" \
      "$versions_text with the modules venv and ensurepip"
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
}

# print_ways NAME...: prints how to get a Python for these environments.
print_ways() {
  local name example line examples=() missing=() named=()
  for name in "$@"; do
    choose_family "$name"
    example=${versions[0]}
    line="  $variable=/path/to/python$example ./scripts/setup.sh $asked"
    if [[ "${named[*]:-}" != *"$line"* ]]; then
      examples+=("$example")
      missing+=("no Python $versions_text for TensorFlow $series")
      named+=("$line")
    fi
  done
  line=$(printf ', %s' "${missing[@]}")
  echo "ERROR setup.sh: found ${line#, }"
  cat <<'WAYS'
Looked on PATH and among what pyenv, uv and conda have installed, for one with
the modules venv and ensurepip. Ways to get one, after which this script finds
it:
WAYS
  for example in "${examples[@]}"; do
    echo "  uv python install $example"
    echo "  pyenv install $example"
    echo "  conda create -n python${example/./} python=$example"
  done
  if [[ $* == *modern* ]]; then
    echo '  apt-get install python3-venv    (if python3 is 3.10 to 3.13)'
  fi
  echo 'One that is elsewhere can be named:'
  printf '%s\n' "${named[@]}"
  if [[ $* != *modern* ]]; then
    echo 'Python 3.10 to 3.13 runs every script too, with TensorFlow 2.21:'
    echo '  ./scripts/setup.sh modern'
  fi
}

# print_state NAME: prints the name; ready, untested (only the tests' packages
# are missing), outdated or missing; the TensorFlow; the environment's Python;
# the version and path of the Python to build it from; the versions allowed.
# Fields are separated by tabs; empty ones are "-".
print_state() {
  local state=missing found
  choose_family "$1"
  if [[ -e .venvs/$1 ]]; then
    state=outdated
    if has_base "$1"; then
      if has_tests "$1"; then state=ready; else state=untested; fi
    fi
  fi
  found=$(find_python) || exit
  found=${found:-- -}
  printf '%s\t' "$1" "$state" "$(tensorflow_version "$1")" \
    "$(python_version "$1" || echo -)" "${found%% *}" "${found#* }"
  echo "$versions_text"
}

# --- Making an environment -------------------------------------------------

tensorflow_version() { sed -n 's/^tensorflow==//p' "requirements-$1.txt"; }

# Prints the version of an environment's Python; fails if it does not run.
python_version() {
  ".venvs/$1/bin/python" -c \
    'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null
}

# The two lines of a finished environment's stamp: its base, and the tests'
# packages. The folder is included because installed programs hold its path.
base_stamp() {
  echo "$PWD, Python $(python_version "$1")," \
    "requirements $(cksum <"requirements-$1.txt")"
}
tests_stamp() { echo "for tests $(cksum <requirements-dev.txt)"; }

# Checks whether an environment has the requested Python and requirements.
has_base() {
  local file=.venvs/$1/ready line named
  [[ -f $file ]] && read -r line <"$file" &&
    [[ $line == "$(base_stamp "$1")" ]] || return 1
  if [[ -n ${!variable:-} ]]; then
    named=$(find_python) || exit
    [[ $(python_version "$1") == "${named%% *}".* ]]
  fi
}

# Checks whether an environment with a base has the tests' packages.
has_tests() { [[ $(sed -n 2p ".venvs/$1/ready") == "$(tests_stamp)" ]]; }

# install NAME: installs the missing packages of an environment.
install() {
  local python=.venvs/$1/bin/python
  "$python" -m pip install -qq "${installers[@]}" &&
    "$python" -m pip install -qq \
      -r "requirements-$1.txt" -r requirements-dev.txt ||
    fail 1 "$1: pip could not install requirements-$1.txt and" \
      "requirements-dev.txt; see above"
}

# update_environment NAME: updates only the tests' packages.
update_environment() {
  echo "$1: installing requirements-dev.txt into .venvs/$1" >&2
  # An interrupted update leaves only the first line; the next run continues.
  base_stamp "$1" >".venvs/$1/ready"
  install "$1"
  tests_stamp >>".venvs/$1/ready"
}

# make_environment NAME PYTHON
make_environment() {
  local folder=.venvs/$1 base=$2 written
  echo "$1: installing TensorFlow $(tensorflow_version "$1") into $folder," \
    "with $base; this takes a few minutes" >&2
  rm -rf "$folder"
  mkdir -p .venvs
  "$base" -m venv "$folder" || fail 1 "$1: $base -m venv $folder failed"
  install "$1"
  # The output matters only if the import fails.
  if ! written=$("$folder/bin/python" -W ignore -c 'import tensorflow' 2>&1)
  then
    echo "$written" >&2
    fail 1 "$1: TensorFlow is installed but cannot be imported; see above"
  fi
  # Written last: after an interrupted run, the next one starts over.
  base_stamp "$1" >"$folder/ready"
  tests_stamp >>"$folder/ready"
}

# --- Command line ----------------------------------------------------------

case "$#:${1:-}" in
  1:tf1 | 1:tf2 | 1:modern) names=("$1") ;;
  1:all) names=(tf1 tf2 modern) ;;
  1:--state)
    for name in tf1 tf2 modern; do print_state "$name"; done
    exit 0
    ;;
  1:-h | 1:--help)
    usage
    exit 0
    ;;
  *)
    echo "ERROR setup.sh: ${*:-no argument}: expected tf1, tf2, modern or all" \
      >&2
    usage >&2
    exit 2
    ;;
esac

readonly asked=$1
summary=()
left_out=()
for name in "${names[@]}"; do
  choose_family "$name"
  if ! has_base "$name"; then
    found=$(find_python)
    if [[ -z $found ]]; then
      left_out+=(".venvs/$name (found no Python $versions_text)")
      continue
    fi
    make_environment "$name" "${found#* }"
  elif ! has_tests "$name"; then
    update_environment "$name"
  fi
  summary+=(".venvs/$name (TensorFlow $(tensorflow_version "$name"), Python $(
    python_version "$name"))")
done
if ((${#summary[@]} == 0)); then
  print_ways "${names[@]}" >&2
  exit 2
fi
if ((${#left_out[@]})); then
  echo "left out: ${left_out[*]}" >&2
fi
echo "ready: ${summary[*]}"
