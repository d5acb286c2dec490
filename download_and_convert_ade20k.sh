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
#   ADE20K_URL             another address of the zip file, such as a mirror;
#                          of several, separated by blanks, each is tried where
#                          nothing came from the one before. Default: the
#                          authors' server by https, then by http
#   ADE20K_SHA1            its SHA-1, which decides wherever it came from
#   ADE20K_EXPECT_COUNTS   pairs to expect as TRAIN,VAL (20210,2000), or "no"
#   PYTHON                 the interpreter that converts; default: .venvs/tf1
#                          or .venvs/modern beside this script if there, else
#                          python
set -euo pipefail

readonly HERE="$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
readonly SITE=data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip
readonly URLS="${ADE20K_URL:-https://$SITE http://$SITE}"
readonly SHA1="${ADE20K_SHA1:-219e1696abb36c8ba3a3afe7fb2f4b4606a897c7}"
readonly COUNTS="${ADE20K_EXPECT_COUNTS:-20210,2000}"
readonly DEST=./ADE20K
readonly DATA="$DEST/ADEChallengeData2016"
readonly ZIP="$DEST/ADEChallengeData2016.zip"
readonly PART="$ZIP.part"
readonly UNPACKED="$DEST/.unpack.$$"
readonly RECORDS="$DEST/tfrecord"

# shellcheck source=scripts/lib_download.sh
. "$HERE/scripts/lib_download.sh"

find_python() {
  local candidate
  if [ -n "${PYTHON:-}" ]; then
    type -P -- "$PYTHON" > /dev/null || die "PYTHON=$PYTHON: not found"
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

# suite PROGRAM ARGUMENT...: runs Python code that imports from deeplab, and
# nothing from the current folder, which Python would search first.
suite() {
  "$PYTHON" -c "
import sys
here, sys.argv = sys.argv[1], sys.argv[2:]
sys.path[:] = [here] + [path for path in sys.path if path]
import signal
signal.signal(signal.SIGINT, signal.SIG_DFL)
from deeplab import environment
$1" "$HERE" "$0" "${@:2}"
}

# An hour of downloading should not end in a missing package.
check_python() {
  local problem
  problem="$(suite "
print(environment.problem_with(('tf1', 'tf2', 'modern')) or '')
" 2> /dev/null)" ||
    die "$PYTHON cannot run this suite; run ./scripts/setup.sh all"
  [ -z "$problem" ] || die "$problem"
}

# be_alone: dies where another run is at work in $DEST; removes what a dead one
# was unpacking. The lock is of the open folder: it ends with this process and
# all that it has started.
be_alone() {
  local known
  exec 9< "$DEST"
  known="$(suite "
import fcntl
try:
  fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
  print('alone')
except BlockingIOError:
  environment.refuse('another run is at work in ' + sys.argv[1])
except OSError:
  pass  # a file system without locks
" "$DEST")" || exit 2
  [ "$known" != alone ] || rm -rf "$DEST"/.unpack.*
}

# human BYTES: prints "13 KB" or "967 MB".
human() {
  if [ "$1" -lt 10000000 ]; then
    echo "$(( ($1 + 500) / 1000 )) KB"
  else
    echo "$(( ($1 + 500000) / 1000000 )) MB"
  fi
}

# check_room BYTES: dies where fewer bytes are free in $DEST.
check_room() {
  local free
  # The number before the percentage, as names of devices may have blanks.
  free="$(df -Pk "$DEST" 2> /dev/null | awk 'NR == 2 {
    for (i = 2; i <= NF; i++) if ($i ~ /^[0-9]+%$/) {print $(i - 1); exit}
  }')" || return 0
  free="$(whole_number "$free")" || return 0
  free="$(( free * 1024 ))"
  [ "$free" -ge "$1" ] ||
    die "need $(human "$1") free in $DEST, have $(human "$free")"
}

has_sum() {
  [ "$(sha1 < "$1")" = "$SHA1" ]
}

