#!/usr/bin/env bash
# log import, cat, info: text in, the same text out, everything counted.
. "${0%/*}/tap.sh"
plan 24
cd "$work" || exit 1
zstd -qdc "$src/tests/data/real-log/e1000-24nic-tx3.log.zst" >real.log

run log import real.log -o real.slog --json
ok "import gives siofleet.log/1" json 'list(d)[0]=="schema" and d["schema"]=="siofleet.log/1" and d["source"]=="text"'
ok "each line is an event" json 'd["events"]==d["lines"]==83835 and d["ignored"]==0 and d["refused"]==[]'
ok "kinds add up" json 'sum(d["by_kind"].values())==d["events"] and d["by_kind"]["page_update"]==11596 and list(d["by_kind"])==["cc_update","cc_hit","slpte_fetch","page_update","page_hit","invalidate","fault","ats"]'
ok "24 devices with their domains" json 'len(d["devices"])==24 and d["devices"][0]["sid"]==16 and d["devices"][0]["domain"]==3 and sum(x["events"] for x in d["devices"])==d["events"]'
ok "what a text log cannot know is null" json 'd["duration_ns"] is None and d["dropped"]==0'
ok "at most 1.2 bytes an event" json 'd["bytes"] <= 1.2*d["events"]'
cp out first
run log cat real.slog
ok "cat gives the text back to the byte" cmp out real.log
run log info real.slog --json
ok "info says the same as import" json '(lambda a: all(a[k]==d[k] for k in a if k!="pages"))(json.load(open("first")))'
ok "and counts pages; without times there is no rate" json '1000<d["pages"]<20000 and d["rate"] is None'
run log import real.slog -o twice.slog
ok "a log file is not imported again" fails 1 "real.slog: is a log file already"
zstd -q real.log -o real.log.zst
run log import real.log.zst -o again.slog --json
ok "zstd input, same bytes out" cmp real.slog again.slog
run log info real.log --json
ok "info reads text logs, too" json 'd["events"]==83835 and len(d["devices"])==24'
run log cat real.slog --format jsonl
ok "jsonl: an object an event, and an end" sh -c '[ "$(wc -l <out)" -eq 83836 ] && tail -n 1 out | grep -qx "{\"schema\":\"siofleet.end/1\",\"exit\":0}"'
ok "with the fields of its kind" sh -c 'sed -n 2p out | python3 -c "import json,sys; d=json.load(sys.stdin); assert d[\"kind\"]==\"slpte_fetch\" and d[\"iova\"]==0xfffff000 and d[\"base\"]==0x613b000 and d[\"level\"]==3 and d[\"domain\"]==3"'

{ echo "hello"; head -n 3 real.log; echo "vtd_iotlb_page_update IOTLB page update sid 0x10 iova 0x0 slpte 0x3 level 0x4 domain 0x3"; \
  echo "vtd_iotlb_page_hit IOTLB page hit sid 0x10 iova 0x11112222333344445 pmask 0xfffffffffffff000 slpte 0x3 domain 0x3"; } >odd.log
run log import odd.log -o odd.slog --json
ok "odd lines are ignored or refused with number and reason" json 'd["ignored"]==1 and [r["line"] for r in d["refused"]]==[5,6] and d["refused"][0]["reason"]=="level above 3" and d["events"]==3 and d["lines"]==6'
run log import real.log -o real.slog
ok "an existing file is left alone" fails 1 "real.slog: exists already"
run log import real.log
ok "no output: exit 2" fails 2 "-o"
: >empty.log
run log import empty.log -o e.slog
ok "an empty log is one line, exit 1, and no file" sh -c '[ ! -e e.slog ] && [ '$rc' -eq 1 ] && grep -q "empty.log: the file is empty" err'
echo nothing >none.log
run log import none.log -o e.slog
ok "a log without events: exit 1" fails 1 "none.log: no IOMMU event in 1 lines"
head -c 30000 real.slog >cut.slog
run log cat cut.slog
ok "a truncated file: exit 4" fails 4 "cut.slog: .*truncated"
python3 -c 'b=bytearray(open("real.slog","rb").read()); b[40000]^=8; open("flip.slog","wb").write(b)'
run log info flip.slog
ok "a flipped bit: exit 4" fails 4 "flip.slog: .*damaged"
run log cat real.slog --format xml
ok "an unknown format: exit 2" fails 2 "xml"
run log cat real.log
ok "a text log is no log file for cat: exit 1" fails 1 "not a siofleet log"
small_log walkless.log 3 50
sed -i '1s/.*/vtd_slpte_fetch SLPTE fetch: high 0x9902 low 0x77 iova 0x1000 level 0x1 addr 0x5000 slpte 0x6003/' walkless.log
run log import walkless.log -o w.slog
"$sf" log cat w.slog >back
ok "a walk without its context event comes back, too" cmp back walkless.log
