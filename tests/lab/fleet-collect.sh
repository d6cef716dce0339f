#!/usr/bin/env bash
# Two hosts, real guests: a sweep whose logs are collected by both at once, and a host that goes down in the middle of a run.
# shellcheck disable=SC2154 # lab.sh sets lab_dir
. "${0%/*}/lab.sh"
set -u
lab_need || exit 77
sh "$SIOFLEET_SRC/qemu-patch/build.sh" --check >/dev/null 2>&1 || {
  echo '1..0 # SKIP the patched QEMU is not built (qemu-patch/build.sh)'
  exit 77
}
lab_up 2
cd "$lab_dir" || exit 1

# run in host I, with this user's cache of QEMU and images
host() { ip netns exec "$(lab_ns "$1")" "${@:2}"; }
SIOFLEET_CONNECT="tcp://$(lab_ip 0):7700"
SIOFLEET_SERVER_KEY=$lab_dir/c/keys/coordinator.pub
SIOFLEET_KEY=$lab_dir/c/keys/admin
export SIOFLEET_CONNECT SIOFLEET_SERVER_KEY SIOFLEET_KEY
sf() { host 0 "$lab_bin" "$@"; }
agent() {
  [ -f "n$1.key" ] || { "$lab_bin" keys new "n$1.key" --role agent --name "n$1" && "$lab_bin" keys allow --data c "n$1.key.pub"; }
  rm -f "n$1.ready"
  host "$1" "$lab_bin" agent --data "$lab_dir/d$1" --connect "$SIOFLEET_CONNECT" --server-key "$SIOFLEET_SERVER_KEY" \
    --key "n$1.key" --cores 2 --ready-file "n$1.ready" >"n$1.log" 2>&1 &
  lab_until 30 test -f "n$1.ready"
}
sql() { sf results query --sql "$1" --csv | tail -n 1; }
qemus() { ip netns pids "$(lab_ns "$1")" | xargs -r ps -o args= -p | grep -c '[q]emu-system-x86_64'; }
some_qemu() { [ "$(qemus "$1")" -gt 0 ]; }
no_qemu() { [ "$(qemus 1)$(qemus 2)" = 00 ]; }

host 0 "$lab_bin" coordinator --data c --listen "$SIOFLEET_CONNECT" --lease-ms 4000 --heartbeat-ms 1000 --ready-file ready >c.log 2>&1 &
lab_until 30 test -f ready || exit 1
agent 1 && agent 2 || exit 1
ok "both can collect" test "$(sql "SELECT count(*) AS n FROM agents WHERE facts LIKE '%\"collect\":\"ready\"%'")" = 2

"$lab_bin" collect init quick | sed 's/^runs = 1/runs = 2/; s/^bytes = .*/bytes = 8M/' >run.ini
cat >live.ini <<I
[sweep]
name = live
[collect]
run = run.ini
[trace]
logs = @collect
tenants = 2
[arch]
iotlb_entries = 64..256:x2
I
sf sweep run live.ini --csv live.csv >/dev/null 2>run.err
rc=$?
[ $rc -eq 0 ] || sed 's/^/# /' run.err n?.log | tail -n 30
ok "a sweep over live logs runs" test $rc -eq 0
ok "with every point" test "$(grep -c ',done,' live.csv)" = 3
ok "one run was made by each host" test "$(sql "SELECT count(DISTINCT agent) AS n FROM attempts WHERE kind = 'collect' AND cause = 'done'")" = 2
ok "at the same time" test "$(sql "SELECT count(*) AS n FROM attempts a JOIN attempts b ON a.kind = 'collect' AND b.kind = 'collect' AND a.agent = 'n1' AND b.agent = 'n2' WHERE a.granted < b.ended AND b.granted < a.ended")" != 0
sf collect run.ini -o logs --json >doc.json 2>/dev/null
ok "the runs differ" test "$(jq '[.runs[].log.id] | unique | length' doc.json)" = 2
ok "one trace was built from both" test "$(sf results query --sweep live --provenance --json | jq -r '.columns as $c | [.rows[][$c | index("logs")] | fromjson | [.[] | if type == "object" then .id else . end] | sort | join(" ")] | unique | .[]')" = "$(jq -r '[.runs[].log.id] | sort | join(" ")' doc.json)"
ok "each row says with which series of QEMU they were made" test "$(sf results query --sweep live --provenance --json | jq -c '.columns as $c | [.rows[][$c | index("qemu_series")]] | unique')" = "$(jq -c '[.qemu.series]' doc.json)"
sed 's|^logs = .*|logs = logs/run-*/log.slog|; /^\[collect\]/,/^run/d' live.ini >local.ini
"$lab_bin" perf sweep local.ini --csv >local.csv 2>/dev/null
ok "the rows are those of one host with these logs" cmp live.csv local.csv

# one run more; the host that makes it goes down
sed -i 's/^runs = 2/runs = 3/' run.ini
sf collect run.ini --json >more.json 2>more.err &
more=$!
who() { sf ls tasks --json | jq -r '.items[] | select(.kind == "collect" and .state == "running") | .agent'; }
someone() { [ -n "$(who)" ]; }
ok "only the missing run is asked for" lab_until 30 someone
down=$(who)
down=${down#n}
ok "its guest boots" lab_until 60 some_qemu "$down"
lab_kill "$down"
wait $more
rc=$?
ok "the run is made by the other host" test "$rc:$(jq -r '.runs[2].status + " " + .runs[2].agent' more.json)" = "0:done n$((3 - down))"
ok "three logs, three runs" test "$(jq '[.runs[].log.id] | unique | length' more.json)" = 3
agent "$down"
holds_nothing() { [ -z "$(ls "d$1/tasks")" ]; }
ok "the host that is back holds nothing" lab_until 30 holds_nothing "$down"
ok "and no guest runs anywhere" lab_until 30 no_qemu
lab_done
