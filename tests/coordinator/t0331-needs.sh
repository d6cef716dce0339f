#!/usr/bin/env bash
# What waits for an agent that has what it needs: why names what is asked for and what the nearest agent has, and it runs by
# itself when such an agent joins. Then the same of maintenances. QEMU is played by the stand-in of tests/collect.
. "${0%/*}/../cli/tap.sh"
plan 22
cd "$work" || exit 1
export XDG_CACHE_HOME=$work/cache XDG_DATA_HOME=$work/data
coordinator_args=(--lease-ms 60000) # a restart of an agent is no loss, however slow the machine
ln -s "$SIOFLEET_BIN/tests/collect/fake_qemu" qemu
touch kernel initrd
echo 'echo hello' >script
# ini ACCEL: run.ini
ini() {
  printf '[collect]\naccel = %s\nkernel = kernel\ninitrd = initrd\nqemu = qemu\n[workload]\nkind = script\nscript = script\n' "$1" >run.ini
}
# an agent whose probe for a usable KVM has given 0 or 1 since the boot: joins NAME 0|1 ARG...
joins() {
  local name=$1 dev=no
  [ -r /dev/kvm ] && [ -w /dev/kvm ] && dev=rw
  mkdir -p "fleet/$name"
  printf '%s %s %s\n' "$(cat /proc/sys/kernel/random/boot_id)" "$dev" "$2" >"fleet/$name/kvm"
  shift 2
  fleet_agent "$name" "$@" && until_ok 30 test -f "fleet/$name.ready"
}
job() { "$sf" ls jobs --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["items"][int(sys.argv[1])]["job"])' "$1" 2>/dev/null; }
# says ID CODE PATTERN: a reason of it
says() { run why "$1" && grep -q "$2: .*$3" "$work/out"; }
killed() { kill -9 "$1" && wait "$1" 2>/dev/null; }
# ends PID: in order
ends() { wait "$1"; }

fleet_start 0 || exit 1
joins a1 0 --cores 2 --memory 100 || exit 1

# cores
run exec --cores 64 --label rack=b -- true
ok "no host for a command: what it asks for, and what the nearest one has" fails 1 "none of 1 agents matches: it asks for 64 cores, the labels rack=b; agent 'a1' comes nearest, with 2 cores, no labels$"
# shellcheck disable=SC2016
start first "$sf" exec -- sh -c 'until [ -e "$1" ]; do sleep 0.05; done' x "$work/go"
first_pid=$pid
until_ok 20 job 0
until_ok 20 says "$(job 0)" RUNNING "is run by agent 'a1'"
start alone "$sf" exec --exclusive --cores 2 -- true
alone_pid=$pid
until_ok 20 job 1
second=$(job 1)
ok "one that has its host to itself: behind what" until_ok 20 says "$second" NEEDS "it has its host to itself: agent 'a1' ends 1 tasks first"
killed "$agent_pid" # and back with fewer cores
joins a1 0 --cores 1 --memory 100
touch go
ok "what ran goes to its end" ends "$first_pid"
ok "cores: asked for and there" until_ok 20 says "$second" NEEDS "it asks for 2 cores; agent 'a1' comes nearest, with 1 cores"
run why "$(grep -o 'task [0-9]*' out | head -n 1 | cut -d' ' -f2)"
ok "the same of its task" worked "agent 'a1' comes nearest, with 1 cores"
killed "$agent_pid"
joins a1 0 --cores 2 --memory 100
ok "an agent with as many joins: it runs by itself" ends "$alone_pid"

# memory, labels, KVM
ini tcg
start labels "$sf" collect run.ini --labels rack=b,disk=ssd -o tcg
labels_pid=$pid
until_ok 20 job 2
third=$(job 2)
ok "memory and labels" until_ok 20 says "$third" NEEDS "it asks for [0-9]* MiB of memory, the labels rack=b,disk=ssd; agent 'a1' comes nearest, with 100 MiB of memory, no labels"
joins a2 0 --memory 64000 --labels rack=b || exit 1
ok "another one is nearer" until_ok 20 says "$third" NEEDS "agent 'a2' comes nearest, with the labels rack=b$"
ini kvm
start kvm "$sf" collect run.ini --labels rack=b -o kvm
kvm_pid=$pid
until_ok 20 job 3
fourth=$(job 3)
ok "KVM" until_ok 20 says "$fourth" NEEDS "a usable KVM; agent 'a2' comes nearest, with no usable KVM"
run exec --kvm -- true
ok "a command that asks for it" fails 1 "agent 'a.' comes nearest, with no usable KVM$"
joins a3 1 --memory 64000 --labels rack=b,disk=ssd || exit 1
ok "an agent that has all of it joins: the collection runs" ends "$labels_pid"
run why "$third" --json
ok "there" json 'd["state"]=="done"'
# with its guest or without: what this host really has decides
on_a3() { run results query --sql "SELECT DISTINCT agent FROM attempts WHERE kind='collect'" --csv && [ "$(tail -n +2 out)" = a3 ] && ! says "$fourth" NEEDS .; }
ok "and so is the one that asks for KVM" until_ok 20 on_a3
kill -INT "$kvm_pid" 2>/dev/null
wait "$kvm_pid"

# maintenances
run drain a2
run drain a3
run drain a1 --at +1s --for 1h --reason "new fan"
begun() { run ls agents --json && json 'all(a["state"]=="drained" for a in d["items"])'; }
run ls agents
ok "one that is planned is shown to people" grep -q '^a1 *ready .* new fan  2[^ ]*Z  2[^ ]*Z ' out
ok "it begins" until_ok 30 begun
small_log a.log 4 2000
small_sweep s.ini good
run sweep submit s.ini
sweep=$(cat out)
ok "a sweep: nobody takes work" says "$sweep" NO_AGENT "no connected agent takes work: 3 drained"
ok "and each maintenance with its reason and end" grep -q "DRAINED: agent 'a1': new fan, until 2.*Z; .siofleet undrain a1. gives it work again" out
ini tcg
start again "$sf" collect run.ini --again --labels disk=ssd -o again
again_pid=$pid
until_ok 20 job 4
ok "a collection: who has what it needs, and is drained" until_ok 20 says "$(job 4)" NEEDS "only agents that are drained or closed have what it needs (1)"
ok "that one is named" grep -q "DRAINED: agent 'a3': somebody drained it; " out
ok "and no other" test "$(grep -c DRAINED: out)" = 1
run undrain a3
ok "called back, it makes the collection" ends "$again_pid"
run sweep wait "$sweep" --timeout 60s
ok "and the sweep" worked
