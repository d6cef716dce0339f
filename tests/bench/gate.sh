#!/usr/bin/env bash
# gate.sh ENGINE LIMITS [--write]: instructions an event of the engine's counted cases, by cachegrind, on the scalar path. They repeat
# exactly on one compiler; a case above its limit fails. --write prints limits 10 % above what is counted.
set -u
engine=$1 limits=$2
command -v valgrind >/dev/null || { echo "skipped: no valgrind"; exit 77; }
export SIOFLEET_ISA=scalar
dir=$(mktemp -d "${TMPDIR:-/tmp}/sf-gate-XXXXXX") || exit 1
trap 'rm -rf "$dir"' EXIT
bad=0

refs() { # refs CASE REPS: instructions of the whole process
  valgrind --tool=cachegrind --cache-sim=no --cachegrind-out-file="$dir/out" "$engine" --count "$1" "$2" \
    >"$dir/events" 2>"$dir/log" || { cat "$dir/log" >&2; return 1; }
  sed -n 's/.*I *refs: *//p' "$dir/log" | tr -d ,
}

for c in hit miss hypertrio hypersio curve decode; do
  # what one more run costs: start-up and the trace cancel out
  one=$(refs $c 1) && two=$(refs $c 2) || exit 1
  per=$(((two - one) / $(cat "$dir/events")))
  limit=$(sed -n "s/^$c *= *\([0-9]*\).*/\1/p" "$limits")
  if [ "${3:-}" = --write ]; then
    echo "$c = $((per * 11 / 10))"
  elif [ -z "$limit" ] || [ "$per" -gt "$limit" ]; then
    echo "not ok: $c: $per instructions an event, limit ${limit:-missing}"
    bad=1
  else
    echo "ok: $c: $per instructions an event, limit $limit"
  fi
done
exit $bad
