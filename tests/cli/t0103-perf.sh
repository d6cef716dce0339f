#!/usr/bin/env bash
# perf run, sweep, mrc.
. "${0%/*}/tap.sh"
plan 34
cd "$work" || exit 1
zstd -qdc "$src/tests/data/real-log/e1000-24nic-tx3.log.zst" >tx3.log
"$sf" trace build --log tx3.log -o a.trc >/dev/null || exit 1
id=$("$sf" trace info a.trc --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["id"])')

run perf run a.trc --preset hypertrio --arch iotlb_entries=256 --json
ok "run gives siofleet.row/1 in the contract's order" json 'list(d)[:12]==["schema","point","trace","recipe_id","rules","tenants","replicated","arch","status","error","stats"][:12] and d["schema"]=="siofleet.row/1"'
ok "preset, then single keys" json 'd["arch"]["queue"]==32 and d["arch"]["iotlb_entries"]==256 and len(d["arch"])==20'
ok "stats as named" json 'list(d["stats"])[:8]==["time_ps","requests","pkts_sent","pkts_dropped","mbps","util_ppm","caches","prefetcher"] and list(d["stats"]["caches"])==["CC","IOTLB","L2PAGE","L3PAGE"]'
ok "the point is the hash of canonical JSON" json '__import__("hashlib").blake2b(json.dumps({"arch":d["arch"],"rules":d["rules"],"trace":d["trace"]},sort_keys=True,separators=(",",":")).encode(),digest_size=32).hexdigest()==d["point"]'
ok "every request is looked up" json "d['trace']=='$id' and d['stats']['caches']['IOTLB']['hit']+d['stats']['caches']['IOTLB']['miss']==d['stats']['requests']"
cp out run.json
printf '[trace]\nlogs = tx3.log\n' >r.ini
run perf run --recipe r.ini --preset hypertrio --arch iotlb_entries=256 --json
ok "a recipe replayed directly gives the same row" cmp out run.json
for rules in model hypersio; do
  printf '[trace]\nlogs = tx3.log\norder = rand\nseed = 7\nburst = 5\nreplicate = 3\nrules = %s\n' $rules >q.ini
  "$sf" trace build q.ini -o q.trc --force >/dev/null && "$sf" perf run q.trc --rules $rules --detail --json >q.json
  run perf run --recipe q.ini --rules $rules --detail --json
  ok "as a trace of 72 replicated tenants in random order, rules $rules" cmp out q.json
done
printf '[trace]\nlogs = @collect\n' >c.ini
run perf run --recipe c.ini
ok "logs that only a sweep collects: exit 2" fails 2 "@collect has a meaning in a sweep only"
run perf run a.trc --rules hypersio --json
ok "rules hypersio: whole ns" json 'd["rules"]=="hypersio" and d["stats"]["time_ps"]%1000==0'
run perf run a.trc
ok "text for people" worked "throughput .* Mb/s"
for bad in iotlb_ways=0 iotlb_entries=48 iotlb_groups=16 queue=0 link_gbps=0 queue=x nokey=1 queue; do
  run perf run a.trc --arch $bad
  ok "--arch $bad: exit 2" fails 2 "${bad%%=*}"
done
printf 'IOTLB\nsize:64\nassoc:0\ngroups:1\n' >zero.cfg
run perf run a.trc --cfg zero.cfg
ok "a file with zero ways is named" fails 2 "zero.cfg: iotlb_ways"