get_zip() {
  local sum
  if [ -f "$ZIP" ]; then
    check_sum "$ZIP" "remove it and rerun"
    return
  fi
  check_downloader '; or give --zip=PATH'
  is_writable_place "$ZIP" || die "$ZIP is no file; remove it and rerun"
  is_writable_place "$PART" || die "$PART is no plain file; remove it and rerun"
  # A run may have been stopped right after the last byte.
  if [ ! -s "$PART" ] || ! has_sum "$PART"; then
    complete_part
    sum="$(sha1 < "$PART")"
    if [ "$sum" != "$SHA1" ]; then
      mv -f "$PART" "$ZIP.bad"
      die "$SOURCE has SHA-1 $sum, expected $SHA1; kept as $ZIP.bad," \
        "rerun to download it again"
    fi
  fi
  mv "$PART" "$ZIP"
}

# complete_part: downloads $PART from the first address that anything comes
# from; sets SOURCE to that one.
complete_part() {
  local index total before status
  for index in "${!ADDRESSES[@]}"; do
    SOURCE="${ADDRESSES[index]}"
    total="$(size_on_server "$SOURCE")"
    before="$(size_of "$PART")"
    # The zip file, what it holds and the TFRecords: images do not compress.
    [ -z "$total" ] || check_room "$(( 3 * total - before ))"
    echo "downloading $SOURCE${total:+ ($(human "$total"))}"
    status=0
    download "$SOURCE" "$PART" || status=$?
    [ "$status" -ne 0 ] || return 0
    [ "$(size_of "$PART")" -le "$before" ] || break
    [ "$(( index + 1 ))" -eq "${#ADDRESSES[@]}" ] ||
      echo "nothing comes from $SOURCE (status $status), trying the next one"
  done
  if [ ! -s "$PART" ]; then
    rm -f "$PART"
    die "cannot download $SOURCE (status $status); rerun to try again, or" \
      "give --zip=PATH"
  fi
  die "$(basename "$ZIP") is $(human "$(size_of "$PART")")${total:+ of $(
    human "$total")}; rerun to resume, or give --zip=PATH"
}

# check_sum FILE REMEDY
check_sum() {
  local sum
  sum="$(sha1 < "$1")"
  [ "$sum" = "$SHA1" ] || die "$1 has SHA-1 $sum, expected $SHA1; $2"
}

# unpack FILE: makes $DATA, complete or not at all.
unpack() {
  check_room "$(( 2 * $(size_of "$1") ))"
  echo "unpacking $1"
  mkdir -p "$UNPACKED"
  suite "
import logging
logging.basicConfig(level=logging.INFO, format='%(message)s')
from deeplab.data import archive
from deeplab.errors import InputError
try:
  archive.unpack(*sys.argv[1:])
except InputError as error:
  environment.refuse(str(error))
" "$1" "$UNPACKED" "$(basename "$DATA")" || exit 2
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
  # The markers of a run that was stopped go last.
  [ -f "$RECORDS/train.json" ] && [ -f "$RECORDS/val.json" ] &&
    [ ! -e "$RECORDS/train.INCOMPLETE" ] &&
    [ ! -e "$RECORDS/val.INCOMPLETE" ] &&
    [ "$(count_files "$RECORDS" '*-0000?-of-00004.tfrecord')" = 8 ]
}

main() {
  local argument address zip=''
  for argument in "$@"; do
    case "$argument" in
      --zip=?*) zip="${argument#--zip=}" ;;
      --help | -h) usage; exit 0 ;;
      *) die "unknown argument $argument; expected --zip=PATH or --help" ;;
    esac
  done
  [[ "$COUNTS" == no || "$COUNTS" =~ ^[0-9]+,[0-9]+$ ]] ||
    die "ADE20K_EXPECT_COUNTS=$COUNTS: expected TRAIN,VAL or no"
  is_sum "$SHA1" ||
    die "ADE20K_SHA1=$SHA1: expected 40 hexadecimal digits in small letters"
  # At the end of the text, read fails as it finds no delimiter.
  read -r -d '' -a ADDRESSES <<< "$URLS" || true
  [ "${#ADDRESSES[@]}" -gt 0 ] || die 'ADE20K_URL is blank: expected addresses'
  for address in "${ADDRESSES[@]}"; do
    check_address ADE20K_URL "$address"
  done
  [ -z "$zip" ] || { [ -f "$zip" ] && [ -r "$zip" ]; } ||
    die "--zip=$zip: no such file that can be read"
  PYTHON="$(find_python)"
  check_python
  mkdir -p "$DEST" 2> /dev/null || die "cannot make $DEST here"
  be_alone
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
