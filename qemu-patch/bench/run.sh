#!/bin/sh
# By hand: what QEMU's own trace backends cost an event, beside vtd-ring-bench (which every build runs). Configures the patched tree
# once for each backend, since both in one binary would both write, and builds the bench alone.
#   qemu-patch/bench/run.sh [log|simple]...     prints "BACKEND [unpaused]: NS ns an event ..."; needs the source that build.sh fetched
set -eu
LC_ALL=C
export LC_ALL
here=$(cd "$(dirname "$0")" && pwd)
patch=$here/..
cache=${XDG_CACHE_HOME:-$HOME/.cache}/siofleet/qemu
dsc=$(ls "$cache"/source/*.dsc 2>/dev/null | tail -n 1)
[ -n "$dsc" ] || { echo "run.sh: $cache/source: no source package; qemu-patch/build.sh fetches it" >&2; exit 1; }
[ $# -gt 0 ] || set -- log simple
work=$(mktemp -d "${TMPDIR:-/tmp}/sf-qemu-bench-XXXXXX")
trap 'cd /; rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
dpkg-source -x "$dsc" "$work/qemu" >"$work/log" 2>&1
cd "$work/qemu"
for p in "$patch"/patches/*.patch; do patch -p1 -s --no-backup-if-mismatch -i "$p"; done
cp "$here/vtd-trace-bench.c" tests/bench/
cat >>tests/bench/meson.build <<'M'
executable('vtd-trace-bench', sources: files('vtd-trace-bench.c'), dependencies: [qemuutil], build_by_default: false)
M
cp "$patch/devices.mak" configs/devices/x86_64-softmmu/siofleet.mak
cc=gcc
if command -v ccache >/dev/null; then
    cc="ccache gcc"
    export CCACHE_BASEDIR="$work" CCACHE_NOHASHDIR=1 CCACHE_SLOPPINESS=time_macros,include_file_mtime,include_file_ctime
fi
for backend in "$@"; do
    case $backend in log) size=0 ;; simple) size=64 ;; *) echo "run.sh: $backend: log or simple" >&2; exit 2 ;; esac
    mkdir "$work/build-$backend"
    cd "$work/build-$backend"
    # shellcheck disable=SC2046
    ../qemu/configure --cc="$cc" $(sed "s/backends=log/backends=$backend/" "$patch/configure.flags") >"$work/log" 2>&1 ||
        { tail -n 3 "$work/log" >&2; exit 1; }
    ninja -j "$(nproc)" tests/bench/vtd-trace-bench >"$work/log" 2>&1 || { grep -A6 -m1 FAILED "$work/log" >&2; exit 1; }
    for i in 1 2 3; do
        rm -f out
        echo "$backend: $(tests/bench/vtd-trace-bench out $size)"
    done
    rm -f out
    echo "$backend unpaused: $(tests/bench/vtd-trace-bench out $size x)"
done
