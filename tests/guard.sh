#!/usr/bin/env bash
# Run one test program and fail it for what its runner hides: sanitizer reports go to files that are looked at here.
# guard.sh NAME PROGRAM [ARG...]
set -u
name=$1
shift
dir=$(mktemp -d "${TMPDIR:-/tmp}/sf-test-XXXXXX") || exit 1
trap 'rm -rf "$dir"' EXIT
export TMPDIR="$dir/tmp"
mkdir -p "$TMPDIR"
log="$dir/san"
export ASAN_OPTIONS="log_path=$log:detect_leaks=1:abort_on_error=0:exitcode=99${ASAN_OPTIONS:+:$ASAN_OPTIONS}"
export LSAN_OPTIONS="log_path=$log:exitcode=99${LSAN_OPTIONS:+:$LSAN_OPTIONS}"
export UBSAN_OPTIONS="log_path=$log:print_stacktrace=1${UBSAN_OPTIONS:+:$UBSAN_OPTIONS}"
export TSAN_OPTIONS="log_path=$log:ignore_noninstrumented_modules=1:exitcode=99${TSAN_OPTIONS:+:$TSAN_OPTIONS}"
# keep everything a test may write in its own home
export HOME="$dir/home" XDG_DATA_HOME="$dir/home/data" XDG_CONFIG_HOME="$dir/home/config"
mkdir -p "$HOME"
unset SIOFLEET_CONNECT SIOFLEET_SERVER_KEY SIOFLEET_KEY
"$@"
rc=$?
for f in "$log".*; do
  [ -s "$f" ] || continue
  echo "$name: sanitizer report:"
  cat "$f"
  rc=1
done
exit $rc
