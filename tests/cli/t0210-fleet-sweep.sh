#!/usr/bin/env bash
# A sweep through a fleet on loopback: submit, run, wait, results, ls, plot; the same bytes as perf sweep.
. "${0%/*}/tap.sh"
plan 59
cd "$work" || exit 1
small_log a.log 4 4000
small_log b.log 6 3000
cat >s.ini <<'E'
[sweep]
name = demo
block = 3
[trace]
logs = a.log, b.log
devices_per_log = 6
tenants = 2,8
[arch default]
iotlb_entries = 64..256:x2
[arch better]
preset = hypertrio
iotlb_entries = 64..256:x2
E
ok "a coordinator and two agents start" fleet_start 2

run sweep run s.ini --csv run.csv
ok "sweep run works" worked
ok "it prints a table" grep -q "iotlb_entries" "$work/out"
ok "the table has a row a point" test "$(wc -l <"$work/out")" -eq 13
"$sf" perf sweep s.ini --csv >local.csv 2>"$work/err"
ok "its CSV is the one of perf sweep" cmp run.csv local.csv
run results query --sweep last --csv
ok "so is that of results query" cmp "$work/out" local.csv
run results query --sweep demo --csv
ok "a sweep is found by its name" cmp "$work/out" local.csv

run sweep plan s.ini --json --connect "$SIOFLEET_CONNECT"
ok "plan tells what is known, when a coordinator is named" json 'd["known"]==12'
run sweep run s.ini --json
ok "run --json prints the siofleet.sweep/1 document alone" json 'd["schema"]=="siofleet.sweep/1" and d["done"]==12 and d["known"]==12'
run sweep run s.ini --csv -
ok "--csv - is CSV on stdout alone" cmp "$work/out" local.csv

run sweep submit s.ini --request-id monday
ok "submit prints an id" sh -c "grep -qx '[0-9a-f]\{64\}' $work/out && [ \$(wc -l <$work/out) -eq 1 ]"
id=$(cat "$work/out")
run sweep submit s.ini --request-id monday
ok "the same request id is the same sweep" test "$(cat "$work/out")" = "$id"
run sweep wait "$id" --json
ok "wait ends with the sweep" json 'd["schema"]=="siofleet.sweep/1" and d["state"]=="done" and d["points"]==12 and d["done"]==12 and d["failed"]==0'
ok "points with a result are known, not run again" json 'd["known"]==12'
run sweep wait "${id:0:8}"
ok "a prefix of 8 digits will do" worked
run sweep wait "${id:0:8}ffffffff"
ok "an unknown id fails with one line" fails 1 "."
run results query --sweep "$id" --where tenants=8 --where iotlb_entries=64 --csv
ok "--where picks rows" test "$(wc -l <"$work/out")" -eq 3
run results query --sweep last --where nope=1 --csv
ok "--where with an unknown column is exit 2" fails 2 "nope"
run results query --sweep last --where iotlb_entries=64K --csv
ok "so is a value that SWEEP.ini would refuse" fails 2 "where: iotlb_entries: '64K' is not a whole number"
run results query --sweep last --json
ok "--json is a siofleet.results/1 document" json 'd["schema"]=="siofleet.results/1" and len(d["rows"])==12 and len(d["columns"])==len(d["rows"][0])'
run results query --sweep last --provenance --json
ok "--provenance adds who and when" json 'set(["agent","host","engine","attempt","started"])<=set(d["columns"]) and len(d["rows"])==12'
run results query --sql "SELECT tenants, count(*) AS n FROM results GROUP BY tenants ORDER BY tenants" --csv
ok "--sql asks the views" grep -q "^tenants,n$" "$work/out"
run results query --sql "DELETE FROM results"
ok "--sql takes nothing but a SELECT" fails 2 "."
run results query --sql "SELECT 1; SELECT 2"
ok "and only one" fails 2 "."
run results query --sql "SELECT * FROM sqlite_master"
ok "and only of the views" fails 2 "."

run ls --json
ok "ls lists the sweeps" json 'd["schema"]=="siofleet.ls/1" and d["kind"]=="sweeps" and len(d["items"])==4'
run ls
ok "ls is a table" grep -q "^sweep" "$work/out"
run ls agents --json
ok "ls agents lists both" json 'sorted(a["name"] for a in d["items"])==["a1","a2"]'
answered() { run ls agents --json && json 'all(a["answers"]["beat"]["p99_ms"] <= a["answers"]["beat"]["max_ms"] for a in d["items"]) and any((a["answers"]["result"] or {}).get("n", 0) > 0 for a in d["items"])'; }
ok "and how soon their beats and results were answered" until_ok 30 answered
run ls artefacts --json
ok "ls artefacts lists logs and traces" json '{"log","trace"}<=set(a["kind"] for a in d["items"])'
run ls tasks
ok "ls tasks works" worked

