# shellcheck shell=bash
# A row of the matrix (matrix.sh): a fleet in a laboratory of its own, what can be done to it, and how rows are run several
# at a time. Sourced behind lab.sh.
# shellcheck disable=SC2154,SC2034 # lab.sh and the rows set what is used here
#
# a row       its settings, with what they are unless a row says otherwise
row_defaults() {
  lease=1000     # ms
  absent=        # agents that the row itself starts, or that do not come at all
  agents=2       # on hosts 1 to N; the coordinator and the user are on host 0
  events=4000    # of the log; 120000 make it 2.5 MB packed
  rate=          # of the agents' links, both ways
  tmpfs=         # PLACE SIZE: a folder below lab_dir that is a file system of its own
  fake=          # c or aN: its wall clock is $lab_dir/clock's
  declare -gA speaks=() # c or aN: its protocol version
  when=middle    # the fault comes: start, submitting (the log is on its way up), fetching (down), middle (some points are done)
}

out=$SIOFLEET_BIN/lab-matrix
points=24

# ---- the fleet
program() { # program c|aN: the words that start siofleet there
  local lib
  lib=/usr/lib/$(uname -m)-linux-gnu/faketime/libfaketime.so.1
  echo env
  [ "$fake" != "$1" ] || printf '%s\n' "LD_PRELOAD=$lib" FAKETIME_NO_CACHE=1 NO_FAKE_STAT=1 DONT_FAKE_MONOTONIC=1 \
    FAKETIME_DONT_FAKE_MONOTONIC=1 FAKETIME_TIMESTAMP_FILE="$lab_dir/clock"
  [ -z "${speaks[$1]:-}" ] || printf '%s\n' "SIOFLEET_TEST_PROTOCOL=${speaks[$1]}" "$lab_bin-protocol"
  [ -n "${speaks[$1]:-}" ] || echo "$lab_bin"
}
coordinator() {
  coordinator_begin
  lab_until 60 test -s "$lab_dir/c.ready"
}
coordinator_begin() { # coordinator_begin [ARG...]
  local words
  mapfile -t words < <(program c)
  rm -f "$lab_dir/c.ready"
  lab_in 0 "${words[@]}" coordinator --data "$lab_dir/c" --listen "tcp://$(lab_ip 0):7700" --lease-ms "$lease" --heartbeat-ms 250 \
    --ready-file "$lab_dir/c.ready" >>"$lab_dir/coordinator.log" 2>&1 &
}
agent() { # agent I
  agent_begin "$1"
  lab_until 60 test -s "$lab_dir/a$1.ready"
}
agent_begin() {
  local d=$lab_dir/a$1 words
  mapfile -t words < <(program "a$1")
  rm -f "$d.ready"
  lab_in "$1" "${words[@]}" agent --data "$d" --connect "tcp://$(lab_ip 0):7700" --server-key "$lab_dir/c/keys/coordinator.pub" \
    --key "$d.key" --cores 1 --ready-file "$d.ready" >>"$d.log" 2>&1 &
}
# refused c|aN EXIT PATTERN: started, it ends with that status and one line
refused() {
  local rc
  if [ "$1" = c ]; then coordinator_begin; else agent_begin "${1#a}"; fi
  wait $!
  rc=$?
  [ $rc = "$2" ] && says "$1" "^siofleet: .*$3"
}
user() { # user ARG...: a command of the user
  local words
  mapfile -t words < <(program user)
  lab_in 0 "${words[@]}" "$@" --connect "tcp://$(lab_ip 0):7700" --server-key "$lab_dir/c/keys/coordinator.pub" --key "$lab_dir/c/keys/admin"
}
pid_of() { # c, aN, shimN, taskN
  case $1 in
    c | a*) jq -r .pid "$lab_dir/$1.ready" 2>/dev/null ;;
    shim*) cmd_pid "${1#shim}" 0 siofleet-shim ;;
    task*) cmd_pid "${1#task}" 1 __task ;;
  esac
}
cmd_pid() { # cmd_pid HOST N WORD: a process there whose argument N ends in WORD
  local p args
  for p in $(ip netns pids "$(lab_ns "$1")"); do
    mapfile -d '' -t args 2>/dev/null <"/proc/$p/cmdline" || continue
    [[ ${args[$2]:-} == *"$3" ]] && echo "$p" && return
  done
  return 1
}
registered() {
  local i
  for i in $(seq 1 "$agents"); do
    [[ " $absent " == *" $i "* ]] || lab_until 60 test -s "$lab_dir/a$i.ready" || return 1
  done
}
sweep_done() { user ls sweeps --json 2>/dev/null | jq '.items[0].done // 0'; }
in_the_middle() { local n; n=$(sweep_done) && [ "$n" -ge 3 ] && [ "$n" -lt "$points" ]; }

