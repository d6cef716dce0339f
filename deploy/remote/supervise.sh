#!/bin/sh
# supervise DATA: where there is no systemd, keep the agent of DATA running. Restarts with back-off (1 s to 60 s, reset after a
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
        if [ "$(wc -c <log/agent.log)" -gt 8388608 ]; then
            cp log/agent.log log/agent.log.1 && : >log/agent.log
        fi
    done
}

trap 'stop=1; [ -n "$child" ] && kill -TERM "$child" 2>/dev/null' TERM INT HUP
: >>log/agent.log
cap_log &
capper=$!
delay=1
while [ -z "$stop" ]; do
    start=$(date +%s)
    sh current/run-agent.sh "$data" >>log/agent.log 2>&1 </dev/null &
    child=$!
    echo "$child" >run/agent.pid
    wait "$child"
    status=$?
    # a trapped signal ends the wait early: the agent is still draining then
    while kill -0 "$child" 2>/dev/null; do
        wait "$child"
        status=$?
    done
    child=
    rm -f run/agent.pid
    [ -n "$stop" ] && break
    echo "supervise: agent ended with status $status, starts again in $delay s" >>log/agent.log
    [ $(($(date +%s) - start)) -gt 60 ] && delay=1
    rest "$delay"
    delay=$((delay * 2))
    [ "$delay" -gt 60 ] && delay=60
done
kill "$capper" 2>/dev/null
wait "$capper" 2>/dev/null
rm -f run/supervisor.pid run/agent.pid
