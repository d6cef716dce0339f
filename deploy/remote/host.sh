# What `siofleet deploy` does on a host: sh -c "$(this file)" sh DATA [VERB N ARG...]... runs one verb after the other, each
# with its N arguments, and says `verb NAME` as the last line of stderr when one fails. POSIX sh and coreutils only, and flock
# where it is. Everything lives in DATA, which DATA/.siofleet marks as ours; the folders that had to be made above it are
# noted in DATA/.made, so that `down` leaves nothing.
# shellcheck shell=sh
set -eu
umask 077
data=$1
shift
# shellcheck disable=SC2088 # a tilde that was sent as such
case $data in "~/"*) data=$HOME/${data#??} ;; esac
uid=$(id -u)
now=none
trap 'r=$?; [ $r = 0 ] || echo "verb $now" >&2' EXIT

# ---- the service: a unit of systemd, or a supervised process in the background

unit_dir() {
    if [ "$uid" = 0 ]; then echo /etc/systemd/system; else echo "${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user"; fi
}
ctl() { if [ "$uid" = 0 ]; then systemctl "$@"; else systemctl --user "$@"; fi; }
has_systemd() {
    [ -d /run/systemd/system ] || return 1
    [ "$uid" = 0 ] || [ -S "${XDG_RUNTIME_DIR:-/run/user/$uid}/systemd/private" ]
}
unit= # its file, where systemd is and it was made
if has_systemd; then
    name=siofleet-$(printf '%s' "$data" | cksum | cut -d' ' -f1).service
    unit=$(unit_dir)/$name
fi
is_unit() { [ -n "$unit" ] && [ -f "$unit" ]; }
unit_word() { # as a word in a unit file: quoted, with nothing that systemd would expand
    printf '"%s"' "$(printf '%s' "$1" | sed 's/[\\"]/\\&/g; s/%/%%/g; s/\$/$$/g')"
}
# KillMode=process: tasks outlive their agent, which is back with them; told to stop, it ends them itself.
unit_text() { # unit_text system|user; a user's manager knows no network
    echo "[Unit]"
    echo "Description=siofleet $(sed -n 1p "$data/args" 2>/dev/null || true)"
    if [ "$1" = system ]; then printf '%s=network-online.target\n' Wants After; fi
    cat <<UNIT
StartLimitIntervalSec=0

[Service]
ExecStart=/bin/sh $(unit_word "$data/current/run.sh") $(unit_word "$data")
Restart=always
RestartSec=2
KillMode=process
TimeoutStopSec=20
LimitNOFILE=65536

[Install]
WantedBy=$(if [ "$1" = system ]; then echo multi-user.target; else echo default.target; fi)
UNIT
}
alive() { # alive FILE: the process named in it runs, and in this folder: after a reboot another one may have its number
    # shellcheck disable=SC3013 # dash, bash and busybox have -ef
    [ -s "$1" ] && [ "/proc/$(cat "$1" 2>/dev/null)/cwd" -ef "$data" ]
}
tell() { # tell SIGNAL FILE
    kill "-$1" "$(cat "$2" 2>/dev/null)" 2>/dev/null || true
}
wait_gone() { # wait_gone FILE SECONDS
    n=$(($2 * 10))
    while alive "$1" && [ "$n" -gt 0 ]; do
        sleep 0.1
        n=$((n - 1))
    done
    ! alive "$1"
}
service_up() {
    if is_unit; then ctl -q is-active "$name"; else alive "$data/run/service.pid"; fi
}
stop_service() {
    if is_unit; then ctl stop "$name" || true; fi
    if alive "$data/run/supervisor.pid"; then
        tell TERM "$data/run/supervisor.pid"
        if ! wait_gone "$data/run/supervisor.pid" 15; then
            tell TERM "$data/run/service.pid"
            tell KILL "$data/run/supervisor.pid"
        fi
    fi
    if alive "$data/run/service.pid"; then
        tell TERM "$data/run/service.pid"
        wait_gone "$data/run/service.pid" 15 || tell KILL "$data/run/service.pid"
    fi
    if [ -d "$data/run" ]; then rm -f "$data/run/supervisor.pid" "$data/run/service.pid" "$data/run/ready" "$data/run/ends"; fi
}
words() { # words LINES: the newest of what the service said
    if is_unit; then
        if [ "$uid" = 0 ]; then set -- "$1" -u "$name"; else set -- "$1" --user -u "$name"; fi
        journalctl -q -o cat -n "$@"
    elif [ -f "$data/log/service.log" ]; then
        tail -n "$1" "$data/log/service.log"
    fi
}

