#!/usr/bin/env bash
# siofleet-shim on a host with control groups of version 2 alone: memory, processes and cores of a task are kept by the
# kernel, and its tree ends with its group. In a small guest, since most hosts of tests have memory in version 1.
. "${0%/*}/../cli/tap.sh"
for script in "$src/qemu-patch/build.sh" "$src/collect/guest/image.sh"; do
  if ! sh "$script" --check >/dev/null 2>&1; then
    echo "1..0 # skip: not built: sh $script"
    tap_plan=0
    exit 77
  fi
done
plan 11
qemu=$(sh "$src/qemu-patch/build.sh" | tail -n 1)
image=$(sh "$src/collect/guest/image.sh" | tail -n 1)
mkdir "$work/add"
cp "$src/tests/agent/guest-groups.sh" "$work/add/first"
cp "$SIOFLEET_BIN/siofleet-shim" "$SIOFLEET_BIN/tests/agent/groups_base" "$work/add/"
chmod 755 "$work"/add/*
(cd "$work/add" && find . | cpio -o --quiet -H newc) >"$work/add.cpio"
cat "$image/base.cpio" "$work/add.cpio" >"$work/initrd"
timeout 240 "$qemu" -nodefaults -no-user-config -display none -machine q35 -accel tcg -cpu max -smp 2 -m 768 \
  -kernel "$image/vmlinux" -initrd "$work/initrd" -append "console=ttyS0 rdinit=/first panic=-1 no_timer_check quiet random.trust_cpu=on" \
  -no-reboot -serial stdio >"$work/out" 2>"$work/err" </dev/null
rc=$?

# of NAME EXPRESSION: true of the status s of that task, whose group must be gone
of() {
  grep -a "^GUEST $1 {" "$work/out" | tr -d '\r' | python3 -c '
import json, sys
line = sys.stdin.read().split(" ", 2)[2]
text, group = line.rsplit(" group ", 1)
s = json.loads(text)
assert group.strip() == "gone", group
sys.exit(not eval(sys.argv[1]))' "$2"
}
said() { tr -d '\r' <"$work/out" | grep -aq "^GUEST $1"; }
ok "the guest ran to its end" said end
ok "groups are made at the top, with all three limits" said 'base /sys/fs/cgroup: .*memory.*pids'
ok "and the cores" said 'base /sys/fs/cgroup: .*cpu'
ok "more memory than it may have: oom" of memory 's["cause"] == "oom" and s["signal"] == 9 and s["cgroup"]'
ok "a child that is killed for it takes the task with it" of parent 's["cause"] == "oom"'
ok "a modest one is let alone" of modest 's["cause"] == "done"'
ok "processes over the limit are refused, the others go on" of pids 's["cgroup"] and s["cause"] == "exit"'
ok "a fork bomb ends with its time" of bomb 's["cause"] == "timeout" and s["left"] == 0'
ok "daemons that fork for ever too" of daemons 's["cause"] == "timeout" and s["left"] == 0'
ok "and nothing of them is left" sh -c "[ \"\$(tr -d '\r' <'$work/out' | grep -ac '^GUEST left 0')\" = 2 ]"
# two threads that use all they get: twice the time without a limit, as long as it lasts with one
ok "one core is one core" of one '(s["user_ms"] + s["system_ms"]) < 1.4 * s["duration_ms"]'