# ---- what hurts, and what heals
nap() { sleep "$1"; }
sig() { # sig WHO SIGNAL: tasks and shims come and go, so it may be the next one that gets it
  [ "$2" = CONT ] && { kill -CONT "$stopped"; return; }
  lab_until 20 sig_now "$1" "$2"
}
sig_now() {
  stopped=$(pid_of "$1") && kill -"$2" "$stopped" || return 1
  [ "$2" != KILL ] || lab_until 20 lab_fails kill -0 "$stopped"
}
host_kill() { lab_kill "$1"; } # all that runs on host I, at once
# sever I in|out|both: nothing passes between host I and the others
sever() {
  nft_in "$1" 'add table inet fault; add chain inet fault in { type filter hook input priority 0; }; add chain inet fault out { type filter hook output priority 0; }'
  [ "$2" = out ] || nft_in "$1" 'add rule inet fault in iif eth0 drop'
  [ "$2" = in ] || nft_in "$1" 'add rule inet fault out oif eth0 drop'
}
mend() { nft_in "$1" 'delete table inet fault'; }
nft_in() { lab_in "$1" nft "$2"; }
flap() { # flap I N: N times off and on, each 0.4 s
  local i
  for i in $(seq "$2"); do
    sever "$1" both
    sleep 0.4
    [ "$i" = "$2" ] && break
    mend "$1"
    sleep 0.4
  done
}
# reset_port I: every connection of the coordinator's port gets a reset on both ends
reset_port() {
  nft_in "$1" 'add table inet fault; add chain inet fault in { type filter hook input priority 0; }; add chain inet fault out { type filter hook output priority 0; }
    add rule inet fault in tcp dport 7700 counter reject with tcp reset; add rule inet fault out tcp sport 7700 counter reject with tcp reset'
  lab_until 20 was_reset "$1"
}
was_reset() { [ "$(hits "$1")" -ge 2 ]; }
hits() { lab_in "$1" nft -j list table inet fault | jq '[.. | .counter?.packets // empty] | add // 0'; }
lose() { # lose I PERCENT: of the packets on their way in and out, each as small as they are on a wire
  lab_in "$1" ip link set eth0 gso_max_segs 1
  lab_in 0 ip link set br0 gso_max_segs 1
  nft_in "$1" "add table inet fault; add chain inet fault in { type filter hook input priority 0; }; add chain inet fault out { type filter hook output priority 0; }
    add rule inet fault in iif eth0 numgen random mod 100 < $2 counter drop; add rule inet fault out oif eth0 numgen random mod 100 < $2 counter drop"
}
lost() { hits "$1"; }
slow_links() {
  local i
  for i in $(seq 1 "$agents"); do
    lab_in 0 tc qdisc add dev "v$i" root tbf rate "$rate" burst 16kb latency 400ms
    lab_in "$i" tc qdisc add dev eth0 root tbf rate "$rate" burst 16kb latency 400ms
  done
  [ "$when" = submitting ] || return 0
  lab_in 0 ip link set lo mtu 1500
  lab_in 0 tc qdisc add dev lo root tbf rate "$rate" burst 16kb latency 400ms
}
# fill PLACE: no byte is left there; unfill PLACE
fill() { dd if=/dev/zero of="$lab_dir/$1/filler" bs=4k >/dev/null 2>&1; [ -s "$lab_dir/$1/filler" ]; }
unfill() { rm "$lab_dir/$1/filler"; }
# fds c|aN: it can open no file and take no connection; fds_back
fds() {
  local p
  p=$(pid_of "$1")
  # shellcheck disable=SC2012 # names are numbers
  prlimit --pid "$p" --nofile="$(ls "/proc/$p/fd" | wc -l):"
}
fds_back() { prlimit --pid "$(pid_of "$1")" --nofile=1024:; }
# flip FILE...: one bit in the middle of each; halve FILE...
flip() {
  local f
  for f in "$@"; do
    python3 -c 'import sys; f = open(sys.argv[1], "r+b"); n = f.seek(0, 2) // 2; f.seek(n); b = f.read(1)[0]; f.seek(n); f.write(bytes([b ^ 16]))' "$f" || return 1
  done
}
halve() {
  local f
  for f in "$@"; do truncate -s "$(($(stat -c %s "$f") / 2))" "$f" || return 1; done
}
flip_page() { # flip_page FILE: one bit of each page's kind in a SQLite file; one of content would not show
  python3 -c 'import os, sys
f = open(sys.argv[1], "r+b")
for at in range(4096, os.fstat(f.fileno()).st_size, 4096):
    f.seek(at); b = f.read(1)[0]; f.seek(at); f.write(bytes([b ^ 16]))' "$1"
}
flip_result() { # flip_result FILE: one bit in a page of results of a store that nobody has open
  python3 -c 'import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
page = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", ("t_row",)).fetchone()[0]
size = db.execute("PRAGMA page_size").fetchone()[0]
db.close()
f = open(sys.argv[1], "r+b")
f.seek(page * size - 300); b = f.read(1)[0]; f.seek(page * size - 300); f.write(bytes([b ^ 16]))' "$1"
}
cut_commit() { # cut_commit FILE: the last frame of a log that SQLite has not written back, and with it the last commit
  python3 -c 'import os, sys
f = open(sys.argv[1], "r+b")
head = f.read(32)
frame, n = 24 + int.from_bytes(head[8:12], "big"), 0
while True:
    f.seek(32 + n * frame)
    if f.read(24)[8:16] != head[16:24]: break
    n += 1
if n < 2: sys.exit("an empty log")
f.truncate(32 + (n - 1) * frame)' "$1"
}
repaired() { # a part of the store is gone for good
  "$lab_bin" fsck --data "$lab_dir/c" --repair --json >"$lab_dir/repair.json" && "$lab_bin" fsck --data "$lab_dir/c"
}
# put_by: a backup of a stopped coordinator's store; put_back
put_by() { cp -p "$lab_dir/c/store.db" "$lab_dir/kept"; }
put_back() { cp -p "$lab_dir/kept" "$lab_dir/c/store.db"; }
fsck_finds() { # something that stays bad
  "$lab_bin" fsck --data "$lab_dir/c" --json >"$lab_dir/fsck.json" 2>&1
  [ $? = 4 ]
}
artefact() { # artefact c|aN KIND: its file there; KIND as in `siofleet ls artefacts`
  local id
  id=$(user ls artefacts --json | jq -r "[.items[] | select(.kind == \"$2\")][0].id") || return 1
  case $1 in c) echo "$lab_dir/c/cas/${id:0:2}/$id" ;; *) echo "$lab_dir/$1/cache/${id:0:2}/$id" ;; esac
}
clock() { echo "$1" >"$lab_dir/clock"; } # clock +1d
# babble I ROLE COUNT: frames of a peer on host I with a listed key of that role; ROLE stranger: the key is not listed; - : no key
babble() {
  local key=$lab_dir/noise
  case $2 in
    -) key=- ;;
    stranger) "$lab_bin" keys new "$key" --role agent --name noise ;;
    *) "$lab_bin" keys new "$key" --role "$2" --name noise && "$lab_bin" keys allow --data "$lab_dir/c" "$key.pub" ;;
  esac
  lab_in "$1" "$lab_dir/bin/babble" "tcp://$(lab_ip 0):7700" "$lab_dir/c/keys/coordinator.pub" "$key" "$lab_dir/bin/wire" 7 "$3"
}
alive() { kill -0 "$(pid_of "$1")"; }
half_here() { compgen -G "$1/partial/*" >/dev/null; }

