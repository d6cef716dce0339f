#!/usr/bin/env bash
# exec and logs on three agents: output, files, exit statuses, Ctrl-C, and what a restart of either end does to it.
. "${0%/*}/tap.sh"
plan 51
cd "$work" || exit 1
fleet_start 2 || exit 1
start_third() {
  fleet_agent n3 --labels class=big,disk=ssd
  n3_pid=$pid
  until_ok 30 test -f fleet/n3.ready
}
start_third || exit 1

# no shell: what looks like one is a word
run exec -- printf '%s|' '$HOME' 'a  b' '*'
ok "every agent runs it, words as they are" worked "^n3: \$HOME|a  b|\*|"
ok "each line names its host" test "$(cut -d: -f1 out | tr '\n' ' ')" = "a1 a2 n3 "
run exec --class big -- sh -c 'echo out; echo err >&2; exit 28'
ok "a failed command is exit 1 and names its host, whatever the number means elsewhere" sh -c "[ $rc -eq 1 ] && grep -qx 'siofleet: n3: exit 28' err"
ok "its output comes all the same" sh -c 'grep -qx out out && grep -qx err err'
run exec --host a1 --host n3 --json -- sh -c 'kill -9 $$'
ok "a signal is told from an exit" json '[(h["host"],h["cause"],h["signal"]) for h in d["hosts"]] == [("a1","signal",9),("n3","signal",9)]'
ok "with --json too the status is 1" test "$rc" -eq 1
run exec --label disk=ssd --json -- pwd
ok "labels choose" json '[h["host"] for h in d["hosts"]] == ["n3"] and d["schema"] == "siofleet.exec/1"'
ok "its folder is gone afterwards" test ! -e "$(python3 -c 'import json; print(json.load(open("out"))["hosts"][0]["stdout"].strip())')"
run exec -- /no/such/program
ok "a program that is not there is said once a host" test "$rc:$(grep -c '^siofleet: .*: exit 127' err)" = 1:3
run exec --host a1 --timeout 300ms -- sleep 60
ok "--timeout ends it" sh -c "[ $rc -eq 1 ] && grep -q 'siofleet: a1: timeout' err"

# output that is long, and not text
run exec --host a1 -- sh -c 'head -c 3000000 /dev/zero | tr "\0" x; echo end'
ok "long output is cut in the middle, and says so" sh -c "grep -q 'a1: stdout: 3000004 bytes, of which' err"
ok "its end is there" test "$(tail -c 4 out)" = end
run exec --host a1 -- printf '\377\001\200ok'
ok "bytes come as they are" sh -c 'printf "\377\001\200ok" | cmp - out'
run exec --host a1 -- sh -c 'printf "a\000b\n"; printf "c\000d" >&2'
ok "zero bytes, too" sh -c "[ $rc -eq 0 ] && printf 'a\000b\n' | cmp - out && printf 'c\000d' | cmp - err"
run exec --host a1 -- sh -c 'printf "a\000b\n" >&2; exit 1'
run why "$("$sf" ls tasks --ended 1 --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["items"][0]["task"])')"
ok "nor do they cut off what why shows" worked '| a?b$'
run exec --host a1 --json -- sh -c 'printf "a\000b\n"; printf "c\377\000d" >&2'
ok "in JSON what is no text is replaced, and nothing is lost" json '[d["hosts"][0][k] for k in ("status", "stdout", "stderr", "stdout_b")] == ["done", "a\0b\n", "c?\0d", 4]'

# files
run exec --host a1 --host n3 --copy out.bin --copy /etc/hostname -o got -- sh -c 'head -c 200000 /dev/urandom >out.bin; sha256sum <out.bin'
ok "named files come back, by host" test -f got/a1/out.bin -a -f got/n3/hostname
ok "as they were" grep -q "a1: $(sha256sum <got/a1/out.bin)" out
run exec --host a1 --copy out.bin -o got -- sh -c 'echo new >out.bin'
ok "an existing file is not replaced" sh -c "[ $rc -eq 1 ] && grep -q '^siofleet: a1: .*out.bin' err && [ \$(stat -c %s got/a1/out.bin) -eq 200000 ]"
run exec --host a1 --copy out.bin -o got --force -- sh -c 'echo new >out.bin'
ok "but with --force" test "$rc:$(cat got/a1/out.bin)" = 0:new
run exec --host a1 --copy nothing -- true
ok "a file that is not there fails the host" sh -c "[ $rc -eq 1 ] && grep -qx 'siofleet: a1: nothing: No such file or directory' err"
run exec --host a1 --copy fifo -- mkfifo fifo
ok "nor is a pipe waited for" sh -c "[ $rc -eq 1 ] && grep -q 'a1: fifo: not a regular file' err"
run exec --copy a/x --copy b/x -- true
ok "two files of one name are refused before anything runs" fails 2 "two files are called 'x'"
run exec --copy $'\377' -- true
ok "so is a name that is no text" fails 2 "--copy: .*not UTF-8"

# nobody
run exec --class none -- true
ok "no match is one line" fails 1 "none of 3 agents matches"
run exec --host nobody -- true
ok "nor is an unknown host" fails 1 "nobody: no such agent"
run exec
ok "no command is usage" fails 2 "."
run retry "$("$sf" ls tasks --json | python3 -c 'import json,sys; print([t["task"] for t in json.load(sys.stdin)["items"] if t["state"]=="failed"][0])')"
ok "a task that is over is not retried by its number, and what is instead is said" fails 1 "neither waits nor runs; .* its sweep or job"
"$sf" ls jobs --json >jobs.json
run ls tasks --json
ok "ended tasks name their job" json 'set(t["job"] for t in d["items"]) == set(j["job"] for j in json.load(open("jobs.json"))["items"])'

