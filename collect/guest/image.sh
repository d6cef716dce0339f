#!/bin/sh
# Build the guest image: vmlinux, base.cpio (busybox, iperf3, modules) and an iperf3 for the host's side, from Debian
# packages that are downloaded and unpacked, never installed. Last line on stdout: the image's folder.
#
#   image.sh [--check]        build or reuse; --check: exit 1 when a build would be needed
#   image.sh --nested QEMU    also the cpio that lets L1 run L2 guests with that QEMU; last line: its path
#
# Same packages, same bytes: sorted names, no owners, no times. Cache: ${XDG_CACHE_HOME:-~/.cache}/siofleet/image/HASH.
set -eu
LC_ALL=C
export LC_ALL
umask 022
here=$(cd "$(dirname "$0")" && pwd)
work=
for d in "$here/.." "$here/../../qemu-patch"; do
    [ -f "$d/apt.sh" ] && { . "$d/apt.sh"; break; }
done

mode=build
case "${1:-}" in
--check) mode=check ;;
--nested)
    mode=nested
    [ $# -eq 2 ] || { echo "image.sh: --nested: needs the path of a QEMU" >&2; exit 2; }
    qemu=$2
    ;;
'') ;;
*) echo "image.sh: $1: unknown option" >&2; exit 2 ;;
esac
[ -n "${XDG_CACHE_HOME:-}" ] || [ -n "${HOME:-}" ] || die "XDG_CACHE_HOME: neither it nor HOME is set"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/siofleet/image

modules="e1000 e1000e virtio_net virtio_blk nvme ext4 kvm_amd kvm_intel vfio_pci vfio_iommu_type1"
packages="busybox-static iperf3 libiperf0 libsctp1 libssl3 libc6"
recipe=$(cat "$here/init" "$here/image.sh" | sha256sum | cut -c1-64)

pack() { # folder, output: a cpio with the same bytes for the same content
    (cd "$1" && find . -exec touch -h -d @0 {} + && find . -print0 | sort -z |
        cpio --null -o -H newc -R 0:0 --reproducible --quiet) >"$2"
}

