#!/usr/bin/env bash
# What goes wrong between the deploying machine and its hosts: host keys, logins, silent hosts, slow and broken links, full
# disks, an sshd that turns many away, and names that a shell would read. Each with its message, fix and code.
# shellcheck disable=SC2154,SC2016,SC2317,SC2086 # lab.sh sets lab_dir; eval expands; functions are called by name
set -u
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/lab/lab.sh
. "$here/lab.sh"
lab_need || exit 77
lab_up 5
head=$lab_dir/head
lab_sf coordinator --data "$head" --listen "tcp://$(lab_ip 0):7700" --ready-file "$lab_dir/ready" >"$lab_dir/coordinator.log" 2>&1 &
lab_until 60 test -s "$lab_dir/ready" || { echo "Bail out! no coordinator: $(tail -n 2 "$lab_dir/coordinator.log")"; exit 1; }
ini=$lab_dir/hosts.ini
{
  printf '[fleet]\ncoordinator = tcp://%s:7700\nserver_key = %s/keys/coordinator.pub\n' "$(lab_ip 0)" "$head"
  lab_ini ''
} >"$ini"
share() { echo "$(lab_home "$1")/.local/share/siofleet"; }
failed() { lab_is ".hosts[0] | [.status, .step, .code, (.message | test(\"$1\")), (.fix // \"\" | test(\"$2\"))]" "[\"failed\",\"$3\",\"$4\",true,true]"; }

# ---- a link of 1 Mbit/s: begun now, looked at in the end
lab_in 0 tc qdisc add dev v5 root tbf rate 1mbit burst 16kb latency 400ms
lab_sf deploy up "$ini" --host h5 --timeout 60s --json >"$lab_dir/slow.json" 2>"$lab_dir/slow.err" &
slow=$!

# ---- host keys
known() { # known FILE: hosts.ini with that known_hosts, host h1 only
  sed "s|^known_hosts = .*|known_hosts = $1|" "$ini" >"$lab_dir/known.ini"
  deploy up "$lab_dir/known.ini" --host h1 --dry-run
}
key1=$(cut -d' ' -f1,2 "$lab_dir/1/hostkey.pub")
cp "$lab_dir/known_hosts" "$lab_dir/hashed"
ssh-keygen -q -H -f "$lab_dir/hashed" >/dev/null 2>&1
known "$lab_dir/hashed"
ok "hashed lines of known_hosts are read" lab_is .failed 0
sed "s|^$(lab_ip 1) .*|$(lab_ip 1) $(cut -d' ' -f1,2 "$lab_dir/user.pub")|" "$lab_dir/known_hosts" >"$lab_dir/wrong"
known "$lab_dir/wrong"
ok "a host key that differs is refused" failed differs fingerprint connect REFUSED
known /nonexistent/known_hosts
ok "an unknown one is, too, with the command that accepts it" failed 'not known; check it, then: ssh-keyscan' fingerprint connect REFUSED
{ echo "@revoked $(lab_ip 1) $key1"; cat "$lab_dir/known_hosts"; } >"$lab_dir/revoked"
known "$lab_dir/revoked"
ok "a revoked one is" failed '@revoked' . connect REFUSED
echo "@cert-authority $(lab_ip 1) $key1" >"$lab_dir/authority"
known "$lab_dir/authority"
ok "a certificate authority is refused with that reason" failed 'certificate authorities are not supported' . connect REFUSED
pin=$(ssh-keygen -lf "$lab_dir/1/hostkey.pub" | cut -d' ' -f2)
pinned() {
  sed "s|^known_hosts = .*|known_hosts = /nonexistent|; s|^\[host h1\]|&\nhostkey = $1|" "$ini" >"$lab_dir/pin.ini"
  deploy up "$lab_dir/pin.ini" --host h1 --dry-run
}
pinned "$pin"
ok "a pinned fingerprint needs no known_hosts" lab_is .failed 0
pinned "SHA256:$(printf 'A%.0s' $(seq 43))"
ok "another pinned one is refused" failed 'pinned is' . connect REFUSED

