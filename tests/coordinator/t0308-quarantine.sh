#!/usr/bin/env bash
# A task that takes one host after the other with it is put aside, over a restart too, until a person frees it; and a
# sweep of 10^9 points costs its recipe.
. "${0%/*}/../cli/tap.sh"
plan 19
cd "$work" || exit 1
small_log a.log 4 2000
cat >s.ini <<'E'
[sweep]
name = killer
pace_ms = 60000
retries = 5
[trace]
logs = a.log
[arch]
iotlb_entries = 64
E
sql() { sqlite3 fleet/c/store.db "$1"; }
sweep_state() { "$sf" ls sweeps --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["items"][0]["state"])'; }
is_state() { [ "$(sweep_state)" = "$1" ]; }
kills() { sql "SELECT coalesce(max(length(kills)), 0) / 24 FROM t_task"; }
has_kills() { [ "$(kills)" -eq "$1" ]; }
# host_goes_down NAME: the agent and all that it started, at once, as when the power goes; only once its task runs
runs_points() { "$sf" why killer | grep -q "is run by agent '$1'"; }
host_goes_down() {
  kill -KILL "$2" $(pgrep -f "$work/fleet/$1/") 2>/dev/null
  return 0
}

ok "a coordinator" fleet_start 0
run sweep submit s.ini
id=$(cat "$work/out")
fleet_agent h1
ok "the first host runs it" until_ok 30 runs_points h1
host_goes_down h1 "$pid"
ok "its loss is noted against the task" until_ok 20 has_kills 1
fleet_agent h2
ok "the second host runs it" until_ok 40 runs_points h2
host_goes_down h2 "$pid"
ok "the loss of the second, too" until_ok 20 has_kills 2
kill -KILL "$coordinator_pid"
wait "$coordinator_pid" 2>/dev/null
fleet_listen=$SIOFLEET_CONNECT
ok "the coordinator starts again" fleet_start 0
ok "and has not forgotten" has_kills 2
fleet_agent h3
ok "the third host runs it" until_ok 40 runs_points h3
host_goes_down h3 "$pid"
ok "that was one too many: the sweep is quarantined" until_ok 20 is_state quarantined
run sweep wait "$id" --timeout 30s
ok "waiting for it ends: exit 1" test "$rc" -eq 1
ok "and says what to do" grep -q "1 of 1 points are in quarantine; .siofleet why" "$work/err"
run why last --json
ok "why names the three" json 'd["state"]=="quarantined" and any(r["code"]=="QUARANTINED" and all(h in r["text"] for h in ("h3",)) for r in d["reasons"]) and len([a for a in d["attempts"] if a["cause"]=="lost"])==3'
task=$(sql "SELECT task FROM t_task WHERE quarantined = 1")
run ls tasks --json
ok "ls tasks shows it" json 'any(t["task"]=='"$task"' and t["state"]=="quarantined" for t in d["items"])'
fleet_agent h4
spared() { sleep 1 && ! pgrep -f "__task $work/fleet/h4/"; }
h4_ready() { "$sf" ls agents --json | grep -q '"name": "h4"'; }
until_ok 20 h4_ready
ok "a fourth host gets nothing of it" spared
run retry "$task"
ok "retry frees it" worked
ok "then it runs" until_ok 20 runs_points h4
run cancel last
ok "and can be cancelled" worked

cat >big.ini <<'E'
[sweep]
name = big
skip_invalid = yes
[trace]
logs = a.log
[arch]
queue = 1..1000000:+1
link_gbps = 1..1000:+1
E
run hold last
rss() { awk '/VmRSS/ { print $2 }' "/proc/$coordinator_pid/status"; }
"$sf" drain h4 >/dev/null
before=$(rss)
run sweep submit big.ini
ok "a sweep of 10^9 points is accepted" worked
ok "and costs the coordinator no more than 8 MiB" test "$(($(rss) - before))" -lt 8192
