#!/usr/bin/env bash
# repro: a stored row is what the engine says today, on this host.
. "${0%/*}/../cli/tap.sh"
plan 14
cd "$work" || exit 1
small_log a.log 4 4000
cat >s.ini <<'E'
[sweep]
name = s
[trace]
logs = a.log
[arch]
preset = hypertrio
iotlb_entries = 64..512:x2
iotlb_policy = lru,lfu
E
ok "a fleet" fleet_start 1
run sweep run s.ini
ok "a sweep" worked
run repro last:5 --json
ok "a row by sweep and index is equal" json 'd["schema"]=="siofleet.repro/1" and d["equal"] is True and d["differing"]==[]'
point=$(python3 -c 'import json; print(json.load(open("'"$work"'/out"))["point"])')
run repro "${point:0:12}"
ok "and by its point" worked "equal"
run repro last:99
ok "no such row: exit 1" fails 1 "last:99"
run repro 0123
ok "what is no row: exit 2" fails 2 "0123"
run repro s:5 --data fleet/c --json
ok "without asking the coordinator" json 'd["equal"] is True'
stop_all
run repro s:5 --data fleet/c
ok "and without one" worked "equal"
# in the log, for a page of the file itself would not have its sum
stats=$(sqlite3 -cmd '.dbconfig no_ckpt_on_close on' fleet/c/store.db "SELECT hex(stats) FROM t_row WHERE idx = 5" | tail -n 1)
stats=$(python3 -c '
import sys
b, number = bytearray.fromhex(sys.argv[1]), 0
for i in range(len(b)):  # numbers of 7 bits a byte, low end first; number 10 is iotlb_hit
    if number == 10:
        b[i] ^= 1
        break
    number += b[i] < 128
print(b.hex())' "$stats")
sqlite3 -cmd '.dbconfig no_ckpt_on_close on' fleet/c/store.db "UPDATE t_row SET stats = x'$stats' WHERE idx = 5" >/dev/null
run repro s:5 --data fleet/c --json
ok "a row that was changed: exit 4" test "$rc" -eq 4
ok "with the column and both values" json '[(x["column"],abs(int(x["stored"])-int(x["now"]))) for x in d["differing"]]==[("iotlb_hit",1)] and d["equal"] is False'
run repro s:5 --data fleet/c
ok "in words" grep -q "iotlb_hit: stored" "$work/out"
run repro s:4 --data fleet/c
ok "its neighbour is equal" worked
run repro s:4 --data nosuch
ok "no store: exit 1" fails 1 "nosuch"
ok "nothing is left behind" sh -c "! ls ${TMPDIR:-/tmp}/siofleet-repro-* 2>/dev/null"