# ---- logins
for k in other locked; do ssh-keygen -q -t ed25519 -N "$([ $k = locked ] && echo secret)" -f "$lab_dir/$k"; done
ssh-keygen -q -t rsa -b 2048 -N '' -f "$lab_dir/rsa"
cat "$lab_dir/user.pub" "$lab_dir/locked.pub" "$lab_dir/rsa.pub" >"$lab_dir/all.pub" && cp "$lab_dir/all.pub" "$lab_dir/user.pub"
identity() { # identity FILE: "" = none given
  sed "s|^identity = .*|${1:+identity = $1}|" "$ini" >"$lab_dir/identity.ini"
  deploy up "$lab_dir/identity.ini" --host h1 --dry-run
}
identity "$lab_dir/other"
ok "a key that is not let in is refused" failed "login as 'root' with key .*other refused" ssh-copy-id connect REFUSED
identity "$lab_dir/rsa"
ok "an RSA key is refused with its reason" failed 'RSA key .*libssh2 1.10 against OpenSSH 8.8' . connect REFUSED
identity "$lab_dir/locked"
ok "a key with a passphrase belongs into ssh-agent" failed ssh-agent . connect REFUSED
identity ""
ok "no key at all" failed 'no key to log in with.*no ssh-agent' . connect REFUSED
agent_pid=$(ssh-agent -a "$lab_dir/agent.sock" | sed -n 's/.*SSH_AGENT_PID=\([0-9]*\).*/\1/p')
printf '#!/bin/sh\necho secret\n' >"$lab_dir/askpass"
chmod 755 "$lab_dir/askpass"
DISPLAY=: SSH_ASKPASS=$lab_dir/askpass SSH_ASKPASS_REQUIRE=force SSH_AUTH_SOCK=$lab_dir/agent.sock \
  ssh-add -q "$lab_dir/other" "$lab_dir/locked" </dev/null 2>/dev/null
lab_agent=$lab_dir/agent.sock
identity ""
ok "ssh-agent logs in, with the second of its keys" lab_is .failed 0
identity "$lab_dir/locked"
ok "and for a locked identity=" lab_is .failed 0
lab_agent=
kill "$agent_pid"

# ---- silence
lab_in 2 python3 -c '
import socket, time
s = socket.create_server(("0.0.0.0", 2222)); open("'"$lab_dir"'/mute", "w"); time.sleep(600)' &
lab_until 30 test -e "$lab_dir/mute"
{
  cat "$ini"
  for i in 1 2 3 4 5 6 7 8 9 10; do printf '[host mute%d]\naddress = %s\nport = 2222\ndata = /srv/m%d\n' $i "$(lab_ip 2)" $i; done
  printf '[class late]\n[host gone]\nclass = late\ndata = /srv/gone\naddress = %s\n[host off]\nclass = late\naddress = 10.77.9.9\n' "$(lab_ip 3)"
} >"$lab_dir/mute.ini"
lab_sshd_stop 3
t=$(date +%s)
deploy status "$lab_dir/mute.ini" --timeout 4s
t=$(($(date +%s) - t))
ok "hosts that accept and never answer do not block the others" lab_is '[.hosts[] | select(.host | test("^h[124]")) | .message] | unique' '["no agent is installed"]'
ok "and are told as such" lab_is '[.hosts[] | select(.host | test("^mute")) | .code, (.message | test("does not answer"))] | unique' '[true,"DEADLINE"]'
ok "so are a refused port and an address where nobody is" lab_is '[.hosts[] | select(.host == "gone" or .host == "off") | .message | test("cannot reach")] | all' true
ok "within their deadlines ($t s)" test $t -le 60
lab_sshd 3

