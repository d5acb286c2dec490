#!/usr/bin/env bash
# Downloads the published checkpoints, frozen graphs and TFLite files.
#
#     ./scripts/fetch_checkpoints.sh [FOLDER...] [--output_dir=DIR] [--help]
#
# FOLDER is float, post_train_quant or quantize_aware_training; without one, all
# three are fetched. Every file is verified by its Git blob SHA-1, from
# checkpoints/git-blob-sha1.txt. Files that are there and right are not
# downloaded again, and a broken download is resumed: run it again as often as
# needed. Exit status: 0 all there; 2 bad input, or files are missing.
#
#   --output_dir=DIR   where to put the folders; default: checkpoints/ beside
#                      scripts/
#   --help             print this text
#
# Environment variables:
#   CHECKPOINTS_URL        another address of the folder checkpoints, such as a
#                          mirror
#   CHECKPOINTS_MANIFEST   another list of sums and paths
set -euo pipefail

readonly HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
readonly SITE=https://raw.githubusercontent.com/mlcommons/mobile_open/main
readonly URL="${CHECKPOINTS_URL:-$SITE/vision/deeplab/models_and_code/checkpoints}"
readonly MANIFEST="${CHECKPOINTS_MANIFEST:-$HERE/../checkpoints/git-blob-sha1.txt}"
# Attempts for one file in one run, as long as each brings something.
readonly ATTEMPTS=5

die() {
  printf 'ERROR %s: %s\n' "$(basename "$0")" "$*" >&2
  exit 2
}

usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"
}

size_of() {
  if [ -f "$1" ]; then wc -c < "$1" | tr -d ' '; else echo 0; fi
}

# blob_sha1 FILE: what "git hash-object FILE" prints.
blob_sha1() {
  { printf 'blob %s\0' "$(size_of "$1")"; cat "$1"; } | sha1 | cut -d ' ' -f 1
}

sha1() {
  if command -v sha1sum > /dev/null; then sha1sum; else shasum -a 1; fi
}

# fetch URL PART: adds to PART what it lacks of the file at URL.
fetch() {
  if command -v curl > /dev/null; then
    local bar=-s
    [ ! -t 2 ] || bar=--progress-bar
    curl -fL "$bar" -C - -o "$2" "$1"
  else
    local quiet='-q'
    [ ! -t 2 ] || quiet='-q --show-progress'
    # shellcheck disable=SC2086
    wget $quiet --tries=1 -c -O "$2" "$1"
  fi
}

# download URL PART: completes PART, resuming as often as it grows.
download() {
  local attempt before status
  for (( attempt = 1; attempt <= ATTEMPTS; attempt++ )); do
    before="$(size_of "$2")"
    status=0
    fetch "$1" "$2" || status=$?
    [ "$status" -ne 0 ] || return 0
    # 33: this server cannot resume, so the next attempt starts over.
    if [ "$status" -eq 33 ]; then
      rm -f "$2"
    elif [ "$(size_of "$2")" -le "$before" ]; then
      break
    fi
  done
  return 1
}

# get SUM PATH: makes $DEST/PATH; fails with the reason in REASON.
get() {
  local sum="$1" file="$DEST/$2" part found
  REASON='cannot be renamed'
  part="$file.part"
  if [ -f "$file" ]; then
    [ "$(blob_sha1 "$file")" != "$sum" ] || return 0
    REASON='is another file than the published one; move it away'
    return 1
  fi
  if ! mkdir -p "$(dirname "$file")"; then
    REASON="cannot be written to $DEST"
    return 1
  fi
  # A part may be complete already, if the last run was stopped in between.
  if [ ! -f "$part" ] || [ "$(blob_sha1 "$part")" != "$sum" ]; then
    echo "downloading $2"
    if ! download "$URL/$2" "$part"; then
      REASON="cannot download $URL/$2"
      if [ -s "$part" ]; then
        REASON="broke off after $(size_of "$part") bytes"
      else
        rm -f "$part"
      fi
      return 1
    fi
    found="$(blob_sha1 "$part")"
    if [ "$found" != "$sum" ]; then
      rm -f "$part"
      REASON="has Git blob SHA-1 $found, expected $sum"
      return 1
    fi
  fi
  mv "$part" "$file" && DOWNLOADED=$(( DOWNLOADED + 1 ))
}

# read_manifest FOLDER...: sets SUMS and PATHS to what lies in these folders.
read_manifest() {
  local sum path folder
  SUMS=() PATHS=()
  [ -f "$MANIFEST" ] || die "$MANIFEST: no such file"
  while read -r sum path; do
    [[ -n "$sum" && "$sum" != '#'* ]] || continue
    [[ "$sum" =~ ^[0-9a-f]{40}$ && -n "$path" ]] ||
      die "$MANIFEST: \"$sum $path\": expected a SHA-1 and a path"
    for folder in "$@"; do
      if [[ "$path" == "$folder"/* ]]; then
        SUMS+=("$sum")
        PATHS+=("$path")
      fi
    done
  done < "$MANIFEST"
  [ "${#PATHS[@]}" -gt 0 ] || die "$MANIFEST: lists no file of $*"
}

main() {
  local argument index folders=() missing=()
  DEST="$HERE/../checkpoints"
  for argument in "$@"; do
    case "$argument" in
      float | post_train_quant | quantize_aware_training)
        folders+=("$argument") ;;
      --output_dir=?*) DEST="${argument#--output_dir=}" ;;
      --help | -h) usage; exit 0 ;;
      *) die "unknown argument $argument; expected float, post_train_quant," \
           "quantize_aware_training, --output_dir=DIR or --help" ;;
    esac
  done
  [ "${#folders[@]}" -gt 0 ] ||
    folders=(float post_train_quant quantize_aware_training)
  command -v curl > /dev/null || command -v wget > /dev/null ||
    die 'needs curl or wget'
  read_manifest "${folders[@]}"
  mkdir -p "$DEST" || die "cannot make $DEST"
  DEST="$(cd "$DEST" && pwd)"

  DOWNLOADED=0
  for index in "${!PATHS[@]}"; do
    get "${SUMS[index]}" "${PATHS[index]}" ||
      missing+=("${PATHS[index]} $REASON")
  done
  echo "$DEST: $(( ${#PATHS[@]} - ${#missing[@]} )) of ${#PATHS[@]} files" \
    "verified, $DOWNLOADED of them downloaded now"
  if [ "${#missing[@]}" -gt 0 ]; then
    printf 'missing: %s\n' "${missing[@]}"
    die "${#missing[@]} of ${#PATHS[@]} files are missing, the first:" \
      "${missing[0]}; rerun to resume"
  fi
}

main "$@"
