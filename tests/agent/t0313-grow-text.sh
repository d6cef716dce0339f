#!/usr/bin/env bash
# A text log (tracer = log, stock) goes to the coordinator while QEMU writes it, as a ring's does (t0311): neither QEMU's lines nor
# what they are packed to need room for all of it at the agent. QEMU is played by the stand-in of tests/collect.
. "${0%/*}/../cli/tap.sh"
plan 19
cd "$work" || exit 1
export XDG_CACHE_HOME=$work/cache XDG_DATA_HOME=$work/data
ln -s "$SIOFLEET_BIN/tests/collect/fake_qemu" qemu
touch kernel initrd
echo 'echo hello' >script
printf '[collect]\naccel = tcg\ntracer = log\nruns = 1\nnics = 1\nkernel = kernel\ninitrd = initrd\nqemu = qemu\ntimeout = 3m\n[workload]\nkind = script\nscript = script\n' >run.ini
export FAKE_QEMU=text=$work/go
agent() {
  [ -f fleet/n.key ] || { "$sf" keys new fleet/n.key --role agent --name n && "$sf" keys allow --data fleet/c fleet/n.key.pub; }
  rm -f fleet/n.ready
  start n "$sf" agent --data "$work/fleet/n" --connect "$SIOFLEET_CONNECT" --server-key "$SIOFLEET_SERVER_KEY" \
    --key "$work/fleet/n.key" --name n --cores 2 --ready-file "$work/fleet/n.ready"
  agent_pid=$pid
  until_ok 30 test -f fleet/n.ready
}
growing() { find fleet/c/cas/growing -name '????????????????????????????????????????????????????????????????' 2>/dev/null; }
nothing_grows() { [ -z "$(growing)" ]; }
no_tasks() { [ -z "$(ls fleet/n/tasks)" ]; }
size() { stat -c %s "$1" 2>/dev/null || echo 0; }
there() { [ "$(size "$(growing)")" -ge "$1" ]; }
text() { echo fleet/n/tasks/*/out/.run-0001.part/run.log; }
written() { [ "$(size "$(text)")" -ge 12000000 ]; }
# no more than that of the task lies at the agent, in MiB
left() { [ "$(du -sm fleet/n/tasks | cut -f 1)" -le "$1" ]; }

fleet_start 0
ok "a fleet" agent
start job "$sf" collect run.ini -o logs --json
job=$pid
ok "QEMU has written 12 MB" until_ok 60 written
ok "they are on their way while the guest runs" until_ok 60 there 8388608
ok "of its text and of what it is packed to little is left here" until_ok 30 left 10
ok "though the lengths stay" test "$(size "$(text)")" -ge 12000000 -a "$(size "$(echo fleet/n/tasks/*/growing)")" -ge 8388608
kill -KILL "$agent_pid"
wait "$agent_pid" 2>/dev/null
ok "the agent is killed, and is back" agent
touch go
wait "$job"
rc=$?
cp job.log out
ok "the run is made" test "$rc" -eq 0
ok "by its first attempt" test "$("$sf" results query --sql 'SELECT count(*) FROM attempts' --csv | tail -n 1)" = 1
run log info logs/run-0001/run.log.zst --json
ok "the log is whole, with every event" json 'd["events"] == 24000 and d["source"] == "text"'
ok "nothing is left growing" nothing_grows
ok "nor at the agent" until_ok 30 no_tasks
ok "nor a copy in its cache" test "$(du -sm fleet/n/cache | cut -f 1)" -le 2

sed -i 's/^tracer = .*/tracer = stock/; s/^runs = .*/runs = 2/' run.ini
run collect run.ini --json
ok "those of stock QEMU, too" test "$rc" -eq 0 -a "$(grep -c "its log goes to the coordinator" n.log)" -eq 2

# ring and text of one run, each on its way while it is written
sed -i 's/^tracer = .*/tracer = both/; s/^runs = .*/runs = 1/' run.ini
export FAKE_QEMU=long=$work/go2
both_there() {
  local f n=0
  for f in $(growing); do [ "$(size "$f")" -lt 6291456 ] || n=$((n + 1)); done
  [ "$n" -eq 2 ]
}
kill -TERM "$agent_pid"
wait "$agent_pid" 2>/dev/null
ok "a fleet whose guests write both" agent
start job "$sf" collect run.ini -o both --json
job=$pid
ok "the ring's log and the text leave while the guest runs" until_ok 60 both_there
ok "and little of either is left here" until_ok 30 left 18
kill -KILL "$agent_pid"
wait "$agent_pid" 2>/dev/null
ok "also when the agent is killed in between" agent
touch go2
wait "$job"
rc=$?
cp job.log out
ok "both come home whole" sh -c "[ $rc -eq 0 ] && '$sf' log info both/run-0001/log.slog --json | grep -q '\"events\": 2000000' && '$sf' log info both/run-0001/run.log.zst --json | grep -q '\"events\": 24000'"
ok "and the document names the text beside the log" python3 -c 'import json; r=json.JSONDecoder().raw_decode("{" + open("job.log").read().partition("{")[2])[0]["runs"][0]; assert r["log"]["events"] == 2000000 and r["text"]["events"] == 24000 and r["text"]["path"] == "both/run-0001/run.log.zst", r'