# ---- folders

# make_dir DIR: with what is missing above it; the topmost folder made is noted
make_dir() {
    [ ! -d "$1" ] || return 0
    top=
    d=$1
    while [ ! -d "$d" ]; do
        top=$d
        d=$(dirname "$d")
    done
    mkdir -p "$1"
    case $top in "$data"/*) ;; *) printf '%s\n%s\n' "$top" "$1" >>"$data/.made" ;; esac
}
# rmdir from $2 up to $1, as far as they are empty
unmake() {
    d=$2
    while :; do
        rmdir "$d" 2>/dev/null || break
        [ "$d" != "$1" ] || break
        d=$(dirname "$d")
    done
}

# What this script makes in DATA: what the service needs, and what outlives it under --keep-data.
of_service="releases packs pack cache cache.new incoming run log steps current previous args args.previous server.pub .linger"
of_data="agent agent.key agent.key.pub store"
ours() { # whether DATA is a folder that an `up` made or took, also one of before it was marked
    [ -e "$data/.siofleet" ] || [ -e "$data/.made" ] || [ -L "$data/current" ] || grep -qs '^siofleet-key ' "$data/agent.key.pub"
}
here() { # here NAME...: the first of them that is in DATA
    for f in "$@"; do
        if [ -e "$data/$f" ] || [ -L "$data/$f" ]; then
            echo "$f"
            break
        fi
    done
}

# ---- taking turns

# A call that changes something waits for another one at work here, and then keeps the others out until it ends. One whose
# copy gets no byte is not waited for: its connection is dead, and only its sshd does not know it. The mark's first line
# names the machine: on a home that many share each needs a folder of its own.
# shellcheck disable=SC3013 # -ef, as above
turn() {
    [ -z "$turn" ] || return 0
    turn=yes
    while :; do
        make_dir "$data"
        exec 9>>"$data/.siofleet"
        command -v flock >/dev/null || break
        n=0
        while :; do
            r=0
            flock -w 1 9 || r=$?
            [ "$r" = 1 ] || break # it is ours, or this file system has no locks
            n=$((n + 1))
            for f in "$data"/incoming/*.part; do
                if [ "$n" -ge 5 ] && [ -s "$f.pid" ] && [ $(($(date +%s) - $(stat -c %Y "$f"))) -ge 5 ] &&
                    [ "/proc/$(cat "$f.pid")/fd/1" -ef "$f" ]; then tell TERM "$f.pid"; fi
            done
            if [ "$n" -ge 20 ]; then
                echo "another siofleet deploy is at work on this host ($(sed -n 2p "$data/.siofleet"))" >&2
                exit 1
            fi
        done
        if [ "$data/.siofleet" -ef /proc/self/fd/9 ]; then break; fi # else a `down` took it away
    done
    owner=$(sed -n 1p "$data/.siofleet")
    if [ -n "$owner" ] && [ "$owner" != "$(uname -n)" ]; then
        echo "'$data' is shared with the host '$owner'" >&2
        exit 1
    fi
    printf '%s\nfrom %s, since %s\n' "$(uname -n)" "${SSH_CONNECTION%% *}" "$(date +%H:%M:%S)" >"$data/.siofleet" || true
}

# ---- verbs

verb_probe() { # facts, one `key value` a line
    above=$data
    while [ ! -d "$above" ]; do
        if [ -e "$above" ]; then printf 'in_way %s\n' "$above"; fi
        above=$(dirname "$above")
    done
    # printf, as some echos read backslashes
    printf 'home %s\ndata %s\nabove %s\n' "$HOME" "$data" "$above"
    echo "uid $uid"
    uname=$(uname -rm)
    echo "kernel ${uname% *}"
    echo "arch ${uname##* }"
    libc=$(getconf GNU_LIBC_VERSION 2>/dev/null || true)
    echo "glibc ${libc##* }"
    echo "cores $(nproc)"
    while read -r key value _; do
        if [ "$key" = MemTotal: ]; then echo "memory_kib $value"; fi
    done </proc/meminfo
    df -Pk "$above" | {
        read -r _
        read -r _ _ _ free _
        echo "free_kib $free"
    }
    if [ -w "$above" ]; then echo "writable yes"; else echo "writable no"; fi
    stamp=$(date +%s%N)
    echo "clock_ms ${stamp%??????}"
    if has_systemd; then echo "service systemd"; else echo "service background"; fi
    if [ -L "$data/current" ]; then
        link=$(readlink "$data/current")
        echo "release ${link##*/}"
    fi
    for f in "$data"/releases/*/.complete "$data"/packs/*/.complete; do
        if [ -f "$f" ]; then
            f=${f%/.complete}
            echo "have ${f##*/}"
        fi
    done
    for f in "$data"/incoming/*.part; do
        if [ -f "$f" ]; then
            f=${f##*/}
            echo "part ${f%.part} $(wc -c <"$data/incoming/$f")"
        fi
    done
    if [ -L "$data/pack" ]; then
        link=$(readlink "$data/pack")
        echo "pack ${link##*/}"
    fi
    if [ -f "$data/agent.key.pub" ]; then echo "pub $(cat "$data/agent.key.pub")"; fi
    if [ -f "$data/store/keys/coordinator.pub" ]; then echo "pub $(cat "$data/store/keys/coordinator.pub")"; fi
    if [ -f "$data/args" ]; then
        sum=$(b2sum -l 256 <"$data/args")
        echo "args ${sum%% *}"
    fi
    if [ -f "$data/server.pub" ]; then echo "server $(cat "$data/server.pub")"; fi
    for f in "$data"/steps/*.done; do
        if [ -f "$f" ]; then
            f=${f##*/}
            echo "step ${f%.done}"
        fi
    done
    if service_up; then echo "agent up"; else echo "agent down"; fi
    if [ -f "$data/run/ready" ]; then echo "ready $(tr -d '\n' <"$data/run/ready")"; fi
    # shellcheck disable=SC2086 # lists of plain names
    if ours; then
        echo "service_files $(here $of_service)"
        echo "data_files $(here $of_data .siofleet .made)"
    else
        echo "foreign $(here $of_service $of_data)"
    fi
}
verb_clock() { # the same as at the start of the probe: the middle of both is compared with the middle of the call
    stamp=$(date +%s%N)
    echo "clock_end_ms ${stamp%??????}"
}