cat >s.ini <<'S'
[sweep]
name = demo
skip_invalid = yes
[trace a]
logs = tx3.log
tenants = 4,24
[trace b]
file = a.trc
[arch base]
iotlb_ways = 8,0,16
[arch improved]
preset = hypertrio
queue = 16..64:x2
S
run perf sweep s.ini --csv --threads 1
ok "sweep: 18 rows and a header" sh -c "[ $rc -eq 0 ] && [ \$(wc -l <out) -eq 19 ]"
ok "the contract's columns" sh -c 'head -n 1 out | grep -qx "name,index,point,trace,rules,tenants,order,burst,seed,replicate,link_gbps,queue,inorder,salloc,cc_entries,cc_ways,cc_groups,iotlb_entries,iotlb_ways,iotlb_groups,iotlb_policy,l2_entries,l2_ways,l2_groups,l3_entries,l3_ways,l3_groups,pf_entries,pf_distance,pf_history,status,time_ps,requests,pkts_sent,pkts_dropped,mbps,util_ppm,cc_hit,cc_miss,cc_conflict,iotlb_hit,iotlb_miss,iotlb_conflict,l2_hit,l2_miss,l2_conflict,l3_hit,l3_miss,l3_conflict,pf_accesses,pf_predictions,pf_correct,pf_incorrect,pf_fill,pf_fill_same,pf_hit,pf_miss,jain_ppm"'
ok "invalid points say so and stay empty" python3 -c 'import csv; r=list(csv.DictReader(open("out"))); assert [x["index"] for x in r if x["status"]=="invalid"]==["1","7","13"] and r[1]["mbps"]=="" and r[0]["mbps"]!=""'
cp out one.csv
run perf sweep s.ini --csv --threads 3 -o three.csv
ok "the same bytes from three threads, into a file" cmp one.csv three.csv
run perf sweep s.ini --json
ok "siofleet.results/1 has the same cells" json 'd["schema"]=="siofleet.results/1" and [["" if c is None else str(c) for c in r] for r in d["rows"]]==list(__import__("csv").reader(open("one.csv")))[1:] and d["columns"]==next(__import__("csv").reader(open("one.csv")))'
run perf sweep s.ini --jsonl
ok "jsonl: rows and an end" sh -c 'tail -n 1 out | grep -qx "{\"schema\":\"siofleet.end/1\",\"exit\":0}" && [ "$(wc -l <out)" -eq 19 ]'
sed -i 's/^skip_invalid.*/skip_invalid = no/' s.ini
run perf sweep s.ini --csv
ok "without skip_invalid: exit 2 with the section's line" fails 2 "s.ini:9: invalid point: iotlb_ways"
printf '[sweep]\nname = short\n[trace t]\nlogs = tx3.log\ntenants = 4,5000,8\n[arch x]\nqueue = 1,32\n' >short.ini
run perf sweep short.ini --csv
ok "a trace that cannot be built: exit 1 and the first reason once" sh -c "[ $rc -eq 1 ] && [ \$(grep -c '^siofleet: ' err) -eq 1 ] && grep -q '^siofleet: short.ini: 2 of 6 points failed; the first: point 2: .*tenants: 5000 asked for' err"
ok "its points failed, the others are done" python3 -c 'import csv; r=list(csv.DictReader(open("out"))); assert [(x["tenants"],x["status"],x["trace"]!="",x["mbps"]!="") for x in r]==[(t,s,s=="done",s=="done") for t,s in (("4","done"),("5000","failed"),("8","done")) for k in (0,1)], r'
run perf sweep short.ini --jsonl
ok "jsonl: the reason in every failed row" python3 -c 'import json; r=[json.loads(x) for x in open("out")]; assert r[-1]["exit"]==1 and [bool(x["error"]) for x in r[:-1]]==[False,False,True,True,False,False] and "5000 asked for" in r[3]["error"]'
run perf mrc a.trc --sets 3
ok "mrc: sets are a power of two" fails 2 "--sets: 3 is not a power of two"
run perf mrc a.trc --sample 1 --json
ok "mrc: a sample of nothing says so in its error" json 'all(p["miss_ppm"]<=10**6 and p["err_ppm"]==10**6 for p in d["curve"])'
run perf mrc a.trc --json
ok "mrc: a falling curve from one pass" json 'd["schema"]=="siofleet.mrc/1" and d["mode"]=="full" and [p["miss_ppm"] for p in d["curve"]]==sorted([p["miss_ppm"] for p in d["curve"]],reverse=True) and all(p["err_ppm"]==0 and p["entries"]==p["ways"] for p in d["curve"])'
ok "the reference's figures, whatever the architecture" "$src/tests/tools/check_perf_run.py" --bin "$sf" \
  "$src/tests/data/golden" pub02_four_rr3 pub22_odd_geometry pub32_salloc pub33_prefetch
