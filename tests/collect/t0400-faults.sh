#!/usr/bin/env bash
# Every way a stack can fail gives one clear line, its exit status, no half log, and nothing left behind. QEMU is played
# by a stand-in, so that each fault comes when it is wanted.
. "${0%/*}/../cli/tap.sh"
plan 56
fake=$SIOFLEET_BIN/tests/collect/fake_qemu
export XDG_CACHE_HOME=$work/cache XDG_DATA_HOME=$work/data
touch "$work/kernel" "$work/initrd"
echo 'echo hello' >"$work/script"
cat >"$work/run.ini" <<I
[collect]
nics = 2
qemu = $fake
kernel = kernel
initrd = initrd
[workload]
kind = script
script = script
I

processes() { pgrep -f "^$fake" >/dev/null; }
clean() { # nothing runs, nothing lies about
  ! processes && [ -z "$(ls "$XDG_CACHE_HOME/siofleet/vm" 2>/dev/null)" ] && [ -z "$(find "$work" -name '.run-*')" ]
}
collect() { # collect MODE [ARG...]: one collection into a new folder
  rm -rf "$work/o"
  FAKE_QEMU=$1 run collect --local "$work/run.ini" -o "$work/o" "${@:2}"
}
one_line() { # the last line is the error; what stands above it tells of the retry
  [ "$rc" -eq "$1" ] && [ ! -s "$work/out" ] && [ "$(grep -c '^siofleet: ' "$work/err")" -le 2 ] &&
    tail -1 "$work/err" | grep -q "^siofleet: .*$2"
}
no_log() { [ ! -e "$work/o/run-0001" ] && [ -z "$(find "$work/o" -name 'log.*' 2>/dev/null)" ]; }

collect ok --json
ok "a run that works" json 'd["schema"]=="siofleet.collection/1" and d["runs"][0]["status"]=="done" and d["runs"][0]["log"]["events"]==1000 and d["runs"][0]["log"]["devices"]==2'
ok "its workload is there" grep -q hello "$work/o/run-0001/workload-script.txt"
ok "its log, provenance and serial log are there" test -s "$work/o/run-0001/log.slog" -a -s "$work/o/run-0001/provenance.json" -a -s "$work/o/run-0001/l1.serial.log"
ok "it leaves nothing behind" clean
first=$(cat "$work/o/run-0001/result.json")
run collect --local "$work/run.ini" -o "$work/o" --json
ok "a second start keeps what is there" test "$first" = "$(cat "$work/o/run-0001/result.json")"
rm -rf "$work/o/run-0001"
run collect --local "$work/run.ini" -o "$work/o" --json
ok "and makes what is missing" json 'len(d["runs"])==1 and d["runs"][0]["status"]=="done"'
sed 's/^nics = 2/nics = 1/' "$work/run.ini" >"$work/other.ini"
run collect --local "$work/other.ini" -o "$work/o"
ok "another collection's folder is refused" fails 1 'holds another collection'

