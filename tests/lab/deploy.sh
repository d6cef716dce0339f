#!/usr/bin/env bash
# The life of a fleet deployed over SSH: check, up, again, a dead host, drain, upgrade under load, down, nothing left.
# shellcheck disable=SC2154,SC2155,SC2317,SC2086 # lab.sh sets lab_dir; functions are called by name
set -u
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/lab/lab.sh
. "$here/lab.sh"
lab_need || exit 77
bin=$SIOFLEET_BIN/siofleet
hosts=5
n=0
bad=0
ok() { # ok NAME CONDITION...
  local name=$1
  shift
  n=$((n + 1))
  if "$@"; then echo "ok $n - $name"; else
    echo "not ok $n - $name"
    bad=1
  fi
}

lab_up $hosts
head=$lab_dir/head
sf() { lab_in 0 env XDG_CACHE_HOME="$lab_dir/cache" XDG_CONFIG_HOME="$lab_dir/config" "$bin" "$@"; }
files() { (cd "$lab_dir" && for i in $(seq 1 $hosts); do find "$i/root" -printf '%p %y\n' | sort; done); }
before=$(files)

sf coordinator --data "$head" --listen "tcp://$(lab_ip 0):7700" --ready-file "$lab_dir/ready" --lease-ms 2000 --heartbeat-ms 500 \
  >"$lab_dir/coordinator.log" 2>&1 &
lab_until 60 test -s "$lab_dir/ready" || { echo "Bail out! no coordinator: $(tail -n 2 "$lab_dir/coordinator.log")"; exit 1; }
export SIOFLEET_CONNECT="tcp://$(lab_ip 0):7700" SIOFLEET_SERVER_KEY="$head/keys/coordinator.pub" SIOFLEET_KEY="$head/keys/admin"

ini=$lab_dir/hosts.ini
{
  printf '[fleet]\ncoordinator = tcp://%s:7700\nserver_key = %s/keys/coordinator.pub\n' "$(lab_ip 0)" "$head"
  lab_ini $'class = small\n'
  printf '[class small]\ncores = 1\nlabels = room=1\nsetup.note = echo done >> /root/setup-note\n'
} >"$ini"
all_up() { [ "$(sf ls agents --json | jq '[.items[] | select(.state != "lost" and .state != "gone")] | length')" = $hosts ]; }
deploy() { sf deploy "$@" --json >"$lab_dir/out.json" 2>"$lab_dir/err"; }
is() { # is FILTER WANT
  local got
  got=$(jq -rc "$1" "$lab_dir/out.json")
  [ "$got" = "$2" ] || { echo "# $1: got $got, want $2"; sed 's/^/# /' "$lab_dir/err" | tail -n 5; return 1; }
}

deploy check "$ini"
ok "check finds every host fit" is '[.failed, .unchanged]' "[0,$hosts]"
ok "check changes nothing" test "$(files)" = "$before"

deploy up "$ini"
ok "up changes every host" is '[.failed, .changed]' "[0,$hosts]"
ok "every agent has registered" lab_until 30 all_up
ok "a release is below 30 MB a host" test "$(du -sm "$(lab_home 1)/.local/share/siofleet/releases" | cut -f1)" -le 30
ok "secrets are closed" test "$(stat -c %a "$(lab_home 1)/.local/share/siofleet/agent.key")" = 600

deploy up "$ini"
ok "a second up changes nothing and sends nothing" is '[.changed, .failed, .bytes_sent]' '[0,0,0]'
ok "a set-up step ran once" test "$(wc -l <"$(lab_home 1)/setup-note")" = 1

deploy status "$ini"
ok "status sees them run" is '.unchanged' "$hosts"

lab_sshd_stop 3
deploy check "$ini" --timeout 5s
rc=$?
ok "a host without sshd fails alone, exit 1" is '[.failed, (.hosts[] | select(.status == "failed") | .host)]' '[1,"h3"]'
ok "exit status 1" test $rc = 1
lab_sshd 3

