#!/bin/sh
# Build a disk image of this Debian release with sshd, by debootstrap from the machine's own mirror. Last line on stdout: the
# image's path.
#
#   disk.sh [--check]         build or reuse; --check: exit 1 when a build would be needed
#
# As root debootstrap runs in a mount namespace of its own; otherwise under fakechroot and fakeroot. The file system is made
# without being mounted (mke2fs -d). Cache: ${XDG_CACHE_HOME:-~/.cache}/siofleet/disk/HASH, HASH over this script and the versions of
# all packages in the image.
set -eu
LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin
export LC_ALL PATH
umask 022
here=$(cd "$(dirname "$0")" && pwd)
work=
for d in "$here/.." "$here/../../qemu-patch"; do
    [ -f "$d/apt.sh" ] && { . "$d/apt.sh"; break; }
done

mode=build
case "${1:-}" in
--check) mode=check ;;
'') ;;
*) echo "disk.sh: $1: unknown option (only --check)" >&2; exit 2 ;;
esac
[ -n "${XDG_CACHE_HOME:-}" ] || [ -n "${HOME:-}" ] || die "XDG_CACHE_HOME: neither it nor HOME is set"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/siofleet/disk
packages=openssh-server,iproute2,iperf3,procps
recipe=$(sha256sum <"$here/disk.sh" | cut -c1-64)

look() {
    found=
    for m in "$cache"/*/manifest; do
        [ -f "$m" ] && grep -qx "recipe=$recipe" "$m" && found=${m%/manifest}/disk.img
    done
    return 0
}
look
if [ -n "$found" ]; then
    echo "$found"
    exit 0
fi
[ $mode != check ] || { say "not built yet"; exit 1; }

missing=
tools="debootstrap mke2fs sha256sum flock"
rootless=no
if [ "$(id -u)" != 0 ] || ! unshare -m true 2>/dev/null; then
    rootless=yes
    tools="$tools fakechroot fakeroot"
fi
for tool in $tools; do
    command -v $tool >/dev/null || missing="$missing $tool"
done
[ -z "$missing" ] || die "missing:$missing; run deploy/deps.sh qemu"
mkdir -p "$cache" 2>/dev/null || die "$cache: cannot be made"
free_mib=$(df -Pm "$cache" | awk 'NR == 2 { print $4 }')
[ "$free_mib" -ge 2000 ] || die "$cache: $free_mib MiB free, a disk image needs 2000 MiB"

exec 9>"$cache/lock"
flock 9
look # somebody else may have built it while we waited
if [ -n "$found" ]; then
    echo "$found"
    exit 0
fi
work=$cache/work
rm -rf "$work"
mkdir -p "$work/out"
child=
cleanup() {
    trap - EXIT INT TERM HUP
    if [ -n "$child" ]; then
        kill "$child" 2>/dev/null || true
        wait "$child" 2>/dev/null || true
    fi
    cd /
    rm -rf "$work"
}
trap cleanup EXIT
trap 'cleanup; exit 130' INT
trap 'cleanup; exit 143' TERM HUP
start=$(date +%s)
log=$work/log
root=$work/root
image=$work/out/disk.img

# the release's own entry: type, options, URI, suite
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
entry=$(apt_entries deb | awk -v code="$codename" '{ suite = $(NF - 1) } suite == code { print; exit }')
[ -n "$entry" ] || die "/etc/apt: no entry of this Debian release to take packages from"
mirror=$(echo "$entry" | awk '{ print $(NF - 2) }')
keyring=$(echo "$entry" | sed -n 's/.*signed-by=\([^] ]*\).*/\1/p')
[ -n "$keyring" ] || keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keyring" ] || die "$keyring: cannot be read; the packages could not be verified"

# in the background, so that a signal is acted on at once
cat >"$work/make.sh" <<'S'
set -e
variant=$1 keyring=$2 codename=$3 mirror=$4 packages=$5 root=$6 image=$7
debootstrap --variant="$variant" --keyring="$keyring" --include="$packages" "$codename" "$root" "$mirror"
# fakechroot has links to the host's here
for d in dev proc sys; do [ ! -L "$root/$d" ] || rm "$root/$d"; mkdir -p "$root/$d"; done
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root"/etc/ssh/ssh_host_* "$root"/var/log/bootstrap.log
echo siofleet >"$root/etc/hostname"
mkdir -p "$root/root" "$root/run/sshd"
size=$(du -sm "$root" | cut -f1)
mke2fs -q -t ext4 -L siofleet -U 5f0f1ee7-0000-4000-8000-000000000001 -E hash_seed=5f0f1ee7-0000-4000-8000-000000000002 \
    -d "$root" "$image" $((size * 5 / 4 + 128))M
S
say "debootstrap of $codename with $packages (about 2 minutes; $([ $rootless = yes ] && echo without || echo as) root)"
if [ $rootless = yes ]; then
    set -- fakechroot fakeroot sh "$work/make.sh" fakechroot
else
    set -- unshare --mount --fork --kill-child sh "$work/make.sh" minbase
fi
"$@" "$keyring" "$codename" "$mirror" "$packages" "$root" "$image" >"$log" 2>&1 9>&- &
child=$!
wait $child || {
    child=
    die "debootstrap: $(grep -m1 -E '^(E|W): |rror' "$log" || tail -1 "$log" || echo failed)"
}
child=
versions=$(awk '/^Package: / { p = $2 } /^Version: / { print p, $2 }' "$root/var/lib/dpkg/status" | sort)
hash=$(printf '%s\n%s\n' "$recipe" "$versions" | sha256sum | cut -c1-64)
{
    echo "recipe=$recipe"
    echo "hash=$hash"
    echo "$versions" | sed 's/^/package=/'
} >"$work/out/manifest"
rm -rf "${cache:?}/$hash"
mv "$work/out" "$cache/$hash"
say "done in $(($(date +%s) - start)) s: $(du -m "$cache/$hash/disk.img" | cut -f1) MiB"
echo "$cache/$hash/disk.img"
