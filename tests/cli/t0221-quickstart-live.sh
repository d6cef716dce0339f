#!/usr/bin/env bash
# quickstart with its live collection: a real guest's log becomes series of their own, and is kept for the next run.
. "${0%/*}/tap.sh"
if ! sh "$src/qemu-patch/build.sh" --check >/dev/null 2>&1; then
  echo "1..0 # skip: the patched QEMU is not built (qemu-patch/build.sh)"
  tap_plan=0
  exit 77
fi
plan 10
cd "$work" || exit 1
export XDG_DATA_HOME=$work/data XDG_CONFIG_HOME=$work/config
clean() { ! pgrep -f "$sf .*$work" >/dev/null && ! pgrep -f "qemu-system-x86_64 .*$work" >/dev/null; }

run quickstart --out pics --json
ok "works" worked
ok "54 points, the live log among them" json 'd["points"]==54 and d["live"]["kept"] is False and d["live"]["error"] is None and __import__("os").path.getsize(d["live"]["log"])>100000'
ok "says how to do without" grep -q -- '--offline does without' err
ok "the shipped logs hold the axis up to 120, the live one 1 to 4" python3 -c '
import csv
r = list(csv.DictReader(open("pics/results.csv")))
t = lambda n: sorted({int(x["tenants"]) for x in r if x["name"] == n})
assert t("quickstart") == [4, 24, 72, 120] and t("quickstart-live") == [1, 2, 4], r
assert len(r) == 54 and all(x["status"] == "done" for x in r)'
ok "the picture names the live series" sh -c 'grep -q "live default" pics/plot.svg && grep -q "live hypertrio" pics/plot.svg'
ok "nothing is left running" until_ok 10 clean
run quickstart --out pics --json
ok "a second run keeps the log and reuses all" json 'd["reused"]==54 and d["live"]["kept"] is True'
run quickstart --offline --out pics --json
ok "--offline leaves it out" json 'd["points"]==48 and d["live"] is None'

rm -rf data
start quick "$sf" quickstart --out two
ok "a collection is under way" until_ok 60 sh -c 'ls data/siofleet/quickstart/live/.run-0001.part/l1.serial.log'
kill -INT "$pid"
wait "$pid"
rc=$?
ok "Ctrl-C in it is exit 5 and leaves nothing running" eval '[ $rc -eq 5 ] && until_ok 15 clean && [ ! -e data/siofleet/quickstart/live/run-0001 ]'
