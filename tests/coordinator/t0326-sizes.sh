#!/usr/bin/env bash
# Files of nothing, of one byte and of a gigabyte of holes (BULK_MIB=5120 makes it 5 GiB, beyond 32 bits, which takes minutes), and a
# reader that stops: the coordinator's memory stays bounded, others are served.
. "${0%/*}/../cli/tap.sh"
plan 10
cd "$work" || exit 1
mib=${BULK_MIB:-1024}
echo "# the large file has $mib MiB; BULK_MIB=5120 is not the default"
: >none
printf x >one
truncate -s "${mib}M" big
printf 'the end' | dd of=big bs=1 seek=$((mib * 1048576 - 7)) conv=notrunc status=none
hwm() { sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$coordinator_pid/status"; }
some() { [ "$(find got.part -name '*.map' 2>/dev/null | wc -l)" -gt 0 ]; }

ok "a fleet" fleet_start 0
run store put none one big
ok "files of nothing, of a byte and of $mib MiB" worked
read -r none one big <<<"$(tr '\n' ' ' <out)"
run store get "$none" -o got.none
ok "nothing comes back" cmp none got.none
run store get "$one" -o got.one
ok "so does a byte" cmp one got.one
before=$(hwm)
"$sf" store get "$big" -o got >big.out 2>big.err &
job=$!
tap_pids+=("$job")
ok "a large one is on its way" until_ok 30 some
kill -STOP "$job"
run store get "$one" -o got.again
ok "its reader stops, another one is served" worked
sleep 2
ok "the coordinator has at most 64 MiB more" test $(($(hwm) - before)) -le 65536
ok "the large one is not there" test ! -e got
kill -CONT "$job"
wait "$job"
ok "the reader goes on, it ends well" test $? -eq 0
ok "with the same bytes" cmp big got