try_port() { # try_port NAME HOST PORT: one fact; "" = do not try
    [ -n "$2" ] && [ -n "$3" ] || return 0
    # shellcheck disable=SC2016 # for the inner shell
    if ! command -v bash >/dev/null; then
        echo "$1 unknown"
    elif timeout 5 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$2" "$3" 2>/dev/null; then
        echo "$1 open"
    else
        echo "$1 closed"
    fi
}
verb_look() { # look HOST PORT BULK_PORT KVM_PROBE: can it do what an agent does? The first three are the coordinator's
    try_port port "$1" "$2"
    try_port bulk_port "$1" "$3"
    opts=$(while read -r _ dir _ opts _; do
        case $above/ in "${dir%/}"/*) echo "$opts" ;; esac
    done </proc/mounts | tail -n 1)
    case ,$opts, in *,noexec,*) echo "exec no" ;; *) echo "exec yes" ;; esac
    if [ ! -e /dev/kvm ]; then
        echo "kvm absent"
    elif [ ! -r /dev/kvm ] || [ ! -w /dev/kvm ]; then
        echo "kvm denied"
    elif [ "$(uname -m)" != x86_64 ] || ! command -v perl >/dev/null; then
        echo "kvm untried"
    elif perl -e "$4" 2>/dev/null; then
        echo "kvm usable"
    else
        echo "kvm unusable"
    fi
    while read -r a b c soft _; do
        if [ "$a $b $c" = "Max address space" ]; then echo "address_space $soft"; fi
    done </proc/self/limits
}

# put KIND ID OFFSET SHA256: standard input goes behind OFFSET of what is there of the pack; a whole one is checked and
# unpacked, and only then seen under KIND/
verb_put() {
    if [ -f "$data/$1/$2/.complete" ]; then return 0; fi # came meanwhile, from somebody else
    mkdir -p "$data/incoming" "$data/$1"
    part=$data/incoming/$2.part
    [ -f "$part" ] || : >"$part"
    truncate -s "$3" "$part"
    # shellcheck disable=SC2016 # for the inner shell
    sh -c 'echo $$ >"$0.pid"; exec cat >>"$0"' "$part" 9>&- || [ $? -gt 128 ]
    rm -f "$part.pid"
    sum=$(sha256sum <"$part")
    if [ "${sum%% *}" != "$4" ]; then
        # a broken connection ends the input, too: what is there stays for the next try
        echo "copy is not whole" >&2
        exit 75
    fi
    rm -rf "$data/incoming/$2.d"
    mkdir "$data/incoming/$2.d"
    # tar itself would read backslashes in names
    (cd "$data/incoming/$2.d" && tar -xzf -) <"$part"
    sync "$data/incoming/$2.d" 2>/dev/null || true
    : >"$data/incoming/$2.d/.complete"
    rm -rf "${data:?}/$1/$2" # one that was not complete
    mv "$data/incoming/$2.d" "$data/$1/$2"
    rm -f "$part"
}
verb_forget() { # forget ID: a copy that was damaged on its way
    rm -f "$data/incoming/$1.part"
}

# pack ID: the collection pack in use. Its parts become the agent's cache. Libraries of QEMU that this host has not, and
# only these, are put where the agent's children look.
verb_pack() {
    rm -rf "$data/cache.new"
    mkdir -p "$data/cache.new/siofleet"
    for part in qemu image; do
        mkdir "$data/cache.new/siofleet/$part"
        for f in "$data/packs/$1/$part"/*; do ln -s "$f" "$data/cache.new/siofleet/$part/${f##*/}"; done
    done
    mkdir "$data/cache.new/lib"
    for qemu in "$data/packs/$1"/qemu/*/bin/qemu-system-*; do
        while :; do
            missing=$(LD_LIBRARY_PATH=$data/cache.new/lib ldd "$qemu" | sed -n 's/^[[:space:]]*\([^ ]*\) => not found$/\1/p')
            [ -n "$missing" ] || break
            for f in $missing; do
                [ -f "$data/packs/$1/lib/$f" ] || { echo "QEMU needs $f, which neither host nor pack has" >&2; exit 1; }
                ln -s "$data/packs/$1/lib/$f" "$data/cache.new/lib/$f"
            done
        done
        LD_LIBRARY_PATH=$data/cache.new/lib "$qemu" --version >/dev/null
    done
    rm -rf "$data/cache"
    mv "$data/cache.new" "$data/cache"
    ln -sfn "packs/$1" "$data/pack.new"
    mv -T "$data/pack.new" "$data/pack"
}

verb_key() { # key ID NAME: the agent's key pair is made here; only its public line goes out
    if [ ! -f "$data/agent.key" ] || [ ! -f "$data/agent.key.pub" ]; then
        rm -f "$data/agent.key" "$data/agent.key.pub"
        "$data/releases/$1/siofleet" keys new "$data/agent.key" --role agent --name "$2" >/dev/null
    fi
    cat "$data/agent.key.pub"
}

verb_configure() { # configure ID ARGS SERVER_KEY_LINE: what the service is started with; then the switch
    mkdir -p "$data/run" "$data/log"
    if [ -n "$3" ]; then
        printf '%s' "$3" >"$data/server.pub.new"
        mv "$data/server.pub.new" "$data/server.pub"
    fi
    rm -f "$data/args.previous"
    if [ -f "$data/args" ]; then cp "$data/args" "$data/args.previous"; fi
    printf '%s' "$2" >"$data/args.new"
    mv "$data/args.new" "$data/args"
    if [ -L "$data/current" ]; then
        link=$(readlink "$data/current")
        [ "$link" = "releases/$1" ] || printf '%s\n' "${link##*/}" >"$data/previous"
    fi
    ln -sfn "releases/$1" "$data/current.new"
    mv -T "$data/current.new" "$data/current"
}

