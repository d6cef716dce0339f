#!/usr/bin/env bash
# A trace that several agents want leaves the coordinator once: each gives it to the next one. Whoever gives damaged bytes
# is named and not asked again, one that is killed is done without.
. "${0%/*}/../cli/tap.sh"
plan 19
cd "$work" || exit 1
awk 'BEGIN {
  srand(7)
  for (d = 0; d < 4; d++)
    printf "vtd_iotlb_cc_update IOTLB context update bus 0x0 devfn 0x%x high 0x%x02 low 0x1000%d gen 0 -> gen 1\n", (2 + d) * 8, d + 1, d
  for (i = 0; i < 900000; i++) {
    d = i % 4
    printf "vtd_iotlb_page_update IOTLB page update sid 0x%x iova 0x%x%04x000 slpte 0x%x%04x003 level 0x1 domain 0x%x\n", (2 + d) * 8, int(rand() * 65536), int(rand() * 65536), int(rand() * 65536), int(rand() * 65536), d + 1
  }
}' >r.log
"$sf" trace build --log r.log -o r.trc >/dev/null 2>&1
ok "a trace of some megabytes" test "$(stat -c %s r.trc)" -ge $((6 << 20))
# sweep NAME VALUES
sweep() { printf '[sweep]\nname = %s\nblock = 1\npace_ms = 400\n[trace]\nfile = r.trc\n[arch]\niotlb_entries = %s\n' "$1" "$2" >"$1.ini"; }
gets() { grep -c "gets artefact .* from $1" coordinator.log; }
agent() {
  [ -f "fleet/$1.key" ] || { "$sf" keys new "fleet/$1.key" --role agent --name "$1" && "$sf" keys allow --data fleet/c "fleet/$1.key.pub"; }
  rm -f "fleet/$1.ready"
  start "$1" "$sf" agent --data "$work/fleet/$1" --connect "$SIOFLEET_CONNECT" --server-key "$SIOFLEET_SERVER_KEY" \
    --key "$work/fleet/$1.key" --cores 1 --ready-file "$work/fleet/$1.ready" "${@:2}"
  agent_pid=$pid
  until_ok 30 test -f "fleet/$1.ready"
}
has() { [ -f "fleet/$1/cache/${id:0:2}/$id" ]; }
all_have() { for a in "$@"; do has "$a" || return 1; done; }

all_drain() { for a in "$@"; do "$sf" drain "$a" >/dev/null; done; }
# some of it has come to b
took() { [ "$(du -m fleet/b/cache/partial | cut -f 1)" -ge 1 ] && grep -q "'b' gets .* from agent 'slow'" coordinator.log; }

# the only agent that has it is killed while it gives it
fleet_start 0
ok "an agent with a slow line" agent slow --bulk-rate 3M
slow_pid=$agent_pid
sweep kill0 16,32,64,128,256,512,1024,2048,4096,8192
sed -i 's/^pace_ms = .*/pace_ms = 0/' kill0.ini
run sweep run kill0.ini
ok "ten tasks that want one trace fetch it once" test "$("$sf" results query --sql "SELECT count(*) FROM attempts WHERE kind = 'points' AND cause = 'done'" --csv | tail -n 1):$(gets here):$(gets agent)" = 10:1:0
id=$("$sf" ls artefacts --json | python3 -c 'import json,sys; print([a["id"] for a in json.load(sys.stdin)["items"] if a["kind"]=="trace"][0])')
ok "it has the trace" has slow
"$sf" drain slow >/dev/null
agent b
sweep kill1 16384
start kill1 "$sf" sweep run kill1.ini
job=$pid
ok "another one takes it from there" until_ok 30 took
kill -KILL "$slow_pid"
wait "$slow_pid" 2>/dev/null
ok "though the first one is killed it has the whole" until_ok 30 has b
ok "with the same bytes" cmp "fleet/b/cache/${id:0:2}/$id" r.trc
wait "$job"
ok "and does its work" test $? -eq 0
stop_all

rm -rf fleet
for a in a1 a2 a3 a4 a5; do
  [ -d fleet ] || fleet_start 0
  agent $a
done
sweep first 16,32,64,128,256,512,1024,2048
run sweep run first.ini --csv first.csv
ok "a sweep on five agents" test "$rc:$(grep -c ',done,' first.csv)" = 0:8
ok "each has the trace" until_ok 30 all_have a1 a2 a3 a4 a5
ok "one copy left the coordinator" test "$(gets here)" -eq 1
ok "the others came from agents" test "$(gets agent)" -eq 4
ok "whole" cmp "fleet/a5/cache/${id:0:2}/$id" r.trc
agent late
all_drain a1 a2 a3 a4 a5
sweep second 4096
run sweep run second.ini
ok "one that comes later gets it from an agent" test "$rc:$(gets here):$(gets agent)" = 0:1:5

# every copy at the agents is damaged
for a in a1 a2 a3 a4 a5 late; do
  f=fleet/$a/cache/${id:0:2}/$id
  chmod u+w "$f"
  python3 -c 'import sys; f=open(sys.argv[1],"r+b"); f.seek(2 << 20); b=f.read(1); f.seek(2 << 20); f.write(bytes([b[0]^1]))' "$f"
done
agent victim
all_drain late
sweep third 8192
run sweep run third.ini
ok "one whose neighbours have damaged bytes has whole ones" cmp "fleet/victim/cache/${id:0:2}/$id" r.trc
ok "who gave them is named" grep -q "'victim' did not get .* its bytes are damaged" coordinator.log
ok "and nobody is asked twice" test "$(grep -o "victim' gets artefact .* from agent '[a-z0-9]*'" coordinator.log | sort | uniq -d | wc -l)" -eq 0
ok "the sweep is done" test "$rc" -eq 0

# one that has no such connections
agent alone --bulk off
all_drain victim
sweep fourth 16384
run sweep run fourth.ini
ok "an agent without such connections gets it over its link" cmp "fleet/alone/cache/${id:0:2}/$id" r.trc