look() {
    found=
    for m in "$cache"/*/manifest; do
        [ -f "$m" ] && grep -qx "recipe=$recipe" "$m" && found=${m%/manifest}
    done
    return 0
}
look

missing=
for tool in cpio objcopy xz dpkg-deb sha256sum flock; do
    command -v $tool >/dev/null || missing="$missing $tool"
done

mkdir -p "$cache" 2>/dev/null || die "$cache: cannot be made"
lock() {
    exec 9>"$cache/lock"
    flock 9
    work=$cache/work
    rm -rf "$work"
    mkdir -p "$work"
    trap 'cd /; rm -rf "$work"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}

build() {
    [ -z "$missing" ] || die "missing:$missing; run deploy/deps.sh qemu"
    free_mib=$(df -Pm "$cache" | awk 'NR == 2 { print $4 }')
    [ "$free_mib" -ge 1000 ] || die "$cache: $free_mib MiB free, an image needs 1000 MiB"
    say "fetching the kernel and five packages (75 MB)"
    apt_setup deb
    # shellcheck disable=SC2086,SC2154
    kernel=$(apt-cache $apt_opts show --no-all-versions linux-image-amd64 | sed -n 's/^Depends: \(linux-image-[^ ]*\).*/\1/p')
    [ -n "$kernel" ] || die "linux-image-amd64: names no kernel package"
    mkdir "$work/debs" "$work/k" "$work/x" "$work/out" "$work/out/host"
    # shellcheck disable=SC2086,SC2154
    (cd "$work/debs" && apt_fetch "$kernel" $packages)
    versions=$(cd "$work/debs" && sha256sum -- *.deb | awk '{ print $2 " " $1 }' | sort)
    hash=$(printf '%s\n%s\n' "$recipe" "$versions" | sha256sum | cut -c1-64)
    for d in "$work"/debs/*.deb; do
        case $d in */linux-image*) dpkg-deb -x "$d" "$work/k" ;; *) dpkg-deb -x "$d" "$work/x" ;; esac
    done

    say "unpacking the kernel"
    bz=$(ls "$work"/k/boot/vmlinuz-*)
    word() { od -An -tu"$2" -j"$1" -N"$2" "$bz" | tr -d ' '; }
    from=$((($(word 497 1) + 1) * 512 + $(word 584 4)))
    tail -c +$((from + 1)) "$bz" | head -c "$(word 588 4)" | xz -dc --single-stream >"$work/out/vmlinux" 2>/dev/null || true
    [ "$(head -c 4 "$work/out/vmlinux" | tail -c 3)" = ELF ] || die "$kernel: no XZ payload with an ELF kernel in it"

    say "packing the initramfs"
    r=$work/root
    mkdir -p "$r/bin" "$r/dev" "$r/proc" "$r/sys" "$r/modules" "$r/lib64" "$r/lib/x86_64-linux-gnu"
    b=$(ls "$work"/x/bin/busybox "$work"/x/usr/bin/busybox 2>/dev/null | head -1)
    cp "$b" "$r/bin/busybox"
    for a in $("$r/bin/busybox" --list); do [ "$a" = busybox ] || ln -s busybox "$r/bin/$a"; done
    ln -s bin "$r/sbin"
    cp "$work/x/usr/bin/iperf3" "$r/bin/iperf3"
    for l in libiperf.so.0 libsctp.so.1 libcrypto.so.3 libm.so.6 libc.so.6 ld-linux-x86-64.so.2; do
        f=$(find "$work/x" -name "$l" | head -1)
        [ -n "$f" ] || die "$l: in none of the packages"
        cp -L "$f" "$r/lib/x86_64-linux-gnu/$l"
    done
    ln -s ../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 "$r/lib64/ld-linux-x86-64.so.2"
    cp -a "$r/lib/x86_64-linux-gnu" "$work/out/host/lib"
    cp "$r/bin/iperf3" "$work/out/host/iperf3"

    # a module's list: what it needs first, each once; names with _ as the kernel prints them
    find "$work/k/lib/modules" -name '*.ko' >"$work/ko"
    path_of() { awk -v m="$1" '{ n = $0; sub(/.*\//, "", n); sub(/\.ko$/, "", n); gsub(/-/, "_", n) } n == m { print; exit }' "$work/ko"; }
    info() { objcopy -O binary --only-section=.modinfo "$1" /dev/stdout | tr '\0' '\n' | sed -n "s/^$2=//p"; }
    visit() {
        # shellcheck disable=SC3043 # Debian's sh has it, and recursion needs it
        local p dep
        case " $order " in *" $1 "*) return ;; esac
        p=$(path_of "$1")
        [ -n "$p" ] || return 0 # built in
        for dep in $(info "$p" depends | tr ',-' ' _') $(info "$p" softdep | sed -n 's/^pre: //p' | tr '-' '_'); do
            visit "$dep"
        done
        order="$order $1"
    }
    for m in $modules; do
        order=
        case $m in # what is found by name at run time only
        virtio_net | virtio_blk) visit virtio_pci ;;
        ext4) visit crc32c_generic ;;
        nvme) visit crct10dif_generic && visit crc64_rocksoft_generic ;;
        esac
        visit "$m"
        for o in $order; do
            [ -e "$r/modules/$o.ko" ] || strip --strip-debug -o "$r/modules/$o.ko" "$(path_of "$o")"
        done
        echo "${order# }" >"$r/modules/$m.list"
    done
    cp "$here/init" "$r/init"
    chmod 755 "$r/init"
    find "$r" -type d -exec chmod 755 {} +
    pack "$r" "$work/out/base.cpio"
    {
        echo "recipe=$recipe"
        echo "hash=$hash"
        echo "kernel=$kernel"
        echo "base_sha256=$(sha256sum <"$work/out/base.cpio" | cut -c1-64)"
        echo "vmlinux_sha256=$(sha256sum <"$work/out/vmlinux" | cut -c1-64)"
        echo "$versions" | sed 's/^/package=/'
    } >"$work/out/manifest"
    rm -rf "${cache:?}/$hash"
    mv "$work/out" "$cache/$hash"
    found=$cache/$hash
    say "done: $(du -m "$found/base.cpio" | cut -f1) MiB initramfs, $(du -m "$found/vmlinux" | cut -f1) MiB kernel"
}

if [ -z "$found" ]; then
    [ $mode != check ] || { say "not built yet"; exit 1; }
    lock
    look # somebody else may have built it while we waited
    [ -n "$found" ] || build
fi

if [ $mode = nested ]; then
    [ -x "$qemu" ] || die "$qemu: not an executable"
    qhash=$(sha256sum <"$qemu" | cut -c1-16)
    out=$found/nested-$qhash.cpio
    if [ ! -f "$out" ]; then
        [ -n "$work" ] || lock
        n=$work/nested
        mkdir -p "$n/opt/qemu/lib" "$n/opt/qemu/fw" "$n/l2"
        cp "$qemu" "$n/opt/qemu/qemu"
        ldd "$qemu" | awk '$3 ~ /^\// { print $3 } $1 ~ /ld-linux/ { print $1 }' | while read -r l; do cp -L "$l" "$n/opt/qemu/lib/"; done
        for f in bios-256k.bin kvmvapic.bin linuxboot_dma.bin pvh.bin; do
            for d in "$(dirname "$qemu")/../share/qemu" /usr/share/qemu /usr/share/seabios; do
                [ -f "$d/$f" ] && { cp -L "$d/$f" "$n/opt/qemu/fw/"; break; }
            done
        done
        # shellcheck disable=SC2016
        printf '#!/bin/sh\nexec /opt/qemu/lib/ld-linux-x86-64.so.2 --library-path /opt/qemu/lib /opt/qemu/qemu -L /opt/qemu/fw "$@"\n' >"$n/opt/qemu/run"
        chmod 755 "$n/opt/qemu/run"
        cp "$found/vmlinux" "$found/base.cpio" "$n/l2/"
        pack "$n" "$work/nested.cpio"
        mv "$work/nested.cpio" "$out"
        say "L1 parts for nested guests: $(du -m "$out" | cut -f1) MiB"
    fi
    echo "$out"
else
    echo "$found"
fi