verb_unit() { unit_text "$1"; } # unit system|user: the unit file, as it would be written

verb_start() {
    stop_service
    if [ -n "$unit" ]; then
        make_dir "$(dirname "$unit")"
        if [ "$uid" = 0 ]; then unit_text system >"$unit.new"; else unit_text user >"$unit.new"; fi
        mv "$unit.new" "$unit"
        if [ "$uid" != 0 ] && [ ! -e "/var/lib/systemd/linger/$(id -un)" ]; then
            said=$(loginctl enable-linger "$(id -un)" 2>&1) || {
                echo "systemd would end the agent at logout ($said); as root there: loginctl enable-linger $(id -un)" >&2
                exit 1
            }
            : >"$data/.linger"
        fi
        ctl daemon-reload
        ctl -q enable "$name"
        ctl restart "$name"
    else
        setsid sh "$data/current/supervise.sh" "$data" >/dev/null 2>&1 </dev/null 9>&- &
    fi
}

verb_stop() { stop_service; }

verb_ready() { # ready SECONDS: until the service is at work; prints its ready file. Gives up when it only ends and ends
    exec 9>&- # nothing is changed meanwhile: others may have their turn
    turn=
    n=$(($1 * 5))
    while [ ! -s "$data/run/ready" ] && [ "$n" -gt 0 ]; do
        sleep 0.2
        n=$((n - 1))
        if [ -f "$data/run/ends" ] && [ "$(wc -l <"$data/run/ends")" -ge 3 ]; then n=0; fi
    done
    if [ ! -s "$data/run/ready" ]; then
        words 20 | grep -v '^supervise: ' | tail -n 1 >&2
        exit 1
    fi
    printf 'ready %s\n' "$(tr -d '\n' <"$data/run/ready")"
}