collect panic
ok "a guest panic is named" one_line 1 'guest panic: .*Attempted to kill init'
ok "panic: no log" no_log
ok "panic: nothing left" clean
collect die
ok "a killed QEMU is named" one_line 1 'killed by signal 9 during measured phase'
ok "killed: no log" no_log
ok "killed: nothing left" clean
collect internal
ok "a QEMU that stopped its guest is named" one_line 1 "QEMU reports 'internal-error'"
ok "internal-error: nothing left" clean
collect exit
ok "a QEMU that ends is named" one_line 1 'ended with status 4 during measured phase'
collect nostart
ok "what QEMU says when it does not start" one_line 1 'cannot set up guest memory'
ok "not started: nothing left" clean
collect refuse
ok "what the guest says when it gives up" one_line 1 'no network interface 1'
collect drops
ok "lost records fail the run" one_line 1 '7 events dropped'
ok "drops: no log" no_log
sed 's/^nics/allow_drops = yes\nnics/' "$work/run.ini" >"$work/drops.ini"
rm -rf "$work/o"
FAKE_QEMU=drops run collect --local "$work/drops.ini" -o "$work/o" --json
ok "unless they are allowed, then they are counted" json 'd["runs"][0]["log"]["dropped"]==7'
collect drops --json
ok "and reported although the run failed" json 'd["runs"][0]["status"]=="failed" and d["runs"][0]["log"]["dropped"]==7 and d["runs"][0]["log"]["path"] is None'
collect badring
ok "a ring that makes no sense is damage" one_line 4 'trace ring: .*records wait'
ok "bad ring: nothing left" clean
collect badfile
ok "a guest's file names stay inside" one_line 1 'bad file announced'
ok "the outside file was not made" test ! -e "$work/o/passwd" -a ! -e /etc/passwd5
collect noise
ok "a control line without an end is cut off" one_line 1 'control line without an end'
collect chatty --json
ok "a console without end is cut, the run goes on" json 'd["runs"][0]["status"]=="done"'
ok "what is kept of it has its limit" sh -c '[ "$(stat -c %s "$1")" -lt 16800000 ] && tail -1 "$1" | grep -q "the rest is not kept"' - "$work/o/run-0001/l1.serial.log"
collect fail
ok "a failed workload fails the run" one_line 1 'workload: '
collect unpatched
ok "a QEMU without the series is refused" fails 1 'without the trace series'
sed "s|^qemu = .*|qemu = $work/script|" "$work/run.ini" >"$work/noqemu.ini"
run collect --local "$work/noqemu.ini" -o "$work/o2"
ok "what is no QEMU is refused" fails 1 'not a QEMU that starts here'
PATH=/nonexistent run collect --local <(printf '[collect]\ntracer = stock\n') -o "$work/o2"
ok "no stock QEMU is named" fails 1 'no qemu-system-x86_64 in PATH'
sed '/^qemu/d' "$work/run.ini" >"$work/cold.ini"
run collect --local "$work/cold.ini" --no-prepare -o "$work/o2"
ok "without a QEMU and --no-prepare the command is named" fails 1 'QEMU: not prepared on this host; run sh /.*/build.sh'
sed 's/^nics/memory = 4T\nnics/' "$work/run.ini" >"$work/big.ini"
run collect --local "$work/big.ini" -o "$work/o3"
ok "too little memory is refused with the sum" fails 1 'a run needs .*MiB .*page array'
run collect --local "$work/run.ini" -o /proc/nowhere/o
ok "a folder that cannot be made" fails 1 '/proc/nowhere'
mkdir "$work/full"
touch "$work/full/mine"
run collect --local "$work/run.ini" -o "$work/full"
ok "a folder with other things in it is refused" fails 1 'not empty and no collection'
if [ "$(id -u)" = 0 ] && unshare -m true 2>/dev/null; then
  mkdir "$work/small"
  unshare -m sh -c 'mount -t tmpfs -o size=8m none "$1" && exec "$2" collect --local "$3" -o "$1/o"' - "$work/small" "$sf" "$work/run.ini" >"$work/out" 2>"$work/err"
  rc=$?
  ok "no room on the disk is refused" fails 1 'MiB free, a run needs'
  # the disk fills up under way: run and filler share a mount namespace, which takes both along
  # shellcheck disable=SC2016
  FAKE_QEMU=mute unshare -m sh -c 'mount -t tmpfs -o size=340m none "$1"
    "$2" collect --local "$3" -o "$1/o" 2>"$1.err" & verb=$!
    until grep -qs . "$1"/o/.run-0001.part/l1.serial.log; do sleep 0.1; done
    head -c 300m /dev/zero >"$1/filler"
    wait $verb; echo "$? $(ls -A "$1/o" | tr "\n" " ")"' - "$work/small" "$sf" "$work/run.ini" >"$work/out" 2>&1
  ok "a disk that fills up under way ends the run" sh -c "tail -n 1 $work/small.err | grep -q '^siofleet: .*MiB free during the measured phase, a run needs 64' && grep -q '^1 ' $work/out"
  ok "disk full: no half log" sh -c "! grep -q run-0001 $work/out && ! ls $work/small/o 2>/dev/null | grep ."
else
  ok "a disk that fills up under way ends the run # skip: needs root" true
  ok "disk full: no half log # skip: needs root" true
  ok "no room on the disk is refused # skip: needs root" true
fi

for mode in silent mute; do
  sed 's/^nics/timeout = 2s\nnics/' "$work/run.ini" >"$work/slow.ini"
  rm -rf "$work/o"
  FAKE_QEMU=$mode run collect --local "$work/slow.ini" -o "$work/o"
  ok "a $mode guest ends at the deadline" one_line 1 'over its timeout of 2000 ms'
  ok "$mode: nothing left" until_ok 10 clean # what was killed may take a moment to go
done

# cancel, and death of each part of the runner
begin() { # begin: a run that hangs in its measured phase; $pid is the verb's
  rm -rf "$work/o"
  FAKE_QEMU=mute start hang "$sf" collect --local "$work/run.ini" -o "$work/o" --json
  until_ok 30 processes && until_ok 30 grep -qs . "$XDG_CACHE_HOME"/siofleet/vm/*/pids
}
begin
FAKE_QEMU=ok run collect --local "$work/run.ini" -o "$work/o"
ok "a second collection into the same folder is refused" fails 1 'another collection writes here'
run vm ls --json
ok "vm ls shows the running stack" json 'len(d["items"])==1 and d["items"][0]["profile"]=="quick"'
kill -TERM "$pid"
wait "$pid"
rc=$?
ok "SIGTERM cancels, exit 5" test $rc -eq 5
ok "cancelled: nothing left" clean
begin
run vm stop
ok "vm stop ends a stack" worked
wait "$pid"
ok "stopped: nothing left" clean
begin
kill -KILL "$pid"
wait "$pid" 2>/dev/null
ok "kill -9 of the verb: its children clean up" until_ok 20 clean
begin
runner=$(python3 -c 'import json,sys,glob; print(json.load(open(glob.glob(sys.argv[1]+"/siofleet/vm/*/vm.json")[0]))["pid"])' "$XDG_CACHE_HOME")
kill -KILL "$pid" "$runner"
wait "$pid" 2>/dev/null
ok "kill -9 of the runner: QEMU dies with it" until_ok 20 eval '! processes'
run vm ls --json
ok "a dead stack is not listed" json 'd["items"]==[]'
collect ok
ok "the next start sweeps what the dead one left" clean
run vm stop 0123abcd
ok "vm stop of an unknown id" fails 1 'no such guest'
