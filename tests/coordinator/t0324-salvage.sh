#!/usr/bin/env bash
# A store.db that is truncated, has a byte flipped, or is no store at all: said at the start in one line, saved by fsck --repair, and
# whole again after the next start. audit --data reads it without a coordinator.
. "${0%/*}/../cli/tap.sh"
plan 37
cd "$work" || exit 1
small_log a.log 4 3000
cat >s.ini <<'E'
[sweep]
name = s
[trace]
logs = a.log
tenants = 2,3,4
[arch]
iotlb_entries = 16..4096:x2
queue = 1..8:x2
l2_entries = 256,512
E
"$sf" perf sweep s.ini --csv >want.csv 2>/dev/null
# ends COMMAND...: like run, for what would serve for ever if it worked
ends() {
  timeout 20 "$sf" "$@" >"$work/out" 2>"$work/err"
  rc=$?
}
one_line() { [ "$rc" -eq "$1" ] && [ "$(grep -c '^siofleet: ' "$work/err")" -eq 1 ] && grep -q "^siofleet: .*$2" "$work/err"; }

ok "a fleet" fleet_start 1
run sweep run s.ini
ok "a sweep of 216 points" worked
head -c 100000 /dev/urandom >kept
kept=$("$sf" store put kept)
run audit s --json
cp "$work/out" audit.fleet
fleet_listen=$SIOFLEET_CONNECT
stop_all
run audit s --data fleet/c --json
ok "audit without a coordinator says the same" cmp "$work/out" audit.fleet
run audit s --data fleet/c
ok "in words, too" worked "216 of 216 points have their result"
run audit nosuch --data fleet/c
ok "a sweep that is not there: exit 1" one_line 1 "nosuch"
cp -r fleet/c whole

# damage NAME PYTHON: a copy of the whole folder, in place of the coordinator's, with this done to f, the bytes of store.db
damage() {
  rm -rf fleet/c && cp -r whole fleet/c && rm -f fleet/c/store.db-wal fleet/c/store.db-shm
  python3 - "$1" <<'E'
import sqlite3, sys
p = "fleet/c/store.db"
db = sqlite3.connect(p)
root = dict(db.execute("SELECT name, rootpage FROM sqlite_master WHERE type='table'"))
size = db.execute("PRAGMA page_size").fetchone()[0]
db.close()
f = bytearray(open(p, "rb").read())
what = sys.argv[1]
def leaf_of(page): # a leaf in the middle of a table's tree
    while f[(page - 1) * size] in (2, 5):
        at = (page - 1) * size
        n = int.from_bytes(f[at + 3:at + 5], "big")
        cell = int.from_bytes(f[at + 12 + 2 * (n // 2):at + 14 + 2 * (n // 2)], "big")
        page = int.from_bytes(f[at + cell:at + cell + 4], "big")
    return page
if what == "truncated":
    f = f[:len(f) * 3 // 4 // size * size]
elif what == "byte":
    at = (leaf_of(root["t_row"]) - 1) * size
    f[at] ^= 0x40                      # what kind of page it is
elif what == "rows":
    at = (leaf_of(root["t_row"]) - 1) * size
    f[at:at + size] = bytes(size)
elif what == "none":
    f = bytearray(b"no store at all\n" * 1000)
open(p, "wb").write(f)
E
}

for how in truncated byte rows; do
  damage $how
  ends coordinator --data fleet/c --listen 'tcp://127.0.0.1:*'
  ok "$how: the coordinator does not start: exit 4, one line, with what to do" one_line 4 "damaged; .siofleet fsck --data fleet/c --repair"
  run fsck --data fleet/c
  ok "$how: so says fsck" test "$rc" -eq 4
  run fsck --data fleet/c --repair --json
  ok "$how: repair saves what can be read" json 'd["salvage"]["readable"] and d["repaired"]>=1 and any(t["table"]=="t_row" for t in d["salvage"]["tables"])'
  kept_in=$(python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["salvage"]["kept"])' "$work/out")
  ok "$how: the damaged one is kept" test -f "$kept_in/store.db"
  ok "$how: the new one is whole" "$sf" fsck --data fleet/c
  ok "$how: the fleet again" fleet_start 1
  until_ok 30 "$sf" sweep wait s --timeout 25s
  run results query --sweep s --csv
  ok "$how: each row is there, what was lost was computed again" cmp "$work/out" want.csv
  run audit s
  ok "$how: audit agrees" worked
  stop_all
done

damage none
ends coordinator --data fleet/c --listen 'tcp://127.0.0.1:*'
ok "no store at all: exit 4" one_line 4 "damaged"
run fsck --data fleet/c --repair
ok "repair says that nothing can be read" grep -q "nothing in it can be read" "$work/out"
ok "but it starts again" fleet_start 1
run store get "$kept" -o kept.again
ok "and the artefacts are there" cmp kept kept.again
run sweep run s.ini
ok "so the work can be done again" worked
run results query --sweep s --csv
ok "with the same rows" cmp "$work/out" want.csv
stop_all
run fsck --data fleet/c
ok "all is well" test "$rc" -eq 0
run fsck --data fleet/c --repair --json
ok "repair of a whole store saves nothing" json 'd["salvage"] is None and d["repaired"]==0'