# ---- what a row may expect
says() { local f=$1; [ "$f" = c ] && f=coordinator; grep -q -- "$2" "$lab_dir/$f.log"; } # says c|aN PATTERN
epoch_is() { [ "$(jq .epoch "$lab_dir/c.ready")" = "$1" ]; }

# ---- one row
fault_log() { # a log as QEMU writes it: 4 devices, the same bytes each time; addresses that do not pack too well
  awk -v n="$1" 'BEGIN {
    srand(7)
    for (d = 0; d < 4; d++)
      printf "vtd_iotlb_cc_update IOTLB context update bus 0x0 devfn 0x%x high 0x%x02 low 0x1000%d gen 0 -> gen 1\n", (2 + d) * 8, d + 1, d
    for (i = 0; i < n; i++) {
      d = i % 4
      p = n > 10000 ? int(rand() * 2 ^ 31) : int(i / 4) % 37
      printf "vtd_iotlb_page_update IOTLB page update sid 0x%x iova 0x%x000 slpte 0x%x003 level 0x1 domain 0x%x\n", (2 + d) * 8, 1048064 + p, 70000 + p, d + 1
    }
  }'
}
prepare() { # once: the logs, the sweeps, and what their rows must be
  local n
  mkdir -p "$out"
  for n in 4000 120000; do
    [ -s "$out/$n.csv" ] && continue
    fault_log $n | zstd -q -f -o "$out/$n.log.zst"
    cat >"$out/$n.ini" <<INI
[sweep]
name = hurt
block = 3
pace_ms = 250
[trace]
logs = $out/$n.log.zst
tenants = 2,4
[arch]
iotlb_entries = 64..512:x2
queue = 1,2,4
INI
    sed /pace_ms/d "$out/$n.ini" >"$out/$n-fast.ini"
    "$lab_bin" perf sweep "$out/$n-fast.ini" --csv >"$out/$n.part" 2>/dev/null && mv "$out/$n.part" "$out/$n.csv" || return 1
  done
}
# check WHAT CMD...: the first that fails ends the row. try WHAT CMD...: so does this, but what it looks at is whether the fault
# hit as it was meant to: on a busy machine a task may be over, or a lease gone, just then. Such a row is run again.
check() { check_as 1 "$@"; }
try() { check_as 3 "$@"; }
check_as() {
  local rc=$1 what=$2
  shift 2
  "$@" >>"$lab_dir/check.log" 2>&1 && return
  echo "$what${1:+ ($*)}" >"$lab_dir/failed"
  exit "$rc"
}
ends() { # ends WHO: SIGTERM ends it within 10 s
  local p
  p=$(pid_of "$1") && kill -TERM "$p" && lab_until 30 lab_fails kill -0 "$p"
}
left_on() { # also said in check.log
  ip netns pids "$(lab_ns "$1")" | xargs -r ps -o pid=,args= -p | grep . || compgen -G "$lab_dir/a$1/tasks/*"
}
facts() { # attempts, requeued; late, equal, foreign
  local csv
  csv=$(user results query --csv --sql "SELECT count(*), ifnull(sum(cause <> 'done'), 0) FROM attempts" | tail -n 1) || return 1
  attempts=${csv%,*} requeued=${csv#*,}
  read -r late equal foreign < <(jq -r '[.late, .duplicate_equal, .foreign] | @tsv' "$lab_dir/audit.json") || return 1
}
# run_row I: in a subshell; exit 0 when it held, 3 when the fault missed. Its folder of logs, when it did not, is $out/NAME
run_until_hit() {
  local n rc
  for n in 1 2 3; do
    run_row "$1"
    rc=$?
    [ $rc = 3 ] || return $rc
    [ $n = 3 ] || echo "# ${names[$1]}: $(cat "$out/${names[$1]}/failed"); once more"
  done
  return 1
}
run_row() (
  local i=$1 name=${names[$1]} start rc id late equal foreign attempts requeued stopped='' submit
  lab_tag=sf$BASHPID
  row_defaults
  eval "${opts[i]}"
  start=${EPOCHREALTIME/./}
  lab_net "$agents"
  trap 'keep_logs "$name"; lab_down' EXIT
  # a host has a /root of its own, so it may not see the build
  mkdir "$lab_dir/bin"
  check "programs for the hosts" cp -r "$SIOFLEET_BIN"/siofleet{,-shim,-protocol} "$out/babble" "$SIOFLEET_SRC/tests/data/wire" "$lab_dir/bin/"
  lab_bin=$lab_dir/bin/siofleet
  clock +0
  if [ -n "$tmpfs" ]; then
    mkdir -p "$lab_dir/${tmpfs% *}"
    chmod 700 "$lab_dir/${tmpfs%%[ /]*}"
    check "a small disk" mount -t tmpfs -o "mode=700,size=${tmpfs#* }" none "$lab_dir/${tmpfs% *}"
  fi
  check "a coordinator starts" coordinator
  for n in $(seq 1 "$agents"); do
    "$lab_bin" keys new "$lab_dir/a$n.key" --role agent --name "a$n" && "$lab_bin" keys allow --data "$lab_dir/c" "$lab_dir/a$n.key.pub"
    [[ " $absent " == *" $n "* ]] || agent_begin "$n"
  done
  check "agents register" registered
  [ -z "$rate" ] || slow_links
  [ "$when" = start ] && eval "${hurts[i]}"
  user sweep submit "$out/$events.ini" >"$lab_dir/id" 2>"$lab_dir/submit.err" &
  submit=$!
  case $when in
    submitting) check "the log is on its way up" lab_until 30 half_here "$lab_dir/c/cas" ;;
    fetching) check "the log is on its way down" lab_until 30 half_here "$lab_dir/a1/cache" ;;
    middle) try "the sweep is in the middle" lab_until 60 in_the_middle ;;
  esac
  [ "$when" = start ] || try "the fault" eval "${hurts[i]}"
  [ -z "${heals[i]}" ] || try "what heals" eval "${heals[i]}"
  wait $submit
  check "the sweep is submitted" test -s "$lab_dir/id"
  id=$(cat "$lab_dir/id")
  check "the sweep completes" user sweep wait "$id" --timeout 90s
  user results query --sweep "$id" --csv >"$lab_dir/got.csv"
  check "the CSV of an undisturbed run" cmp "$lab_dir/got.csv" "$out/$events.csv"
  user audit "$id" --json >"$lab_dir/audit.json"
  check "the audit" test $? = 0
  check "misses none, doubles none" jq -e ".points == $points and .accepted == $points and .missing == [] and .differing == []" "$lab_dir/audit.json"
  check "figures" facts
  printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$name" "$attempts" "$requeued" "$late" "$equal" $(((${EPOCHREALTIME/./} - start) / 100000)) >"$out/$name.row"
  try "what it expects" eval "${wants[i]}"
  for n in $(seq 1 "$agents"); do
    [[ " $absent " == *" $n "* ]] || check "SIGTERM ends agent $n" ends "a$n"
    check "nothing of a task is left on host $n" lab_until 10 lab_fails left_on "$n"
  done
  check "SIGTERM ends the coordinator" ends c
)
keep_logs() {
  rm -rf "${out:?}/$1"
  [ -e "$lab_dir/failed" ] || return 0
  mkdir "$out/$1"
  cp "$lab_dir"/c/store.db* "$lab_dir"/*.log "$lab_dir"/*.err "$lab_dir"/*.json "$lab_dir"/*.csv "$lab_dir/failed" "$out/$1" 2>/dev/null
}

# ---- all rows
report() { # the table, in the order of the rows
  local n seen
  echo '| row | attempts | requeued | late | equal | seconds |'
  echo '| --- | ---: | ---: | ---: | ---: | ---: |'
  for n in "${names[@]}"; do
    seen=$(cat "$out/$n.row" 2>/dev/null) || continue
    # shellcheck disable=SC2086 # columns
    set -- $seen
    # shellcheck disable=SC2016 # backticks of Markdown
    printf '| `%s` | %s | %s | %s | %s | %d.%d |\n' "$1" "$2" "$3" "$4" "$5" $(($6 / 10)) $(($6 % 10))
  done
}
matrix() {
  local only=() jobs=6 update='' i n pids=() todo=()
  while [ $# -gt 0 ]; do
    case $1 in
      --row) only+=("$2"); shift ;;
      --jobs) jobs=$2; shift ;;
      --update) update=yes ;;
      --list) printf '%s\n' "${names[@]}"; exit ;;
      *) sed -n '2,/^# shellcheck/{/^# shellcheck/d;s/^# \{0,1\}//p}' "$0"; exit 2 ;;
    esac
    shift
  done
  lab_need || exit 77
  rm -f "$out"/*.row "$out"/*.rc
  prepare || { echo "Bail out! the undisturbed run fails"; exit 1; }
  for i in "${!names[@]}"; do
    [ ${#only[@]} = 0 ] || [[ " ${only[*]} " == *" ${names[i]} "* ]] || continue
    todo+=("$i")
  done
  [ ${#todo[@]} -gt 0 ] || { echo "Bail out! no such row: ${only[*]}"; exit 2; }
  for i in "${todo[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n 2>/dev/null; done
    # the status in a file: wait PID forgets it once the number is used again, which thousands of processes bring about
    { run_until_hit "$i"; echo $? >"$out/${names[i]}.rc"; } 2>"$out/${names[i]}.err" &
  done
  wait
  for i in "${todo[@]}"; do
    n=${names[i]}
    ok "$n" test "$(cat "$out/$n.rc")" = 0
    if [ -e "$out/$n/failed" ]; then
      echo "# failed: $(cat "$out/$n/failed")"
      tail -n 5 "$out/$n/check.log" "$out/$n.err" 2>/dev/null | sed 's/^/# /'
      echo "# logs in $out/$n; again: SIOFLEET_BIN=$SIOFLEET_BIN $here/matrix.sh --row $n"
    fi
  done
  report >"$out/matrix.md"
  sed 's/^/# /' "$out/matrix.md"
  [ -z "$update" ] || [ "$lab_bad" = 1 ] || [ ${#only[@]} -gt 0 ] || update_readme
  lab_done
}
update_readme() { # the lines between the marks of tests/lab/README.md
  local f=$here/README.md
  { sed '/<!-- matrix -->/q' "$f"; cat "$out/matrix.md"; sed -n '/<!-- end -->/,$p' "$f"; } >"$f.new" && mv "$f.new" "$f"
}
