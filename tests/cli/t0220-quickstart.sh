#!/usr/bin/env bash
# quickstart: files, what a second run reuses, and that nothing is left behind, also after Ctrl-C and failure.
. "${0%/*}/tap.sh"
plan 24
cd "$work" || exit 1
export XDG_DATA_HOME=$work/data XDG_CACHE_HOME=$work/cache XDG_CONFIG_HOME=$work/config
left() { pgrep -f "$sf .*$work" >/dev/null || pgrep -f "__task $work" >/dev/null || pgrep -f "siofleet-shim.*$work" >/dev/null; }
clean() { ! left; }

run quickstart --offline --out pics
ok "works" worked "120 tenants"
ok "prints a table of both designs" sh -c "grep -q '^hypertrio *2048' $work/out && grep -q '^default *64' $work/out"
ok "writes the CSV" test "$(wc -l <pics/results.csv)" -eq 49
ok "writes the picture" python3 -c 'import xml.dom.minidom; xml.dom.minidom.parse("pics/plot.svg")'
ok "writes a page that loads nothing" sh -c 'grep -q "Where the numbers come from" pics/report.html && ! grep -q "://" pics/report.html'
ok "every point is done" test "$(grep -c ',done,' pics/results.csv)" -eq 48
ok "the improved design holds where the default does not" python3 -c '
import csv
r = [x for x in csv.DictReader(open("pics/results.csv")) if x["tenants"] == "120"]
assert all((int(x["util_ppm"]) > 800000) == (x["queue"] == "32") for x in r), r'
ok "nothing is left running" until_ok 10 clean
ok "nothing is written beside the folders named" test "$(ls | sort | tr '\n' ' ')" = "check data err out pics "

cp pics/results.csv first.csv
run quickstart --offline --out pics --json
ok "runs again" worked
ok "is a siofleet.quickstart/1 document" json 'd["schema"]=="siofleet.quickstart/1" and d["agents"]==2 and d["points"]==48 and d["live"] is None'
ok "all points are reused" json 'd["reused"]==48'
ok "names the files" json '__import__("os").path.isfile(d["csv"]) and __import__("os").path.isfile(d["svg"]) and __import__("os").path.isfile(d["html"])'
ok "the same bytes" cmp first.csv pics/results.csv

touch nocache
XDG_CACHE_HOME=$work/nocache run quickstart --out pics --json
ok "a live collection that cannot be is exit 1, named on stderr" sh -c "[ $rc -eq 1 ] && tail -n 1 $work/err | grep -q '^siofleet: live collection: .*--offline does without'"
ok "and the rest is there all the same" json 'd["points"]==48 and "ended with exit" in d["live"]["error"] and d["live"]["log"] is None'
ok "the same bytes as without it" cmp first.csv pics/results.csv

rm -rf data nocache
start quick "$sf" quickstart --offline --out two
quick=$pid
ok "a third one gets as far as its agents" until_ok 30 test -f data/siofleet/quickstart/run/quick2.ready
kill -INT "$quick"
wait "$quick"
rc=$?
ok "Ctrl-C is exit 5, or it was done already" test "$rc" -eq 5 -o "$rc" -eq 0
ok "and nothing is left running" until_ok 10 clean

mkdir empty
run quickstart --offline --logs empty --out out3
ok "a folder without logs is one line" fails 1 "empty: "
touch file
run quickstart --offline --out file/out
ok "an impossible --out is one line" fails 1 "file"
run quickstart --offline --out ""
ok "nor is there one without a name" fails 2 "--out: is empty"
run quickstart --wat
ok "an unknown option is exit 2" fails 2 "wat"
