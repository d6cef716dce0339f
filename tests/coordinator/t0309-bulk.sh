#!/usr/bin/env bash
# Large artefacts have connections of their own: they are used, survive kill -9 of either end with at most a chunk sent twice, and
# where they cannot be had the link does it.
. "${0%/*}/../cli/tap.sh"
plan 26
cd "$work" || exit 1
size=$((24 << 20))
head -c $size /dev/urandom >in.bin
sum=$(b2sum <in.bin)

# the file comes back from the host, whole
same() { [ "$(b2sum <"$1")" = "$sum" ]; }
# a host's file is to come to the coordinator; in the background
begin() {
  rm -rf got
  start exec "$sf" exec --copy "$work/in.bin" -o "$work/got" -- true
  exec_pid=$pid
}
fetched() { same "$(find got -name in.bin | head -1)"; }
# bytes that a log says were given by bulk, all its connections together
given() { cat "$@" 2>/dev/null | sed -n 's/.*: \([0-9]*\) bytes given by bulk.*/\1/p' | awk '{ s += $1 } END { print s + 0 }'; }
# how many chunks came by bulk into the artefact that is whole now
came() { sed -n 's/.*: \([0-9]*\) chunks of it came by bulk.*/\1/p' coordinator.log | tail -1; }

store=fleet/c/cas
ok "a fleet" fleet_start 1
run store put in.bin
ok "a user's file" worked
ok "came by bulk" grep -q "24 chunks of it came by bulk" coordinator.log
run store get last -o out.bin
ok "and goes back" same out.bin
ok "by bulk" grep -q "$size bytes given by bulk" coordinator.log
run store put in.bin
ok "again" worked
ok "not a byte of it" test "$(grep -c 'chunks of it came by bulk' coordinator.log)" -eq 1
stop_all
rm -rf fleet

# 1 MiB/s until the last kill: 20 seconds to do harm in, of which it takes 5; and no agent is lost because it is starved
coordinator_args=(--bulk-rate 1M)
lease_ms=30000
ok "a slow fleet" fleet_start 1
begin
ok "a host's file is coming" until_ok 60 chunks_come $store 3
kill -KILL "$agent_pid"
wait "$agent_pid" 2>/dev/null
had=$(chunks $store)
ok "the coordinator keeps what it has" test "$had" -ge 3 -a "$had" -lt 20
fleet_listen=$SIOFLEET_CONNECT
fleet_agent a1
ok "it goes on with the rest" until_ok 60 chunks_come $store $((had + 2))
kill -KILL "$coordinator_pid"
wait "$coordinator_pid" 2>/dev/null
had_then=$(chunks $store)
ok "and has not come to its end" test "$had_then" -lt 24
start coordinator "$sf" coordinator --data fleet/c --listen "$fleet_listen" --ready-file fleet/ready --heartbeat-ms 300 \
  --lease-ms "$lease_ms"
coordinator_pid=$pid
ok "until it is whole" until_ok 120 fetched
wait "$exec_pid"
rc=$?
ok "the command saw nothing of it" test "$rc" -eq 0
ok "the last part came by bulk, too" test "$(came)" -gt 0 -a "$(came)" -le $((24 - had_then))
# what the first agent gave before it was killed it had no time to say; the second one says it when a connection has ended
gave() { [ "$(given a1.log)" -ge "$1" ]; }
ok "the agent says what it gave" until_ok 60 gave $((24 - had_then << 20))
ok "a kill has at most a chunk sent again" test "$(given a1.log)" -le $((size - (had - 2 << 20)))
stop_all
rm -rf fleet
unset fleet_listen

# a port that cannot be reached: the link does it
agent_args=()
coordinator_args=(--bulk 'tcp://127.0.0.2:*')
ok "a fleet behind a firewall" fleet_start 1
begin
ok "the host's file comes all the same" until_ok 60 fetched
ok "over the link" sh -c "! grep -q 'came by bulk' coordinator.log && grep -q 'go over the link' a1.log"
stop_all
rm -rf fleet
coordinator_args=(--bulk off)
ok "a fleet without" fleet_start 1
run store put in.bin
ok "takes it over the link" worked
ok "only there" sh -c "! grep -q bulk coordinator.log"
stop_all
rm -rf fleet

# hosts of one class share its rate: 8 MiB of its own from each of two at 4 MiB/s for both, not for each
rm -rf got
coordinator_args=()
agent_args=(--labels class=slow --class-rate 4M)
ok "a fleet with a class" fleet_start 2
began=$(date +%s%3N)
run exec --copy own.bin -o got -- sh -c 'head -c 8388608 /dev/urandom >own.bin'
took=$(($(date +%s%3N) - began))
ok "both files come" test "$rc:$(find got -name own.bin -size 8192k | wc -l)" = 0:2
ok "at the rate of the class" test "$took" -ge 3500
