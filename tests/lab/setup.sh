#!/usr/bin/env bash
# Set-up steps, reboots, secrets, and what a user without rights gets and does not get.
# shellcheck disable=SC2154,SC2016,SC2317 # lab.sh sets lab_dir; eval expands; functions are called by name
set -u
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/lab/lab.sh
. "$here/lab.sh"
lab_need || exit 77
lab_up 2
head=$lab_dir/head
lab_sf coordinator --data "$head" --listen "tcp://$(lab_ip 0):7700" --ready-file "$lab_dir/ready" >"$lab_dir/coordinator.log" 2>&1 &
lab_until 60 test -s "$lab_dir/ready" || { echo "Bail out! no coordinator: $(tail -n 2 "$lab_dir/coordinator.log")"; exit 1; }
ini=$lab_dir/hosts.ini
fleet() { # fleet CLASS-LINES: hosts.ini with that class
  printf '[fleet]\ncoordinator = tcp://%s:7700\nserver_key = %s/keys/coordinator.pub\n' "$(lab_ip 0)" "$head"
  lab_ini $'class = c\n'
  printf '[class c]\n%s\n' "$1"
}
share=$(lab_home 1)/.local/share/siofleet

# ---- order, failure, resuming, timeout
fleet 'setup.one = echo one >> order
setup.two = test -e go && echo two >> order
setup.three = echo three >> order' >"$ini"
deploy up "$ini" --host h1
ok "a failing step keeps the host out, named with its log" lab_is \
  '.hosts[0] | [.status, .step, (.message | test("^set-up step .two.")), (.fix | test("steps/two.*log")), .version]' '["failed","setup",true,true,null]'
ok "no later step ran, and no agent" test "$(cat "$(lab_home 1)/order")" = one -a ! -e "$share/current"
: >"$(lab_home 1)/go"
deploy up "$ini" --host h1
ok "up again goes on with the failed one" test "$(tr '\n' ' ' <"$(lab_home 1)/order")" = "one two three "
ok "and the host joins" lab_is '[.failed, .changed]' '[0,1]'
sed -i 's/echo three >> order/echo other >> order/' "$ini"
deploy up "$ini" --host h1
ok "a changed step runs again, the others do not" test "$(tr '\n' ' ' <"$(lab_home 1)/order")" = "one two three other "
fleet 'setup.slow = sleep 60
setup.slow.timeout = 1s' >"$ini"
deploy up "$ini" --host h1
ok "a step is stopped at its timeout" lab_is '.hosts[0] | [.status, (.message | test("stopped at its timeout of 1 s"))]' '["failed",true]'
left() { ip netns pids "$(lab_ns 1)" | xargs -r ps -o args= -p | grep -c 'sleep 60'; }
ok "and leaves nothing running" test "$(left)" = 0
fleet 'setup.deaf = trap "" TERM; sleep 60; true
setup.deaf.timeout = 1s' >"$ini"
deploy up "$ini" --host h1
ok "one that does not listen, too" lab_is '.hosts[0] | [.status, (.message | test("stopped at its timeout of 1 s"))]' '["failed",true]'
ok "and leaves nothing running, either" test "$(left)" = 0
rm -f "$(lab_home 1)/order" "$(lab_home 1)/go"
deploy down "$ini" --host h1

# ---- a host that never joined
fleet 'setup.no = echo because; exit 3' >"$ini"
deploy up "$ini" --host h1
ok "a failing step is told with its status and last line" lab_is '.hosts[0].message' "set-up step 'no': ended with status 3: because"
deploy down "$ini" --host h1
ok "down takes away what is there of a host that never joined" test "$(jq .changed "$lab_dir/out.json") $(ls -A "$(lab_home 1)")" = "1 "

