#!/usr/bin/env bash
# The life of a fleet deployed over SSH, its coordinator on one of the hosts: coordinator, check, up, again, drain, a host
# that dies and comes back and an upgrade of all hosts in mid-sweep, a release that does not come up, down, nothing left.
# shellcheck disable=SC2154,SC2155,SC2317,SC2086,SC2016 # lab.sh sets lab_dir; functions are called by name
set -u
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/lab/lab.sh
. "$here/lab.sh"
lab_need || exit 77
hosts=5
lab_up $hosts
files() { (cd "$lab_dir" && for i in $(seq 1 $hosts); do find "$i/root" -printf '%p %y\n' | sort; done); }
before=$(files)
ini=$lab_dir/hosts.ini
{
  printf '[fleet]\ncoordinator = tcp://%s:7700\nserver_key = %s/coordinator.pub\nbulk_port = 7701\n' "$(lab_ip 1)" "$lab_dir"
  lab_ini $'class = small\n'
  printf '[class small]\ncores = 1\nlabels = room=1\nsetup.note = echo done >> /root/setup-note\n'
} >"$ini"
share() { echo "$(lab_home "$1")/.local/share/siofleet"; }
registered() { [ "$(lab_sf ls agents --json | jq '[.items[] | select(.state != "lost" and .state != "revoked")] | length')" = "$1" ]; }

# ---- the coordinator, on h1
deploy up "$ini"
ok "up without a coordinator says what is missing" lab_is '[.schema, (.message | test("deploy coordinator"))]' '["siofleet.error/1",true]'
deploy coordinator "$ini" --dry-run
ok "a dry run of deploy coordinator changes nothing" test "$(files)" = "$before"
deploy coordinator "$ini"
ok "deploy coordinator starts it on its host" lab_is '[.failed, .changed, .hosts[0].host]' '[0,1,"h1"]'
ok "and makes this machine its user" registered 0
ok "with closed files" test "$(stat -c %a "$lab_dir/config/siofleet/client.key")$(stat -c %a "$lab_dir/config/siofleet/client.ini")" = 600600
deploy coordinator "$ini"
ok "again it changes nothing" lab_is '[.changed, .failed, .bytes_sent]' '[0,0,0]'
mv "$lab_dir/config/siofleet/client.ini" "$lab_dir/client.ini"
echo 'connect = tcp://elsewhere:1' >"$lab_dir/config/siofleet/client.ini"
deploy coordinator "$ini"
ok "nor with settings for another coordinator, which it names" lab_is '[.changed, .failed]' '[0,0]'
ok "and leaves" eval 'grep -q "client.ini: names another coordinator" "$lab_dir/err" && grep -q elsewhere "$lab_dir/config/siofleet/client.ini"'
mv "$lab_dir/client.ini" "$lab_dir/config/siofleet/client.ini"

