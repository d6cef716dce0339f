#!/usr/bin/env bash
# What SQLite itself does not see: a log (store.db-wal) that has lost acknowledged commits, and a byte of a value in store.db. Both are
# said at the start in one line and saved by fsck --repair; what is no damage is no alarm.
. "${0%/*}/../cli/tap.sh"
plan 52
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
# refused CAUSE: a coordinator on it ends at once with one line that has the cause and what to do
refused() {
  timeout 20 "$sf" coordinator --data fleet/c --listen 'tcp://127.0.0.1:*' >"$work/out" 2>"$work/err"
  [ $? -eq 4 ] && [ "$(grep -c '^siofleet: ' "$work/err")" -eq 1 ] &&
    grep -q "^siofleet: .*\`siofleet fsck --data fleet/c --repair\`.*$1" "$work/err"
}
# starts: a coordinator on it serves, and ends in order
starts() {
  rm -f ready
  start single "$sf" coordinator --data fleet/c --listen 'tcp://127.0.0.1:*' --ready-file ready
  until_ok 20 test -s ready || return 1
  kill -TERM "$pid" && wait "$pid"
}
from() { rm -rf fleet/c && cp -r "$1" fleet/c; }

ok "a fleet" fleet_start 1
fleet_listen=$SIOFLEET_CONNECT
run sweep run s.ini
ok "a sweep of 216 points" worked
kill -KILL "$coordinator_pid"
wait "$coordinator_pid" 2>/dev/null
stop_all
ok "killed, its commits are in the log" test "$(stat -c %s fleet/c/store.db-wal)" -gt 40000
cp -r fleet/c killed

# hurt HOW: the log as it is after that
hurt() {
  from killed
  python3 - "$1" <<'E'
import os, sys
how, p = sys.argv[1], "fleet/c/store.db-wal"
f = bytearray(open(p, "rb").read())
n = (len(f) - 32) // 4120
if how == "cut":
    f = f[:32 + (n * 2 // 3) * 4120 + 100]
elif how == "byte":
    f[32 + (n // 2) * 4120 + 3000] ^= 1
elif how == "head":
    f[17] ^= 1
elif how == "empty":
    f = b""
elif how == "longer":       # a commit that was not acknowledged, and torn
    f += os.urandom(5000)
open(p, "wb").write(f)
if how == "missing":
    os.remove(p)
E
}
for how in byte head empty missing cut; do
  hurt $how
  ok "log $how: the coordinator does not start: exit 4, one line, which file and what to do" refused "frames up to the last commit"
  ok "log $how: it names the file" grep -q "fleet/c/store.db-wal: damaged" "$work/err"
  run results query --sweep s --csv --data fleet/c
  ok "log $how: no partial results either" fails 4 "store.db-wal: damaged"
  run fsck --data fleet/c --json
  ok "log $how: so says fsck" json '"store.db-wal: damaged" in d["store"] and any("--repair" in a for a in d["advice"])'
done
cp fleet/c/store.db-wal cut
run fsck --data fleet/c --repair --json
ok "repair saves what is before it" json 'd["repaired"]==1 and d["salvage"]["readable"]'
ok "the old log is kept" sh -c 'cmp cut fleet/c/damaged/store-*/store.db-wal'
ok "the fleet again" fleet_start 1
cp fleet/ready "$work/out"
ok "with an epoch that no agent has seen" json 'd["epoch"]>2'
run sweep run s.ini
run results query --sweep s --csv
ok "and the same rows in the end" cmp "$work/out" want.csv
stop_all

from killed
ok "undamaged: it starts" starts
ok "and leaves no log behind" test ! -s fleet/c/store.db-wal
ok "stopped in order, too" starts
hurt longer
ok "what was not acknowledged may be torn" starts
from killed
sqlite3 fleet/c/store.db 'SELECT count(*) FROM t_row' >/dev/null
ok "another program wrote the log back: that is fine" test ! -e fleet/c/store.db-wal
ok "it starts" starts
run fsck --data fleet/c
ok "and is whole" worked ": ok"
from killed
printf x >fleet/c/store.db-mark
ok "no mark that can be read: nothing is known, it starts" starts

# ---- a value in store.db
from killed
starts
cp -r fleet/c whole
# value TABLE: a byte inside a value of a row of it, so that SQLite finds nothing; prints the page
value() {
  from whole
  python3 - "$1" <<'E'
import sqlite3, sys
p, table = "fleet/c/store.db", sys.argv[1]
def ask(sql):
    db = sqlite3.connect("file:" + p + "?immutable=1", uri=True)
    try:
        return db.execute(sql).fetchall()
    finally:
        db.close()
root = ask("SELECT rootpage FROM sqlite_master WHERE name='%s'" % table)[0][0]
size, text = ask("PRAGMA page_size")[0][0], ask("SELECT * FROM %s" % table)
whole = bytearray(open(p, "rb").read())
page = root
while whole[(page - 1) * size] in (2, 5): # the first leaf
    at = (page - 1) * size
    cell = int.from_bytes(whole[at + 12:at + 14], "big")
    page = int.from_bytes(whole[at + cell:at + cell + 4], "big")
for off in range(size - 9, 200, -1):
    f = bytearray(whole)
    f[(page - 1) * size + off] ^= 1
    open(p, "wb").write(f)
    try:
        if ask("PRAGMA integrity_check") == [("ok",)] and ask("SELECT * FROM %s" % table) != text:
            break
    except (sqlite3.Error, UnicodeError):
        pass
else:
    sys.exit("no byte found")
print(page)
E
}
page=$(value t_row)
ok "row: SQLite itself finds nothing" test "$(sqlite3 "file:fleet/c/store.db?immutable=1" 'PRAGMA integrity_check')" = ok
ok "row: the coordinator does not start" refused "page $page does not have the sum"
run fsck --data fleet/c --json
ok "row: fsck names page and table" json 'd["store"].find("page '"$page"' ")>0 and "(table t_row)" in d["store"]'
run results query --sweep s --csv --data fleet/c
ok "row: no wrong results" fails 4 "page $page does not have the sum"
run fsck --data fleet/c --repair --json
ok "row: repair leaves out its page" json 'any(t["table"]=="t_row" and not t["whole"] and 0<t["rows"]<216 for t in d["salvage"]["tables"])'
ok "row: the fleet again" fleet_start 1
until_ok 30 "$sf" sweep wait s --timeout 25s
run results query --sweep s --csv
ok "row: computed again, each is right" cmp "$work/out" want.csv
stop_all
value t_event >/dev/null
ok "text: the coordinator does not start" refused "does not have the sum"
run fsck --data fleet/c --repair --json
ok "text: kept as it reads, and said" json '[t["table"] for t in d["salvage"]["tables"] if t["doubtful"]]==["t_event"] and all(t["whole"] for t in d["salvage"]["tables"])'
run fsck --data fleet/c
ok "text: and all is well" worked ": ok"

# ---- a store from before
from whole
rm fleet/c/store.db
sqlite3 whole/store.db .dump 'SELECT "PRAGMA user_version = " || user_version || ";" FROM pragma_user_version' | sqlite3 fleet/c/store.db
sums() { [ "$(python3 -c 'print(open("fleet/c/store.db","rb").read(21)[20])')" = "$1" ]; }
ok "a store without sums: it starts" starts
run fsck --data fleet/c
ok "fsck says that it has none" worked "no checksums"
ok "it has none" sums 0
run fsck --data fleet/c --repair
ok "repair adds them" sums 8
ok "and it starts" starts
run fsck --data fleet/c
ok "all is well" worked ": ok"