# ---- whose keys `down` revokes
fleet '' >"$ini"
deploy up "$ini"
keys() { lab_sf keys ls --data "$head" --json | jq -c '[.. | objects | select(.role? == "agent") | .name]'; }
mount --bind "$head/keys/allowed" "$head/keys/allowed"
mount -o remount,bind,ro "$head/keys/allowed"
deploy down "$ini" --host h1
ok "a down that cannot revoke the key says so" lab_is '.hosts[0] | [.status, .step]' '["failed","revoke"]'
umount "$head/keys/allowed"
deploy down "$ini" --host h1
ok "and goes on when it is called again" test "$(jq -c '[.failed, .changed]' "$lab_dir/out.json") $(keys)" = '[0,1] ["h2"]'
deploy up "$ini" --host h1
sed -i 's/ h1 / h2 /' "$share/agent.key.pub"
deploy down "$ini" --host h1
ok "a host that shows somebody else's name revokes nobody" test "$(keys)" = '["h1","h2"]'
lab_sf keys revoke --data "$head" h1
deploy down "$ini"

# ---- secrets: seen by the command, and by nobody else
secret="s3cret-$RANDOM$RANDOM-value"
printf '%s\nsecond line of it %s\n' "$secret" "$secret" >"$lab_dir/token"
chmod 600 "$lab_dir/token"
fleet "setup.join = printf '%s' \"\$TOKEN\" > got; echo \"token \$TOKEN, word \$WORD\"; sleep 2
setup.join.secret.TOKEN = file:token
setup.join.secret.WORD = env:LAB_WORD" >"$ini"
printf '%s\n' "$secret" pa55word "$(printf %s "$secret" | base64 | cut -c1-20)" "$(printf pa55word | base64)" >"$lab_dir/patterns"
watch() { # all command lines of the machine, while the step runs
  while [ ! -e "$lab_dir/stop" ]; do
    cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' '\n' | grep -F -f "$lab_dir/patterns"
    sleep 0.02
  done >"$lab_dir/seen"
}
watch &
watcher=$!
LAB_WORD=pa55word deploy up "$ini" --host h1
: >"$lab_dir/stop"
wait $watcher
ok "a step gets its secrets" cmp -s <(printf '%s\nsecond line of it %s' "$secret" "$secret") "$(lab_home 1)/got"
ok "they stand in no argument list" test ! -s "$lab_dir/seen"
ok "they stand in no log and no file of the host" lab_fails grep -rqF -e "$secret" -e pa55word "$share" "$lab_dir/err" "$lab_dir/out.json" "$lab_dir/1/sshd.log"
ok "what the command printed of them is blotted out" grep -qx 'token \*\*\*' "$share"/steps/join.*.log
fleet "setup.again = true
setup.again.secret.X = env:LAB_NOT_SET" >"$ini"
deploy up "$ini" --host h1
ok "a secret that is not there is told before anything runs" lab_is '.hosts[0].message' 'setup.again.secret.X: LAB_NOT_SET is not in the environment'

# ---- reboot. A namespace has no kernel of its own: this reboot is a script that ends all of the host's processes, gives it
# another boot id, and starts its sshd again after a while
lab_mnt 1 mount --bind "$lab_dir/1" /mnt
echo first >"$lab_dir/1/boot_id"
mkdir "$lab_dir/1/bin"
cat >"$lab_dir/1/bin/reboot" <<REBOOT
#!/bin/sh
echo rebooted >>$(lab_home 1)/order
setsid sh -c '
  echo second-boot >$lab_dir/1/boot_id
  for p in \$(ip netns pids $(lab_ns 1)); do [ \$p = \$\$ ] || kill -KILL \$p; done
  sleep 2
  exec /usr/sbin/sshd -D -f $lab_dir/1/sshd_config -E $lab_dir/1/sshd.log' >/dev/null 2>&1 </dev/null &