verb_rollback() { # rollback ID: back to that release, and to the settings it had
    [ -f "$data/releases/$1/.complete" ] || { echo "release $1 is not whole" >&2; exit 1; }
    if [ -f "$data/args.previous" ]; then mv "$data/args.previous" "$data/args"; fi
    ln -sfn "releases/$1" "$data/current.new"
    mv -T "$data/current.new" "$data/current"
}

verb_prune() { # prune ID: releases that are neither this one nor the one before
    keep=$(cat "$data/previous" 2>/dev/null || true)
    pack=$(readlink "$data/pack" 2>/dev/null || true)
    for r in "$data"/releases/*; do
        case ${r##*/} in "$1" | "$keep") ;; *) rm -rf "$r" ;; esac
    done
    for r in "$data"/packs/*; do
        case ${r##*/} in "${pack##*/}") ;; *) rm -rf "$r" ;; esac
    done
    rm -rf "$data/incoming" "$data/args.previous"
}

# ---- set-up steps

verb_boot() { # which boot of the machine this is
    cat /proc/sys/kernel/random/boot_id
}
verb_reboot() { # reboot SUDO: a moment later, so that this connection still ends in order
    # shellcheck disable=SC2016 # for the inner shell
    if [ "$1" = yes ] && [ "$uid" != 0 ]; then set -- sudo -n reboot; else set -- reboot; fi
    command -v "$1" >/dev/null || { echo "no $1 in PATH" >&2; exit 127; }
    setsid sh -c 'sleep 1; exec "$@"' sh "$@" >/dev/null 2>&1 </dev/null 9>&- &
}
verb_mark() { # mark MARK: a step is done, its reboot included
    : >"$data/steps/$1.done"
}

# Runs "$0" with the secrets of standard input (lines NAME BASE64) in its environment: they stand in no argument list, and
# what the command prints of them is not kept.
# shellcheck disable=SC2016 # for the inner shell
with_secrets='
names=
while IFS=" " read -r k v && [ -n "$k" ]; do
    export "$k=$(printf %s "$v" | base64 -d)"
    names="$names $k"