# ---- a copy that breaks
lab_in 0 tc qdisc add dev v1 root tbf rate 16mbit burst 32kb latency 400ms
lab_sf deploy up "$ini" --host h1 --json >"$lab_dir/break.json" 2>"$lab_dir/break.err" &
broken=$!
part() { [ "$(cat "$(share 1)"/incoming/*.part 2>/dev/null | wc -c)" -gt "$1" ]; }
ok "a copy is under way" lab_until 60 part 700000
lab_kill 1 2>/dev/null
rm -f "$lab_dir/1/sshd.pid"
lab_sshd 1
wait $broken
cp "$lab_dir/break.json" "$lab_dir/out.json"
cp "$lab_dir/break.err" "$lab_dir/err"
ok "sshd dies in mid-copy: the copy goes on where it stopped" lab_is '[.failed, .changed]' '[0,1]'
ok "not from the beginning" grep -q 'goes on with the copy at [1-9]' "$lab_dir/err"
# the same with nobody told: a client that stands still is one whose connection is dead without a word to the host's sshd
deploy down "$ini" --host h1
lab_sf deploy up "$ini" --host h1 --json >"$lab_dir/still.json" 2>"$lab_dir/still.err" &
broken=$!
ok "another copy is under way" lab_until 60 part 700000
still=$(for p in $(ip netns pids "$(lab_ns 0)"); do tr '\0' ' ' <"/proc/$p/cmdline" | grep -q 'deploy up.*--host h1 ' && echo "$p"; done)
kill -STOP $still
deploy up "$ini" --host h1
ok "somebody else takes over a copy that stands still" lab_is '[.failed, .changed]' '[0,1]'
ok "from where it is" lab_is ".bytes_sent < $(stat -c %s "$lab_dir"/cache/siofleet/release/*.tgz)" true
kill -CONT $still
wait $broken
ok "and the first one finds it done" test "$(jq .failed "$lab_dir/still.json")" = 0
lab_in 0 tc qdisc del dev v1 root
id=$(basename "$(readlink "$(share 1)/current")")
mkdir -p "$(share 2)/incoming"
: >"$(share 2)/.siofleet"
head -c 100000 /dev/urandom >"$(share 2)/incoming/$id.part"
deploy up "$ini" --host h2
ok "what is damaged of an old copy is sent again" lab_is '[.failed, .changed]' '[0,1]'
ok "and never unpacked" test -f "$(share 2)/releases/$id/.complete" -a ! -e "$(share 2)/incoming"

# ---- disks
lab_mnt 3 mkdir -p /root/.local
lab_mnt 3 mount -t tmpfs -o size=8m none /root/.local
deploy check "$ini" --host h3
ok "check tells a disk that is too small" failed '8 MiB free under ./root/.local., 512 needed' 'free some space' disk FAILED
lab_mnt 3 mount -o remount,size=600m /root/.local
sed 's|^\[host h3\]|[class fill]\nsetup.fill = mount -o remount,size=3m /root/.local\n&\nclass = fill|' "$ini" >"$lab_dir/fill.ini"
deploy up "$lab_dir/fill.ini" --host h3
ok "a disk that gets full in the copy" failed 'No space left' 'free some space' copy NO_SPACE
lab_mnt 3 mount -o remount,size=600m /root/.local
deploy up "$ini" --host h3
ok "once there is room it goes on" lab_is '[.failed, .changed]' '[0,1]'
deploy down "$ini" --host h3
lab_mnt 3 umount /root/.local

# ---- two at once
lab_sf deploy up "$ini" --host h3 --host h4 --json >"$lab_dir/other.json" 2>"$lab_dir/other.err" &
other=$!
deploy up "$ini" --host h3 --host h4
wait $other
ok "two ups at the same time take turns" lab_is .failed 0
ok "both of them" test "$(jq .failed "$lab_dir/other.json")" = 0
deploy up "$ini" --host h3 --host h4
ok "and leave nothing to do" lab_is '[.failed, .changed, .bytes_sent]' '[0,0,0]'
sed -i 's/.*/other-machine/' "$(share 3)/.siofleet"
printf 'labels = x=1\n' | sed 's|^|[class l]\n|' | cat "$ini" - | sed 's/^\[host h3\]/&\nclass = l/' >"$lab_dir/shared.ini"
deploy up "$lab_dir/shared.ini" --host h3
ok "a folder that another machine uses, too, is refused" failed "shared with the host 'other-machine'" 'each host a data=' configure EXISTS
rm "$(share 3)/.siofleet"
deploy down "$ini" --host h3 --host h4