REBOOT
chmod 755 "$lab_dir/1/bin/reboot"
echo "SetEnv PATH=$lab_dir/1/bin:/usr/bin:/bin:/usr/sbin:/sbin" >>"$lab_dir/1/sshd_config"
lab_mnt 1 mount --bind "$lab_dir/1/boot_id" /proc/sys/kernel/random/boot_id
kill -HUP "$(cat "$lab_dir/1/sshd.pid")"
lab_until 30 lab_in 0 bash -c "exec 3<>/dev/tcp/$(lab_ip 1)/22"
rm -f "$(lab_home 1)/order"
fleet 'setup.kernel = echo kernel >> order
setup.kernel.reboot = yes
setup.kernel.timeout = 60s
setup.after = echo after >> order' >"$ini"
deploy up "$ini" --host h1
ok "a step with reboot=yes comes back and goes on" lab_is '[.failed, .changed]' '[0,1]'
ok "in order, once each" test "$(tr '\n' ' ' <"$(lab_home 1)/order")" = "kernel rebooted after "
deploy up "$ini" --host h1
ok "a second up does not reboot" lab_is '[.failed, .changed]' '[0,0]'
printf '#!/bin/sh\n' >"$lab_dir/1/bin/reboot"
fleet 'setup.never = true
setup.never.reboot = yes
setup.never.timeout = 2s' >"$ini"
deploy up "$ini" --host h1
ok "a host that does not come back fails at the step's deadline" lab_is '.hosts[0] | [.status, .step, (.message | test("did not come back"))]' '["failed","reboot",true]'
deploy down "$ini"

# ---- a user without rights
lab_user 2
user=$(lab_mnt 2 id -u lab)
home=$lab_dir/2/srv/lab
fleet 'cores = 1' | sed 's/^user = root/user = lab/' >"$ini"
before=$(find "$home" | sort)
deploy check "$ini" --host h2
ok "a user without rights is fit for an agent" lab_is '[.failed, .hosts[0].facts.uid]' "[0,\"$user\"]"
deploy up "$ini" --host h2
ok "gets one" lab_is '[.failed, .changed]' '[0,1]'
share=$home/.local/share/siofleet
owners() { find "$home/.local" -printf '%U\n' | sort -u; }
ok "all of which is his" test "$(owners)" = "$user"
open() { find "$home/.local" ! -type l -perm /077 ! -path '*/releases/*'; }
ok "and closed to others" test -z "$(open)"
ok "the agent runs as that user" test "$(stat -c %u "/proc/$(cat "$share/run/service.pid")")" = "$user"
chmod 644 "$share/agent.key"
kill -TERM "$(cat "$share/run/supervisor.pid")"
lab_until 30 test ! -e "$share/run/supervisor.pid"
deploy up "$ini" --host h2 --timeout 10s
ok "a key that others may read is refused, with the chmod" lab_is '.hosts[0] | [.status, .step, (.message | test("chmod"))]' '["failed","register",true]'
chmod 600 "$share/agent.key"
deploy up "$ini" --host h2 # its supervisor may have been quicker
deploy status "$ini" --host h2
ok "then it starts" lab_is '[.failed, .unchanged]' '[0,1]'
key=$(cat "$share/agent.key.pub")
deploy down "$ini" --host h2 --keep-data
ok "down --keep-data leaves key and data, and nothing that runs or could be run" \
  test -s "$share/agent.key" -a -d "$share/agent" -a ! -e "$share/releases" -a ! -e "$share/current" -a ! -e "$share/run/service.pid"
