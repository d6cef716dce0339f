#!/usr/bin/env bash
# A guest from the user's own parts: a disk image, a kernel with an initramfs that speaks the protocol itself, a script; and the
# disk image that we make, with `vm ssh` into it while --keep holds it up.
#   t0430-own-parts.sh own|disk
. "${0%/*}/../cli/tap.sh"
case ${1:-} in
own) needs=$src/qemu-patch/build.sh ;;
disk) needs=$src/collect/guest/disk.sh ;;
*) echo "usage: t0430-own-parts.sh own|disk" >&2; exit 2 ;;
esac
for script in "$src/qemu-patch/build.sh" "$needs"; do
  if ! sh "$script" --check >/dev/null 2>&1; then
    echo "1..0 # skip: not built: sh $script"
    tap_plan=0
    exit 77
  fi
done
no_qemu() { ! pgrep -f "qemu-system-x86_64 -name siofleet-.*$work" >/dev/null; }
cd "$work" || exit 1
export XDG_DATA_HOME=$work/data

case $1 in
own)
  plan 9
  image=$(sh "$src/collect/guest/image.sh" | tail -n 1)
  # 1 a script, with the iperf3 servers of the host's side
  cat >send.sh <<'S'
set -- $PORTS
iperf3 -c 10.0.11.2 -p "$1" -n 2M && iperf3 -c 10.0.12.2 -p "$2" -n 2M
S
  printf '[collect]\nnics = 2\n[workload]\nkind = script\nscript = send.sh\n' >script.ini
  run collect --local script.ini -o s --json
  ok "a script of the user's" json 'd["runs"][0]["status"]=="done" and d["runs"][0]["log"]["devices"]==2'
  ok "its output is there" grep -q 'receiver' s/run-0001/workload-script.txt
  echo 'echo other' >send.sh
  run collect --local script.ini -o s
  ok "another script of that name is another run" fails 1 'holds another collection'

  # 2 a disk of one's own: what the script is started in
  mkdir -p root/bin root/etc
  (cd root && cpio -i --quiet --no-absolute-filenames -F "$image/base.cpio" 'bin/*')
  echo 'this disk' >root/etc/mark
  PATH=$PATH:/sbin mke2fs -q -t ext4 -d root own.img 32M
  before=$(sha256sum own.img)
  # shellcheck disable=SC2016
  printf '#!/bin/sh\ncat /etc/mark\necho changed >/etc/mark\nset -- $PORTS\ntelnet 10.0.11.2 "$1" </dev/null\ntrue\n' >inside.sh
  printf '[collect]\ndisk = own.img\n[workload]\nkind = script\nscript = inside.sh\n' >disk.ini
  run collect --local disk.ini -o d --json
  ok "a disk of the user's: the script runs in it" sh -c "[ $rc -eq 0 ] && grep -qx 'this disk' d/run-0001/workload-script.txt"
  ok "and leaves it as it was" test "$before" = "$(sha256sum own.img)"

  # 3 kernel and initramfs of one's own, talking over the second serial line as collect/README.md says
  mkdir add
  cat >add/init <<'S'
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /tmp
stty -F /dev/ttyS1 raw -echo
exec 3<>/dev/ttyS1
echo BOOT >&3
for m in $(cat /modules/e1000.list); do insmod /modules/$m.ko; done
ip addr add 10.0.11.15/24 dev eth0
ip link set eth0 up
while [ "$(cat /sys/class/net/eth0/carrier)" != 1 ]; do sleep 0.1; done
echo READY >&3
read -r go <&3
echo "$go and my own init" >/tmp/out
sh /workload >>/tmp/out 2>&1
echo "END $?" >&3
read -r word <&3
echo "FILE script.txt $(stat -c %s /tmp/out)" >&3
cat /tmp/out >&3
echo "FILE script.exit 2" >&3
echo 0 >&3
echo DONE >&3
sleep 1
poweroff -f
S
  chmod +x add/init
  cp "$image/vmlinux" kernel
  { cat "$image/base.cpio"; (cd add && echo init | cpio -o -H newc --quiet); } >initrd
  printf 'ping -c 2 10.0.11.2\n. /run.conf\necho "$ROLE of $NICS"\n' >ping.sh
  printf '[collect]\nkernel = kernel\ninitrd = initrd\n[workload]\nkind = script\nscript = ping.sh\n' >own.ini
  run collect --local own.ini -o o --json
  ok "kernel and initramfs of the user's" json 'd["runs"][0]["status"]=="done" and d["image"]=="none" and d["runs"][0]["log"]["events"]>0'
  ok "its init and its script did the work" sh -c "grep -qx 'GO and my own init' o/run-0001/workload-script.txt && grep -qx 'l1 of 1' o/run-0001/workload-script.txt"
  head -c 4096 /dev/zero >kernel
  run collect --local own.ini -o o2
  ok "what is no kernel is one clear line" sh -c "[ $rc -eq 1 ] && tail -n 1 err | grep -q '^siofleet: l1: '"
  ok "nothing runs any more" no_qemu
  ;;
disk)
  plan 9
  echo 'cat /etc/debian_version; set -- $PORTS; iperf3 -c 10.0.11.2 -p "$1" -n 2M' >inside.sh
  printf '[collect]\ndisk = debootstrap\n[workload]\nkind = script\nscript = inside.sh\n' >disk.ini
  start keep "$sf" collect --local disk.ini -o k --keep
  verb=$pid
  ok "--keep leaves the guest up" until_ok 150 grep -q 'stays up' keep.log
  id=$("$sf" vm ls --json | python3 -c 'import json,sys,os; print([v["id"] for v in json.load(sys.stdin)["items"] if os.getpgid(v["pid"]) == os.getpgid(int(sys.argv[1]))][0])' "$verb")
  run vm ls --json
  ok "vm ls names its ssh port" json "[v for v in d['items'] if v['id']=='$id'][0]['ssh_port']>0"
  run vm ssh "$id" cat /etc/hostname /etc/debian_version
  ok "vm ssh gets into the disk" worked '^siofleet$'
  run vm ssh "$id" exit 7
  ok "and gives the command's status" test $rc -eq 7
  port=$("$sf" vm ls --json | python3 -c 'import json,sys; print([v["ssh_port"] for v in json.load(sys.stdin)["items"] if v["id"]==sys.argv[1]][0])' "$id")
  ok "without its key nobody gets in" sh -c "! ssh -F /dev/null -o BatchMode=yes -o IdentitiesOnly=yes -i /dev/null -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -p $port root@127.0.0.1 true"
  run vm stop "$id"
  ok "vm stop ends it" worked
  wait "$verb"
  rc=$?
  ok "and the run is done" test $rc -eq 0 -a -s k/run-0001/log.slog
  ok "its script ran in the disk" grep -q '^12\.' k/run-0001/workload-script.txt
  ok "nothing runs any more" no_qemu
  ;;
esac
