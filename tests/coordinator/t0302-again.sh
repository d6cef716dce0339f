#!/usr/bin/env bash
# What is tried again: a killed task, a frozen agent, points of a trace that could not be built; and what is given up.
. "${0%/*}/../cli/tap.sh"
plan 25
cd "$work" || exit 1
small_log a.log 4 4000
sweep_ini() { # SEED NAME [PACE_MS]
  cat <<E
[sweep]
name = $2
block = 4
pace_ms = ${3:-400}
[trace]
logs = a.log
order = rand
seed = $1
[arch default]
iotlb_entries = 64..512:x2
link_gbps = 50,100,200,400
E
}
sweep_field() { "$sf" ls sweeps --json | python3 -c 'import json,sys; print([s[sys.argv[2]] for s in json.load(sys.stdin)["items"] if s["sweep"]==sys.argv[1]][0])' "$1" "$2"; }
in_the_middle() { n=$(sweep_field "$1" done) && [ "$n" -ge 2 ] && [ "$n" -lt 16 ]; }
sql() { "$sf" results query --sql "$1" --csv | tail -n +2; }
submit() {
  run sweep submit "$1"
  id=$(cat "$work/out")
}
want() { sed '/pace_ms/d' "$1.ini" >"$1-now.ini" && "$sf" perf sweep "$1-now.ini" --csv >"$1.csv" 2>/dev/null; }
same() {
  run results query --sweep "$1" --csv
  cmp "$work/out" "$2"
}

fleet_start 1 || exit 1
a1_pid=$agent_pid
for i in 1 2 3; do # two agents work on the third
  sweep_ini $i s$i $((i == 3 ? 600 : 400)) >s$i.ini
  want s$i
done

# a task that is killed
submit s1.ini
ok "task killed: it is in the middle" until_ok 60 in_the_middle "$id"
kill_task() { pkill -9 -f "^[^ ]*/siofleet __task $work"; }
ok "task killed: there is one to kill" until_ok 20 kill_task
run sweep wait "$id" --timeout 60s
ok "task killed: the sweep completes" worked
ok "task killed: the CSV is that of an undisturbed run" same "$id" s1.csv
ok "task killed: the attempt says why it ended" test "$(sql "SELECT count(*) FROM attempts WHERE cause = 'signal' AND signal = 9")" -ge 1
ok "task killed: and another one went on" test "$(sql "SELECT max(n) FROM attempts")" -ge 2

# an agent that is frozen for longer than its lease while another one takes over
"$sf" keys new fleet/a2.key --role agent --name a2 && "$sf" keys allow --data fleet/c fleet/a2.key.pub
submit s2.ini
ok "agent frozen: it is in the middle" until_ok 60 in_the_middle "$id"
kill -STOP "$a1_pid"
start a2 "$sf" agent --data "$work/fleet/a2" --connect "$SIOFLEET_CONNECT" --server-key "$SIOFLEET_SERVER_KEY" \
  --key "$work/fleet/a2.key" --cores 1 --ready-file "$work/fleet/a2.ready"
run sweep wait "$id" --timeout 60s
ok "agent frozen: the sweep completes without it" worked
run ls agents --json
ok "agent frozen: it is shown as lost" json '[a["state"] for a in d["items"] if a["name"]=="a1"]==["lost"]'
kill -CONT "$a1_pid"
back() { "$sf" ls agents --json | grep -q lost && return 1; return 0; }
ok "agent frozen: it comes back by itself" until_ok 30 back
ok "agent frozen: the CSV is that of an undisturbed run" same "$id" s2.csv
ok "agent frozen: nothing differs" test "$(sweep_field "$id" differing)" = 0

# a log that is none
printf 'this is no log\n%.0s' {1..50} >junk.log
sweep_ini 1 junk | sed 's/a.log/junk.log/; /pace/d; s/^block.*/retries = 1/' >junk.ini
submit junk.ini
ok "no log: it is taken" worked
run sweep wait "$id" --timeout 60s
ok "no log: waiting for it is exit 1" test "$rc" -eq 1
ok "no log: its points failed" test "$(sweep_field "$id" state)/$(sweep_field "$id" failed)" = failed/16
run results query --sweep "$id" --csv --provenance
ok "no log: each row says why" test "$(grep -c 'trace could not be built' "$work/out")" -eq 16
n=$(sql "SELECT count(*) FROM attempts WHERE kind = 'trace' AND cause = 'exit'")
ok "no log: it was tried as often as asked" test "$n" -eq 2
run retry --failed "$id"
ok "no log: retry --failed works" worked
run sweep wait "$id" --timeout 60s
ok "no log: and fails again" test "$rc" -eq 1
ok "no log: after new tries" test "$(sql "SELECT count(*) FROM attempts WHERE kind = 'trace' AND cause = 'exit'")" -gt "$n"

# cancelled, then run after all
submit s3.ini
ok "cancelled: it is in the middle" until_ok 60 in_the_middle "$id"
"$sf" cancel "$id" >/dev/null
cancelled() { [ "$(sweep_field "$id" state)" = cancelled ]; }
ok "cancelled: it stops" until_ok 10 cancelled
again() { "$sf" retry "$id"; }
ok "cancelled: retry is taken once its tasks have ended" until_ok 20 again
run sweep wait "$id" --timeout 60s
ok "cancelled: the rest runs" worked
ok "cancelled: the CSV is that of an undisturbed run" same "$id" s3.csv
