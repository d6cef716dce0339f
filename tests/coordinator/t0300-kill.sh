#!/usr/bin/env bash
# kill -9 in the middle of a sweep: an agent, the coordinator, both. The sweep completes, each point has one accepted
# result, and the CSV is byte for byte that of an undisturbed run. Each case has traces of its own (seed), so that
# nothing is known beforehand.
. "${0%/*}/../cli/tap.sh"
plan 22
cd "$work" || exit 1
small_log a.log 4 4000

# sweep_ini SEED
sweep_ini() {
  cat >"s$1.ini" <<E
[sweep]
name = kill$1
block = 4
pace_ms = 150
[trace]
logs = a.log
order = rand
seed = $1
tenants = 2,4
[arch default]
iotlb_entries = 64..512:x2
[arch better]
preset = hypertrio
iotlb_entries = 64..512:x2
link_gbps = 100,200
E
  sed '/pace_ms/d' "s$1.ini" >"undisturbed$1.ini"
  "$sf" perf sweep "undisturbed$1.ini" --csv >"want$1.csv" 2>/dev/null
}
sweep_field() { "$sf" ls sweeps --json | python3 -c 'import json,sys; print([s[sys.argv[2]] for s in json.load(sys.stdin)["items"] if s["sweep"]==sys.argv[1]][0])' "$1" "$2"; }
in_the_middle() { n=$(sweep_field "$1" done) && [ "$n" -ge 4 ] && [ "$n" -lt 24 ]; }
submit() {
  run sweep submit "$1"
  id=$(cat "$work/out")
}
# whole ID SEED CASE: what must hold at the end, whatever happened
whole() {
  run sweep wait "$1" --timeout 90s
  ok "$3: the sweep completes" worked
  run results query --sweep "$1" --csv
  ok "$3: the CSV is that of an undisturbed run" cmp "$work/out" "want$2.csv"
  run results query --sql "SELECT count(*) AS n, count(DISTINCT \"index\") AS d, sum(status = 'done') AS ok FROM results WHERE name = 'kill$2'" --csv
  ok "$3: one accepted result a point" test "$(tail -n 1 "$work/out")" = 24,24,24
  ok "$3: no result differs" test "$(sweep_field "$1" differing)" = 0
}
start_agent() {
  rm -f "fleet/$1.ready"
  start "$1" "$sf" agent --data "$work/fleet/$1" --connect "$SIOFLEET_CONNECT" --server-key "$SIOFLEET_SERVER_KEY" \
    --key "$work/fleet/$1.key" --cores 1 --ready-file "$work/fleet/$1.ready"
}
start_coordinator() { # on the endpoint it had
  fleet_listen=$SIOFLEET_CONNECT
  fleet_start 0
}
epoch() { python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["epoch"])' fleet/ready; }

for i in 1 2 3 4; do sweep_ini $i; done
fleet_start 1 || exit 1
a1_pid=$agent_pid
"$sf" keys new fleet/a2.key --role agent --name a2 && "$sf" keys allow --data fleet/c fleet/a2.key.pub
start_agent a2
a2_pid=$pid
until_ok 30 test -f fleet/a2.ready

submit s1.ini
ok "agent killed: it is in the middle" until_ok 60 in_the_middle "$id"
kill -9 "$a2_pid"
whole "$id" 1 "agent killed"

start_agent a2
a2_pid=$pid
until_ok 30 test -f fleet/a2.ready
submit s2.ini
ok "coordinator killed: it is in the middle" until_ok 60 in_the_middle "$id"
before=$(epoch)
kill -9 "$coordinator_pid"
start_coordinator
whole "$id" 2 "coordinator killed"
ok "coordinator killed: its epoch rose" test "$(epoch)" -gt "$before"
ok "coordinator killed: no agent was restarted" kill -0 "$a1_pid" "$a2_pid"

submit s3.ini
ok "both killed: it is in the middle" until_ok 60 in_the_middle "$id"
kill -9 "$coordinator_pid" "$a1_pid"
start_coordinator
start_agent a1
a1_pid=$pid
whole "$id" 3 "both killed"

submit s4.ini
until_ok 60 in_the_middle "$id"
kill -9 "$coordinator_pid" "$a1_pid" "$a2_pid"
start_agent a1
start_agent a2
start_coordinator
whole "$id" 4 "all killed"

stop_all
no_tasks() { ! pgrep -f "__task $work" >/dev/null; }
ok "nothing is left running" until_ok 30 no_tasks
