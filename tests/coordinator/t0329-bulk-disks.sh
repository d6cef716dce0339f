#!/usr/bin/env bash
# Large artefacts and disks: two agents that bring the same, a coordinator's copy that has rotted, a disk that is full in the middle of
# a chunk at the coordinator and at an agent. What is wrong is named, what is missing comes from who has it, all goes on by itself.
. "${0%/*}/../cli/tap.sh"
ns=(unshare -m)
[ "$(id -u)" -eq 0 ] || ns=(unshare -rm)
if ! "${ns[@]}" true 2>/dev/null; then
  echo "1..0 # skip: no mount namespaces here (small tmpfs is needed)"
  trap - EXIT
  rm -rf "$work"
  exit 77
fi
plan 31
cd "$work" || exit 1
mib=$((1 << 20))
size=$((12 * mib))
head -c $size /dev/urandom >in.bin
python3 - >r.log <<'P'
import os
for d in range(4):
    print("vtd_iotlb_cc_update IOTLB context update bus 0x0 devfn 0x%x high 0x%x02 low 0x1000%d gen 0 -> gen 1" % ((2 + d) * 8, d + 1, d))
n = 560000
r = os.urandom(9 * n).hex()
print("\n".join("vtd_iotlb_page_update IOTLB page update sid 0x%x iova 0x1%s000 slpte 0x1%s003 level 0x1 domain 0x%x" %
                ((2 + i % 4) * 8, r[18 * i:18 * i + 9], r[18 * i + 9:18 * i + 18], i % 4 + 1) for i in range(n)))
P
"$sf" trace build --log r.log -o r.trc >/dev/null 2>&1
rm r.log
given() { cat "$@" 2>/dev/null | sed -n 's/.*: \([0-9]*\) bytes given by bulk.*/\1/p' | awk '{ s += $1 } END { print s + 0 }'; }
came() { sed -n 's/.*: \([0-9]*\) chunks of it came by bulk.*/\1/p' coordinator.log | tail -1; }
sweep() { printf '[sweep]\nname = %s\n[trace]\nfile = r.trc\n[arch]\niotlb_entries = %s\n' "$1" "$2" >"$1.ini"; }
trace_id() { "$sf" ls artefacts --json | python3 -c 'import json,sys; print([a["id"] for a in json.load(sys.stdin)["items"] if a["kind"]=="trace"][0])'; }
# agent NAME ARG...: one more, on a disk of its own when disk=SIZE
agent() {
  local on=()
  [ -f "fleet/$1.key" ] || "$sf" keys new "fleet/$1.key" --role agent --name "$1"
  "$sf" keys allow --data "${keys_in:-fleet/c}" "fleet/$1.key.pub" || return 1
  rm -f "fleet/$1.ready"
  mkdir -p "fleet/$1"
  # shellcheck disable=SC2016 # for the inner shell
  [ -z "${disk:-}" ] || on=("${ns[@]}" sh -c 'mount -t tmpfs -o size=$1 none "$2" && shift 2 && exec "$@"' - "$disk" "$work/fleet/$1")
  start "$1" "${on[@]}" "$sf" agent --data "$work/fleet/$1" --connect "$SIOFLEET_CONNECT" --server-key "$SIOFLEET_SERVER_KEY" \
    --key "$work/fleet/$1.key" --name "$1" --cores 1 --ready-file "$work/fleet/$1.ready" "${@:2}"
  agent_pid=$pid
  until_ok 30 test -f "fleet/$1.ready"
}
# fill FOLDER CAS N: the last N MiB that are reserved there, and are not here yet, are taken away but for a quarter of one
fill() {
  local f n
  f=$(find "$2/partial" -size +1M -not -name '*.map')
  n=$(stat -c %s "$f")
  fallocate -p -o $((n - $3 * mib)) -l $(($3 * mib)) "$f" || return 1
  dd if=/dev/zero of="$1/fill" bs=64K 2>/dev/null
  truncate -s -262144 "$1/fill"
}

lease_ms=30000
# -- two agents that bring the same at once
agent_args=(--bulk-rate 6M)
ok "two agents" fleet_start 2
start exec "$sf" exec --copy "$work/in.bin" -o "$work/got" -- true
wait "$pid"
ok "that bring the same file at once: both succeed" test $? -eq 0
ok "both have given it" test "$(find got -name in.bin | wc -l)" -eq 2
ok "it is here once" test "$("$sf" store ls --json | python3 -c 'import json,sys; print(sum(a["size_b"]==12<<20 for a in json.load(sys.stdin)["items"]))')" = 1
ok "and came once" test "$(given a1.log a2.log)" -le $((size + mib))