deploy up "$ini" --host h2
ok "the next up goes on with that key" test "$(jq -c '[.failed, .changed]' "$lab_dir/out.json")$(cat "$share/agent.key.pub")" = "[0,1]$key"
deploy down "$ini" --host h2
ok "down leaves the home of before" test "$(find "$home" | sort)" = "$before"
chown 0:0 "$home"
deploy check "$ini" --host h2
ok "a home that is not his is told" lab_is '.hosts[0] | [.step, (.message | test("not writable for .lab.")), (.fix | test("data="))]' '["disk",true,true]'
chown "$user:$user" "$home"
lab_mnt 2 mount -o remount,bind,ro /srv
deploy check "$ini" --host h2
ok "so is a read-only one" lab_is '.hosts[0] | [.step, (.message | test("not writable"))]' '["disk",true]'
deploy up "$ini" --host h2
ok "to which nothing is sent" lab_is '[.failed, .bytes_sent]' '[1,0]'
lab_mnt 2 mount -o remount,bind,rw /srv
lab_mnt 2 mount -o remount,bind,noexec /srv
deploy check "$ini" --host h2
ok "and a noexec one" lab_is '.hosts[0] | [.step, (.message | test("noexec"))]' '["exec",true]'
lab_mnt 2 mount -o remount,bind,exec /srv
fleet 'setup.root = id
setup.root.sudo = yes' | sed 's/^user = root/user = lab/' >"$ini"
deploy check "$ini" --host h2
ok "a step with sudo=yes needs a sudo that asks for no password" lab_is '.hosts[0] | [.step, (.fix | test("NOPASSWD"))]' '["sudo",true]'
mkdir "$lab_dir/2/srv/bin"
cat >"$lab_dir/2/srv/bin/sudo" <<SUDO
#!/bin/sh
[ "\$1" = -n ] && shift
echo "\$*" >>/srv/sudo.log
exec "\$@"
SUDO
chmod 755 "$lab_dir/2/srv/bin/sudo"
: >"$lab_dir/2/srv/sudo.log"
chmod 666 "$lab_dir/2/srv/sudo.log"
chmod 755 "$lab_dir/2/srv/bin"
echo "SetEnv PATH=/srv/bin:/usr/bin:/bin:/usr/sbin:/sbin" >>"$lab_dir/2/sshd_config"
kill -HUP "$(cat "$lab_dir/2/sshd.pid")"
lab_until 30 lab_in 0 bash -c "exec 3<>/dev/tcp/$(lab_ip 2)/22"
fleet 'setup.root = echo "$WORD" | cksum > sum
setup.root.sudo = yes
setup.root.secret.WORD = env:LAB_WORD
setup.user = id' | sed 's/^user = root/user = lab/' >"$ini"
LAB_WORD=pa55word deploy up "$ini" --host h2
ok "with one it works" lab_is '[.failed, .changed]' '[0,1]'
ok "secrets reach what runs under sudo" cmp -s <(echo pa55word | cksum) "$home/sum"
ok "only that step ran under it, without the secret in its words" test "$(grep -c . "$lab_dir/2/srv/sudo.log")" -ge 1 -a \
  "$(grep -c -e pa55word -e '^id' "$lab_dir/2/srv/sudo.log")" = 0

# ---- a host on which nothing fits: all of it is told at once, each with its fix
printf '#!/bin/sh\necho 4.9.0 riscv64\n' >"$lab_dir/2/srv/bin/uname"
printf '#!/bin/sh\necho glibc 2.17\n' >"$lab_dir/2/srv/bin/getconf"
printf '#!/bin/sh\nexec /bin/date -d "1 hour" "$@"\n' >"$lab_dir/2/srv/bin/date"
chmod 755 "$lab_dir"/2/srv/bin/*
fleet 'cores = 4000
memory = 900T
collect = yes' | sed 's/^user = root/user = lab/; s/:7700/:1/' >"$ini"
deploy check "$ini" --host h2
ok "check tells all that does not fit, each with its fix" lab_is \
  '.hosts[0] | [([.facts.problems[].step] - ["kvm", "qemu"] | join(" ")), ([.facts.problems[].fix | length > 9] | all)]' \
  '["architecture glibc cores memory clock coordinator",true]'
ok "in one line" lab_is '.hosts[0] | [.status, .step, (.message | test("riscv64.*2.17.*4000.*clock is 3[56]")), (.fix | test("timedatectl"))]' '["failed","architecture",true,true]'
lab_done
