#!/usr/bin/env bash
# Runs tests/fuzz repeatedly with new input, until the time is up.
#
#     ./scripts/fuzz.sh MINUTES [PYTEST_ARGUMENT...]
#
# Each round prints its own seed; the last round is always finished. With 0
# minutes there is one round. The first failure ends the run with exit status 1
# and prints the command that repeats the round.
#
# Environment variables:
#   DEEPLAB_FUZZ_SEED       seed of the first round; later ones count up;
#                           default: random
#   DEEPLAB_FUZZ_EXAMPLES   inputs of each test in a round; default: 2000
#   PYTHON                  the interpreter; default: .venvs/tf1 or .venvs/modern
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() {
  printf 'ERROR fuzz.sh: %s\n' "$*" >&2
  exit 2
}

minutes=${1:-}
[[ $minutes =~ ^[0-9]{1,5}$ ]] ||
  die "MINUTES is \"$minutes\": expected a whole number from 0 to 99999"
shift
seed=${DEEPLAB_FUZZ_SEED:-$RANDOM$RANDOM}
[[ $seed =~ ^[0-9]{1,15}$ ]] ||
  die "DEEPLAB_FUZZ_SEED=$seed: expected 1 to 15 digits"
export DEEPLAB_FUZZ_EXAMPLES=${DEEPLAB_FUZZ_EXAMPLES:-2000}
python=${PYTHON:-.venvs/tf1/bin/python}
[[ ${PYTHON:-} || -x $python ]] || python=.venvs/modern/bin/python

end=$((SECONDS + 10#$minutes * 60))
rounds=0
examples=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
while true; do
  export DEEPLAB_FUZZ_SEED=$((10#$seed + rounds))
  rounds=$((rounds + 1))
  echo "round $rounds, seed $DEEPLAB_FUZZ_SEED"
  status=0
  "$python" -m pytest tests/fuzz -q --hypothesis-show-statistics "$@" \
    >"$log" 2>&1 || status=$?
  if ((status)); then
    cat "$log"
    printf 'FAILED; again with: DEEPLAB_FUZZ_SEED=%s %s\n' "$DEEPLAB_FUZZ_SEED" \
      "DEEPLAB_FUZZ_EXAMPLES=$DEEPLAB_FUZZ_EXAMPLES ./scripts/fuzz.sh 0 $*"
    exit 1
  fi
  examples=$((examples + $(awk '/ passing examples/ {
    for (i = 2; i <= NF; i++) if ($i == "passing") sum += $(i - 1)}
    END {print sum + 0}' "$log")))
  ((SECONDS < end)) || break
done
echo "$rounds rounds, $examples examples, no failure"
