#!/usr/bin/env bash
# Why is it so, and is it whole: why, audit, ls tasks, and what the store keeps of attempts that failed.
. "${0%/*}/../cli/tap.sh"
plan 46
cd "$work" || exit 1
small_log a.log 4 2000
small_sweep s.ini good
cat >bad.ini <<'E'
[sweep]
name = bad
retries = 0
[trace]
logs = a.log
tenants = 4, 99
[arch]
iotlb_entries = 64..512:x2
E
sed 's/name = good/name = slow\npace_ms = 60000\ntimeout = 1s\nretries = 0\nblock = 1/; s/64..512:x2/32/' s.ini >slow.ini
sql() { sqlite3 fleet/c/store.db "$1"; }
# in the log, for a page of the file itself would not have its sum
forge() { sqlite3 -cmd '.dbconfig no_ckpt_on_close on' fleet/c/store.db "$1" >/dev/null; }
state() { "$sf" ls "$1" --json 2>/dev/null | python3 -c 'import json,sys; print(*[i["state"] for i in json.load(sys.stdin)["items"] if i["name"]==sys.argv[1]])' "$2"; }
is() { [ "$(state agents "$1")" = "$2" ]; }

ok "a coordinator without agents" fleet_start 0
run sweep submit s.ini
id=$(cat "$work/out")
run why last --json
ok "why: no agent" json 'd["schema"]=="siofleet.why/1" and d["kind"]=="sweep" and d["state"]=="queued" and "NO_AGENT" in [r["code"] for r in d["reasons"]]'
ok "the document has the fields of the contract" json 'list(d)[:6]==["schema","id","kind","state","reasons","attempts"]'
run why last
ok "and in words" worked "NO_AGENT: no agent is connected"
run audit last --json
ok "audit: a sweep that has not run misses its points, which is no fault yet" json 'd["schema"]=="siofleet.audit/1" and d["missing"]==[0,1,2,3] and d["accepted"]==0'
ok "and exits 0" test "$rc" -eq 0
run hold good
run why good --json
ok "why: held" json '"HELD" in [r["code"] for r in d["reasons"]] and d["state"]=="held"'
run release good
fleet_listen=$SIOFLEET_CONNECT
stop_all
ok "with an agent" fleet_start 1
run sweep wait "$id"
ok "the sweep runs" worked
run why "${id:0:8}" --json
ok "why: done" json 'd["state"]=="done" and [r["code"] for r in d["reasons"]]==["DONE"] and d["id"].startswith("'"${id:0:8}"'")'
run audit good --json
ok "audit: whole" json 'd["points"]==4 and d["accepted"]==4 and d["missing"]==[] and d["differing"]==[] and d["late"]==0 and d["foreign"]==0'
ok "its fields are in the order of the contract" json '[k for k in d if k in ("points","accepted","missing","duplicate_equal","late","foreign","differing")]==["points","accepted","missing","duplicate_equal","late","foreign","differing"]'
run ls tasks --json
ok "ls tasks shows what ended" json 'any(t["state"]=="done" and t["kind"]=="points" and t["sweep"]=="'"$id"'" for t in d["items"])'
run ls tasks --ended 0 --json
ok "but not with --ended 0" json 'd["items"]==[]'
task=$(sql "SELECT max(task) FROM t_attempt WHERE kind='points'")
run why "$task" --json
ok "why: a task that ended" json 'd["kind"]=="task" and d["state"]=="done" and len(d["attempts"])==1 and d["attempts"][0]["agent"]=="a1" and d["attempts"][0]["cause"]=="done"'
run why 99999
ok "why: a task that never was" fails 1 "99999"
run why nosuch
ok "why: a name nobody has" fails 1 "nosuch"
run why a1 --json
ok "why: an agent" json 'd["kind"]=="agent" and d["state"]=="ready" and "READY" in [r["code"] for r in d["reasons"]]'

run sweep run bad.ini --json
ok "a trace that cannot be built fails its points" test "$rc" -eq 1
run why bad --json
ok "why: which failed, and why" json 'd["state"]=="failed" and any(r["code"]=="POINT_FAILED" and r["text"].startswith("4 points, the first 4: trace could not be built: ") for r in d["reasons"])'
ok "with the attempt and its last lines" json 'd["attempts"] and d["attempts"][0]["cause"]=="recipe" and d["attempts"][0]["last_lines"]'
"$sf" results query --sweep bad --provenance --json | python3 -c 'import json,sys; d=json.load(sys.stdin); i=d["columns"].index("error"); print(d["rows"][4][i])' >fleet.text
"$sf" perf sweep bad.ini --jsonl 2>/dev/null | python3 -c 'import json,sys; print([json.loads(l) for l in sys.stdin][4]["error"])' >local.text
ok "the reason reads as on one host" cmp fleet.text local.text
run sweep run slow.ini
ok "a point that takes too long fails the sweep" test "$rc" -eq 1
ok "and is said plainly" grep -q "point 0: timeout after 1 s$" "$work/err"
run why slow
ok "a signal that ended it is called so" worked ": timeout, \(signal 15, \)\?2"
ok "its attempt is kept with its cause" test "$(sql "SELECT cause FROM attempts ORDER BY task DESC, n DESC LIMIT 1")" = timeout

# tampered with behind its back
stop_all
forge "DELETE FROM t_row WHERE sweep = 1 AND idx = 2; UPDATE t_row SET point = zeroblob(32) WHERE sweep = 1 AND idx = 1"
ok "a restart" fleet_start 0
run audit good --json
ok "audit: a done sweep that misses a point is exit 4" test "$rc" -eq 4
ok "and it names the point" json 'd["missing"]==[2] and [w["index"] for w in d["wrong"]]==[1]'
run audit good
ok "with one line" grep -q "^siofleet: sweep 'good': 1 points missing, 0 differing, 1 wrong rows" "$work/err"
stop_all

# an agent that ends in order, and one that does not
ok "an agent again" fleet_start 1
kill -TERM "$agent_pid"
ok "ended in order it is stopped" until_ok 10 is a1 stopped
run why a1
ok "and why says so" worked "STOPPED: it ended in order"
stop_all
ok "a restart" fleet_start 0
ok "knows it" is a1 stopped
stop_all
ok "an agent again" fleet_start 1
kill -KILL "$agent_pid"
ok "killed, it is lost" until_ok 15 is a1 lost
run why a1 --json
ok "and why says since when" json '"LOST" in [r["code"] for r in d["reasons"]] and d["state"]=="lost"'

# one whose key is taken back, at work or not
revoke() { "$sf" keys revoke --data fleet/c a1; }
revoke
ok "a lost one whose key is revoked is revoked" until_ok 10 is a1 revoked
run why agent:a1 --json
ok "and why says what that means" json 'd["state"]=="revoked" and d["reasons"][0]["code"]=="REVOKED" and "keys allow" in d["reasons"][0]["text"]'
stop_all
forge "UPDATE t_agent SET last_seen_ms = last_seen_ms - 8 * 86400000"
ok "a restart a week later" fleet_start 0
ok "ls leaves it out" is a1 ""
run why agent:a1
ok "why does not" worked "REVOKED"
fleet_agent a1
ok "let in again it is there" until_ok 30 is a1 ready
revoke
ok "revoked at work, it is so at once" until_ok 10 is a1 revoked
"$sf" keys allow --data fleet/c fleet/a1.key.pub
ok "and comes back by itself when it is let in" until_ok 30 is a1 ready
