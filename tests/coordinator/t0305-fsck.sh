#!/usr/bin/env bash
# Damage: found, named, moved aside, and brought back from the agents, at a restart and while it runs.
. "${0%/*}/../cli/tap.sh"
plan 31
cd "$work" || exit 1
small_log a.log 4 20000
"$sf" trace build --log a.log -o t.trc >/dev/null 2>&1
cat >s.ini <<'E'
[sweep]
name = s
[trace]
file = t.trc
[arch]
iotlb_entries = 64..512:x2
E
sed 's/name = s/name = again/; s/64..512:x2/16,32/' s.ini >again.ini
sed 's/name = s/name = third/; s/64..512:x2/1024,2048/' s.ini >third.ini
clean() { "$sf" fsck --data fleet/c; }

run fsck
ok "no --data is exit 2" fails 2 "--data"
run fsck --data nosuch
ok "no such folder is exit 1, and it is not made" fails 1 "nosuch"
ok "really not" test ! -e nosuch
run fsck --data s.ini
ok "one that cannot be looked into is another case" fails 1 "s.ini: Not a directory"

ok "a fleet" fleet_start 1
run sweep run s.ini --csv s.csv
ok "a sweep over a trace that has no recipe there" worked
id=$("$sf" ls artefacts --json | python3 -c 'import json,sys; print([a["id"] for a in json.load(sys.stdin)["items"] if a["kind"]=="trace"][0])')
file=fleet/c/cas/${id:0:2}/$id
run fsck --data fleet/c --json
ok "whole, beside the running coordinator" json 'd["schema"]=="siofleet.fsck/1" and d["bad"]==[] and d["store"]=="ok" and d["artefacts"]>=1 and d["bytes"]>0 and d["repaired"]==0'
run fsck --data fleet/c --repair
ok "repair needs it stopped" fails 1 "runs on it"
run fsck --data fleet/a1 --json
ok "an agent's folder, too" json 'd["bad"]==[] and d["store"]=="ok" and d["artefacts"]>=1'
fleet_listen=$SIOFLEET_CONNECT
stop_all

cp "$file" kept
flip "$file" 100
run fsck --data fleet/c --json
ok "a flipped bit is exit 4" test "$rc" -eq 4
ok "with artefact and chunk" json '[(b["id"],b["chunk"]) for b in d["bad"]]==[("'"$id"'",0)] and d["repaired"]==0'
ok "and what to do" json 'any("--repair" in a for a in d["advice"])'
ok "one line on stderr" sh -c "[ \$(wc -l <$work/err) -eq 1 ]"
run fsck --data fleet/c --repair --json
ok "repair moves it aside" json 'd["repaired"]==1 and len(d["bad"])==1'
ok "exit 0" test "$rc" -eq 0
ok "it lies in damaged/" test -f "fleet/c/damaged/$id" -a ! -e "$file"
run fsck --data fleet/c
ok "until it is back, it is missing: exit 4" test "$rc" -eq 4
ok "the fleet again" fleet_start 1
ok "it comes back from the agent that has it" until_ok 20 clean
ok "with the same bytes" cmp "$file" kept
run sweep run again.ini
ok "and works" worked

# while it runs: the store's copy rots, an agent without one needs it
flip "$file" 200
"$sf" drain a1 >/dev/null
"$sf" keys new fleet/a2.key --role agent --name a2 && "$sf" keys allow --data fleet/c fleet/a2.key.pub
start a2 "$sf" agent --data fleet/a2 --connect "$SIOFLEET_CONNECT" --server-key "$SIOFLEET_SERVER_KEY" --key fleet/a2.key --name a2 --cores 1
run sweep run third.ini --csv third.csv
ok "running: the sweep completes all the same" worked
"$sf" perf sweep third.ini --csv >want.csv 2>/dev/null
ok "with the right results" cmp third.csv want.csv
ok "the damaged copy was found out" grep -q "is damaged and moved aside" coordinator.log
ok "and replaced" cmp "$file" kept
stop_all

flip "fleet/a1/cache/${id:0:2}/$id" 10
run fsck --data fleet/a1
ok "an agent's cache that rotted is exit 4" test "$rc" -eq 4
run fsck --data fleet/a1 --repair
ok "and is mended by moving it aside" test "$rc" -eq 0
run fsck --data fleet/a1
ok "for an agent that is all" test "$rc" -eq 0
python3 - <<'E'
import os
f = open("fleet/c/store.db", "r+b")
f.seek(4096 * 3)
f.write(os.urandom(4096))
E
run fsck --data fleet/c --json
ok "a damaged store is exit 4" test "$rc" -eq 4
ok "and says so" json 'd["store"]!="ok" and "damaged" in d["store"]'
run fsck --data fleet/c
ok "in words with what to do" grep -q "to do: stop the coordinator, keep a copy" "$work/out"
