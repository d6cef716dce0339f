#!/usr/bin/env bash
# What may go wrong while a user's file is on its way: kill -9 of either end, bytes that flip on either disk, a file that somebody
# writes to, two that bring the same, a clock that jumps. Nothing wrong is ever taken under an id, nothing is sent twice that came.
. "${0%/*}/../cli/tap.sh"
plan 48
cd "$work" || exit 1
mib=$((1 << 20))
size=$((12 * mib))
head -c $size /dev/urandom >in.bin
head -c $size /dev/urandom >two.bin
# chunks that came by bulk into the last artefact that is whole at the coordinator
came() { sed -n 's/.*: \([0-9]*\) chunks of it came by bulk.*/\1/p' coordinator.log | tail -1; }
given() { sed -n 's/.*: \([0-9]*\) bytes given by bulk.*/\1/p' "$@" | awk '{ s += $1 } END { print s + 0 }'; }
# the last run failed with exit N and one error line that matches; progress may stand before it
one_line() { [ "$rc" -eq "$1" ] && [ "$(grep -c '^siofleet: ' err)" -eq 1 ] && grep -q "^siofleet: $2" err; }
begin() {
  "$sf" "$@" >out 2>err &
  job=$!
  tap_pids+=("$job")
}
ended() {
  wait "$job"
  rc=$?
}
murder() {
  kill -KILL "$1"
  wait "$1" 2>/dev/null
}
# the coordinator again, where it was
again() {
  cat coordinator.log >>before.log
  rm -f fleet/ready
  start coordinator "$sf" coordinator --data fleet/c --listen "$SIOFLEET_CONNECT" --ready-file fleet/ready --heartbeat-ms 300 \
    --lease-ms "$lease_ms" "${coordinator_args[@]}"
  coordinator_pid=$pid
  until_ok 30 test -f fleet/ready
}
store=fleet/c/cas

# 5 MiB/s: time to do harm, of which there are two seconds when two chunks are here
coordinator_args=(--bulk-rate 5M)
lease_ms=30000
ok "a slow fleet" fleet_start 0

# -- kill -9
begin store put in.bin
ok "a put is on its way" until_ok 30 chunks_come $store 2
murder "$job"
had=$(chunks $store)
run store put in.bin
id=$(cat out)
ok "a killed put: the next one goes on" worked
ok "with the rest only" test "$(came)" -le $((12 - had + 1))
ok "to the right bytes" cmp in.bin "$store/${id:0:2}/$id"
begin store get "$id" -o got
ok "a get is on its way" until_ok 30 chunks_come got.part 2
murder "$job"
had=$(chunks got.part)
until_ok 30 grep -q "bytes given by bulk" coordinator.log # of the killed one, told when its end is noticed
from=$(given coordinator.log)
flip "got.part/partial/$id" 100
run store get "$id" -o got
ok "a killed get: the next one goes on, though a byte of what had come is damaged" worked
ok "to the right bytes" cmp in.bin got
ok "with the rest and the damaged chunk only" test $(($(given coordinator.log) - from)) -le $((size - (had - 2) * mib))
rm got
begin store put two.bin
ok "another put is on its way" until_ok 30 chunks_come $store 2
murder "$coordinator_pid"
had=$(chunks $store)
flip "$(find $store/partial -size +1M)" $((mib + 5))
ok "the coordinator is killed, a byte of what had come is damaged, it starts again" again
ended
two=$(cat out)
ok "the put goes on by itself" test "$rc" -eq 0
ok "to the right bytes" cmp two.bin "$store/${two:0:2}/$two"
ok "with the rest and the damaged chunk only" test "$(came)" -le $((12 - had + 2))
begin store get "$id" -o got
ok "another get is on its way" until_ok 30 chunks_come got.part 2
murder "$coordinator_pid"
ok "the coordinator is killed and starts again" again
ended
ok "the get goes on by itself" test "$rc" -eq 0
ok "to the right bytes" cmp in.bin got
ok "with the rest only" test "$(given coordinator.log)" -le $((size - 2 * mib))

