#!/usr/bin/env bash
# Agents in the allocations of a real Slurm: none to many with the work, jobs that are killed, lost with their node, at the end of
# their time or never started, the program killed and started again, back to the fewest, and nothing left.
# shellcheck disable=SC2154,SC2016,SC2317 # helpers set variables; eval expands; functions are called by name
set -u
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/lab/lab.sh
. "$here/lab.sh"
# shellcheck source=tests/lab/slurm-cluster.sh
. "$here/slurm-cluster.sh"
slurm_need || exit 77
slurm_alone "$0" "$@"
dir=$(mktemp -d "${TMPDIR:-/tmp}/lab-XXXXXX") || exit 1
trap 'rm -rf "$dir"' EXIT
export XDG_CACHE_HOME=$dir/cache XDG_CONFIG_HOME=$dir/config HOME=$dir
sf=$lab_bin
ep=tcp://127.0.0.1:7700
export SIOFLEET_CONNECT=$ep SIOFLEET_SERVER_KEY=$dir/head/keys/coordinator.pub SIOFLEET_KEY=$dir/head/keys/admin
slurm_up "$dir" 3 2
"$sf" coordinator --data "$dir/head" --listen "$ep" --lease-ms 2000 --heartbeat-ms 500 --ready-file "$dir/ready" >"$dir/coordinator.log" 2>&1 &
lab_until 60 test -s "$dir/ready" || { echo "Bail out! no coordinator: $(tail -n 2 "$dir/coordinator.log")"; exit 1; }

conf=$dir/slurm.ini
"$sf" deploy slurm --template | sed "s|^coordinator *=.*|coordinator = $ep|; s|^server_key *=.*|server_key = $SIOFLEET_SERVER_KEY|
s|^data *=.*|data = $dir/agents|; s|^name *=.*|name = lab|; s|^min *=.*|min = 1|; s|^max *=.*|max = 3|; s|^;points *=.*|points = 8|
s|^;idle *=.*|idle = 2s|; s|^;cores *=.*|cores = 2|; s|^;walltime *=.*|walltime = 1m|; s|^;drain *=.*|drain = 50s|
s|^;start *=.*|start = 40s|; s|^;held *=.*|held = 1s|; s|^;poll *=.*|poll = 300ms|" >"$conf"
said=$dir/said
: >"$said"
drive() {
  "$sf" deploy slurm "$conf" >"$dir/out" 2>>"$said" &
  driver=$!
}
jobs_now() { squeue -h -t pending,running,completing -o %i | sort -n; }
n_jobs() { [ "$(jobs_now | wc -l)" = "$1" ]; }
agents() { [ "$("$sf" ls agents --json | jq '[.items[] | select(.state == "ready")] | length')" -ge "$1" ]; }
heard() { grep -qE "$1" "$said"; }
told() { # told NAME PATTERN: it is said within a while
  ok "$1" lab_until 40 heard "$2" || tail -n 5 "$said" | sed 's/^/# /'
}

# ---- what is wrong at the start
mkdir "$dir/bin"
for tool in ldd tar gzip sha256sum; do ln -s "$(command -v $tool)" "$dir/bin/$tool"; done
PATH=$dir/bin "$sf" deploy slurm "$conf" >/dev/null 2>"$dir/err"
rc=$?
ok "without Slurm it says so" eval '[ $rc = 1 ] && grep -q "squeue: not found: is this a machine of a Slurm cluster" "$dir/err"'
sed 's|^\[slurm\]|&\npartition = nowhere|' "$conf" >"$dir/nowhere.ini"
"$sf" deploy slurm "$dir/nowhere.ini" >/dev/null 2>"$dir/err"
rc=$?
ok "a partition that is none is refused before anything starts" eval '[ $rc = 1 ] && grep -qi "sbatch: .*invalid partition" "$dir/err" && n_jobs 0'

# ---- from the fewest to the most, and its killed jobs
drive
ok "it keeps min agents without work" lab_until 40 agents 1
ok "each with a job" n_jobs 1
printf '[sweep]\nname = s\npace_ms = 400\nblock = 2\n[trace t]\nlogs = %s\ntenants = 4,24\n[arch a]\nlink_gbps = 100..199:+1\n' \
  "$SIOFLEET_SRC/tests/data/real-log/e1000-24nic-tx3.log.zst" >"$dir/sweep.ini"
