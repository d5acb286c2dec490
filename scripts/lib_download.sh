# What download_and_convert_ade20k.sh and fetch_checkpoints.sh share; they
# source it. Help and errors, numbers from outside, sums, resumed downloads.
#
# bash runs commands that it finds in what it takes for a number. So what comes
# from outside (a header, a list, a variable, the output of a program) is parsed
# here before it reaches arithmetic or a comparison.
# shellcheck shell=bash

# Attempts in one run, as long as each brings something.
readonly ATTEMPTS=5
# Seconds between two lines where nobody sees a bar.
readonly NOTICE_SECS=30
# Seconds without an answer, or without a byte, after which an attempt ends.
readonly CONNECT_TIMEOUT=20
readonly STALL_TIMEOUT=60
# curl's status where a server cannot resume, so that a download starts over.
readonly CANNOT_RESUME=33

# Neither file nor any other protocol, be it after a redirect.
readonly CURL=(curl --fail --location --globoff --proto '=http,https'
  --proto-redir '=http,https' --connect-timeout "$CONNECT_TIMEOUT"
  --speed-limit 1 --speed-time "$STALL_TIMEOUT")
# wget has no such limit, but it knows no file protocol either.
readonly WGET=(wget -q -t 1 -T "$STALL_TIMEOUT")

# die WORD...: one line on standard error, then exit.
die() {
  local message="$*"
  printf 'ERROR %s: %s\n' "$(basename -- "$0")" \
    "${message//[[:cntrl:]]/ }" >&2
  exit 2
}

# usage: prints the comment that the calling script begins with.
usage() {
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[1]}"
}

# whole_number TEXT: prints it without leading zeros, which would make it octal;
# fails where TEXT is anything but 1 to 15 digits.
whole_number() {
  local LC_ALL=C
  [[ "$1" =~ ^[[:space:]]*([0-9]{1,15})[[:space:]]*$ ]] || return 1
  echo "$(( 10#${BASH_REMATCH[1]} ))"
}

# size_of FILE: prints its bytes; 0 where there is none.
size_of() {
  if [ -f "$1" ]; then whole_number "$(wc -c < "$1")"; else echo 0; fi
}

# is_sum TEXT: whether it is a SHA-1 as sha1 prints it.
is_sum() {
  local LC_ALL=C
  [[ "$1" =~ ^[0-9a-f]{40}$ ]]
}

# sha1: prints the SHA-1 of standard input.
sha1() {
  if command -v sha1sum > /dev/null; then sha1sum; else shasum -a 1; fi |
    cut -d ' ' -f 1
}

# is_writable_place PATH: whether PATH is missing or a plain file. What is
# written to a link lands elsewhere.
is_writable_place() {
  [ ! -L "$1" ] && { [ ! -e "$1" ] || [ -f "$1" ]; }
}

# check_downloader REMEDY
check_downloader() {
  command -v curl > /dev/null || command -v wget > /dev/null ||
    die "needs curl or wget$1"
}

# check_address VARIABLE ADDRESS
check_address() {
  local LC_ALL=C
  [[ "$2" =~ ^https?://[^[:space:][:cntrl:]]+$ ]] ||
    die "$1: \"$2\": expected an address that begins with https:// or http://"
}

# size_on_server URL: prints the size in bytes that the server states; nothing
# where it states none, or what is no size.
size_on_server() {
  local stated
  stated="$(headers_of "$1" | last_content_length)" || return 0
  stated="$(whole_number "$stated")" || return 0
  [ "$stated" -eq 0 ] || echo "$stated"
}

headers_of() {
  if command -v curl > /dev/null; then
    "${CURL[@]}" --silent --head -- "$1"
  else
    "${WGET[@]}" --spider -S -- "$1" 2>&1
  fi
}

# Of several answers, all but the last one are redirects. Prints nothing where
# that one contradicts itself.
last_content_length() {
  LC_ALL=C awk '
    {sub(/\r$/, "")}
    /^ *HTTP\// {values = 0; value = ""}
    tolower($0) ~ /^ *content-length *:/ {
      sub(/^[^:]*:[ \t]*/, "")
      if (values == 0 || $0 "" != value) values++
      value = $0
    }
    END {if (values == 1) print value}'
}

# tell_growth FILE: a line now and then of how large it is, until it is killed or
# the script has ended.
tell_growth() {
  local seconds=0
  # What a script has open there is its lock.
  exec 9<&- < /dev/null
  while sleep 1 > /dev/null 2>&1 && kill -0 "$$" 2> /dev/null; do
    seconds="$(( seconds + 1 ))"
    [ "$(( seconds % NOTICE_SECS ))" -ne 0 ] ||
      echo "$(basename -- "$1"): $(( $(size_of "$1") / 1000000 )) MB so far"
  done
}

# download URL PART: completes PART, resuming as often as it grows; returns the
# status of the last attempt.
download() {
  local status=0 teller
  if [ -t 2 ]; then
    complete "$@"
    return
  fi
  tell_growth "$2" &
  teller=$!
  complete "$@" || status=$?
  { kill "$teller" && wait "$teller"; } 2> /dev/null || true
  return "$status"
}

# complete URL PART: the same, and says nothing.
complete() {
  local attempt before status
  for (( attempt = 1; attempt <= ATTEMPTS; attempt++ )); do
    before="$(size_of "$2")"
    status=0
    fetch "$1" "$2" || status=$?
    if [ "$status" -eq 0 ]; then
      break
    elif [ "$status" -eq "$CANNOT_RESUME" ]; then
      rm -f "$2"
    elif [ "$(size_of "$2")" -le "$before" ]; then
      break
    fi
  done
  return "$status"
}

# fetch URL PART: one attempt; on a terminal with a progress bar.
fetch() {
  local bar status=0 answer
  if command -v curl > /dev/null; then
    bar=--silent
    [ ! -t 2 ] || bar=--progress-bar
    answer="$("${CURL[@]}" "$bar" -C - -w '%{http_code}' -o "$2" -- "$1")" ||
      status=$?
    # PART is as long as the file or longer, but not the file.
    [ "$answer" != 416 ] || status="$CANNOT_RESUME"
  else
    bar=-q
    [ ! -t 2 ] || bar=--show-progress
    "${WGET[@]}" "$bar" -c -O "$2" -- "$1" || status=$?
  fi
  return "$status"
}
