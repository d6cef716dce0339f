#!/usr/bin/env bash
# Build siofleet outside of the checkout and print the build folder as the last line of stdout.
#   deploy/build.sh [NAME [CMAKE-ARG...]]      NAME: release (default) or any other name with its own cmake arguments
set -euo pipefail
src=$(cd "$(dirname "$0")/.." && pwd)
name=${1:-release}
[ $# -gt 0 ] && shift
# one folder a checkout, so that two clones do not rebuild each other's files
key=$(printf '%s' "$src" | sha256sum | cut -c1-12)
dir="${XDG_CACHE_HOME:-$HOME/.cache}/siofleet/build/$key/$name"
mkdir -p "$dir"
log="$dir/build.log"
args=(-G Ninja -S "$src" -B "$dir")
command -v ccache >/dev/null && args+=(-DCMAKE_C_COMPILER_LAUNCHER=ccache)
if [ "$name" = release ]; then args+=(-DCMAKE_BUILD_TYPE=Release); fi
args+=("$@")
echo "siofleet: building ($name) in $dir" >&2

# ninja's own "[12/140]" every few seconds, redrawn on a terminal
progress() {
  local at last=''
  while sleep 2; do
    at=$(grep -o '^\[[0-9]*/[0-9]*\]' "$log" | tail -n 1)
    if [ -z "$at" ] || [ "$at" = "$last" ]; then continue; fi
    last=$at
    if [ -t 2 ]; then printf '\rsiofleet: building %s ' "$at" >&2; else echo "siofleet: building $at" >&2; fi
  done
}
progress &
watcher=$!
trap 'kill $watcher 2>/dev/null || true' EXIT
if ! cmake "${args[@]}" >"$log" 2>&1 || ! cmake --build "$dir" >>"$log" 2>&1; then
  tail -n 40 "$log" >&2
  echo "siofleet: $log: build failed" >&2
  exit 1
fi
if [ -t 2 ]; then echo >&2; fi
# clones that are gone leave their build folders behind: drop those that nobody built in for 14 days
find "${XDG_CACHE_HOME:-$HOME/.cache}/siofleet/build" -mindepth 1 -maxdepth 1 -type d -mtime +14 -exec rm -rf {} + 2>/dev/null || true
touch "$(dirname "$dir")"
echo "$dir"