"$sf" sweep run "$dir/sweep.ini" --csv "$dir/fleet.csv" >/dev/null 2>"$dir/sweep.err" &
sweep=$!
ok "with work it goes up to max" lab_until 40 agents 3
ok "one job an agent, not one a task" n_jobs 3
before=$(jobs_now)
"$sf" deploy slurm "$conf" >/dev/null 2>"$dir/err"
ok "a second one on the same folder is refused" grep -q 'another siofleet deploy slurm uses it' "$dir/err"
kill -KILL "$driver"
wait "$driver" 2>/dev/null
drive
told "killed and started again it takes over its jobs" ': 3 jobs of a call before are taken over'
ok "and submits none twice" test "$(jobs_now)" = "$before"
ok "the keys are for nobody else" test "$(stat -c %a "$dir"/agents/lab-*/agent.key | sort -u)" = 600
cut -d' ' -f6 "$dir/agents/lab-1/agent.key" >"$lab_dir/secret" # from a file, or grep's own argument list would hold it
ok "and stand in no argument list" lab_fails eval 'cat /proc/[0-9]*/cmdline 2>/dev/null | tr "\0" "\n" | grep -qF -f "$lab_dir/secret"'
scancel --batch --signal=KILL "$(echo "$before" | tail -n 1)"
told "a job that is killed is explained" 'ended unasked: (FAILED|CANCELLED|COMPLETED).*next try in'
ok "and replaced" lab_until 40 agents 3
scontrol update nodename=n1 state=down reason=test
told "so is one that is lost with its node" 'ended unasked: NODE_FAIL'
lab_until 20 scontrol update nodename=n1 state=idle
slurm_ctld_stop
told "slurmctld may go" 'squeue: .*; the queue is asked$'
slurm_ctld
told "and come back" 'the queue is asked again'
told "an agent whose allocation ends soon is drained" 'drained: its allocation ends soon'
wait $sweep
ok "the sweep completes under all that" test $? = 0
sed '/^pace_ms/d' "$dir/sweep.ini" >"$dir/fast.ini"
"$sf" perf sweep "$dir/fast.ini" --csv >"$dir/alone.csv" 2>/dev/null
ok "with the rows of this host alone, byte for byte" cmp "$dir/fleet.csv" "$dir/alone.csv"
"$sf" audit s --json >"$dir/audit"
ok "nothing is lost, nothing doubled" test "$(jq -c '[.points == .accepted, .missing, .differing, .foreign]' "$dir/audit")" = '[true,[],[],0]'
# allocations that last: else their end may come before they have been idle
kill -TERM "$driver"
wait "$driver"
sed -i 's/^drain *=.*/drain = 10s/' "$conf"
drive
sed 's/^name = s$/name = s1/; s/100\.\.199/300..339/' "$dir/sweep.ini" >"$dir/short.ini"
"$sf" sweep submit "$dir/short.ini" >/dev/null
ok "a second sweep makes it go up again" lab_until 40 agents 3
told "agents without work are let go" 'it is idle'
ok "down to min" lab_until 40 n_jobs 1

# ---- jobs that do not start
scontrol update partitionname=all state=down
sed -i 's/^name = s$/name = s2/; s/100\.\.199/200..299/' "$dir/sweep.ini"
"$sf" sweep submit "$dir/sweep.ini" >/dev/null
told "a job that will never start is explained" 'waits: PartitionDown'
told "and given up, with a pause" 'is cancelled: will not start by waiting; next try in [248] s'
for i in 2 3; do
  rm -rf "$dir/agents/lab-$i/agent"
  : >"$dir/agents/lab-$i/agent"
done
scontrol update partitionname=all state=up
told "one whose agent does not start is explained with its words" 'ended unasked: FAILED with status 1 on n[123].*; its agent: siofleet: .*agent.*next try in'
"$sf" cancel s2 >/dev/null 2>&1
rm "$dir/agents/lab-2/agent" "$dir/agents/lab-3/agent"

# ---- the end
kill -TERM "$driver"
wait "$driver"
ok "SIGTERM ends it with status 0" test $? = 0
ok "no job is left" n_jobs 0
running() { pgrep -f 'siofleet (agent|deploy|__task)|siofleet-shim'; }
ok "no process" lab_fails running
ok "and no key" test "$(ls "$dir/head/keys/allowed") $(find "$dir/agents" -name 'agent.key*')" = "admin.pub "
ok "it wrote nothing to stdout" test ! -s "$dir/out"
[ "$lab_bad" = 0 ] || sed 's/^/# /' "$said" | tail -n 40
lab_done
