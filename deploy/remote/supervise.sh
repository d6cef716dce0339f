#!/bin/sh
# supervise DATA: where there is no systemd, keep the service of DATA running. Restarts with back-off (1 s to 60 s, reset after a
# minute of life); the log is capped at 8 MiB and its predecessor; SIGTERM ends everything.
set -u
data=$1
cd "$data" || exit 1
mkdir -p run log
echo $$ >run/supervisor.pid
stop=
child=
nap=

# a sleep that a signal ends at once and that is never left behind
rest() {
    sleep "$1" &
    nap=$!
    wait "$nap"
    kill "$nap" 2>/dev/null
}

cap_log() {
    trap 'kill "$nap" 2>/dev/null; exit 0' TERM
    while rest 5; do
        if [ "$(wc -c <log/service.log)" -gt 8388608 ]; then
            cp log/service.log log/service.log.1 && : >log/service.log
        fi
    done
}

trap 'stop=1; [ -n "$child" ] && kill -TERM "$child" 2>/dev/null' TERM INT HUP
: >>log/service.log
cap_log &
capper=$!
delay=1
while [ -z "$stop" ]; do
    start=$(date +%s)
    sh current/run.sh "$data" >>log/service.log 2>&1 </dev/null &
    child=$!
    echo "$child" >run/service.pid
    wait "$child"
    status=$?
    # a trapped signal ends the wait early: the service is still draining then
    while kill -0 "$child" 2>/dev/null; do
        wait "$child"
        status=$?
    done
    child=
    rm -f run/service.pid run/ready
    [ -n "$stop" ] && break
    # what `deploy` waits for tells by it that the service cannot start; it needs no more than three
    if [ ! -f run/ends ] || [ "$(wc -l <run/ends)" -lt 3 ]; then echo "$status" >>run/ends; fi
    echo "supervise: ended with status $status, starts again in $delay s" >>log/service.log
    [ $(($(date +%s) - start)) -gt 60 ] && delay=1
    rest "$delay"
    delay=$((delay * 2))
    [ "$delay" -gt 60 ] && delay=60
done
kill "$capper" 2>/dev/null
wait "$capper" 2>/dev/null
rm -f run/supervisor.pid run/service.pid