# ---- a folder with other people's files
mkdir -p "$(lab_home 4)/project/log"
echo mine >"$(lab_home 4)/project/log/mine"
{ sed -n '1,/^known_hosts/p' "$ini"; printf '[host h4]\naddress = %s\ndata = /root/project\n' "$(lab_ip 4)"; } >"$lab_dir/project.ini"
deploy up "$lab_dir/project.ini"
ok "a folder that holds what we would make is refused" failed "holds .log., which no deploy made" 'data= of its own' folder FAILED
deploy down "$lab_dir/project.ini"
ok "and down leaves it alone" test "$(jq .changed "$lab_dir/out.json") $(cat "$(lab_home 4)/project/log/mine")" = "0 mine"
rm -r "$(lab_home 4)/project"
echo mine >"$(lab_home 4)/project"
deploy check "$lab_dir/project.ini"
ok "so is a file in the way, before anything is done" failed "'/root/project' is no folder" 'another data=' folder FAILED
rm "$(lab_home 4)/project"

# ---- names that a shell would read
odd="/root/my lab \$(touch pwned) \`touch pwned\` 'a' \"b\" & | %i \\\\ * end"
{ sed -n '1,/^known_hosts/p' "$ini"; printf '[host h4]\naddress = %s\ndata = %s\n' "$(lab_ip 4)" "$odd"; } >"$lab_dir/odd.ini"
before=$(find "$lab_dir/4/root" | sort)
deploy check "$lab_dir/odd.ini" --host h4
ok "a folder with blanks, quotes and commands in its name fits" lab_is .failed 0
deploy up "$lab_dir/odd.ini" --host h4
ok "and is deployed to" lab_is '[.failed, .changed]' '[0,1]'
deploy status "$lab_dir/odd.ini" --host h4
ok "runs" lab_is .failed 0
deploy up "$lab_dir/odd.ini" --host h4
ok "stays" lab_is '[.failed, .changed]' '[0,0]'
deploy down "$lab_dir/odd.ini" --host h4
ok "and goes" test "$(find "$lab_dir/4/root" | sort)" = "$before"
ok "nothing of the name was run" test -z "$(find "$lab_dir" -name pwned)"

# ---- 100 addresses that are one sshd, which turns many away
lab_sshd_stop 4
for i in $(seq 1 100); do echo "addr add 10.77.4.$i/16 dev eth0"; done | ip -n "$(lab_ns 4)" -batch -
LAB_LISTEN=0.0.0.0 LAB_MAXSTARTUPS=10:30:60 lab_sshd 4
{
  sed -n '1,/^known_hosts/p' "$ini" | sed 's/^known_hosts.*/known_hosts = '"${lab_dir//\//\\/}"'\/many/'
  echo 'parallel = 64'
  for i in $(seq 1 100); do printf '[host a%d]\naddress = 10.77.4.%d\n' "$i" "$i"; done
} >"$lab_dir/many.ini"
for i in $(seq 1 100); do echo "10.77.4.$i $(cut -d' ' -f1,2 "$lab_dir/4/hostkey.pub")"; done >"$lab_dir/many"
deploy up "$lab_dir/many.ini" --dry-run
ok "100 addresses of one sshd with MaxStartups 10:30:60 are all reached" lab_is '[.failed, (.hosts | length)]' '[0,100]'
drops=$(grep -c 'drop connection' "$lab_dir/4/sshd.log")
ok "nearly all at their first try ($drops were dropped)" test "$drops" -le 20

# ---- the slow link
wait $slow
cp "$lab_dir/slow.json" "$lab_dir/out.json"
cp "$lab_dir/slow.err" "$lab_dir/err"
ok "a link of 1 Mbit/s takes its time, and works" lab_is '[.failed, .changed, .hosts[0].ms > 20000]' '[0,1,true]'
lab_done
