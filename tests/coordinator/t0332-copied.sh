#!/usr/bin/env bash
# Two copies of one agent's data directory, each restarted by a supervisor: one works, the other is told why it does not.
. "${0%/*}/../cli/tap.sh"
plan 7
cd "$work" || exit 1
cat >super <<'S'
#!/usr/bin/env bash
# super SIOFLEET FLEET NAME: the agent with this folder, for ever
trap 'kill "$p" 2>/dev/null; wait "$p"; exit 0' TERM
while :; do
  "$1" agent --data "$2/$3" --connect "$SIOFLEET_CONNECT" --server-key "$SIOFLEET_SERVER_KEY" --key "$2/a1.key" --name a1 --cores 1 \
    2>>"$3.err" &
  p=$!
  echo "$p" >"$3.new" && mv "$3.new" "$3.pid"
  wait "$p"
  sleep 0.1 & p=$!
  wait "$p"
done
S
chmod +x super
told() { cat one.err two.err | grep -c 'siofleet: .*one of them is a copy and needs a directory and a key of its own$'; }
# In a while one of the two is refused several times, and the other one is still the same process.
settled() {
  local n a b i
  n=$(told) a=$(cat one.pid) b=$(cat two.pid)
  for i in $(seq 100); do
    [ "$(told)" -ge $((n + 4)) ] && break
    sleep 0.1
  done
  [ "$i" -lt 100 ] || return 1
  if [ "$a" = "$(cat one.pid)" ]; then winner=one loser=two; else winner=two loser=one; fi
  [ "$(cat one.pid)" = "$a" ] || [ "$(cat two.pid)" = "$b" ]
}
ready() { run ls agents --json && json '[a["state"] for a in d["items"]] == ["ready"]'; }
again() { [ "$(cat "$winner.pid")" != "$old" ] && ready; }

ok "a coordinator and an agent" fleet_start 1
kill -TERM "$agent_pid"
wait "$agent_pid"
ok "its folder and a copy of it" sh -c 'mv fleet/a1 fleet/one && cp -a fleet/one fleet/two'
start one ./super "$sf" "$work/fleet" one
one=$pid
ok "the first one is at work" until_ok 30 ready
start two ./super "$sf" "$work/fleet" two
two=$pid
until_ok 30 test -f two.pid
ok "one of them stays, the other is refused with a line that says why" until_ok 90 settled
run exec --host a1 -- true
ok "it works" worked
kill -TERM "${!loser}"
wait "${!loser}"
old=$(cat "$winner.pid")
kill -KILL "$old"
ok "without the other it restarts" until_ok 30 again
lines=$(grep -c 'one of them is a copy' coordinator.log)
ok "the coordinator's log does not fill with it" test "$lines" -le 3
