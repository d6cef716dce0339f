# shellcheck shell=bash
# Sourced by the TAP scripts of this folder: . "${0%/*}/tap.sh"; plan 3
# work = scratch folder (removed at the end), sf = the program. Every process that a script starts through `start` is
# ended with it, whatever happens.
set -u
sf=${SIOFLEET_BIN:?SIOFLEET_BIN names the build folder}/siofleet
src=${SIOFLEET_SRC:-$(cd "$(dirname "$0")/../.." && pwd)}
work=$(mktemp -d "${TMPDIR:-/tmp}/sf-cli-XXXXXX") || exit 1
coordinator_args=() agent_args=() # more of them, for fleet_start
lease_ms=3000                     # of its coordinator: short where agents die, long where a starved one shall not
tap_n=0 tap_bad=0 tap_plan=0 tap_pids=()
rc=0

tap_end() {
  local p i
  for p in "${tap_pids[@]:-}"; do
    [ -n "$p" ] && kill -TERM "$p" 2>/dev/null
  done
  for p in "${tap_pids[@]:-}"; do
    [ -n "$p" ] || continue
    for i in $(seq 200); do
      kill -0 "$p" 2>/dev/null || break
      sleep 0.05
    done
    kill -KILL "$p" 2>/dev/null
    wait "$p" 2>/dev/null
  done
  rm -rf "$work"
  if [ "$tap_n" -ne "$tap_plan" ]; then
    echo "# planned $tap_plan, ran $tap_n"
    exit 1
  fi
  [ "$tap_bad" -eq 0 ] || exit 1
}
trap tap_end EXIT
trap 'exit 1' INT TERM

plan() {
  tap_plan=$1
  echo "1..$1"
}

# run ARG...: the program with these; stdout in $work/out, stderr in $work/err, status in $rc
run() {
  "$sf" "$@" >"$work/out" 2>"$work/err"
  rc=$?
}

# ok TEXT COMMAND...: one check
ok() {
  local text=$1
  shift
  tap_n=$((tap_n + 1))
  if "$@" >"$work/check" 2>&1; then
    echo "ok $tap_n - $text"
  else
    tap_bad=$((tap_bad + 1))
    echo "not ok $tap_n - $text"
    echo "# $* failed; exit status was $rc"
    sed 's/^/# check: /' "$work/check" | head -20
    [ -f "$work/out" ] && sed 's/^/# out: /' "$work/out" | head -20
    [ -f "$work/err" ] && sed 's/^/# err: /' "$work/err" | head -20
  fi
}

# fails N PATTERN: the last run gave exit N, nothing on stdout, and exactly one line that matches on stderr
fails() {
  [ "$rc" -eq "$1" ] && [ ! -s "$work/out" ] && [ "$(wc -l <"$work/err")" -eq 1 ] &&
    grep -q "^siofleet: .*$2" "$work/err"
}

