#!/usr/bin/env bash
# A coordinator whose disk gets full: nothing new is taken first, then nothing is granted; what runs loses nothing, what it made
# waits on its agent, and all goes on by itself.
. "${0%/*}/../cli/tap.sh"
ns=(unshare -m)
[ "$(id -u)" -eq 0 ] || ns=(unshare -rm)
if ! "${ns[@]}" true 2>/dev/null; then
  echo "1..0 # skip: no mount namespaces here (small tmpfs is needed)"
  trap - EXIT
  rm -rf "$work"
  exit 77
fi
plan 30
cd "$work" || exit 1
small_log a.log 4 4000
cat >s.ini <<'E'
[sweep]
name = s
block = 2
pace_ms = 400
[trace]
logs = a.log
tenants = 2
[arch]
iotlb_entries = 64..512:x2
queue = 1..32:x2
E
sed 's/name = s/name = held/; s/tenants = 2/tenants = 3/; /pace_ms/d' s.ini >held.ini
sed 's/name = s/name = late/; s/64..512/64..128/' s.ini >late.ini
sed 's/name = s/name = pending/; s/1..32:x2/1..2:x2/; /pace_ms/d' s.ini >pending.ini
"$sf" perf sweep pending.ini --csv >pending.csv 2>/dev/null
"$sf" perf sweep s.ini --csv >s.csv 2>/dev/null
"$sf" perf sweep held.ini --csv >held.csv 2>/dev/null
head -c 300000 /dev/urandom >extra
one_line() { [ "$rc" -eq "$1" ] && [ "$(grep -c '^siofleet: ' "$work/err")" -eq 1 ] && grep -q "^siofleet: .*$2" "$work/err"; }
state_of() { "$sf" store df --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["store"]["state"])'; }
is() { [ "$($1)" = "$2" ]; }
sweep_is() { [ "$("$sf" ls sweeps --json | python3 -c 'import json,sys; print([s["state"] for s in json.load(sys.stdin)["items"] if s["name"]==sys.argv[1]][0])' "$1")" = "$2" ]; }
paused() { "$sf" ls sweeps --json | python3 -c 'import json,sys; assert "free on its disk" in [s["paused"] for s in json.load(sys.stdin)["items"] if s["name"]==sys.argv[1]][0]' "$1"; }
done_of() { "$sf" ls sweeps --json | python3 -c 'import json,sys; print([s["done"] for s in json.load(sys.stdin)["items"] if s["name"]==sys.argv[1]][0])' "$1"; }
some_done() { [ "$(done_of s)" -gt 0 ]; }
why_has() { "$sf" why "$1" --json | python3 -c 'import json,sys; assert any(r["code"]==sys.argv[1] and sys.argv[2] in r["text"] for r in json.load(sys.stdin)["reasons"])' "$2" "$3"; }
nothing_runs() { "$sf" ls tasks --ended 0 --json | python3 -c 'import json,sys; assert not [t for t in json.load(sys.stdin)["items"] if t["agent"] and t["kind"]=="points"]'; }

run coordinator --data x --low-water 2M --high-water 1M
ok "a low mark above the high one is exit 2" one_line 2 "--low-water"
mkdir -p fleet/c
# shellcheck disable=SC2016 # for the inner shell
start coordinator "${ns[@]}" sh -c 'mount -t tmpfs -o size=12m none "$1" && shift && exec "$@"' - "$work/fleet/c" \
  "$sf" coordinator --data "$work/fleet/c" --listen 'tcp://127.0.0.1:*' --ready-file "$work/fleet/ready" \
  --heartbeat-ms 300 --lease-ms 3000 --high-water 4M --low-water 1M
coordinator_pid=$pid
until_ok 30 test -f fleet/ready
SIOFLEET_CONNECT=$(python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["endpoint"])' fleet/ready)
disk=/proc/$coordinator_pid/root$work/fleet/c
cp -r "$disk/keys" ckeys
export SIOFLEET_CONNECT SIOFLEET_SERVER_KEY=$work/ckeys/coordinator.pub SIOFLEET_KEY=$work/ckeys/admin
"$sf" keys new a1.key --role agent --name a1 && mkdir -p "$disk/keys/allowed" && cp a1.key.pub "$disk/keys/allowed/a1.pub"
start a1 "$sf" agent --data "$work/a1" --connect "$SIOFLEET_CONNECT" --server-key "$SIOFLEET_SERVER_KEY" \
  --key a1.key --cores 1 --ready-file a1.ready
ok "a fleet on 12 MiB" until_ok 30 test -f a1.ready
# fill LEFT: so many bytes stay free
fill() {
  local free
  rm -f "$disk/fill"
  free=$(stat -f -c '%a %S' "$disk" | awk '{ print $1 * $2 }')
  fallocate -l $((free - $1)) "$disk/fill"
}

"$sf" drain a1 >/dev/null
held=$("$sf" sweep submit held.ini)
pending=$("$sf" sweep submit pending.ini)
run hold "$held" "$pending"
"$sf" undrain a1 >/dev/null
ok "a sweep is held before its trace is built" worked
s=$("$sf" sweep submit s.ini)
ok "another runs" until_ok 60 some_done
ok "there is space" is state_of ok

# -- below the high mark
fill 3000000
ok "below the high mark: tight" until_ok 10 is state_of tight
ok "the log says so, once" test "$(grep -c 'nothing new is accepted' coordinator.log)" -eq 1
run store put extra
ok "a file is not taken: exit 1, no space" one_line 1 "no space"
run sweep submit late.ini
ok "nor is a sweep" one_line 1 "no space"
run sweep submit late.ini --json
ok "by name" json 'd["code"]=="NO_SPACE" and d["exit"]==1'
before=$(done_of s)
more() { [ "$(done_of s)" -gt "$before" ]; }
ok "what runs goes on" until_ok 30 more
run release "$held"
ok "a trace that is built now waits on its agent" until_ok 60 grep -q "waits: the coordinator has no space" a1.log
ok "why knows" why_has "$held" NO_SPACE "free on its disk"
ok "it does not fail" sweep_is held running

# -- below the low mark
fill 600000
ok "below the low mark: paused" until_ok 10 is state_of paused
run release "$pending"
ok "ls shows it" until_ok 10 paused pending
ok "why, too" why_has "$pending" NO_SPACE "nothing is granted"
run store df
ok "and df, for people" worked "paused: no space for more"
ok "what ran ends" until_ok 60 nothing_runs
ok "rows of what ran were stored" test "$(done_of s)" -gt "$before"
ok "what waits is not begun" test "$(done_of pending)" -eq 0

# -- space again
rm "$disk/fill"
ok "with space again it goes on by itself" until_ok 10 is state_of ok
run sweep wait "$s" --timeout 90s
ok "the sweep that ran is done" worked
run sweep wait "$held" --timeout 60s
ok "so is the one whose trace waited" worked
run results query --sweep "$s" --csv
ok "nothing is lost" cmp "$work/out" s.csv
run sweep wait "$pending" --timeout 60s
run results query --sweep "$pending" --csv
ok "what was paused is done" cmp "$work/out" pending.csv
run results query --sweep "$held" --csv
ok "there neither" cmp "$work/out" held.csv
run audit "$held"
ok "each point once" worked
run sweep run late.ini
ok "and new work is taken" worked
run results query --sql "SELECT count(*) AS n FROM attempts WHERE cause NOT IN ('done')" --csv
ok "no attempt failed for it" test "$(tail -1 "$work/out")" = 0