# -- a file that somebody writes to
# change TEXT COMMAND...: put ch.bin, which COMMAND changes meanwhile
change() {
  { printf %s "$1" && cat in.bin; } >ch.bin
  rm -rf fleet/c/cas/partial/*
  begin store put ch.bin
  ok "a file is on its way, then: $1" until_ok 30 chunks_come $store 2
  "${@:2}"
  ended
}
listed() { "$sf" store ls --json | python3 -c 'import json,sys; print(len(json.load(sys.stdin)["items"]))'; }
change "cut short" truncate -s 5M ch.bin
ok "is named: exit 1, one line" one_line 1 "ch.bin: changed while it was sent"
change "overwritten" dd if=two.bin of=ch.bin conv=notrunc status=none
ok "the same" one_line 1 "ch.bin: changed while it was sent"
ok "neither is there" test "$(listed)" -eq 2
more() { echo more >>ch.bin; }
change "appended to" more
ok "is taken as it was" worked
ch=$(cat out)
ok "without what came later" cmp -n $((size + 11)) ch.bin "$store/${ch:0:2}/$ch"
ok "not a byte more" test "$(stat -c %s "$store/${ch:0:2}/$ch")" -eq $((size + 11))
run store verify
ok "all that is there is what its id says" worked

# -- the coordinator's copy
rm -f got
flip "$store/${id:0:2}/$id" 9000000
run store get "$id" -o got
ok "a damaged copy is refused: exit 4, one line that says whose it is" one_line 4 "artefact ${id:0:16}: the coordinator's copy is damaged"
ok "there is no such file" test ! -e got
ok "it is moved out of the way" until_ok 10 test -f "fleet/c/damaged/$id" -a ! -e "$store/${id:0:2}/$id"
run store put in.bin
ok "a good one takes its place" worked
run store get "$id" -o got
ok "and the get goes on with it" cmp in.bin got

# -- two bring the same
head -c $size /dev/urandom >same.bin
cp same.bin copy.bin
begin store put same.bin
one=$job
until_ok 30 chunks_come $store 2
run store put copy.bin
ok "a second one that brings the same" worked
wait "$one"
ok "both succeed" test $? -eq 0
same=$(cat out)
ok "one artefact, of the right bytes" cmp same.bin "$store/${same:0:2}/$same"
ok "that came once" test "$(came)" -le 13
stop_all
rm -rf fleet

# -- a clock that jumps by a day forth and two back, for everybody
lib=/usr/lib/$(uname -m)-linux-gnu/faketime/libfaketime.so.1
ok "libfaketime is here (deploy/deps.sh test)" test -f "$lib"
cat >clocked <<E
#!/bin/sh
exec env LD_PRELOAD=$lib ASAN_OPTIONS=\${ASAN_OPTIONS:-}:verify_asan_link_order=0 FAKETIME_NO_CACHE=1 NO_FAKE_STAT=1 DONT_FAKE_MONOTONIC=1 \
  FAKETIME_DONT_FAKE_MONOTONIC=1 FAKETIME_TIMESTAMP_FILE=$work/clock $sf "\$@"
E
chmod +x clocked
real=$sf
sf=$work/clocked
echo +0 >clock
ok "a fleet with such a clock" fleet_start 0
begin store put in.bin
ok "a put is on its way" until_ok 30 chunks_come $store 2
echo +1d >clock
sleep 0.3
echo -1d >clock
ended
ok "it ends well" test "$rc" -eq 0
rm -f got
begin store get "$id" -o got
ok "a get is on its way" until_ok 30 chunks_come got.part 2
echo +1d >clock
ended
ok "it ends well" cmp in.bin got
sf=$real
stop_all
rm -rf fleet

# -- what an agent has of a trace
coordinator_args=()
small_log a.log 4 4000
printf '[sweep]\nname = s\n[trace]\nlogs = a.log\ntenants = 2\n[arch]\niotlb_entries = 64,128\n' >s.ini
sed 's/64,128/16,32/; s/name = s/name = t/' s.ini >t.ini
fleet_start 1
run sweep run s.ini
trace=$("$sf" store ls --json | python3 -c 'import json,sys; print([a["id"] for a in json.load(sys.stdin)["items"] if a["kind"]=="trace"][0])')
ok "an agent has a trace" test -f "fleet/a1/cache/${trace:0:2}/$trace"
flip "fleet/a1/cache/${trace:0:2}/$trace" 300
run sweep run t.ini --csv t.csv
"$sf" perf sweep t.ini --csv >want.csv 2>/dev/null
ok "damaged there, a sweep that needs it has the right rows" cmp t.csv want.csv
ok "it is named" grep -q "ended: integrity: trace ${trace:0:16}: trace file is damaged" coordinator.log
ok "and is whole again" cmp "fleet/a1/cache/${trace:0:2}/$trace" "$store/${trace:0:2}/$trace"