# worked [PATTERN]: the last run gave exit 0, and stdout matches
worked() {
  [ "$rc" -eq 0 ] && { [ $# -eq 0 ] || grep -q -- "$1" "$work/out"; }
}

# json EXPRESSION: python expression over d, the document in $work/out
json() {
  python3 -c 'import json,sys; d=json.load(open(sys.argv[1])); assert eval(sys.argv[2]), d' "$work/out" "$1"
}

# until SECONDS COMMAND...: repeat until it succeeds
until_ok() {
  local end=$((SECONDS + $1))
  shift
  while ! "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.1
  done
}

# start NAME COMMAND...: in the background, output in $work/NAME.log; its pid in $pid
start() {
  local name=$1
  shift
  "$@" >"$work/$name.log" 2>&1 &
  pid=$!
  tap_pids+=("$pid")
}

stop_all() {
  local p
  for p in "${tap_pids[@]:-}"; do [ -n "$p" ] && kill -TERM "$p" 2>/dev/null; done
  for p in "${tap_pids[@]:-}"; do [ -n "$p" ] && wait "$p" 2>/dev/null; done
  tap_pids=()
}

# chunks STORE: how many chunks of the artefact that is coming are noted there. No python: it is asked in the middle of a transfer,
# which on a busy machine was over before an interpreter had started.
chunks() {
  local map n=0
  for map in "$1"/partial/*.map; do
    n=$(od -An -v -tu8 -j8 -N8 "$map" 2>/dev/null)
    n=$(((${n:-0} + 1048575) >> 20))
    break
  done
  od -An -v -tu1 -w1 -j $((16 + 32 * n)) "$map" 2>/dev/null | awk '{ for (b = $1; b; b = int(b / 2)) s += b % 2 } END { print s + 0 }'
}

# chunks_come STORE N: at least so many are there
chunks_come() { [ "$(chunks "$1")" -ge "$2" ]; }

# flip FILE OFFSET: a bit of the byte there
flip() {
  local b
  chmod u+w "$1" && b=$(od -An -tu1 -j "$2" -N1 "$1") || return 1
  # shellcheck disable=SC2059 # the byte is an escape of the format
  printf "\\$(printf %o $((b ^ 1)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# small_log FILE DEVICES EVENTS: a text log as QEMU writes it, the same bytes each time
small_log() {
  awk -v dev="$2" -v n="$3" 'BEGIN {
    for (d = 0; d < dev; d++)
      printf "vtd_iotlb_cc_update IOTLB context update bus 0x0 devfn 0x%x high 0x%x02 low 0x1000%d gen 0 -> gen 1\n", (2 + d) * 8, d + 1, d
    for (i = 0; i < n; i++) {
      d = i % dev; p = int(i / dev) % 37
      printf "vtd_iotlb_page_update IOTLB page update sid 0x%x iova 0x%x000 slpte 0x%x003 level 0x1 domain 0x%x\n", (2 + d) * 8, 1048064 - p, 70000 + p, d + 1
    }
  }' >"$1"
}

# small_sweep FILE NAME: a sweep of four points over a.log
small_sweep() {
  printf '[sweep]\nname = %s\n[trace]\nlogs = a.log\n[arch]\niotlb_entries = 64..512:x2\n' "$2" >"$1"
}

# fleet_agent NAME ARG...: an agent of the fleet in $work/fleet/NAME, with a key that is made and allowed; its pid in
# $pid and $agent_pid, $work/fleet/NAME.ready once it has registered
fleet_agent() {
  local name=$1 dir=$work/fleet
  shift
  [ -f "$dir/$name.key" ] || "$sf" keys new "$dir/$name.key" --role agent --name "$name" || return 1
  "$sf" keys allow --data "$dir/c" "$dir/$name.key.pub" || return 1
  rm -f "$dir/$name.ready"
  start "$name" "$sf" agent --data "$dir/$name" --connect "$SIOFLEET_CONNECT" --server-key "$SIOFLEET_SERVER_KEY" \
    --key "$dir/$name.key" --name "$name" --cores 1 --ready-file "$dir/$name.ready" "$@"
  agent_pid=$pid
}

# fleet_start AGENTS: a coordinator and agents on loopback in $work/fleet; sets the SIOFLEET_* variables
fleet_start() {
  local i dir=$work/fleet
  mkdir -p "$dir"
  rm -f "$dir/ready"
  start coordinator "$sf" coordinator --data "$dir/c" --listen "${fleet_listen:-tcp://127.0.0.1:*}" \
    --ready-file "$dir/ready" --heartbeat-ms 300 --lease-ms "$lease_ms" ${coordinator_args[@]+"${coordinator_args[@]}"}
  coordinator_pid=$pid
  until_ok 30 test -f "$dir/ready" || return 1
  SIOFLEET_CONNECT=$(python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["endpoint"])' "$dir/ready")
  SIOFLEET_SERVER_KEY=$dir/c/keys/coordinator.pub
  SIOFLEET_KEY=$dir/c/keys/admin
  export SIOFLEET_CONNECT SIOFLEET_SERVER_KEY SIOFLEET_KEY
  for i in $(seq "$1"); do
    fleet_agent "a$i" ${agent_args[@]+"${agent_args[@]}"} || return 1
  done
  for i in $(seq "$1"); do
    until_ok 30 test -f "$dir/a$i.ready" || return 1
  done
}
