# shellcheck shell=bash
# A laboratory of real hosts on one machine: network namespaces joined by a bridge, each with its own address, home folder,
# host key and sshd. Source it, then: lab_need || exit 77; lab_up N; ...; everything is removed when the script ends.
# lab_net N instead of lab_up N makes the hosts without host keys and sshd.
#
#   lab_dir                    scratch folder               lab_ip I      address of host I (1..N); 0 is the head's
#   lab_in I CMD...            run in host I (0 = head)     lab_home I    its /root as seen from outside
#   lab_sshd I / lab_sshd_stop I / lab_kill I                lab_ini      prints [host] sections and the [fleet] keys for SSH
#   lab_sf ARG...              siofleet ($lab_bin) on the head, with caches and settings of its own
#   deploy VERB...             lab_sf deploy VERB --json; then lab_is FILTER WANT asks its document
#   lab_mnt I CMD...           among host I's mounts             lab_user I    a user without rights there
#   ok NAME CMD...             one TAP line; lab_done ends the script

lab_tag=sf$$
lab_n=0
lab_dir=
lab_bin=$SIOFLEET_BIN/siofleet
lab_oks=0
lab_bad=0

ok() {
  local name=$1
  shift
  lab_oks=$((lab_oks + 1))
  if "$@"; then echo "ok $lab_oks - $name"; else
    echo "not ok $lab_oks - $name"
    lab_bad=1
  fi
}
lab_done() {
  echo "1..$lab_oks"
  exit $lab_bad
}
lab_fails() { ! "$@"; }
lab_sf() { lab_in 0 env -u SSH_AUTH_SOCK ${lab_agent:+SSH_AUTH_SOCK="$lab_agent"} XDG_CACHE_HOME="$lab_dir/cache" XDG_CONFIG_HOME="$lab_dir/config" HOME="$lab_dir/headhome" "$lab_bin" "$@"; }
deploy() { lab_sf deploy "$@" --json >"$lab_dir/out.json" 2>"$lab_dir/err"; }
lab_is() {
  local got
  got=$(jq -rc "$1" "$lab_dir/out.json" 2>&1)
  [ "$got" = "$2" ] || {
    echo "# $1: got $got, want $2"
    sed 's/^/# /' "$lab_dir/err" | tail -n 8
    return 1
  }
}

lab_need() { # root, namespaces and sshd, or the reason why not
  local why=
  [ "$(id -u)" = 0 ] || why="needs root for network namespaces"
  [ -x /usr/sbin/sshd ] || why="/usr/sbin/sshd is not installed"
  command -v ip >/dev/null || why="ip (iproute2) is not installed"
  [ -n "$why" ] || ip netns add "$lab_tag-try" 2>/dev/null || why="network namespaces cannot be made here"
  ip netns del "$lab_tag-try" 2>/dev/null
  [ -z "$why" ] && return 0
  if [ "${CI:-}" = true ]; then
    echo "Bail out! $why, and in CI nothing of the laboratory is left out"
    exit 1
  fi
  echo "1..0 # SKIP $why"
  return 1
}

lab_ns() { echo "$lab_tag-$1"; }
lab_ip() { echo "10.77.$(($1 / 250)).$(($1 % 250 + 1))"; }
lab_home() { echo "$lab_dir/$1/root"; }

# a shell in host I: its network, and a mount namespace in which /root is its own
lab_in() {
  local i=$1
  shift
  if [ "$i" = 0 ]; then
    ip netns exec "$(lab_ns 0)" "$@"
  else
    # shellcheck disable=SC2016 # expanded by the inner shell
    ip netns exec "$(lab_ns "$i")" unshare -m sh -c \
      'mount --make-rprivate / && mount --bind "$0" /root && cd /root && HOME=/root exec "$@"' "$(lab_home "$i")" "$@"
  fi
}

lab_sshd() {
  local i=$1 d=$lab_dir/$1 n=0
  cat >"$d/sshd_config" <<CONF
ListenAddress ${LAB_LISTEN:-$(lab_ip "$i")}
HostKey $d/hostkey
AuthorizedKeysFile $lab_dir/user.pub .ssh/authorized_keys
PidFile $d/sshd.pid
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PermitRootLogin yes
MaxStartups ${LAB_MAXSTARTUPS:-10:30:100}
CONF
  lab_in "$i" /usr/sbin/sshd -D -f "$d/sshd_config" -E "$d/sshd.log" 2>/dev/null &
  until lab_in 0 bash -c "exec 3<>/dev/tcp/$(lab_ip "$i")/22" 2>/dev/null; do
    n=$((n + 1))
    [ $n -lt 300 ] || { echo "Bail out! sshd of host $i does not start: $(tail -n 2 "$d/sshd.log")"; exit 1; }
    sleep 0.1
  done
}