# ---- check, up
with_coordinator=$(files)
deploy check "$ini"
ok "check finds every host fit" lab_is '[.failed, .unchanged, .hosts[0].facts.port, .hosts[0].facts.exec]' "[0,$hosts,\"open\",\"yes\"]"
ok "and the port for large artefacts open" lab_is '[.hosts[].facts.bulk_port] | unique' '["open"]'
sed 's/^bulk_port.*/bulk_port = 1/' "$ini" >"$lab_dir/bulk.ini"
deploy check "$lab_dir/bulk.ini" --host h2
ok "one that is closed is a warning" lab_is '[.failed, .hosts[0].facts.bulk_port]' '[0,"closed"]'
ok "that says what comes of it" grep -q 'h2: warning: cannot connect to bulk_port 1 .*slower link' "$lab_dir/err"
ok "check changes nothing" test "$(files)" = "$with_coordinator"
deploy up "$ini" --dry-run
ok "a dry run of up says each action" lab_is '[.hosts[1].actions[] | split(" ")[0]] | join(" ")' 'run send make switch start'
ok "and changes nothing" test "$(files)" = "$with_coordinator"
t=$SECONDS
deploy up "$ini"
t_up=$((SECONDS - t))
ok "up changes every host" lab_is '[.failed, .changed]' "[0,$hosts]"
ok "every agent has registered" lab_until 30 registered $hosts
ok "with the labels of its class, and its class" test "$(lab_sf ls agents --json | jq -rc '[.items[].labels] | unique | .[]')" = '{"room":"1","class":"small"}'
ok "so that exec finds it" test "$(lab_sf exec --class small -- hostname 2>/dev/null | wc -l)" = $hosts
ok "a release is below 30 MB a host" test "$(du -sm "$(share 1)/releases" | cut -f1)" -le 30
foreign() { ldd "$(share 2)/current/siofleet" | grep -v -e linux-vdso -e ld-linux -e '/lib[cm]\.so' -e '/libresolv\.so' -e '/libpthread\.so' -e '/libasan' | grep -v -F "$(share 2)/current/lib/"; }
ok "it brings all its libraries but glibc's" test -z "$(foreign)"
ok "secrets are closed" test "$(stat -c %a "$(share 2)/agent.key" "$(share 2)" "$(share 2)/agent" | tr '\n' ' ')" = "600 700 700 "
ok "the secret half never left its host" lab_fails grep -rqF -e "$(cut -d' ' -f6 "$(share 2)/agent.key")" "$lab_dir/config" "$lab_dir/cache" "$(lab_home 1)"
deploy up "$ini"
ok "a second up changes nothing and sends nothing" lab_is '[.changed, .failed, .bytes_sent]' '[0,0,0]'
ok "a set-up step ran once" test "$(wc -l <"$(lab_home 2)/setup-note")" = 1

# ---- status, logs, drain
deploy status "$ini"
ok "status tells release, uptime, load and tasks" lab_is \
  '[.unchanged, (.hosts[1] | (.version | length), (.facts.uptime_s | tonumber < 600), (.facts.load | tonumber >= 0), .facts.tasks)]' "[$hosts,16,true,true,\"0\"]"
lab_sf deploy status "$ini" --watch >"$lab_dir/watch" 2>/dev/null &
watch=$!
ok "status --watch tells it again" lab_until 60 test "$(grep -c '^HOST' "$lab_dir/watch")" -ge 0 -a -s "$lab_dir/watch"
twice() { [ "$(grep -c '^HOST' "$lab_dir/watch")" -ge 2 ]; }
ok "and again" lab_until 60 twice
ip netns pids "$(lab_ns 0)" | while read -r p; do tr '\0' ' ' <"/proc/$p/cmdline" | grep -q 'deploy status' && kill -INT "$p"; done
wait $watch
ok "until it is interrupted" test $? = 5
lab_bin=script lab_sf -qfc "stty cols 40 rows 6; exec $SIOFLEET_BIN/siofleet deploy status $ini --watch" "$lab_dir/screen" >/dev/null 2>&1 </dev/null &
ok "on a small terminal it shows what fits" lab_until 60 grep -q "$hosts hosts, 0 failed (3 mor" "$lab_dir/screen"
ip netns pids "$(lab_ns 0)" | while read -r p; do tr '\0' ' ' <"/proc/$p/cmdline" | grep -q '^[^ ]*siofleet deploy status' && kill -INT "$p"; done
wait $!
# shellcheck disable=SC2016 # eval expands
ok "logs prints what the agents said" eval 'lab_sf deploy logs "$ini" --host h2 2>/dev/null | grep -q registered'
# shellcheck disable=SC2016
ok "and the coordinator" eval 'lab_sf deploy logs "$ini" --coordinator 2>/dev/null | grep -q .'
drained() { lab_sf ls agents --json | jq -rc '[.items[] | select(.state | test("^drain")) | .name]'; }
deploy drain "$ini" --host h2 --dry-run
ok "a dry run of drain drains nobody" test "$(grep -c 'h2: would drain' "$lab_dir/err") $(drained)" = '1 []'
deploy drain "$ini" --host h2
ok "drain drains its agent" test "$(drained)" = '["h2"]'
ok "drain is told to the coordinator" lab_is '.failed' 0
deploy undrain "$ini" --host h2
ok "undrain, too" lab_is '.failed' 0

