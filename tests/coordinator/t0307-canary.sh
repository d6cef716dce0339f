#!/usr/bin/env bash
# A new agent first runs a point whose result is known: equal, it is vouched for; another result, it is drained and named.
. "${0%/*}/../cli/tap.sh"
plan 15
cd "$work" || exit 1
small_log a.log 4 2000
small_sweep s.ini s
sed 's/name = s/name = more/; s/64..512:x2/16,32/' s.ini >more.ini
sql() { sqlite3 fleet/c/store.db "$1"; }
# in the log, for a page of the file itself would not have its sum
forge() { sqlite3 -cmd '.dbconfig no_ckpt_on_close on' fleet/c/store.db "$1" >/dev/null; }
agent_state() { "$sf" ls agents --json | python3 -c 'import json,sys; print(*[i["state"] for i in json.load(sys.stdin)["items"] if i["name"]==sys.argv[1]])' "$1"; }
is() { [ "$(agent_state "$1")" = "$2" ]; }
verdict() { [ "$(sql "SELECT verdict FROM t_canary c JOIN t_agent a USING(install) WHERE a.name='$1'")" = "$2" ]; }

ok "a fleet" fleet_start 1
run sweep run s.ini --csv s.csv
ok "a sweep" worked
ok "the first agent had nothing to be compared with" test -z "$(sql "SELECT * FROM t_canary")"
fleet_agent b
ok "a second one runs a known point first" until_ok 20 verdict b equal
run why b
ok "and why says so" worked "VOUCHED: a known point run here .* ago: equal"
run audit s --json
ok "the sweep is as it was" json 'd["duplicate_equal"]==0 and d["differing"]==[] and d["accepted"]==4'
fleet_listen=$SIOFLEET_CONNECT
stop_all

# every stored number is off by one: whoever computes them now is seen as the odd one
# the first byte of the packed statistics are the low bits of time_ps
forge "UPDATE t_row SET stats = CAST(CASE substr(stats,1,1) WHEN x'81' THEN x'82' ELSE x'81' END || substr(stats,2) AS BLOB)"
ok "a restart" fleet_start 0
fleet_agent odd
ok "one whose result differs is found out" until_ok 20 verdict odd differs
ok "and drained" until_ok 10 is odd drained
ok "with an alarm that names it" grep -q "agent 'odd' is drained: its canary differs: point [0-9]* of sweep" coordinator.log
run why odd --json
ok "why: drained, and for what" json 'd["state"]=="drained" and any(r["code"]=="DRAINED" and "canary differs" in r["text"] for r in d["reasons"])'
run sweep submit more.ini
id=$(cat "$work/out")
run sweep wait "$id" --timeout 2s
ok "it gets no work" test "$rc" -eq 1
stop_all
ok "also after a restart" fleet_start 0
fleet_agent odd
ok "it stays drained" until_ok 10 is odd drained
"$sf" undrain odd >/dev/null
run sweep wait "$id" --timeout 60s
ok "until somebody decides otherwise" worked
