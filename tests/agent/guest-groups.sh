#!/bin/sh
# First process of the guest of t0320-groups.sh: a host whose control groups are all of version 2, for siofleet-shim.
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
exec </dev/console >/dev/console 2>&1
mkdir -p /t /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
base=/sys/fs/cgroup

say() { echo "GUEST $*"; }
# task NAME OPTION... -- CMD ARG...: its status in /t/NAME/status; then its group must be gone
task() {
    name=$1
    shift
    mkdir /t/"$name"
    opts=
    while [ "$1" != -- ]; do
        opts="$opts $1"
        shift
    done
    # shellcheck disable=SC2086 # options without blanks
    /siofleet-shim --cgroup $base/g-"$name" $opts /t/"$name" "$@"
    say "$name $(tr -d '\n' </t/"$name"/status) group $([ -d $base/g-"$name" ] && echo stays || echo gone)"
}
# processes, but not the kernel's threads (children of kthreadd, 2), which come and go by themselves, nor what has ended and waits
# for this shell to take note of it
procs() {
    n=0
    for p in /proc/[0-9]*; do # no pipe: its own processes would be counted or not, as it happens
        state=X
        parent=0
        while read -r key value _; do
            case $key in
            State:) state=$value ;;
            PPid:) parent=$value ;;
            esac
        done 2>/dev/null <"$p/status"
        case $state$parent in
        [ZX]* | ?0 | ?2) ;;
        *) n=$((n + 1)) ;;
        esac
    done
    echo $n
}

say "base $(/groups_base)"
# shellcheck disable=SC2016 # awk's
hog='BEGIN { s = "0123456789abcdef"; while (length(s) < 200000000) s = s s }'
task memory --memory-b 33554432 -- awk "$hog"
task parent --memory-b 33554432 -- sh -c "awk '$hog'; exit 0"
task modest --memory-b 33554432 -- sh -c 'echo fits'
before=$(procs)
# shellcheck disable=SC2016 # the inner shell's
task pids --pids 20 -- sh -c 'i=0; while [ $i -lt 60 ]; do sleep 30 & i=$((i+1)); done; wait'
say "refused $(tail -c 300 /t/pids/stderr | tr '\n' ' ')"
task bomb --pids 50 --timeout-ms 1500 --grace-ms 100 -- sh -c 'f() { f | f & }; f; sleep 60'
say "left $(($(procs) - before))"
# what is killed at once cannot fork faster than it is found; its daemons have sessions of their own
task daemons --timeout-ms 500 --grace-ms 100 -- sh -c \
    'for i in 1 2 3 4 5; do setsid sh -c "trap \"\" TERM; while :; do sleep 1 & done" & done; sleep 60'
say "left $(($(procs) - before))"
busy='timeout 2 sh -c "while :; do :; done" & timeout 2 sh -c "while :; do :; done"; wait'
task two -- sh -c "$busy"
task one --cores 1 -- sh -c "$busy"
say end
poweroff -f
