#!/usr/bin/env bash
# Many small artefacts (SMALL=2000; 100000 by hand, minutes), and a coordinator that is killed while it removes them: what is needed
# stays, what is named is whole, the next removal does the rest.
. "${0%/*}/../cli/tap.sh"
plan 17
cd "$work" || exit 1
n=${SMALL:-2000}
echo "# $n artefacts; SMALL=100000 is not the default"
mkdir f
python3 - "$n" <<'P'
import sys
for i in range(int(sys.argv[1])):
    with open("f/%06d" % i, "w") as f:
        f.write("artefact %d\n" % i * (1 + i % 300))
P
small_log a.log 4 4000
printf '[sweep]\nname = s\n[trace]\nlogs = a.log\ntenants = 2\n[arch]\niotlb_entries = 64,128\n' >s.ini
stored() { find fleet/c/cas -path '*/??/*' -type f ! -name '*.hashes' | wc -l; }
listed() { "$sf" store ls --json | python3 -c 'import json,sys; print(len(json.load(sys.stdin)["items"]))'; }
hwm() { sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$1/status"; }

ok "a fleet" fleet_start 1
run sweep run s.ini
ok "a sweep, whose log and trace are needed" worked
kept=$(stored)
from=$(date +%s%N)
# shellcheck disable=SC2016 # for the inner shell
find f -type f -print0 | sort -z | xargs -0 -n 4000 "$sf" store put >ids 2>err
ok "many small files" test "$(sort -u ids | wc -l)" -eq "$n"
echo "# put: $((($(date +%s%N) - from) / 1000000)) ms; the coordinator's memory: $(hwm "$coordinator_pid") KiB"
ok "all are there" test "$(stored)" -eq $((n + kept))
ok "each under its own id" test "$(listed)" -eq $((n + kept))
ok "the coordinator's memory is bounded" test "$(hwm "$coordinator_pid")" -lt $((262144 + n * 2))
run store put f/000000 f/000001 f/000002
ok "again, some of them: the same ids" test "$(head -3 ids)" = "$(cat out)"
pin=$(sed -n 5p ids)
run store pin "$pin"
ok "one is pinned" worked

# -- killed in the middle of a removal
start gc "$sf" store gc --older 0s
gc_pid=$pid
stopped='' pause=$(awk "BEGIN { print $n / 400000 }")
for _ in $(seq 2000); do
  kill -STOP "$coordinator_pid"
  left=$(stored)
  [ "$left" -lt $((n + kept)) ] && stopped=1 && break
  kill -CONT "$coordinator_pid"
  sleep "$pause"
done
kill -KILL "$coordinator_pid"
wait "$coordinator_pid" 2>/dev/null
kill "$gc_pid" 2>/dev/null
wait "$gc_pid" 2>/dev/null
ok "a removal is killed in its middle ($left left)" test "$stopped" = 1 -a "$left" -gt $((kept + 1))
fleet_listen=$SIOFLEET_CONNECT
ok "the coordinator again" fleet_start 0
run store verify
ok "all that it names is whole" worked
ok "it names no more than is there" test "$(listed)" -le "$(stored)"
run store get "$pin" -o got
ok "what is pinned is there" cmp got f/000004
run store gc --older 0s
ok "the next removal does the rest" test "$(listed)" -eq $((kept + 1))
ok "files that the killed one had left, too" until_ok 20 test "$(stored)" -eq $((kept + 1))
run store verify
ok "what is left is whole" worked
sed 's/64,128/16,32/; s/name = s/name = t/' s.ini >t.ini
run sweep run t.ini --csv t.csv
"$sf" perf sweep t.ini --csv >want.csv 2>/dev/null
ok "what is needed still works" cmp t.csv want.csv