done
exec </dev/null
[ -n "$names" ] || exec sh -c "$0"
exec 4>&1
status=$({ { sh -c "$0" 2>&1 4>&- 3>&-; echo $? >&3; } | SIOFLEET_NAMES=$names awk "
    BEGIN {
        n = split(ENVIRON[\"SIOFLEET_NAMES\"], name, \" \")
        for (i = 1; i <= n; i++) {
            m = split(ENVIRON[name[i]], line, \"\n\")
            for (l = 1; l <= m; l++) if (line[l] != \"\") secret[++count] = line[l]
        }
    }
    {
        for (i = 1; i <= count; i++) {
            out = \"\"
            while ((p = index(\$0, secret[i])) > 0) {
                out = out substr(\$0, 1, p - 1) \"***\"
                \$0 = substr(\$0, p + length(secret[i]))
            }
            \$0 = out \$0
        }
        print
        fflush()
    }" >&4 3>&-; } 3>&1)
exit "$status"'

verb_step() { # step MARK TIMEOUT SUDO COMMAND: one set-up command; its output is kept
    mkdir -p "$data/steps"
    if [ -f "$data/steps/$1.done" ]; then return 0; fi # run meanwhile, by somebody else
    log=$data/steps/$1.log
    status=0
    start=$(date +%s)
    sudo=
    if [ "$3" = yes ] && [ "$uid" != 0 ]; then sudo="sudo -n"; fi
    # the shell's own word about a killed child is no line of ours; what a step leaves running keeps no turn
    # shellcheck disable=SC2024,SC2086 # the log is to be the user's; two words or none
    { $sudo timeout -k 3 "$2" sh -c "$with_secrets" "$4" >"$log" 2>&1 9>&- || status=$?; } 2>/dev/null
    if [ "$status" -ne 0 ]; then
        case $status in
        124 | 137)
            if [ $(($(date +%s) - start)) -ge "$2" ]; then
                echo "stopped at its timeout of $2 s" >&2
                exit "$status"
            fi
            ;;
        esac
        said=$(tail -n 1 "$log")
        echo "ended with status $status${said:+: $said}" >&2
        exit "$status"
    fi
}

# ---- looking, and taking away

verb_status() { # more facts, of a service that runs
    read -r load _ </proc/loadavg
    echo "load $load"
    ready=$(cat "$data/run/ready" 2>/dev/null || true)
    pid=${ready#*'"pid":'}
    pid=${pid%%,*}
    if [ -r "/proc/${pid:-none}/stat" ]; then
        read -r stat <"/proc/$pid/stat"
        # shellcheck disable=SC2086 # fields behind the name, which may hold blanks
        set -- ${stat##*) }
        read -r up _ </proc/uptime
        echo "uptime_s $((${up%.*} - ${20} / $(getconf CLK_TCK)))"
    fi
    tasks=0
    for t in "$data"/agent/tasks/*; do
        if [ -f "$t/lock" ] && [ ! -e "$t/status" ] && [ ! -e "$t/end" ]; then tasks=$((tasks + 1)); fi
    done
    echo "tasks $tasks"
    printf 'last_error %s\n' "$(words 500 | grep -E '^siofleet: |: warning: |^supervise: ended' | tail -n 1)"
}

verb_logs() { words "$1"; } # logs LINES

# remove KEEP KIND: all that was made here and nothing else; KEEP = yes leaves the key and the data of the agent, or the store
# of the coordinator
verb_remove() {
    stop_service
    if is_unit; then
        ctl -q disable "$name" || true
        rm -f "$unit"
        ctl daemon-reload || true
        rmdir "$(dirname "$unit")/default.target.wants" 2>/dev/null || true
    fi
    if [ -f "$data/.linger" ]; then loginctl disable-linger "$(id -un)" || true; fi
    for f in $of_service current.new pack.new args.new server.pub.new; do rm -rf "${data:?}/$f"; done
    [ "$1" != yes ] || return 0
    if [ "$2" = agent ]; then rm -rf "$data/agent" "$data/agent.key" "$data/agent.key.pub"; else rm -rf "$data/store"; fi
    made=$(cat "$data/.made" 2>/dev/null || true)
    exec 9>&- # an open file would keep its folder, on NFS
    rm -f "$data/.made" "$data/.siofleet"
    printf '%s\n' "$made" | while IFS= read -r top && IFS= read -r d; do unmake "$top" "$d"; done
}

# ---- the coordinator's allow-list, on its host

verb_allow() { # allow PUBLIC_KEY_LINE
    printf '%s\n' "$1" >"$data/run/allow.$$.pub"
    status=0
    "$data/current/siofleet" keys allow --data "$data/store" "$data/run/allow.$$.pub" || status=$?
    rm -f "$data/run/allow.$$.pub"
    return $status
}
verb_revoke() { # revoke NAME
    if [ -f "$data/store/keys/allowed/$1.pub" ]; then "$data/current/siofleet" keys revoke --data "$data/store" "$1"; fi
}
verb_allowed() { # all lines of the list
    for f in "$data"/store/keys/allowed/*.pub; do
        if [ -f "$f" ]; then cat "$f"; fi
    done
}
verb_pub() { # the coordinator's public key
    echo "pub $(cat "$data/store/keys/coordinator.pub")"
}

turn=
while [ $# -gt 0 ]; do
    now=$1
    args=$2
    shift 2
    case $now in put | forget | pack | key | configure | start | stop | rollback | prune | reboot | step | mark | remove) turn ;; esac
    "verb_$now" "$@"
    shift "$args"
done