lab_sshd_stop 3
deploy check "$ini" --timeout 3s
rc=$?
ok "a host without sshd fails alone, with a fix" lab_is '[.failed, (.hosts[] | select(.status == "failed") | .host, (.fix | test("sshd")))]' '[1,"h3",true]'
ok "exit status 1" test $rc = 1
lab_sshd 3

# a killed agent is started again by its supervisor, without a new deployment
old=$(cat "$(share 2)/run/service.pid")
kill -KILL "$old"
again() { local p; p=$(cat "$(share 2)/run/service.pid" 2>/dev/null) && [ "$p" != "$old" ] && kill -0 "$p"; }
ok "a killed agent comes back by itself" lab_until 60 again
ok "and registers" lab_until 30 registered $hosts

# ---- a sweep, and all that happens under it: a host dies and comes back, then each is upgraded; nothing lost, nothing doubled
log=$SIOFLEET_SRC/tests/data/real-log/e1000-24nic-tx3.log.zst
long=$((3 * t_up + 10)) # seconds of work for five agents, which is mostly enough; what is left at the end waits for the upgrade
printf '[sweep]\nname = under-load\npace_ms = 200\nblock = 2\n[trace t]\nlogs = %s\ntenants = 4,24\n[arch a]\niotlb_entries = 64\nlink_gbps = 100..%d:+1\n' \
  "$log" $((100 + long * 25 / 2)) >"$lab_dir/sweep.ini"
lab_sf sweep run "$lab_dir/sweep.ini" --csv "$lab_dir/fleet.csv" >/dev/null 2>"$lab_dir/sweep.err" &
sweep=$!
done_of() { lab_sf ls sweeps --json | jq '[.items[].done] | add'; }
some() { [ "$(done_of)" -gt 6 ]; }
ok "the sweep is on its way" lab_until 60 some
deploy status "$ini"
ok "status sees tasks run" lab_is '[.hosts[].facts.tasks | tonumber] | add > 0' true
lab_kill 5
rm -f "$lab_dir/5/sshd.pid"
ok "a host dies in the middle of it" test -z "$(ip netns pids "$(lab_ns 5)")"
lab_sshd 5
cat "$lab_dir/5/sshd.pid" >"$(share 5)/run/service.pid" # as a reboot gives numbers anew
deploy status "$ini" --host h5
ok "another process with its number is not taken for the agent" lab_is '.hosts[0] | [.status, .message]' '["failed","the agent does not run"]'
deploy up "$ini"
ok "up brings the dead host back, and only it" lab_is '[.failed, .changed, .unchanged]' "[0,1,4]"
ok "and it registers" lab_until 30 registered $hosts
# a release with another content: the same program with a note behind it
mkdir "$lab_dir/new"
cp "$SIOFLEET_BIN/siofleet" "$SIOFLEET_BIN/siofleet-shim" "$lab_dir/new/"
echo "another build" >>"$lab_dir/new/siofleet"
was=$(readlink "$(share 2)/current")
left_of() { lab_sf ls sweeps --json | jq '[.items[] | .points - .done] | add'; }
keep_some() {
  while [ "$(left_of)" -gt 100 ]; do sleep 0.5; done
  lab_sf hold under-load
}
keep_some >/dev/null 2>&1 &
keeper=$!
lab_bin=$lab_dir/new/siofleet deploy upgrade "$ini" --batch 2
left=$(left_of)
kill $keeper 2>/dev/null
wait $keeper 2>/dev/null
lab_sf release under-load >/dev/null 2>&1
ok "a rolling upgrade changes every host" lab_is '[.failed, .changed]' "[0,$hosts]"
ok "to another release" test "$(readlink "$(share 2)/current")" != "$was"
ok "in the middle of the sweep ($left points are left)" test "$left" -gt 0
wait $sweep
ok "the sweep completes under a dead host and an upgrade" test $? = 0
sed '/^pace_ms/d' "$lab_dir/sweep.ini" >"$lab_dir/fast.ini"
lab_sf perf sweep "$lab_dir/fast.ini" --csv >"$lab_dir/alone.csv" 2>/dev/null
ok "with the rows of this host alone, byte for byte" cmp "$lab_dir/fleet.csv" "$lab_dir/alone.csv"
lab_sf audit under-load --json >"$lab_dir/out.json" 2>"$lab_dir/err"
ok "the audit misses none and finds none doubled" lab_is '[.points == .accepted, .missing, .differing, .foreign]' '[true,[],[],0]'
ok "every agent is there" lab_until 30 registered $hosts

