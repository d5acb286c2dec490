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

readonly HERE="$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
readonly SITE=https://raw.githubusercontent.com/mlcommons/mobile_open/main
readonly URL="${CHECKPOINTS_URL:-$SITE/vision/deeplab/models_and_code/checkpoints}"
readonly MANIFEST="${CHECKPOINTS_MANIFEST:-$HERE/../checkpoints/git-blob-sha1.txt}"

# shellcheck source=scripts/lib_download.sh
. "$HERE/lib_download.sh"

# blob_sha1 FILE: what "git hash-object FILE" prints.
blob_sha1() {
  { printf 'blob %s\0' "$(size_of "$1")"; cat "$1"; } | sha1
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
  if ! is_writable_place "$file" || ! is_writable_place "$part"; then
    REASON='or its .part is a link or no file; move it away'
    return 1
  fi
  if ! mkdir -p "${file%/*}" 2> /dev/null; then
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

# is_path TEXT: whether it is a path that stays below the folder it starts from
# and that no program takes for an option.
is_path() {
  local LC_ALL=C name='[A-Za-z0-9_][A-Za-z0-9._-]*'
  # X.part is where X is downloaded to.
  [[ "$1" =~ ^$name(/$name)*$ && "$1" != *.part ]]
}

# read_manifest FOLDER...: sets SUMS and PATHS to what lies in these folders;
# dies at a line that is wrong, wherever it belongs.
read_manifest() {
  local sum path folder place number=0 all=' '
  SUMS=() PATHS=()
  [ -f "$MANIFEST" ] && [ -r "$MANIFEST" ] ||
    die "$MANIFEST: no such file that can be read"
  # The last line may lack its end.
  while read -r sum path || [ -n "$sum" ]; do
    number="$(( number + 1 ))"
    [[ -n "$sum" && "$sum" != '#'* ]] || continue
    place="$MANIFEST: line $number: \"$sum $path\""
    is_sum "$sum" && [ -n "$path" ] ||
      die "$place: expected a SHA-1 and a path"
    is_path "$path" ||
      die "$place: expected a relative path of letters, digits and ._-, in" \
        "which no name begins with . or - or ends in .part"
    [[ "$all" != *" $path "* ]] || die "$place: lists this path again"
    all+="$path "
    for folder in "$@"; do
      if [[ "$path" == "$folder"/* ]]; then
        SUMS+=("$sum")
        PATHS+=("$path")
      fi
    done
  done < "$MANIFEST"
  [ "${#PATHS[@]}" -gt 0 ] || die "$MANIFEST: lists no file of $*"
}

# check_inside PATH: dies where a link in PATH's folders leads out of $DEST.
check_inside() {
  local folder="$DEST/$1" real
  until folder="${folder%/*}" && [ -d "$folder" ]; do :; done
  real="$(cd "$folder" && pwd -P)" || die "$folder: cannot be entered"
  [[ "$real/" == "${DEST%/}"/* ]] ||
    die "$folder is $real, which is not in $DEST; move this link away"
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
  check_downloader ''
  check_address CHECKPOINTS_URL "$URL"
  read_manifest "${folders[@]}"
  # A relative name may begin with a dash, or be found in CDPATH.
  [[ "$DEST" == /* ]] || DEST="./$DEST"
  mkdir -p "$DEST" 2> /dev/null || die "cannot make $DEST"
  DEST="$(cd "$DEST" && pwd -P)"
  for index in "${!PATHS[@]}"; do
    check_inside "${PATHS[index]}"
  done

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
