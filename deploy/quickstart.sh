#!/usr/bin/env bash
# One command on a bare Debian 12: packages, build, then the main job on real logs (siofleet quickstart ARG...).
# Run again it rebuilds only what changed. The build lives in ${XDG_CACHE_HOME:-~/.cache}/siofleet.
set -euo pipefail
src=$(cd "$(dirname "$0")/.." && pwd)
"$src/deploy/deps.sh" build
build=$("$src/deploy/build.sh")
exec "$build/siofleet" quickstart --logs "$src/tests/data/real-log" "$@"
