#!/usr/bin/env bash
# trace build, info, export, import.
. "${0%/*}/tap.sh"
plan 30
cd "$work" || exit 1
for l in tx3 rx3; do zstd -qdc "$src/tests/data/real-log/e1000-24nic-$l.log.zst" >$l.log; done
"$sf" log import tx3.log -o tx3.slog >/dev/null || exit 1

run trace build --log tx3.log -o a.trc --json
ok "build gives siofleet.trace/1" json 'list(d)[:8]==["schema","id","recipe_id","path","bytes","events","tenants","devices"] and d["schema"]=="siofleet.trace/1"'
ok "with all defaults said" json '(d["order"],d["burst"],d["seed"],d["replicate"],d["rules"],d["tenants"],d["devices"])==("rr",3,1,1,"model",24,24)'
ok "and its logs" json 'len(d["logs"])==1 and d["logs"][0]["parsed"]==83835 and d["logs"][0]["devices"]==24 and len(d["logs"][0]["id"])==64'
ok "the id is the content id of the file" json '(lambda h: h(b"siofleet-1"+len(b).to_bytes(8,"little")+h(b)).hex()==d["id"])(lambda x: __import__("hashlib").blake2b(x,digest_size=32).digest()) if (globals().update(b=open("a.trc","rb").read()) or len(b) < 1<<20) else False'
ok "at most 3 bytes an event" json 'd["bytes"] <= 3*d["events"]'
id=$(python3 -c 'import json; print(json.load(open("out"))["id"])')
run trace build --log tx3.slog -o b.trc --json
ok "text and binary log give the same trace" json "d['id']=='$id'"
ok "whose recipe differs, since the log's bytes do" json "d['recipe_id'] is not None and d['path']=='b.trc'"
mkdir sub && cp tx3.log sub/ && printf '[trace]\nlogs = *.log\n' >sub/r.ini
run trace build sub/r.ini -o c.trc --json
ok "a recipe's paths start from its folder; path is not content" json "d['id']=='$id'"
run trace build sub/r.ini --burst 9 --order rand --seed 7 --tenants 4 -o d.trc --json
ok "flags win over the recipe" json '(d["burst"],d["order"],d["seed"],d["tenants"])==(9,"rand",7,4)'
run trace info d.trc --json
ok "info repeats it, provenance included" json 'd["tenants"]==4 and d["recipe_id"] is not None and d["logs"][0]["path"].endswith("tx3.log")'
ok "pages by size, hot pages, tenants add up" json 'sum(d["pages_by_size"].values())==d["pages"] and 0<d["hot_ppm"]["1"]<=d["hot_ppm"]["10"]<=10**6 and sum(t["events"] for t in d["per_tenant"])==d["events"] and sum(t["pages"] for t in d["per_tenant"])==d["pages"]'
ok "reuse distances and first touches are all events" json 'sum(r["count"] for r in d["reuse"])==d["events"] and [r["count"] for r in d["reuse"] if r["distance"] is None]==[d["pages"]]'
ok "ranges of IOVAs add up" json 'sum(r["events"] for r in d["iova_ranges"])==d["events"] and all(r["from"]<=r["to"] for r in d["iova_ranges"])'
run trace info d.trc
ok "the text tells tenants and ranges, too" sh -c '[ "$(grep -c "^tenant  *[0-9]*, sid 0x.* events, .* pages$" out)" -eq 4 ] && grep -q "^iova  *0x[0-9a-f]*\.\.0x[0-9a-f]*: [0-9]* events$" out'
rm d.trc.json
run trace info d.trc --json
ok "without the file beside it provenance is unknown" json 'd["recipe_id"] is None and d["logs"] is None and d["events"]>0'

run trace build --log tx3.log --tenants 100 -o x.trc
ok "more tenants than the logs hold: exit 2" fails 2 "100"
run trace build --log tx3.log --tenants 48 --replicate 2 -o x.trc --json
ok "unless replicate says so" json 'd["tenants"]==48 and d["replicate"]==2'
run trace build --log tx3.log --tenants 4 -o a.trc
ok "an existing file is left alone" fails 1 "a.trc: exists already"
run trace build --log nolog -o y.trc
ok "a missing log: exit 1, nothing written" sh -c '[ '$rc' -eq 1 ] && [ ! -e y.trc ] && grep -q "nolog: No such file" err'
run trace build --log tx3.log --burst 0 -o y.trc
ok "burst 0: exit 2" fails 2 "--burst"

"$sf" trace build --rules hypersio --log tx3.log --log rx3.log -o h.trc >/dev/null
run trace export h.trc --hypersio one --prefix h_tnt_48_rr3
ok "export writes the three files" sh -c 'cd one && [ -s h_tnt_48_rr3_iotlb_trace.bin ] && [ -s h_tnt_48_rr3_cc_data.bin ] && [ -s h_tnt_48_rr3_slpt_data.bin ]'
run trace export h.trc --hypersio one --prefix h_tnt_48_rr3
ok "and replaces none" fails 1 "exists already"
run trace import --hypersio one --prefix h_tnt_48_rr3 -o back.trc --json
ok "import reads them" json 'd["tenants"]==48 and d["order"]=="rr" and d["burst"]==3 and d["rules"]=="hypersio"'
"$sf" trace export back.trc --hypersio two --prefix h_tnt_48_rr3
ok "with every translation" cmp one/h_tnt_48_rr3_iotlb_trace.bin two/h_tnt_48_rr3_iotlb_trace.bin
records() { python3 -c 'import sys; b=open(sys.argv[1],"rb").read(); n=int(sys.argv[2]); sys.stdout.buffer.write(b"".join(sorted(b[i:i+n] for i in range(0,len(b),n))))' "$1" "$2"; }
ok "and every page-table record" sh -c "$(declare -f records); records one/h_tnt_48_rr3_slpt_data.bin 42 >r1; records two/h_tnt_48_rr3_slpt_data.bin 42 >r2; [ -s r1 ] && cmp r1 r2"
for p in cc_data slpt_data; do cp one/h_tnt_48_rr3_$p.bin one/cut_$p.bin; done
head -c 1000 one/h_tnt_48_rr3_iotlb_trace.bin >one/cut_iotlb_trace.bin
run trace import --hypersio one --prefix cut -o z.trc
ok "a truncated one: exit 1" fails 1 "cut_iotlb_trace.bin: truncated"
run trace export a.trc --oraclegeneral a.og
ok "oracleGeneral: 24 bytes an event" sh -c "[ \$(stat -c %s a.og) -eq \$((24 * $("$sf" trace info a.trc --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["events"])'))) ]"
run trace import --oraclegeneral a.og -o og.trc --json
"$sf" trace info a.trc --json >a.info
ok "and back: as many events and pages, of one tenant" json '(lambda a: (d["events"],d["pages"],d["tenants"])==(a["events"],a["pages"],1))(json.load(open("a.info")))'
run trace export a.trc
ok "no format: exit 2" fails 2 "--hypersio"
run trace import --oraclegeneral tx3.log -o z.trc
ok "something else: exit 1" fails 1 "tx3.log: "
