# What `siofleet deploy` does on a host: sh -c "$(this file)" sh VERB DATA [ARG...]. POSIX sh and coreutils only.
# Everything lives in DATA; what had to be made above it is noted in DATA/.made, so that `down` leaves nothing.
# shellcheck shell=sh
set -eu
umask 077
verb=$1
data=$2
shift 2
# shellcheck disable=SC2088 # a tilde that was sent as such
case $data in "~/"*) data=$HOME/${data#??} ;; esac

unit() { # name of the systemd unit of this data folder
    printf 'siofleet-agent-%s.service' "$(printf '%s' "$data" | cksum | cut -d' ' -f1)"
}
unit_dir() {
    if [ "$(id -u)" = 0 ]; then echo /etc/systemd/system; else echo "${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user"; fi
}
ctl() { if [ "$(id -u)" = 0 ]; then systemctl "$@"; else systemctl --user "$@"; fi; }
has_systemd() {
    [ -d /run/systemd/system ] || return 1
    [ "$(id -u)" = 0 ] || [ -S "${XDG_RUNTIME_DIR:-/run/user/$(id -u)}/systemd/private" ]
}
alive() { # alive FILE: the process named in it runs
    [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null
}
wait_gone() { # wait_gone FILE SECONDS
    n=$(($2 * 10))
    while alive "$1" && [ "$n" -gt 0 ]; do
        sleep 0.1
        n=$((n - 1))
    done
    ! alive "$1"
}
make_data() { # make_data SUB: the data folder with SUB; the topmost folder made here is noted
    made=
    d=$data
    while [ ! -d "$d" ]; do
        made=$d
        d=$(dirname "$d")
    done
    mkdir -p "$data/$1"
    if [ -n "$made" ]; then echo "$made" >"$data/.made"; fi
}
agent_up() {
    if has_systemd && [ -f "$(unit_dir)/$(unit)" ]; then ctl -q is-active "$(unit)"; else alive "$data/run/agent.pid"; fi
}
stop_agent() {
    if has_systemd && [ -f "$(unit_dir)/$(unit)" ]; then ctl stop "$(unit)" || true; fi
    if alive "$data/run/supervisor.pid"; then
        kill -TERM "$(cat "$data/run/supervisor.pid")"
        if ! wait_gone "$data/run/supervisor.pid" 15; then
            kill -TERM "$(cat "$data/run/agent.pid")" 2>/dev/null || true
            kill -KILL "$(cat "$data/run/supervisor.pid")" 2>/dev/null || true
        fi
    fi
    if alive "$data/run/agent.pid"; then
        kill -TERM "$(cat "$data/run/agent.pid")" 2>/dev/null || true
        wait_gone "$data/run/agent.pid" 15 || kill -KILL "$(cat "$data/run/agent.pid")" 2>/dev/null || true
    fi
    rm -f "$data/run/supervisor.pid" "$data/run/agent.pid" "$data/run/ready"
}

case $verb in
probe) # facts, one `key value` a line; changes nothing
    above=$data
    while [ ! -d "$above" ]; do above=$(dirname "$above"); done
    echo "home $HOME"
    echo "data $data"
    echo "uid $(id -u)"
    echo "arch $(uname -m)"
    echo "kernel $(uname -r)"
    echo "glibc $(getconf GNU_LIBC_VERSION 2>/dev/null | cut -d' ' -f2)"
    echo "cores $(nproc)"
    echo "memory_kib $(sed -n 's/^MemTotal: *\([0-9]*\).*/\1/p' /proc/meminfo)"
    echo "free_kib $(df -Pk "$above" | sed -n '2s/  */ /gp' | cut -d' ' -f4)"
    if [ -w "$above" ]; then echo "writable yes"; else echo "writable no"; fi
    echo "above $above"
    echo "clock_ms $(($(date +%s%N) / 1000000))"
    if has_systemd; then echo "service systemd"; else echo "service background"; fi
    if [ -e /dev/kvm ]; then
        if [ -r /dev/kvm ] && [ -w /dev/kvm ]; then echo "kvm open"; else echo "kvm denied"; fi
    else
        echo "kvm absent"
    fi
    if command -v qemu-system-x86_64 >/dev/null 2>&1; then echo "qemu yes"; else echo "qemu no"; fi
    if [ -L "$data/current" ]; then echo "release $(basename "$(readlink "$data/current")")"; fi
    for r in "$data"/releases/*/.complete; do [ -f "$r" ] && echo "have $(basename "$(dirname "$r")")"; done
    if [ -f "$data/agent.key.pub" ]; then echo "pub $(cat "$data/agent.key.pub")"; fi
    if [ -f "$data/agent.args" ]; then echo "args $(b2sum -l 256 <"$data/agent.args" | cut -d' ' -f1)"; fi
    if [ -f "$data/server.pub" ]; then echo "server $(cat "$data/server.pub")"; fi
    for s in "$data"/steps/*.done; do [ -f "$s" ] && echo "step $(basename "$s" .done)"; done
    if agent_up; then echo "agent up"; else echo "agent down"; fi
    if [ -f "$data/run/ready" ]; then echo "ready $(tr -d '\n' <"$data/run/ready")"; fi
    exit 0
    ;;
have) # have ID: bytes of the partial pack that are here already
    part=$data/incoming/$1.part
    if [ -f "$part" ]; then wc -c <"$part"; else echo 0; fi
    ;;
receive) # receive ID OFFSET: append standard input to the partial pack from OFFSET on
    make_data incoming
    part=$data/incoming/$1.part
    [ -f "$part" ] || : >"$part"
    truncate -s "$2" "$part"
    cat >>"$part"
    ;;
install) # install ID SHA256: check the pack, unpack it; only a whole one is ever seen under releases/
    part=$data/incoming/$1.part
    sum=$(sha256sum <"$part" | cut -d' ' -f1)
    if [ "$sum" != "$2" ]; then
        rm -f "$part"
        echo "copy is damaged: SHA-256 $sum, not $2" >&2
        exit 4
    fi
    rm -rf "$data/incoming/$1.d"
    mkdir -p "$data/incoming/$1.d" "$data/releases"
    tar -xzf "$part" -C "$data/incoming/$1.d"
    : >"$data/incoming/$1.d/.complete"
    sync "$data/incoming/$1.d/siofleet" 2>/dev/null || true
    rm -rf "$data/releases/$1"
    mv "$data/incoming/$1.d" "$data/releases/$1"
    rm -f "$part"
    ;;
key) # key ID NAME: the agent's key pair is made here; only its public line goes out
    if [ ! -f "$data/agent.key" ] || [ ! -f "$data/agent.key.pub" ]; then
        rm -f "$data/agent.key" "$data/agent.key.pub"
        "$data/releases/$1/siofleet" keys new "$data/agent.key" --role agent --name "$2" >/dev/null
    fi
    cat "$data/agent.key.pub"
    ;;
configure) # configure ID ARGS SERVER_KEY_LINE: what the agent is started with; then the switch
    mkdir -p "$data/run" "$data/log" "$data/agent"
    printf '%s' "$3" >"$data/server.pub.new"
    mv "$data/server.pub.new" "$data/server.pub"
    printf '%s' "$2" >"$data/agent.args.new"
    mv "$data/agent.args.new" "$data/agent.args"
    if [ -L "$data/current" ] && [ "$(readlink "$data/current")" != "releases/$1" ]; then
        basename "$(readlink "$data/current")" >"$data/previous"
    fi
    ln -sfn "releases/$1" "$data/current.new"
    mv -T "$data/current.new" "$data/current"
    ;;
start)
    stop_agent
    if has_systemd; then
        mkdir -p "$(unit_dir)"
        cat >"$(unit_dir)/$(unit).new" <<UNIT
[Unit]
Description=siofleet agent of $data
After=network-online.target
Wants=network-online.target

[Service]
ExecStart=/bin/sh $data/current/run-agent.sh $data
Restart=always
RestartSec=2
KillMode=mixed
TimeoutStopSec=20
LimitNOFILE=65536

[Install]
WantedBy=$(if [ "$(id -u)" = 0 ]; then echo multi-user.target; else echo default.target; fi)
UNIT
        mv "$(unit_dir)/$(unit).new" "$(unit_dir)/$(unit)"
        if [ "$(id -u)" != 0 ]; then loginctl enable-linger "$(id -un)"; fi
        ctl daemon-reload
        ctl -q enable "$(unit)"
        ctl restart "$(unit)"
    else
        setsid sh "$data/current/supervise.sh" "$data" >/dev/null 2>&1 </dev/null &
    fi
    ;;
ready) # ready SECONDS: until the agent has registered; prints its ready file
    n=$(($1 * 10))
    while [ ! -s "$data/run/ready" ] && [ "$n" -gt 0 ]; do
        sleep 0.1
        n=$((n - 1))
    done
    if [ ! -s "$data/run/ready" ]; then
        tail -n 1 "$data/log/agent.log" >&2 2>/dev/null || true
        exit 1
    fi
    cat "$data/run/ready"
    ;;
rollback) # back to the release before this one; its settings stay
    keep=$(cat "$data/previous")
    [ -f "$data/releases/$keep/.complete" ]
    ln -sfn "releases/$keep" "$data/current.new"
    mv -T "$data/current.new" "$data/current"
    ;;
boot) # which boot of the machine this is
    cat /proc/sys/kernel/random/boot_id
    ;;
reboot) # reboot SUDO: a moment later, so that this connection still ends in order
    if [ "$1" = yes ] && [ "$(id -u)" != 0 ]; then sudo='sudo -n'; else sudo=; fi
    setsid sh -c "sleep 1; exec $sudo reboot" >/dev/null 2>&1 </dev/null &
    ;;
mark) # mark MARK: a set-up step is done, its reboot included
    : >"$data/steps/$1.done"
    ;;
step) # step MARK TIMEOUT SUDO COMMAND: one set-up command; its output is kept
    make_data steps
    log=$data/steps/$1.log
    set +e
    if [ "$3" = yes ] && [ "$(id -u)" != 0 ]; then
        timeout "$2" sudo -n sh -c "$4" >"$log" 2>&1 </dev/null
    else
        timeout "$2" sh -c "$4" >"$log" 2>&1 </dev/null
    fi
    status=$?
    set -e
    if [ "$status" -ne 0 ]; then
        tail -n 1 "$log" >&2
        [ "$status" -ne 124 ] || echo "stopped at its timeout of $2 s" >&2
        exit "$status"
    fi
    ;;
stop)
    stop_agent
    ;;
logs) # logs LINES
    if has_systemd && [ -f "$(unit_dir)/$(unit)" ]; then
        if [ "$(id -u)" = 0 ]; then journalctl -n "$1" -o cat -u "$(unit)"; else journalctl --user -n "$1" -o cat -u "$(unit)"; fi
    elif [ -f "$data/log/agent.log" ]; then
        tail -n "$1" "$data/log/agent.log"
    fi
    ;;
prune) # prune ID: releases that are neither this one nor the one before
    keep=$(cat "$data/previous" 2>/dev/null || true)
    for r in "$data"/releases/*; do
        case $(basename "$r") in "$1" | "$keep") ;; *) rm -rf "$r" ;; esac
    done
    rm -rf "$data/incoming"
    ;;
remove) # remove KEEP_DATA: all that was made here and nothing else
    stop_agent
    if [ -f "$(unit_dir)/$(unit)" ]; then
        if has_systemd; then ctl -q disable "$(unit)" || true; fi
        rm -f "$(unit_dir)/$(unit)"
        if has_systemd; then ctl daemon-reload || true; fi
    fi
    made=$(cat "$data/.made" 2>/dev/null || true)
    rm -rf "$data/releases" "$data/incoming" "$data/run" "$data/log" "$data/steps"
    rm -f "$data/current" "$data/previous" "$data/agent.args" "$data/server.pub"
    if [ "$1" != yes ]; then
        rm -rf "$data/agent" "$data/agent.key" "$data/agent.key.pub" "$data/.made"
        if [ -n "$made" ]; then
            d=$data
            while [ "$d" != "$(dirname "$made")" ]; do
                rmdir "$d" 2>/dev/null || break
                d=$(dirname "$d")
            done
        fi
    fi
    ;;
*)
    echo "unknown verb '$verb'" >&2
    exit 2
    ;;
esac
