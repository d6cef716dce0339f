#!/usr/bin/env bash
# why of a command's job: failed, running, behind one that has its host alone, held, its host drained, done.
. "${0%/*}/../cli/tap.sh"
plan 12
cd "$work" || exit 1
job() { "$sf" ls jobs --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["items"][int(sys.argv[1])]["job"])' "$1" 2>/dev/null; }
# says JOB CODE PATTERN: a reason of it
says() { run why "$1" && grep -q "$2: .*$3" "$work/out"; }

ok "a fleet" fleet_start 1
run exec -- sh -c 'echo oh >&2; exit 7'
ok "a command fails" test "$rc" -ne 0
run why "$(job 0)" --json
ok "failed: which task, where, and its exit status" json 'd["kind"]=="job" and d["state"]=="failed" and [r["code"] for r in d["reasons"]]==["FAILED","TASK_FAILED"] and " on a1: " in d["reasons"][1]["text"] and (d["attempts"][0]["agent"],d["attempts"][0]["exit"])==("a1",7)'
ok "with its last lines" json 'd["attempts"][0]["last_lines"]==["oh"]'
# shellcheck disable=SC2016
start alone "$sf" exec --exclusive -- sh -c 'until [ -e "$1" ]; do sleep 0.05; done' x "$work/go"
alone_pid=$pid
until_ok 20 job 1
ok "running" until_ok 20 says "$(job 1)" RUNNING "is run by agent 'a1'"
start behind "$sf" exec -- true
behind_pid=$pid
until_ok 20 job 2
second=$(job 2)
ok "behind the one that has the host alone" until_ok 20 says "$second" NEEDS "1 of 1 agents have what it needs, and are busy"
run hold "$second"
ok "held" says "$second" HELD "lets it go on"
run release "$second"
run drain a1
ok "its host is drained" says "$second" NEEDS "only agents that are drained or closed have what it needs"
run undrain a1
touch go
wait "$alone_pid"
ok "the first ends" test $? -eq 0
wait "$behind_pid"
ok "and the second had its turn" test $? -eq 0
ok "done" says "$second" DONE "all of its 1 tasks are done"
run why "$second" --json
ok "and nothing else is said of it" json '[r["code"] for r in d["reasons"]]==["DONE"] and d["attempts"]==[]'
