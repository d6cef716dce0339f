#!/usr/bin/env bash
# What goes wrong on an agent's host: full disk, disk that fills up in mid-task, read-only data, a key used twice.
# One clear line each, the sweep completes, the store is intact.
. "${0%/*}/../cli/tap.sh"
ns=(unshare -m)
[ "$(id -u)" -eq 0 ] || ns=(unshare -rm)
if ! "${ns[@]}" true 2>/dev/null; then
  echo "1..0 # skip: no mount namespaces here (small tmpfs is needed)"
  trap - EXIT
  rm -rf "$work"
  exit 77
fi
plan 27
cd "$work" || exit 1
small_log a.log 4 4000
small_log big.log 4 60000

# sweep_ini NAME LOG PACE
sweep_ini() {
  cat >"$1.ini" <<E
[sweep]
name = $1
block = 4
pace_ms = $3
[trace]
logs = $2
tenants = 2,4
[arch]
iotlb_entries = 64..512:x2
queue = 1..32:x2
E
}
sweep_ini big big.log 0
sweep_ini slow a.log 400

# agent_on OPTIONS SIZE-OPTIONS NAME: an agent whose data directory is a small tmpfs of its own
agent_on() {
  mkdir -p "fleet/$2"
  [ -f "fleet/$2.key" ] || { "$sf" keys new "fleet/$2.key" --role agent --name "$2" &&
    "$sf" keys allow --data fleet/c "fleet/$2.key.pub"; } || return 1
  rm -f "fleet/$2.ready"
  # shellcheck disable=SC2016 # for the inner shell
  start "$2" "${ns[@]}" sh -c 'mount -t tmpfs -o "$1" none "$2" && shift 2 && exec "$@"' - "$1" "$work/fleet/$2" \
    "$sf" agent --data "$work/fleet/$2" --connect "$SIOFLEET_CONNECT" --server-key "$SIOFLEET_SERVER_KEY" \
    --key "$work/fleet/$2.key" --cores 1 --ready-file "$work/fleet/$2.ready"
}
inside() { echo "/proc/$1/root$work/fleet/$2"; }
lines_of() { grep -c "$1" "$work/$2.log"; }
sweep_is() { [ "$("$sf" ls sweeps --json | python3 -c 'import json,sys; print([s["state"] for s in json.load(sys.stdin)["items"] if s["name"]==sys.argv[1]][0])' "$1")" = "$2" ]; }
done_of() { "$sf" ls sweeps --json | python3 -c 'import json,sys; print([s["done"] for s in json.load(sys.stdin)["items"] if s["name"]==sys.argv[1]][0])' "$1"; }
some_done() { [ "$(done_of "$1")" -gt 0 ]; }
agents_up() { "$sf" ls agents --json | python3 -c 'import json,sys; print(" ".join(sorted(a["name"] for a in json.load(sys.stdin)["items"] if a["last_seen_ms"]<3000)))'; }
tasks() { pgrep -f "__task $work" | wc -l; }
no_tasks() { [ "$(tasks)" -eq 0 ]; }

ok "a coordinator starts" fleet_start 0

# -- a cache that is too small for the log
agent_on size=2m small
small_pid=$pid
ok "an agent on 2 MiB registers" until_ok 30 test -f fleet/small.ready
run sweep submit big.ini
ok "a sweep is submitted whose log does not fit there" worked
ok "the agent says why it takes nothing" until_ok 30 grep -q "task .* not taken: .*disk is full" small.log
ok "it does not say so without end" test "$(lines_of "not taken" small)" -lt 20
"$sf" keys new fleet/b.key --role agent --name b && "$sf" keys allow --data fleet/c fleet/b.key.pub
start b "$sf" agent --data "$work/fleet/b" --connect "$SIOFLEET_CONNECT" --server-key "$SIOFLEET_SERVER_KEY" \
  --key fleet/b.key --cores 1 --ready-file fleet/b.ready
b_pid=$pid
ok "with another agent the sweep completes" until_ok 90 sweep_is big "done"
"$sf" perf sweep big.ini --csv >local.csv 2>/dev/null
run results query --sweep big --csv
ok "with the rows of perf sweep" cmp "$work/out" local.csv
ok "the agent without space is still there" test "$(agents_up)" = "b small"

# -- one key, two installs
start twin "$sf" agent --data "$work/fleet/twin" --connect "$SIOFLEET_CONNECT" --server-key "$SIOFLEET_SERVER_KEY" \
  --key fleet/b.key --cores 1
wait "$pid"
rc=$?
ok "a key that another install uses is exit 3" test "$rc" -eq 3
ok "with one error line" test "$(grep -c '^siofleet: tcp:' twin.log)" -eq 1
ok "the first install goes on" test "$(agents_up)" = "b small"

# -- read-only data
agent_on ro,size=2m frozen
wait "$pid"
rc=$?
ok "a read-only data directory is exit 1" test "$rc" -eq 1
ok "with one line" grep -qx "siofleet: $work/fleet/frozen.*: Read-only file system" frozen.log
ok "and nothing else" test "$(wc -l <frozen.log)" -eq 1

# -- the disk fills up while a task runs
kill -TERM "$small_pid" "$b_pid"
wait "$small_pid" "$b_pid"
agent_on size=6m tight
tight_pid=$pid
until_ok 30 test -f fleet/tight.ready
run sweep submit slow.ini
until_ok 60 some_done slow
filled=0
fill() { # again and again: the cache gives way first
  filled=$((filled + 1))
  dd if=/dev/zero of="$(inside "$tight_pid" tight)/filler$filled" bs=64k count=1000 2>/dev/null
  grep -q "tasks that run are paused" tight.log
}
ok "a task that finds no space is paused, and the agent says so" until_ok 60 fill
ok "the cache gave way first" grep -q "of the cache removed" tight.log
why_space() { "$sf" why tight --json | python3 -c 'import json,sys; d=json.load(sys.stdin); assert any(r["code"]=="NO_SPACE" and "paused" in r["text"] for r in d["reasons"]), d'; }
ok "why tells it" until_ok 10 why_space
seen=$(done_of slow)
df_space() { "$sf" store df --json | python3 -c 'import json,sys; d=json.load(sys.stdin); a=[a for a in d["agents"] if a["name"]=="tight"][0]; assert a["state"]=="paused" and a["disk_b"]==6<<20, a'; }
ok "so does df" until_ok 10 df_space
ok "ls agents, too" sh -c "'$sf' ls agents --json | grep -q '\"space\": \"paused\"'"
ok "the sweep is not failed by it" sweep_is slow running
ok "nothing is lost meanwhile" test "$(done_of slow)" -ge "$seen"
rm -f "$(inside "$tight_pid" tight)"/filler*
ok "with space again it completes" until_ok 120 sweep_is slow "done"
"$sf" perf sweep slow.ini --csv >local.csv 2>/dev/null
run results query --sweep slow --csv
ok "with the rows of perf sweep" cmp "$work/out" local.csv
run results query --sql "SELECT count(*) AS n FROM results WHERE status <> 'done'" --csv
# one whose folder could not be made, as the disk was full before it began, goes back
ran() { sed -n 's/.* task \([0-9]*\) ended: space.*/\1/p' tight.log | while read -r n; do grep -q "task $n: .*: No space left on device" tight.log || echo "$n"; done; }
ok "no attempt that had begun ended for it" test -z "$(ran)"
ok "and no point failed" test "$(tail -1 "$work/out")" = 0

kill -TERM "$tight_pid"
wait "$tight_pid"
rc=$?
ok "SIGTERM is exit 0" test "$rc" -eq 0
ok "nothing is left running" until_ok 20 no_tasks
