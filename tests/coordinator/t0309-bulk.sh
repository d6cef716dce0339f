#!/usr/bin/env bash
# Large artefacts have connections of their own: they are used, survive kill -9 of either end with at most a chunk sent twice, and
# where they cannot be had the link does it.
. "${0%/*}/../cli/tap.sh"
plan 21
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
# here FROM TO: as many chunks as from FROM up to TO are written at the coordinator of what is coming
here() {
  python3 -c '
import glob, struct, sys
maps = glob.glob("fleet/c/cas/partial/*.map")
n = 0
if maps:
    b = open(maps[0], "rb").read()
    chunks = -(-struct.unpack("<Q", b[8:16])[0] >> 20)
    n = sum(bin(x).count("1") for x in b[16 + 32 * chunks:])
sys.exit(not int(sys.argv[1]) <= n < int(sys.argv[2]))' "$1" "$2"
}
# bytes that a log says were given by bulk, all its connections together
given() { cat "$@" 2>/dev/null | sed -n 's/.*: \([0-9]*\) bytes given by bulk.*/\1/p' | awk '{ s += $1 } END { print s + 0 }'; }
# how many chunks came by bulk into the artefact that is whole now
came() { sed -n 's/.*: \([0-9]*\) chunks of it came by bulk.*/\1/p' coordinator.log | tail -1; }

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

# 4 MiB/s, so that there is time to kill something in the middle
agent_args=(--bulk-rate 4M)
ok "a slow fleet" fleet_start 1
begin
ok "a host's file is coming" until_ok 60 here 3 16
kill -KILL "$agent_pid"
wait "$agent_pid" 2>/dev/null
ok "the coordinator keeps what it has" here 3 20
fleet_listen=$SIOFLEET_CONNECT
start a1 "$sf" agent --data fleet/a1 --connect "$SIOFLEET_CONNECT" --server-key "$SIOFLEET_SERVER_KEY" --key fleet/a1.key \
  --name a1 --cores 1 --ready-file fleet/a1.ready --bulk-rate 4M
agent_pid=$pid
ok "it goes on with the rest" until_ok 60 here 17 22
kill -KILL "$coordinator_pid"
wait "$coordinator_pid" 2>/dev/null
start coordinator "$sf" coordinator --data fleet/c --listen "$fleet_listen" --ready-file fleet/ready --heartbeat-ms 300 \
  --lease-ms 3000
coordinator_pid=$pid
ok "until it is whole" until_ok 120 fetched
wait "$exec_pid"
rc=$?
ok "the command saw nothing of it" test "$rc" -eq 0
ok "the last part came by bulk, too" test "$(came)" -gt 0 -a "$(came)" -lt 8
# the first agent gave 3 chunks at least before it was killed, without time to say so
sent=$(given a1.log)
ok "a kill has at most a chunk sent again" test "$sent" -le $((size - (3 << 20) + (2 << 20))) -a "$sent" -ge $((4 << 20))
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