# ---- a release whose agent does not start: the host goes back, the rest is left alone
mkdir "$lab_dir/bad"
LC_ALL=C sed 's/siofleet-secret/siofleet-sekret/g' "$SIOFLEET_BIN/siofleet" >"$lab_dir/bad/siofleet"
cp "$SIOFLEET_BIN/siofleet-shim" "$lab_dir/bad/"
chmod 755 "$lab_dir/bad/siofleet"
good=$(readlink "$(share 1)/current")
args=$(cat "$(share 1)/args")
sed 's/room=1/room=2/' "$ini" >"$lab_dir/moved.ini"
lab_bin=$lab_dir/bad/siofleet deploy upgrade "$lab_dir/moved.ini"
rc=$?
ok "an upgrade stops at the first host whose agent does not come up" lab_is '[.failed, .changed, [.hosts[].status] == ["failed","skipped","skipped","skipped","skipped"]]' '[1,0,true]'
ok "says why, and that it went back" lab_is '.hosts[0] | [(.message | test("agent.key.*back at work")), (.actions[-1] | test("^roll back"))]' '[true,true]'
ok "with status 1" test $rc = 1
ok "and how many were left alone" grep -q '^siofleet: upgrade: stopped after 1 failures, 4 hosts are as they were' "$lab_dir/err"
ok "on the release of before" test "$(readlink "$(share 1)/current")" = "$good"
ok "and with the settings of before" test "$(cat "$(share 1)/args")" = "$args"
ok "whose agents are all there" lab_until 30 registered $hosts

# ---- down
deploy down "$ini"
ok "down reports every host" lab_is '[.failed, .changed]' "[0,$hosts]"
rm -f "$lab_dir"/*/root/setup-note # made by the user's own step, not by us
ok "down leaves the files of before" diff <(echo "$with_coordinator") <(files | grep -v '^1/root/.local/share/siofleet-coordinator/') \
  --ignore-matching-lines='^1/root/.local/share/siofleet-coordinator/'
ok "and no key" test "$(lab_sf keys ls --data "$(share 1)-coordinator/store" --json | jq '[.. | objects | select(.role? == "agent")] | length')" = 0
deploy down "$ini"
ok "down again has nothing to do" lab_is '[.changed, .failed]' '[0,0]'
deploy coordinator "$ini" --remove
ok "the coordinator can be removed without its store" test -f "$(share 1)-coordinator/store/keys/coordinator" -a ! -e "$(share 1)-coordinator/releases"
deploy coordinator "$ini" --remove --purge
ok "and with it: the files of the beginning" diff <(echo "$before") <(files)
left() { local i; for i in $(seq 1 $hosts); do ip netns pids "$(lab_ns "$i")" | xargs -r ps -o args= -p; done | grep -v sshd; }
ok "and no process" test -z "$(left)"
lab_done
