#!/usr/bin/env bash
# Fleet verbs without a coordinator: one line, exit 3; mistakes are found before anybody is asked.
. "${0%/*}/tap.sh"
plan 17
cd "$work" || exit 1
small_log a.log 2 50
printf '[sweep]\nname = x\n[trace]\nlogs = a.log\n[arch]\n' >s.ini

run ls
ok "nothing configured is exit 2 or 3 and one line" sh -c "[ $rc -eq 2 ] || [ $rc -eq 3 ]"
mkdir keys
"$sf" keys new keys/me --role user --name me && "$sf" keys new keys/c --role coordinator --name c
at="--connect tcp://127.0.0.1:9 --server-key keys/c.pub --key keys/me"
# each waits for its deadline, so all at once
i=0
for v in "ls" "ls --json" "sweep submit s.ini" "sweep wait last" "results query" "cancel last"; do
  ("$sf" $v $at >"out.$i" 2>"err.$i"; echo $? >"rc.$i") &
  i=$((i + 1))
done
wait
took() { cp "out.$1" "$work/out" && cp "err.$1" "$work/err" && rc=$(cat "rc.$1"); }
took 0
ok "ls: nobody there is exit 3" fails 3 "tcp://127.0.0.1:9"
took 1
ok "ls --json: a siofleet.error/1 document as well" json 'd["schema"]=="siofleet.error/1" and d["exit"]==3'
took 2
ok "submit: exit 3" fails 3 "127.0.0.1:9"
took 3
ok "wait: exit 3" fails 3 "127.0.0.1:9"
took 4
ok "results: exit 3" fails 3 "127.0.0.1:9"
took 5
ok "cancel: exit 3" fails 3 "127.0.0.1:9"
run ls --connect nonsense --server-key keys/c.pub --key keys/me
ok "no endpoint: exit 2" fails 2 "nonsense"
run ls --connect tcp://127.0.0.1:9 --server-key keys/none.pub --key keys/me
ok "no key file: one line" test "$rc" -ne 0 -a "$(wc -l <"$work/err")" -eq 1

run sweep run none.ini $at
ok "a missing sweep file is told before the fleet is asked" fails 1 "none.ini"
touch out.csv
run sweep run s.ini --csv out.csv $at
ok "an existing --csv file, too" fails 1 "out.csv: exists"
run ls planets $at
ok "ls: an unknown kind is exit 2" fails 2 "planets"
run results query --where tenants $at
ok "--where without = is exit 2" fails 2 "where"
run results query --sql "SELECT 1" --sweep last $at
ok "--sql with --sweep is exit 2" fails 2 "sql"
run results query --csv --json $at
ok "--csv with --json is exit 2" test "$rc" -eq 2
run why "" $at
ok "an empty ID is exit 2" fails 2 "why: an argument is empty"
run cancel $at
ok "a verb without its ID is exit 2" fails 2 "cancel"