# -- the coordinator's copy rots: who had brought it has it
id=$("$sf" store ls --json | python3 -c 'import json,sys; print([a["id"] for a in json.load(sys.stdin)["items"] if a["size_b"]==12<<20][0])')
stored=fleet/c/cas/${id:0:2}/$id
flip "$stored" 5000000
run store get "$id" -o x.bin
ok "damaged it is refused" test "$rc" -eq 4
ok "moved aside" until_ok 20 test -f "fleet/c/damaged/$id"
ok "and brought again by an agent" until_ok 30 cmp in.bin "$stored"
run store get "$id" -o x.bin
ok "then it can be had" cmp in.bin x.bin
stop_all
rm -rf fleet

# -- an agent fetches it by bulk from the coordinator while it is damaged there; who has it gives none away
ok "a fleet" fleet_start 0
ok "an agent that gives to no other agent" agent holder --bulk off
sweep one 64
run sweep run one.ini
trace=$(trace_id)
ok "it has a trace of some megabytes" test "$(stat -c %s "fleet/holder/cache/${trace:0:2}/$trace")" -ge $((4 * mib))
"$sf" drain holder >/dev/null
flip "fleet/c/cas/${trace:0:2}/$trace" $((3 * mib))
ok "one without it" agent fresh
sweep two 128
run sweep run two.ini --csv two.csv
"$sf" perf sweep two.ini --csv >want.csv 2>/dev/null
ok "does a sweep that needs it" cmp two.csv want.csv
ok "the damage is named" grep -q "artefact ${trace:0:16}.* is damaged and moved aside" coordinator.log
ok "the coordinator has it again" cmp "fleet/c/cas/${trace:0:2}/$trace" r.trc
ok "so has the agent" cmp "fleet/fresh/cache/${trace:0:2}/$trace" r.trc
stop_all
rm -rf fleet

# -- no space in the middle of a chunk, at an agent
coordinator_args=(--bulk-rate 1M)
agent_args=()
ok "a coordinator with a slow line" fleet_start 0
disk=24m
ok "an agent on 24 MiB" agent tiny --high-water 64K --low-water 32K
inside=/proc/$agent_pid/root$work/fleet/tiny
start sweep "$sf" sweep run one.ini --csv one.csv
job=$pid
ok "fetches the trace" until_ok 60 chunks_come "$inside/cache" 1
fill "$inside" "$inside/cache" 2
ok "its disk is full: said so" until_ok 60 grep -qi "no space" tiny.log coordinator.log
sleep 1
ok "nothing is taken for whole" test ! -e "$inside/cache/${trace:0:2}/$trace"
rm "$inside/fill"
wait "$job"
ok "with space again the sweep goes on by itself and ends well" test $? -eq 0
ok "with the right bytes" cmp "$inside/cache/${trace:0:2}/$trace" r.trc
stop_all
rm -rf fleet

# -- and at the coordinator
mkdir -p fleet/c
# shellcheck disable=SC2016 # for the inner shell
start coordinator "${ns[@]}" sh -c 'mount -t tmpfs -o size=32m none "$1" && shift && exec "$@"' - "$work/fleet/c" \
  "$sf" coordinator --data "$work/fleet/c" --listen 'tcp://127.0.0.1:*' --ready-file "$work/fleet/ready" --heartbeat-ms 300 --lease-ms "$lease_ms" \
  --bulk-rate 2M --high-water 64K --low-water 32K
until_ok 30 test -f fleet/ready
inside=/proc/$pid/root$work/fleet/c
cp -r "$inside/keys" ckeys
SIOFLEET_CONNECT=$(python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["endpoint"])' fleet/ready)
export SIOFLEET_CONNECT SIOFLEET_SERVER_KEY=$work/ckeys/coordinator.pub SIOFLEET_KEY=$work/ckeys/admin
disk=
keys_in=$inside
agent giver
start exec "$sf" exec --copy "$work/in.bin" -o "$work/again" -- true
job=$pid
ok "a host's file is coming to a coordinator on 32 MiB" until_ok 60 chunks_come "$inside/cas" 2
fill "$inside" "$inside/cas" 5 # enough to go by bulk again
ok "its disk is full: the agent knows and waits" until_ok 60 grep -q "waits: the coordinator has no space" giver.log
truncate -s -1M "$inside/fill"
ok "with a little space it tries again and is refused" until_ok 60 grep -q "not taken: .*cannot reserve" coordinator.log
had=$(chunks "$inside/cas")
ok "what had come stays" test "$had" -ge 2
rm "$inside/fill"
wait "$job"
ok "with space again it comes by itself" test $? -eq 0
ok "with what was missing only" test "$(came)" -le $((12 - had))
ok "whole" cmp in.bin "$(find again -name in.bin)"