# logs
task_of() { "$sf" ls tasks --json | python3 -c 'import json,sys; print([t["task"] for t in json.load(sys.stdin)["items"] if t["kind"]=="exec"][0])'; }
mkdir go
start slow "$sf" exec --host n3 -- sh -c 'echo first; echo side >&2; until [ -e "$1" ]; do sleep 0.05; done; echo last' x "$work/go/1"
slow_pid=$pid
ok "a running task is listed" until_ok 20 task_of
t=$(task_of)
begun() { "$sf" logs "$t" | grep -q first; }
until_ok 20 begun
run why "$t" --json
ok "why says that it runs, and no more" json '[r["code"] for r in d["reasons"]] == ["RUNNING"]'
run logs "$t"
ok "logs shows both streams of a running task" sh -c "[ $rc -eq 0 ] && grep -qx first out && grep -qx side out && ! grep -q last out"
start follow "$sf" logs "$t" -f
follow_pid=$pid
# both ends go away and come back in the middle
kill -9 "$n3_pid"
kill -9 "$coordinator_pid"
fleet_listen=$SIOFLEET_CONNECT
fleet_start 0
start_third
touch go/1
wait "$slow_pid"
ok "it survives kill -9 of the coordinator and of its agent" test "$?:$(sed '/^job\|^side/d' slow.log | tr '\n' ' ')" = "0:first last "
wait "$follow_pid"
ok "and so does logs -f" test "$?:$(grep -c . follow.log)" = 0:3
run logs "$t"
ok "its output stays" worked last
run exec --request-id once --host a1 -- sh -c 'echo ran >>"$1"' x "$work/count"
run exec --request-id once --host a1 -- sh -c 'echo ran >>"$1"' x "$work/count"
ok "the same request id runs once" test "$rc:$(wc -l <count)" = 0:1
run logs 999999
ok "an unknown task is one line" fails 1 "no such task"

# Ctrl-C ends it everywhere, grandchildren too
start both "$sf" exec -- sh -c 'setsid sleep 4242 & sleep 4242'
both_pid=$pid
here() { [ "$(pgrep -fx 'sleep 4242' | wc -l)" -eq "$1" ]; }
ok "it runs on all" until_ok 20 here 6
kill -INT "$both_pid"
wait "$both_pid"
rc=$?
ok "Ctrl-C is exit 5 and one line" test "$rc:$(grep -c '^siofleet: .*cancelled' both.log)" = 5:1
ok "and nothing of it is left" until_ok 20 here 0
run ls jobs --json
ok "the job is cancelled" json 'd["items"][-1]["state"] == "cancelled"'
run cancel "$(python3 -c 'import json; print(json.load(open("out"))["items"][-1]["job"])')"
ok "cancelling it again is no error" worked "cancelled already"

# a host that is lost while it runs
start lost "$sf" exec --host n3 -- sleep 4343
lost_pid=$pid
running() { pgrep -fx 'sleep 4343' >/dev/null; }
until_ok 20 running
kill -STOP "$n3_pid"
wait "$lost_pid"
rc=$?
ok "a lost host fails the command and is named" sh -c "[ $rc -eq 1 ] && grep -q '^siofleet: n3: its host was lost' lost.log"
run exec -- echo hi
ok "the others go on without it" test "$rc:$(wc -l <out)" = 0:2
kill -CONT "$n3_pid"
gone() { ! running; }
ok "when it comes back it is told to end it" until_ok 20 gone
ok "and works again" until_ok 20 "$sf" exec --host n3 -- true
run coordinator --data fleet/n3
ok "a coordinator does not take an agent's folder" fails 1 "fleet/n3: the data folder of an agent"
run agent --data fleet/c --connect "$SIOFLEET_CONNECT" --server-key "$SIOFLEET_SERVER_KEY" --key fleet/n3.key
ok "nor an agent a coordinator's" sh -c "[ $rc -eq 1 ] && grep -qx 'siofleet: fleet/c: the data folder of a coordinator' err"

# an agent whose program was replaced under it
mkdir bin
cp "$sf" "${sf%/*}/siofleet-shim" bin/
"$sf" keys new fleet/n4.key --role agent --name n4 && "$sf" keys allow --data fleet/c fleet/n4.key.pub
start n4 bin/siofleet agent --data "$work/fleet/n4" --connect "$SIOFLEET_CONNECT" --server-key "$SIOFLEET_SERVER_KEY" \
  --key "$work/fleet/n4.key" --cores 1 --ready-file "$work/fleet/n4.ready"
until_ok 30 test -f fleet/n4.ready
cp bin/siofleet bin/next && mv bin/next bin/siofleet
start wait "$sf" exec --host n4 -- true
wait_pid=$pid
closed() { run ls agents --json && json '[a["state"] for a in d["items"] if a["name"] == "n4"] == ["closed"]'; }
ok "an agent that takes nothing by itself is closed" until_ok 30 closed
run why n4
ok "why says what may be the matter" worked "CLOSED: .*its program file was replaced"
waits() { "$sf" why "$("$sf" ls jobs --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["items"][-1]["job"])')" | grep -q "only agents that are drained or closed have what it needs (1)"; }
ok "and of what waits for it, that it does" until_ok 30 waits
kill -INT "$wait_pid"
wait "$wait_pid" || : # 5; the last status is the test's
