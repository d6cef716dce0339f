#!/usr/bin/env bash
# One agent or three, any block size, known points or not, invalid points and a trace that
# cannot be built among them: the same bytes as perf sweep.
. "${0%/*}/../cli/tap.sh"
plan 13
cd "$work" || exit 1
small_log a.log 4 2000
small_log b.log 3 1500
sweep_ini() { # SEED BLOCK
  cat >"s$1.ini" <<E
[sweep]
name = s$1
skip_invalid = yes
block = $2
[trace]
logs = a.log, b.log
devices_per_log = 4
order = rand
seed = $1
tenants = 2,5,7
[arch x]
preset = hypertrio
iotlb_entries = 32..256:x2
link_gbps = 100,200
E
  "$sf" perf sweep "s$1.ini" --threads 1 --csv >"want$1.csv" 2>/dev/null
}
sweep_ini 1 auto
sweep_ini 2 1
sweep_ini 3 5
sweep_ini 4 1000
fleet_start 1 || exit 1
run sweep run s1.ini --csv out1.csv
ok "one agent, automatic blocks: it works" worked
ok "one agent, automatic blocks: the same rows" cmp out1.csv want1.csv
stop_all
fleet_listen=$SIOFLEET_CONNECT
fleet_start 3 || exit 1
for i in 2 3 4; do
  run sweep run s$i.ini --csv out$i.csv
  ok "three agents, sweep $i: it works" worked
  ok "three agents, sweep $i: the same rows" cmp out$i.csv want$i.csv
done
run sweep run s4.ini --csv again.csv
ok "all known: the same rows" cmp again.csv want4.csv
run ls sweeps --json
ok "invalid points are told apart, known ones counted" json '[(s["done"],s["failed"],s["invalid"],s["known"]) for s in d["items"]]==[(24,0,6,0)]*4+[(24,0,6,18)]'
cat >fail.ini <<E
[sweep]
name = fail
skip_invalid = yes
retries = 0
[trace t]
logs = a.log
devices_per_log = 4
tenants = 2,5000,3
[trace u]
logs = a.log, b.log
devices_per_log = 4
tenants = 70
replicate = 2
order = rand
[arch x]
iotlb_entries = 32,64
iotlb_ways = 8,64
E
run perf sweep fail.ini --csv
cp out wantf.csv
run perf sweep fail.ini --json
cp out wantf.json
run sweep run fail.ini --csv outf.csv
ok "a trace that cannot be built: exit 1 with the reason" sh -c "[ $rc -eq 1 ] && grep -q '8 of 16 points failed; the first: point 4: .*5000 asked for' err"
ok "a trace that cannot be built: the same rows" cmp outf.csv wantf.csv
run results query --where name=fail --json
ok "a trace that cannot be built: the same document" cmp out wantf.json
