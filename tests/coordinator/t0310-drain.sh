#!/usr/bin/env bash
# A maintenance, its reason and its end; the priority of what waits.
. "${0%/*}/../cli/tap.sh"
plan 31
cd "$work" || exit 1
small_log a.log 4 2000
small_sweep s.ini first
sed 's/first/second/; s/64..512:x2/32/' s.ini >t.ini
agent() { run ls agents --json && json "$1"; }
back() { agent '[a["state"] for a in d["items"]] == ["ready"]'; }

ok "a coordinator and an agent" fleet_start 1
run drain a1 --reason "new disk" --for 1h --json
ok "a maintenance" json 'd["schema"]=="siofleet.control/1" and "takes tasks again at" in d["items"][0]["text"]'
ok "ls says why, and until when" agent '[(a["state"],a["reason"]) for a in d["items"]]==[("drained","new disk")] and d["items"][0]["until"].endswith("Z")'
run drain a1 --reason $'two\nlines'
ok "a reason is one line of text" fails 2 "--reason: holds a control character"
run why a1
ok "why does, too" worked "new disk, until "
fleet_listen=$SIOFLEET_CONNECT
stop_all
ok "after a restart" fleet_start 1
ok "it goes on" agent 'd["items"][0]["reason"]=="new disk" and d["items"][0]["state"]=="drained"'
run sweep submit s.ini
run sweep submit t.ini
run priority 5 second
ok "a priority is changed" worked "priority 5"
run ls sweeps --json
ok "and shown" json '{s["name"]: s["priority"] for s in d["items"]} == {"first": 0, "second": 5}'
run why first --json
ok "the other one waits behind it" json 'd["state"]=="queued"'
run priority high second
ok "a wrong one is one line" fails 2 "priority"
run drain a1 --for 500ms
ok "a short maintenance" worked "takes tasks again at"
ok "is over by itself" until_ok 30 back
run sweep wait first
ok "and what waited runs" worked
run ls agents --json
ok "nothing of it is left" json 'd["items"][0]["reason"] is None and d["items"][0]["until"] is None'

# what would reach into one waits
run drain a1 --at +1h --for 1h --reason "new fan"
start long "$sf" exec --timeout 2h -- true
job() { "$sf" ls jobs --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["items"][-1]["job"])'; }
held() { run why "$(job)" && grep -q "NEEDS: .*1 agent has what it needs, and a maintenance that begins before it would end: it may take 2 h" "$work/out"; }
ok "a command whose timeout reaches into a planned maintenance waits, and says why" until_ok 30 held
ok "the command itself says so" until_ok 30 grep -q "^siofleet: it waits: task .* before it would end" long.log
ok "for what" worked "MAINTENANCE: agent 'a1': it takes nothing new from .*: new fan"
run exec --timeout 59m --json -- true
ok "one whose timeout does not runs" json 'd["state"]=="done"'
run undrain a1
ok "called off" worked "does not take place"
ok "the other one runs, too" wait "$pid"

# one that begins by itself
run drain a1 --at tomorrow
ok "no time: one line" fails 2 "--at: 'tomorrow' is no time like"
run drain a1 --at 2020-01-01T00:00
ok "one that is over, too" fails 2 "is over"
run drain a1 --at 2099-01-01T00:00Z --for 1h --reason "new fan"
ok "a maintenance is planned" worked "takes nothing new from 2099-01-01T00:00:00.000Z until 2099-01-01T01:00:00.000Z"
ok "until then it takes tasks; ls says from when" agent '[(a["state"],a["reason"],a["from"][:16],a["until"][:16]) for a in d["items"]]==[("ready","new fan","2099-01-01T00:00","2099-01-01T01:00")]'
run why a1
ok "and why" worked "MAINTENANCE: it takes nothing new from 2099-01-01T00:00:00.000Z until 2099-01-01T01:00:00.000Z: new fan"
run undrain a1
ok "undrain calls it off" worked "does not take place"
ok "nothing is left of it" agent 'd["items"][0]["from"] is None and d["items"][0]["reason"] is None'
run drain a1 --at +2s --reason "new fan"
stop_all
ok "its coordinator is stopped and started" fleet_start 1
begun() { agent '[(a["state"],a["reason"],a["from"],a["until"]) for a in d["items"]]==[("drained","new fan",None,None)]'; }
ok "it begins by itself all the same" until_ok 30 begun
run drain a1 --at +2h
ok "one that is drained is not planned for" fails 1 "is drained already"
