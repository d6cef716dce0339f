#!/usr/bin/env bash
# Ctrl-C, cancel, hold and release in the middle of a sweep; nothing goes on behind anybody's back.
. "${0%/*}/tap.sh"
plan 19
cd "$work" || exit 1
small_log a.log 4 2000
cat >slow.ini <<'E'
[sweep]
name = slow
block = 4
pace_ms = 200
[trace]
logs = a.log
[arch]
iotlb_entries = 64..4096:x2
link_gbps = 10,25,40,50,100,200,400,800
E
fleet_start 1 || exit 1

state() { "$sf" ls sweeps --json | python3 -c 'import json,sys; print([s["state"] for s in json.load(sys.stdin)["items"] if s["sweep"].startswith(sys.argv[1])][0])' "$1"; }
is() { [ "$(state "$1")" = "$2" ]; }
done_of() { "$sf" ls sweeps --json | python3 -c 'import json,sys; print([s["done"] for s in json.load(sys.stdin)["items"] if s["sweep"].startswith(sys.argv[1])][0])' "$1"; }
some() { [ "$(done_of "$1")" -gt 0 ]; }
tasks() { pgrep -f "__task $work" | wc -l; }
no_tasks() { [ "$(tasks)" -eq 0 ]; }

start run "$sf" sweep run slow.ini --request-id one
run_pid=$pid
ok "points come while it runs" until_ok 60 some ""
id=$("$sf" ls sweeps --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["items"][-1]["sweep"])')
kill -INT "$run_pid"
wait "$run_pid"
rc=$?
ok "Ctrl-C is exit 5" test "$rc" -eq 5
ok "and one line says so" test "$(grep -c '^siofleet: ' run.log)" -eq 1
ok "the sweep is cancelled" until_ok 10 is "$id" cancelled
ok "its tasks are gone" until_ok 20 no_tasks
run sweep wait "$id"
ok "waiting for a cancelled sweep is exit 5" test "$rc" -eq 5
n=$(done_of "$id")
ok "it stopped in the middle" test "$n" -gt 0 -a "$n" -lt 56
run results query --sweep "$id" --csv
ok "rows that were done stay" test "$(wc -l <"$work/out")" -gt 1

run sweep submit slow.ini --request-id two
two=$(cat "$work/out")
ok "what is known is not run again" until_ok 30 some "$two"
run hold "$two"
ok "hold works" worked
ok "the sweep is held" until_ok 10 is "$two" held
run release "$two"
ok "release works" worked
run sweep wait "$two" --timeout 300ms
ok "wait gives up at its timeout with exit 1" sh -c "[ $rc -eq 1 ] && grep -q '^siofleet: .*not ended' '$work/err'"
run cancel "$two"
ok "cancel works" worked
ok "and the sweep is cancelled" until_ok 10 is "$two" cancelled
ok "and its tasks are gone" until_ok 20 no_tasks
ended() { run ls agents --json && json 'any((a["answers"]["cancel"] or {}).get("n", 0) > 0 for a in d["items"])'; }
ok "and how long its tasks took to end is kept" until_ok 10 ended
run cancel "$two"
ok "cancelling it again is no crash" test "$rc" -le 1
run cancel 0123456789abcdef
ok "an unknown id is one line" fails 1 "."