run results plot --sweep last --x tenants --y util_ppm -o p.html
ok "plot makes a page with its provenance" grep -q "Where the numbers come from" p.html
run results plot --sweep last --x tenants --y util_ppm --series design,iotlb_entries -o p.svg
ok "plot makes a picture" grep -q "hypertrio, IOTLB 256" p.svg

cat >fails.ini <<'E'
[sweep]
name = fails
timeout = 500ms
pace_ms = 2000
retries = 0
[trace]
logs = a.log
[arch]
link_gbps = 77
E
run sweep run fails.ini
ok "a failed point is exit 1, with its reason" sh -c "[ $rc -eq 1 ] && grep -q '^siofleet: sweep .*: 1 of 1 points failed; the first: point 0: timeout' '$work/err'"
ok "and is in the table" grep -q "failed  timeout" "$work/out"
run sweep run fails.ini --csv fails.csv
ok "also in the table beside a CSV file" sh -c "[ $rc -eq 1 ] && grep -q 'failed  timeout' '$work/out'"
ok "whose columns stay the default ones" test "$(head -n 1 fails.csv)" = "$(head -n 1 local.csv)"
run sweep wait last
ok "wait says the same" test "$rc" -eq 1
sed -e 's/fails/a1/; /^timeout/d; /^pace/d; /^retries/d' -e 's/^logs.*/&\ntenants = 100/' fails.ini >greedy.ini
run sweep run greedy.ini
ok "logs that hold too little for a recipe fail its points" sh -c "[ $rc -eq 1 ] && grep -q '^siofleet: .*: 1 of 1 points failed; .*tenants: 100 asked for, the logs hold 4' '$work/err'"
run results query --sql "SELECT count(*) AS n, max(cause) AS c FROM attempts WHERE kind = 'trace' AND cause <> 'done'" --csv
ok "after one try, as another could not help" test "$(tail -n 1 "$work/out")" = "1,recipe"
run why a1
ok "a sweep with an agent's name: why says that there is an agent" worked "^  AGENT: .*why agent:a1"
run why agent:a1 --json
ok "which agent:NAME is about" json '(d["kind"], d["id"], d["state"]) == ("agent", "a1", "ready")'
sed -e 's/fails/none/; /^timeout/d; /^pace/d; s/^logs.*/file = none.trc/' fails.ini >none.ini
echo no trace >none.trc
run sweep submit none.ini
ok "a file that is no trace is told by its own name" sh -c "[ $rc -eq 1 ] && grep -qx 'siofleet: none.trc: not a siofleet trace file' '$work/err'"
run drain a1
ok "drain tells the agent" worked
run ls agents --json
ok "it is shown as draining" json '[a["state"] for a in d["items"] if a["name"]=="a1"]!=[a["state"] for a in d["items"] if a["name"]=="a2"]'
printf '[fleet]\ncoordinator = %s\nserver_key = %s\n[host a1]\n[host a2]\n' "$SIOFLEET_CONNECT" "$SIOFLEET_SERVER_KEY" >hosts.ini
run deploy drain hosts.ini --json
ok "deploy drain leaves alone who is drained" json '(d["changed"], d["unchanged"], d["failed"], [h["status"] for h in d["hosts"]]) == (1, 1, 0, ["ok", "changed"])'
run deploy undrain hosts.ini --json --host a2
ok "and undrain lets work who is not" json '(d["changed"], d["unchanged"]) == (1, 0)'
run deploy undrain hosts.ini --json --host a2
ok "who does already is left alone" json '(d["changed"], d["unchanged"]) == (0, 1)'
run undrain a1
ok "undrain undoes it" worked
run drain a1
run drain a2
sed -e 's/demo/later/' -e 's/^tenants = .*/tenants = 4/' s.ini >later.ini
start later "$sf" sweep run later.ini
later_pid=$pid
ok "a sweep that no agent takes says so" until_ok 30 grep -qx "siofleet: no agent takes work: 0 ready, 2 drained" later.log
points_said() { [ "$(grep -c "^points: 0/" later.log)" -ge "$1" ]; }
ok "it goes on waiting" until_ok 30 points_said 5
run undrain a1
run undrain a2
ok "and ends when they take work again" wait "$later_pid"
ok "that was one line" test "$(grep -c "no agent takes work" later.log)" -eq 1
run drain nobody
ok "an unknown agent is one line" fails 1 "nobody"

"$sf" keys new stranger --role user --name stranger
run ls --key stranger
ok "a key that is not allowed is exit 3" fails 3 "."
"$sf" keys new reader --role reader --name reader && "$sf" keys allow --data fleet/c reader.pub
run results query --sweep "$id" --csv --key reader
ok "a reader may read" cmp "$work/out" local.csv
run cancel last --key reader
ok "a reader may not cancel (exit 3)" fails 3 "."

stop_all
run results query --sweep "$id" --csv --data fleet/c
ok "--data reads the store without a coordinator" cmp "$work/out" local.csv
run results query --data fleet/nothing --csv
ok "--data without a store is one line" fails 1 "nothing"
