#!/usr/bin/env bash
# A log goes to the coordinator while it is written: freed here, whole there, whoever is killed in between. QEMU is played
# by the stand-in of tests/collect.
. "${0%/*}/../cli/tap.sh"
plan 17
cd "$work" || exit 1
export XDG_CACHE_HOME=$work/cache XDG_DATA_HOME=$work/data
ln -s "$SIOFLEET_BIN/tests/collect/fake_qemu" qemu
touch kernel initrd
echo 'echo hello' >script
printf '[collect]\naccel = tcg\nruns = 1\nnics = 1\nkernel = kernel\ninitrd = initrd\nqemu = qemu\ntimeout = 3m\n[workload]\nkind = script\nscript = script\n' >run.ini
export FAKE_QEMU=long=$work/go
agent() {
  [ -f fleet/n.key ] || { "$sf" keys new fleet/n.key --role agent --name n && "$sf" keys allow --data fleet/c fleet/n.key.pub; }
  rm -f fleet/n.ready
  start n "$sf" agent --data "$work/fleet/n" --connect "$SIOFLEET_CONNECT" --server-key "$SIOFLEET_SERVER_KEY" \
    --key "$work/fleet/n.key" --name n --cores 2 --ready-file "$work/fleet/n.ready"
  agent_pid=$pid
  until_ok 30 test -f fleet/n.ready
}
size() { stat -c %s "$1" 2>/dev/null || echo 0; }
growing() { find fleet/c/cas/growing -name '????????????????????????????????????????????????????????????????' 2>/dev/null; }
nothing_grows() { [ -z "$(growing)" ]; }
no_tasks() { [ -z "$(ls fleet/n/tasks)" ]; }
there() { [ "$(size "$(growing)")" -ge "$1" ]; }
file() { echo fleet/n/tasks/*/growing; }
# no more than that of the log lies at the agent, in MiB
left() { [ "$(du -m "$(file)" | cut -f 1)" -le "$1" ]; }
killed() {
  kill -KILL "$1"
  wait "$1" 2>/dev/null
}

fleet_start 0
ok "a fleet" agent
start job "$sf" collect run.ini -o logs --json
job=$pid
ok "the log is on its way while the guest runs" until_ok 60 there 8388608
ok "it is no artefact yet" test "$("$sf" ls artefacts --json | grep -c '"log"')" -eq 0
ok "and what is there is freed here" until_ok 30 left 6
ok "though its length stays" test "$(size "$(file)")" -ge 8388608
ok "the agent says so" grep -q 'goes to the coordinator while it is written' n.log

killed "$agent_pid"
ok "the agent is killed, and is back" agent
before=$(size "$(growing)")
killed "$coordinator_pid"
fleet_listen=$SIOFLEET_CONNECT
fleet_start 0
ok "the coordinator is killed, and is back" test -f fleet/ready
touch go
ok "the second half comes behind the first" until_ok 60 there $((before + 1048576))
killed "$agent_pid"
ok "the agent once more" agent
wait "$job"
rc=$?
cp job.log out
ok "the run is made" test "$rc" -eq 0
ok "by its first attempt" test "$("$sf" results query --sql 'SELECT count(*) FROM attempts' --csv | tail -n 1)" = 1
run log info logs/run-0001/log.slog --json
ok "the log is whole, with every event" json 'd["events"] == 2000000'
ok "nothing is left growing" nothing_grows
ok "nor at the agent" until_ok 30 no_tasks
ok "nor a copy in its cache" test "$(du -sm fleet/n/cache | cut -f 1)" -le 2

# one that is cancelled
rm go
sed -i 's/^runs = 1/runs = 2/' run.ini
start job "$sf" collect run.ini --json
until_ok 60 there 4194304
run cancel last
ok "a cancelled run leaves nothing at the coordinator" until_ok 30 nothing_grows
