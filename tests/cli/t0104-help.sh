#!/usr/bin/env bash
# The dispatcher: help, version, unknown verbs, completion, manual page, SIGINT.
. "${0%/*}/tap.sh"
plan 18
cd "$work" || exit 1

run --version
ok "--version" worked '^siofleet [0-9]*\.[0-9]*'
run --help
ok "--help lists the verbs" worked "  perf sweep  *[a-z]"
ok "but no internal ones" sh -c '! grep -q "  __" out'
run perf --help
ok "a group has help" worked "  perf run  *[a-z]"
run perf run --help
ok "a verb teaches by example" worked "siofleet perf run t.trc"
run help perf run
ok "help VERB is the same" worked "siofleet perf run t.trc"
run
ok "no verb: exit 2" fails 2 "a verb is missing"
run perf
ok "half a verb: exit 2" fails 2 "perf: a verb is missing"
run perf fly
ok "an unknown one: exit 2" fails 2 "perf fly: unknown verb"
run perf run --frob
ok "an unknown option: exit 2" fails 2 "--frob: unknown option"
run perf run --frob --json
ok "and a document under --json" sh -c '[ '$rc' -eq 2 ] && python3 -c "import json; d=json.load(open(\"out\")); assert d[\"schema\"]==\"siofleet.error/1\" and d[\"exit\"]==2 and d[\"code\"]==\"USAGE\""'
run perf run $'no\xffsuch' --json
ok "also where the place is no UTF-8" json 'd["schema"]=="siofleet.error/1" and d["code"]=="NOT_FOUND" and d["place"]=="no?such"'
run completion bash
ok "bash takes the completion" bash -n out
ok "which completes" bash -c 'source ./out; COMP_WORDS=(siofleet perf ru); COMP_CWORD=2; _siofleet; [ "${COMPREPLY[0]}" = run ]'
run completion tcsh
ok "an unknown shell: exit 2" fails 2 "tcsh"
run help --man
ok "the manual page" worked '^\.TH SIOFLEET 1'
ok "every verb has a section in it" sh -c '[ "$(grep -c "^\.SS " out)" -ge 10 ]'
small_log a.log 2 2000
printf '[sweep]\npace_ms=60000\n[trace]\nlogs=a.log\n[arch]\nqueue=1..9:+1\n' >s.ini
"$sf" perf sweep s.ini --csv -o rows.csv 2>err &
pid=$!
tap_pids+=("$pid")
until_ok 30 sh -c 'ls rows.csv.tmp-* 2>/dev/null'
kill -INT "$pid"
wait "$pid"
rc=$?
ok "SIGINT: exit 5, nothing left behind" sh -c "[ $rc -eq 5 ] && [ -z \"\$(ls rows.csv* 2>/dev/null)\" ]"
