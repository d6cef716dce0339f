#!/usr/bin/env bash
# One command on a bare Debian 12: packages, build, then the main job on real logs (siofleet quickstart ARG...).
# --offline leaves the live collection out, and with it the packages that build QEMU.
# Run again it rebuilds only what changed. The build lives in ${XDG_CACHE_HOME:-~/.cache}/siofleet.
set -euo pipefail
src=$(cd "$(dirname "$0")/.." && pwd)
purposes=(build qemu) # qemu: for the log that is collected here
for a in "$@"; do [ "$a" = --offline ] && purposes=(build); done
"$src/deploy/deps.sh" "${purposes[@]}"
build=$("$src/deploy/build.sh")
exec "$build/siofleet" quickstart --logs "$src/tests/data/real-log" "$@"
