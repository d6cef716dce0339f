#!/usr/bin/env bash
# By hand: guest throughput with tracing off, by the ring and by the text log, in turns so that other load meets all alike.
#   tests/collect/bench.sh [ROUNDS]      default 3; SIOFLEET_BIN names the build folder
set -euo pipefail
sf=${SIOFLEET_BIN:?SIOFLEET_BIN names the build folder}/siofleet
rounds=${1:-3}
work=$(mktemp -d "${TMPDIR:-/tmp}/sf-bench-XXXXXX")
trap 'rm -rf "$work"' EXIT
for tracer in off ring log; do
  "$sf" collect init quick | sed "s/^tracer.*/tracer = $tracer/; s/^bytes.*/bytes = 128M/" >"$work/$tracer.ini"
done
for i in $(seq "$rounds"); do
  for tracer in off ring log; do
    "$sf" collect --local "$work/$tracer.ini" -o "$work/$tracer-$i" --json >"$work/$tracer-$i.json"
  done
done
python3 - "$work" "$rounds" <<'P'
import json, statistics, sys
work, rounds = sys.argv[1], int(sys.argv[2])
base = None
print("tracer  Mbit/s of each round (median)  against off  events  bytes/event")
for t in ("off", "ring", "log"):
    rate, events, size = [], 0, 0
    for i in range(1, rounds + 1):
        d = json.load(open(f"{work}/{t}-{i}.json"))["runs"][0]
        w = json.load(open(d["workload"][0]["path"]))
        rate.append(w["end"]["sum_sent"]["bits_per_second"] / 1e6)
        if d["log"]:
            events += d["log"]["events"]
            size += d["log"]["bytes"]
    m = statistics.median(rate)
    base = base or m
    print(f"{t:6}  {' '.join(f'{r:.0f}' for r in rate)} ({m:.0f})  {100 * (m / base - 1):+.0f} %  {events}  {size / events if events else 0:.2f}")
P
"$(sh "$(dirname "$0")/../../qemu-patch/build.sh" | sed 's|qemu-system-x86_64$|vtd-ring-bench|')"