deploy drain "$ini" --host h2
ok "drain is told to the coordinator" is '.failed' 0
deploy undrain "$ini" --host h2
ok "undrain, too" is '.failed' 0

# a killed agent is started again by its supervisor, without a new deployment
old=$(cat "$(lab_home 1)/.local/share/siofleet/run/agent.pid")
kill -KILL "$old"
again() { local p; p=$(cat "$(lab_home 1)/.local/share/siofleet/run/agent.pid" 2>/dev/null) && [ "$p" != "$old" ] && kill -0 "$p"; }
ok "a killed agent comes back by itself" lab_until 60 again
ok "and registers" lab_until 30 all_up

# upgrade while a sweep runs: another release on every host, a batch at a time; nothing lost, nothing doubled
log=$SIOFLEET_SRC/tests/data/real-log/e1000-24nic-tx3.log.zst
printf '[sweep]\nname = under-load\npace_ms = 150\nblock = 4\n[trace t]\nlogs = %s\ntenants = 4,24\n[arch a]\niotlb_entries = 64\nlink_gbps = 100..147:+1\n' \
  "$log" >"$lab_dir/sweep.ini"
sf sweep run "$lab_dir/sweep.ini" --csv "$lab_dir/fleet.csv" >/dev/null 2>"$lab_dir/sweep.err" &
sweep=$!
some() { [ "$(sf ls sweeps --json | jq '[.items[].done] | add')" -gt 8 ]; }
ok "the sweep is on its way" lab_until 60 some
# a release with another content: the same program with a note behind it
mkdir "$lab_dir/new"
cp "$bin" "$SIOFLEET_BIN/siofleet-shim" "$lab_dir/new/"
echo "another build" >>"$lab_dir/new/siofleet"
was=$(readlink "$(lab_home 1)/.local/share/siofleet/current")
lab_in 0 env XDG_CACHE_HOME="$lab_dir/cache" "$lab_dir/new/siofleet" deploy upgrade "$ini" --batch 2 --json >"$lab_dir/out.json" 2>"$lab_dir/err"
ok "a rolling upgrade changes every host" is '[.failed, .changed]' "[0,$hosts]"
ok "to another release" test "$(readlink "$(lab_home 1)/.local/share/siofleet/current")" != "$was"
wait $sweep
ok "the sweep under it completes" test $? = 0
sf perf sweep "$lab_dir/sweep.ini" --csv >"$lab_dir/alone.csv" 2>/dev/null
ok "with the rows of this host alone, byte for byte" cmp "$lab_dir/fleet.csv" "$lab_dir/alone.csv"

# wrong host key: refused with the reason, nothing sent
sed -i "s|^$(lab_ip 4) .*|$(lab_ip 4) $(cut -d' ' -f1,2 "$lab_dir/user.pub")|" "$lab_dir/known_hosts"
deploy up "$ini" --host h4
ok "a host whose key differs is refused" is '[.failed, .bytes_sent, (.hosts[0].message | test("differs"))]' '[1,0,true]'
sed -i "s|^$(lab_ip 4) .*|$(lab_ip 4) $(cut -d' ' -f1,2 "$lab_dir/4/hostkey.pub")|" "$lab_dir/known_hosts"

deploy down "$ini"
ok "down reports every host" is '[.failed, .changed]' "[0,$hosts]"
rm -f "$lab_dir"/*/root/setup-note # made by the user's own step, not by us
ok "down leaves the files of before" diff <(echo "$before") <(files)
left() { local i; for i in $(seq 1 $hosts); do ip netns pids "$(lab_ns "$i")" | xargs -r ps -o args= -p; done | grep -v sshd; }
ok "and no process" test -z "$(left)"
ok "and no key" test "$(sf keys ls --data "$head" --json | jq '[.. | objects | select(.role? == "agent")] | length')" = 0
deploy down "$ini"
ok "down again has nothing to do" is '[.changed, .failed]' '[0,0]'
echo "1..$n"
exit $bad
