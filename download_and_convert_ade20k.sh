#!/usr/bin/env bash
# Downloads ADE20K (SceneParse150) and converts it into TFRecords.
#
#     ./download_and_convert_ade20k.sh [--zip=PATH] [--help]
#
# Everything goes into the current folder's ./ADE20K, where the other scripts
# look for it by default:
#
#     ADE20K/ADEChallengeData2016.zip        as downloaded, 0.9 GB
#     ADE20K/ADEChallengeData2016/           images and annotations, 0.9 GB
#     ADE20K/tfrecord/                       TFRecords, 0.9 GB
#
# A step whose result is there already is skipped, and a broken download is
# resumed: run it again as often as needed. ADE20K is for research only; its
# terms are on https://groups.csail.mit.edu/vision/datasets/ADE20K.
#
#   --zip=PATH   unpack this copy of the zip file instead of downloading one
#   --help       print this text
#
# Environment variables:
#   ADE20K_URL             another address of the zip file, such as a mirror
#   ADE20K_SHA1            its SHA-1
#   ADE20K_EXPECT_COUNTS   pairs to expect as TRAIN,VAL (20210,2000), or "no"
#   PYTHON                 the interpreter that converts; default: .venvs/tf1
#                          or .venvs/modern beside this script if there, else
#                          python
set -euo pipefail

readonly HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
readonly SITE=http://data.csail.mit.edu/places/ADEchallenge
readonly URL="${ADE20K_URL:-$SITE/ADEChallengeData2016.zip}"
readonly SHA1="${ADE20K_SHA1:-219e1696abb36c8ba3a3afe7fb2f4b4606a897c7}"
readonly COUNTS="${ADE20K_EXPECT_COUNTS:-20210,2000}"
readonly DEST=./ADE20K
readonly DATA="$DEST/ADEChallengeData2016"
readonly ZIP="$DEST/ADEChallengeData2016.zip"
readonly PART="$ZIP.part"
readonly UNPACKED="$DEST/.unpack.$$"
readonly RECORDS="$DEST/tfrecord"
# Attempts in one run, as long as each brings something.
readonly ATTEMPTS=5

die() {
  printf 'ERROR %s: %s\n' "$(basename "$0")" "$*" >&2
  exit 2
}

usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"
}

find_python() {
  local candidate
  if [ -n "${PYTHON:-}" ]; then
    command -v "$PYTHON" > /dev/null || die "PYTHON=$PYTHON: not found"
    echo "$PYTHON"
    return
  fi
  for candidate in "$HERE/.venvs/tf1/bin/python" \
    "$HERE/.venvs/modern/bin/python" python python3; do
    if command -v "$candidate" > /dev/null; then
      echo "$candidate"
      return
    fi
  done
  die 'no python found; run ./scripts/setup.sh all'
}

# An hour of downloading should not end in a missing package.
check_python() {
  local problem
  problem="$("$PYTHON" - "$HERE" << 'PROGRAM'
import sys
sys.path.insert(0, sys.argv[1])
from deeplab import environment
print(environment.problem_with(('tf1', 'tf2', 'modern')) or '')
PROGRAM
  )" || die "$PYTHON cannot run this suite; run ./scripts/setup.sh all"
  [ -z "$problem" ] || die "$problem"
}

size_of() {
  if [ -f "$1" ]; then wc -c < "$1" | tr -d ' '; else echo 0; fi
}

# human BYTES: prints "13 KB" or "967 MB".
human() {
  if [ "$1" -lt 10000000 ]; then
    echo "$(( ($1 + 500) / 1000 )) KB"
  else
    echo "$(( ($1 + 500000) / 1000000 )) MB"
  fi
}

# Size in bytes that the server states, or nothing.
size_on_server() {
  if command -v curl > /dev/null; then
    curl -sfIL "$URL" || true
  else
    wget -q --spider -S "$URL" 2>&1 || true
  fi | tr -d '\r' |
    awk 'tolower($1) == "content-length:" {n = $2} END {print n}'
}

# check_room BYTES: dies unless that many bytes are free in $DEST.
check_room() {
  local free
  free="$(df -Pk "$DEST" | awk 'NR == 2 {printf "%.0f", $4 * 1024}')"
  [ "$free" -ge "$1" ] ||
    die "need $(human "$1") free in $DEST, have $(human "$free")"
}

sha1_of() {
  "$PYTHON" - "$1" << 'PROGRAM'
import hashlib
import sys
digest = hashlib.sha1()
with open(sys.argv[1], 'rb') as source:
  for block in iter(lambda: source.read(1 << 20), b''):
    digest.update(block)
print(digest.hexdigest())
PROGRAM
}

# fetch: one attempt to complete $PART; on a terminal with a progress bar.
fetch() {
  if command -v curl > /dev/null; then
    local bar=-s
    [ ! -t 2 ] || bar=--progress-bar
    curl -fL "$bar" -C - -o "$PART" "$URL"
  else
    local quiet='-q'
    [ ! -t 2 ] || quiet='-q --show-progress'
    # shellcheck disable=SC2086
    wget $quiet --tries=1 -c -O "$PART" "$URL"
  fi
}

