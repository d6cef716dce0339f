#!/usr/bin/env bash
# run.sh PROGRAM CORPUS: fuzz for $SIOFLEET_FUZZ_S seconds (20), starting from the corpus; new inputs stay in a scratch folder,
# a crashing one is printed as base64 so that it can become a corpus file.
set -u
dir=$(mktemp -d "${TMPDIR:-/tmp}/sf-fuzz-XXXXXX") || exit 1
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/new"
(cd "$dir" && "$1" -max_total_time="${SIOFLEET_FUZZ_S:-20}" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
  -verbosity=0 "$dir/new" "$2")
rc=$?
for f in "$dir"/crash-* "$dir"/timeout-* "$dir"/oom-* "$dir"/leak-*; do
  [ -e "$f" ] && { echo "crashing input $(basename "$f"):"; base64 "$f"; rc=1; }
done
exit $rc