# a command where host I's sshd sees the files: mounts made there are seen by everybody who logs in
lab_mnt() {
  local i=$1
  shift
  nsenter -t "$(cat "$lab_dir/$i/sshd.pid")" -m -n "$@"
}

# a user `lab` without rights on host I, with his home in /srv/lab; gone with host I's sshd
lab_user() {
  local d=$lab_dir/$1
  mkdir -p "$d/etc" "$d/srv/lab/.ssh"
  for f in passwd group shadow; do cp "/etc/$f" "$d/etc/$f"; done
  echo 'lab:x:4242:4242::/srv/lab:/bin/sh' >>"$d/etc/passwd"
  echo 'lab:x:4242:' >>"$d/etc/group"
  echo 'lab:*:19000:0:99999:7:::' >>"$d/etc/shadow"
  cp "$lab_dir/user.pub" "$d/srv/lab/.ssh/authorized_keys"
  chmod 755 "$d/srv"
  chmod 700 "$d/srv/lab/.ssh"
  chown -R 4242:4242 "$d/srv/lab"
  for f in passwd group shadow; do lab_mnt "$1" mount --bind "$d/etc/$f" "/etc/$f"; done
  lab_mnt "$1" mount --bind "$d/srv" /srv
}

lab_sshd_stop() {
  local p
  p=$(cat "$lab_dir/$1/sshd.pid" 2>/dev/null) || return 0
  kill "$p" 2>/dev/null
  lab_until 30 lab_fails kill -0 "$p"
  rm -f "$lab_dir/$1/sshd.pid"
}

# everything that runs in host I, at once and without a word
lab_kill() {
  local p
  for p in $(ip netns pids "$(lab_ns "$1")" 2>/dev/null); do kill -KILL "$p" 2>/dev/null; done
}

lab_net() {
  local i
  lab_dir=$(mktemp -d "${TMPDIR:-/tmp}/lab-XXXXXX") || exit 1
  lab_n=$1
  trap lab_down EXIT
  trap 'exit 130' INT TERM
  mkdir -p "$lab_dir/headhome"
  ip netns add "$(lab_ns 0)"
  lab_in 0 ip link set lo up
  lab_in 0 ip link add br0 type bridge
  lab_in 0 ip addr add "$(lab_ip 0)/16" dev br0
  lab_in 0 ip link set br0 up
  for i in $(seq 1 "$1"); do
    mkdir -p "$(lab_home "$i")"
    ip netns add "$(lab_ns "$i")"
    lab_in 0 ip link add "v$i" type veth peer name eth0 netns "$(lab_ns "$i")"
    lab_in 0 ip link set "v$i" master br0 up
    ip -n "$(lab_ns "$i")" link set lo up
    ip -n "$(lab_ns "$i")" addr add "$(lab_ip "$i")/16" dev eth0
    ip -n "$(lab_ns "$i")" link set eth0 up
  done
}

lab_up() {
  local i
  lab_net "$1"
  mkdir -p /run/sshd
  ssh-keygen -q -t ed25519 -N '' -f "$lab_dir/user"
  : >"$lab_dir/known_hosts"
  for i in $(seq 1 "$1"); do
    ssh-keygen -q -t ed25519 -N '' -f "$lab_dir/$i/hostkey"
    echo "$(lab_ip "$i") $(cut -d' ' -f1,2 "$lab_dir/$i/hostkey.pub")" >>"$lab_dir/known_hosts"
  done
  for i in $(seq 1 "$1"); do lab_sshd "$i"; done
}

lab_ini() {
  local i
  printf 'user = root\nidentity = %s\nknown_hosts = %s\n' "$lab_dir/user" "$lab_dir/known_hosts"
  for i in $(seq 1 "$lab_n"); do printf '[host h%d]\naddress = %s\n%s' "$i" "$(lab_ip "$i")" "${1:-}"; done
}

# every mount below lab_dir; what cannot be unmounted keeps the folder from being removed
lab_umount() {
  local m rc=0
  while read -r m; do umount -l "$m" || rc=1; done < <(cut -d' ' -f2 /proc/self/mounts | grep -F "$lab_dir/" | sort -r)
  return $rc
}

lab_down() {
  local i
  for i in $(seq 0 "$lab_n"); do lab_kill "$i"; done
  wait 2>/dev/null
  for i in $(seq 0 "$lab_n"); do ip netns del "$(lab_ns "$i")" 2>/dev/null; done
  [ -n "$lab_dir" ] && lab_umount && rm -rf "$lab_dir"
  trap - EXIT
}

# until CMD... succeeds, for at most SECONDS
lab_until() {
  local n=$(($1 * 10))
  shift
  until "$@" >/dev/null 2>&1; do
    n=$((n - 1))
    [ $n -gt 0 ] || return 1
    sleep 0.1
  done
}