# download TOTAL: completes $PART, resuming as often as it grows; TOTAL is the
# size to reach, or empty.
download() {
  local total="$1" attempt before status
  for (( attempt = 1; attempt <= ATTEMPTS; attempt++ )); do
    before="$(size_of "$PART")"
    [ -z "$total" ] || [ "$before" -lt "$total" ] || return 0
    status=0
    fetch || status=$?
    [ "$status" -ne 0 ] || return 0
    # 33: this server cannot resume, so the next attempt starts over.
    if [ "$status" -eq 33 ]; then
      rm -f "$PART"
    elif [ "$(size_of "$PART")" -le "$before" ]; then
      break
    fi
  done
  if [ "$(size_of "$PART")" -eq 0 ]; then
    rm -f "$PART"
    die "cannot download $URL (status $status); rerun to try again, or give" \
      "--zip=PATH"
  fi
  die "$(basename "$ZIP") is $(human "$(size_of "$PART")")${total:+ of $(
    human "$total")}; rerun to resume, or give --zip=PATH"
}

get_zip() {
  local total sum
  if [ -f "$ZIP" ]; then
    check_sum "$ZIP" "remove it and rerun"
    return
  fi
  command -v curl > /dev/null || command -v wget > /dev/null ||
    die 'needs curl or wget; or give --zip=PATH'
  total="$(size_on_server)"
  # The zip file, what it holds and the TFRecords: images do not compress.
  [ -z "$total" ] ||
    check_room "$(( 3 * total - $(size_of "$PART") ))"
  echo "downloading $URL${total:+ ($(human "$total"))}"
  download "$total"
  sum="$(sha1_of "$PART")"
  if [ "$sum" != "$SHA1" ]; then
    mv -f "$PART" "$ZIP.bad"
    die "$URL has SHA-1 $sum, expected $SHA1; kept as $ZIP.bad," \
      "rerun to download it again"
  fi
  mv "$PART" "$ZIP"
}

# check_sum FILE REMEDY
check_sum() {
  local sum
  sum="$(sha1_of "$1")"
  [ "$sum" = "$SHA1" ] || die "$1 has SHA-1 $sum, expected $SHA1; $2"
}

# unpack FILE: makes $DATA, complete or not at all.
unpack() {
  check_room "$(( 2 * $(size_of "$1") ))"
  echo "unpacking $1"
  mkdir -p "$UNPACKED"
  if command -v unzip > /dev/null; then
    unzip -q -n "$1" -d "$UNPACKED" || die "$1 cannot be unpacked (unzip)"
  else
    "$PYTHON" -m zipfile -e "$1" "$UNPACKED" ||
      die "$1 cannot be unpacked (zipfile)"
  fi
  check_counts "$UNPACKED/ADEChallengeData2016" "is it ADEChallengeData2016?"
  mv "$UNPACKED/ADEChallengeData2016" "$DATA"
}

count_files() {
  if [ -d "$1" ]; then find "$1" -name "$2" | wc -l | tr -d ' '; else echo 0; fi
}

# check_counts FOLDER REMEDY: dies unless it holds the expected pairs.
check_counts() {
  local expected split images labels
  [ -d "$1" ] || die "$1: no such folder after unpacking; $2"
  [ "$COUNTS" != no ] || return 0
  for split in training:"${COUNTS%,*}" validation:"${COUNTS#*,}"; do
    expected="${split#*:}"
    split="${split%:*}"
    images="$(count_files "$1/images/$split" '*.jpg')"
    labels="$(count_files "$1/annotations/$split" '*.png')"
    [ "$images" = "$expected" ] && [ "$labels" = "$expected" ] ||
      die "$1 holds $images images and $labels labels for $split," \
        "expected $expected; $2"
  done
}

records_complete() {
  [ -f "$RECORDS/train.json" ] && [ -f "$RECORDS/val.json" ] &&
    [ "$(count_files "$RECORDS" '*-0000?-of-00004.tfrecord')" = 8 ]
}

main() {
  local argument zip=''
  for argument in "$@"; do
    case "$argument" in
      --zip=?*) zip="${argument#--zip=}" ;;
      --help | -h) usage; exit 0 ;;
      *) die "unknown argument $argument; expected --zip=PATH or --help" ;;
    esac
  done
  [[ "$COUNTS" == no || "$COUNTS" =~ ^[0-9]+,[0-9]+$ ]] ||
    die "ADE20K_EXPECT_COUNTS=$COUNTS: expected TRAIN,VAL or no"
  [ -z "$zip" ] || [ -f "$zip" ] || die "--zip=$zip: no such file"
  PYTHON="$(find_python)"
  check_python
  mkdir -p "$DEST" || die "cannot make $DEST here"
  trap 'rm -rf "$UNPACKED"' EXIT

  if [ -d "$DATA" ]; then
    check_counts "$DATA" "remove this folder and rerun"
    echo "$DATA is complete, nothing to download"
  elif [ -n "$zip" ]; then
    check_sum "$zip" "give another copy, or none to download it"
    unpack "$zip"
  else
    get_zip
    unpack "$ZIP"
  fi
  if records_complete; then
    echo "$RECORDS is complete; remove it to convert again"
  else
    "$PYTHON" "$HERE/build_ade20k_data.py"
  fi
}

main "$@"
