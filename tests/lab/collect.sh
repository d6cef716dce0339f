#!/usr/bin/env bash
# The collection pack: QEMU, firmware and guest image for hosts with collect=yes, and only for these. Such a host then
# collects with nothing but what it was sent: it has no network but to its head, and lacks libraries that QEMU needs.
# shellcheck disable=SC2154,SC2016,SC2034,SC2317 # lab.sh sets lab_dir; eval expands; functions are called by name
set -u
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/lab/lab.sh
. "$here/lab.sh"
lab_need || exit 77
if ! sh "$SIOFLEET_SRC/qemu-patch/build.sh" --check >/dev/null 2>&1; then
  echo "1..0 # SKIP the patched QEMU is not built (qemu-patch/build.sh)"
  exit 77
fi
cache=${XDG_CACHE_HOME:-$HOME/.cache}/siofleet
lab_up 2
head=$lab_dir/head
mkdir -p "$lab_dir/cache/siofleet"
for part in qemu image; do ln -s "$cache/$part" "$lab_dir/cache/siofleet/$part"; done
lab_sf coordinator --data "$head" --listen "tcp://$(lab_ip 0):7700" --ready-file "$lab_dir/ready" >"$lab_dir/coordinator.log" 2>&1 &
lab_until 60 test -s "$lab_dir/ready" || { echo "Bail out! no coordinator: $(tail -n 2 "$lab_dir/coordinator.log")"; exit 1; }
ini=$lab_dir/hosts.ini
{
  printf '[fleet]\ncoordinator = tcp://%s:7700\nserver_key = %s/keys/coordinator.pub\n' "$(lab_ip 0)" "$head"
  lab_ini '' | sed 's/^\[host h1\]/&\nclass = c/'
  printf '[class c]\ncollect = yes\n'
} >"$ini"
files() { find "$(lab_home 1)" "$(lab_home 2)" | sort; }
before=$(files)

# a host without what QEMU's packages bring: its libraries, and its own cache
lib=/usr/lib/x86_64-linux-gnu
lab_mnt 1 mount -t tmpfs none /mnt
lab_mnt 1 mkdir /mnt/up /mnt/work
if lab_mnt 1 mount -t overlay -o "lowerdir=$lib,upperdir=/mnt/up,workdir=/mnt/work" overlay $lib 2>/dev/null; then
  lab_mnt 1 sh -c "rm $lib/libslirp.so.0* $lib/libfdt* $lib/libpixman-1.so.0*"
fi

deploy check "$ini"
ok "check looks at what QEMU needs" lab_is '[.failed, (.hosts[0].facts.kvm | test("usable|denied|absent|untried")), .hosts[0].facts.address_space]' '[0,true,"unlimited"]'
deploy up "$ini" --timeout 120s
ok "up sends the pack" lab_is '[.failed, .changed, ([.hosts[0].actions[] | select(test("collection pack"))] | length)]' '[0,2,2]'
ok "to no other host" lab_is '[.hosts[1].actions[] | select(test("collection pack"))] | length' 0
share=$(lab_home 1)/.local/share/siofleet
ok "which has none of it" test ! -e "$(lab_home 2)/.local/share/siofleet/packs" -a -d "$share/packs"
deploy up "$ini"
ok "a second up sends nothing" lab_is '[.failed, .changed, .bytes_sent]' '[0,0,0]'

# as its agent would: the environment of run.sh, no PATH to build tools needed, no network
pid=$(cat "$share/run/service.pid")
ok "the agent finds the pack" eval 'tr "\0" "\n" <"/proc/$pid/environ" | grep -qx "XDG_CACHE_HOME=/root/.local/share/siofleet/cache"'
libs=$(tr '\0' '\n' <"/proc/$pid/environ" | grep '^LD_LIBRARY_PATH=')
own=$(lab_mnt 1 sh -c "test -e $lib/libslirp.so.0 && echo there")
ok "and only libraries that its host lacks" eval '[ -n "$own" ] && [ -z "$libs" ] || [ "$(ls "$share/cache/lib" | grep -c -v -e slirp -e fdt -e pixman)" = 0 ]'
ok "three of them here${own:+ (not tried: no overlay mounts here)}" eval '[ -n "$own" ] || [ "$(ls "$share/cache/lib" | wc -l)" = 3 ]'
lab_sf collect init quick | sed 's/^bytes = .*/bytes = 4M/' >"$(lab_home 1)/quick.ini"
lab_mnt 1 env -i HOME=/root PATH=/usr/bin:/bin XDG_CACHE_HOME=/root/.local/share/siofleet/cache ${libs:+"$libs"} \
  sh -c 'cd && .local/share/siofleet/current/siofleet collect --local quick.ini -o out --no-prepare --json' >"$lab_dir/out.json" 2>"$lab_dir/err"
ok "the host collects with what it was sent" lab_is '[.runs[0].status, (.runs[0].log.events > 10000), .tracer]' '["done",true,"ring"]'
rm -rf "$(lab_home 1)/quick.ini" "$(lab_home 1)/out"
deploy down "$ini"
ok "down leaves the files of before" test "$(files)" = "$before"
lab_done
