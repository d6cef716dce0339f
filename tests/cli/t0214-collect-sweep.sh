#!/usr/bin/env bash
# [collect] in a sweep: collection, traces and points are one submission, which survives a restart, is resumed, held,
# cancelled and tried again as a whole. QEMU is played by the stand-in of tests/collect.
. "${0%/*}/tap.sh"
plan 29
cd "$work" || exit 1
export XDG_CACHE_HOME=$work/cache XDG_DATA_HOME=$work/data
ln -s "$SIOFLEET_BIN/tests/collect/fake_qemu" qemu
touch kernel initrd
echo 'echo hello' >script
# ini NAME RUNS NICS: NAME.run and NAME.ini
ini() {
  printf '[collect]\naccel = tcg\nruns = %s\nnics = %s\nkernel = kernel\ninitrd = initrd\nqemu = qemu\n' "$2" "$3" >"$1.run"
  printf '[workload]\nkind = script\nscript = script\n' >>"$1.run"
  printf '[sweep]\nname = %s\n[collect]\nrun = %s.run\n[trace]\nlogs = @collect\ntenants = 1,2\n[arch]\niotlb_entries = 64..256:x2\n' "$1" "$1" >"$1.ini"
}
start_agent() { # NAME MODE
  [ -f "fleet/$1.key" ] || { "$sf" keys new "fleet/$1.key" --role agent --name "$1" && "$sf" keys allow --data fleet/c "fleet/$1.key.pub"; }
  rm -f "fleet/$1.ready"
  start "$1" env FAKE_QEMU="$2" "$sf" agent --data "$work/fleet/$1" --connect "$SIOFLEET_CONNECT" \
    --server-key "$SIOFLEET_SERVER_KEY" --key "$work/fleet/$1.key" --cores 2 --ready-file "$work/fleet/$1.ready"
  until_ok 30 test -f "fleet/$1.ready"
}
sql() { "$sf" results query --sql "$1" --csv | tail -n 1; }
attempts() { sql "SELECT count(*) FROM attempts WHERE kind = '$1'"; }
last_job() { "$sf" ls jobs --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["items"][-1][sys.argv[1]])' "$1"; }
last_sweep() { "$sf" ls sweeps --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["items"][-1][sys.argv[1]])' "$1"; }
is() { [ "$("$1" "$2")" = "$3" ]; }
guest() { pgrep -f "^$work/qemu " >/dev/null; }
no_guest() { ! guest; }

ini one 3 2
run sweep plan one.ini --json
ok "plan needs no coordinator: what is collected is not known" json 'd["points"] == 6 and d["known"] is None and d["collect"]["runs"] == 3 and d["collect"]["missing"] is None'
fleet_start 0 || exit 1
start_agent good ok
run sweep plan one.ini --json --connect "$SIOFLEET_CONNECT" # named, it is waited for
ok "with one it says which runs are missing" json 'd["known"] is None and d["collect"]["known"] == 0 and d["collect"]["missing"] == [1, 2, 3]'
ok "a plan starts nothing" is attempts collect 0

run sweep run one.ini --csv one.csv
ok "sweep run collects, builds, runs" worked
ok "every point is done" test "$(grep -c ',done,' one.csv)" -eq 6
ok "from three runs" is attempts collect 3
run collect one.run -o logs
sed 's|^logs = .*|logs = logs/run-*/log.slog|; /^\[collect\]/,/^run/d' one.ini >local.ini
"$sf" perf sweep local.ini --csv >local.csv 2>/dev/null
ok "the rows are those of the same logs swept on one host" cmp one.csv local.csv

made=$(attempts points)
run sweep run one.ini --csv again.csv
ok "again: nothing is collected" is attempts collect 3
ok "and nothing computed" is attempts trace 2
ok "the rows are the same" cmp one.csv again.csv
run sweep plan one.ini --connect "$SIOFLEET_CONNECT"
ok "plan says that no run is missing" worked "3 runs of profile quick, 0 missing"
ini one 4 2
run sweep run one.ini
ok "one more run: only that is collected" test "$rc:$(attempts collect)" = 0:4

# held over a restart of the coordinator
ini two 2 1
kill "${tap_pids[-1]}"
run sweep submit two.ini
two=$(cat out)
ok "submit says the id at once" test "${#two}" -eq 64
run why "$two"
ok "why: it waits for its collection, which waits" worked "COLLECT: it waits for its collection $(last_job job | cut -c1-16), which is queued: 0 of 2 runs"
ok "and for what" grep -q "NEEDS: .*: no agent takes work" out
run hold "$two"
ok "hold holds the collection, too" test "$rc:$(last_job state)" = 0:held
kill -9 "$coordinator_pid"
fleet_listen=$SIOFLEET_CONNECT
fleet_start 0
start_agent good ok
ok "nothing runs after a restart" test "$(last_job state):$(last_job done)" = held:0
run why "$two"
ok "why: its collection is held" worked "COLLECT: .*, which is held: 0 of 2 runs"
run release "$two"
run sweep wait "$two" --timeout 60s
ok "released, it goes to its end" worked
ok "with all of its points" is last_sweep done 6

# cancelled while it collects
kill "${tap_pids[-1]}"
start_agent slow mute
ini three 2 1
sed -i 's/^nics = 1/nics = 3/' three.run
start three "$sf" sweep run three.ini
three_pid=$pid
ok "a guest runs" until_ok 30 guest
kill -INT "$three_pid"
wait "$three_pid"
rc=$?
ok "Ctrl-C is exit 5" test "$rc" -eq 5
ok "the collection is cancelled with the sweep" test "$(last_sweep state):$(last_job state)" = cancelled:cancelled
ok "and its guest is gone" until_ok 20 no_guest

# a collection that fails, mended
kill "${tap_pids[-2]}"
start_agent sick panic
ini four 1 4
sed -i 's/^tenants = 1,2/tenants = 1/' four.ini
run sweep run four.ini --json
ok "a failed collection fails the sweep, in one line" sh -c "[ $rc -eq 1 ] && grep -q '^siofleet: sweep .*: its collection failed: 1 of 1 runs' err"
run why last
ok "why names the cause" worked "Kernel panic"
kill "${tap_pids[-1]}"
start_agent good ok
run retry last
ok "retry collects again" worked
run sweep wait last --timeout 60s
ok "and then runs the points" test "$rc:$(last_sweep done)" = 0:3

echo '[collect]' >four.run
echo 'nics = many' >>four.run
run sweep submit four.ini
ok "a RUN.ini that is none is usage, with its line" fails 2 'four.run:2: '
