#!/usr/bin/env bash
# collect on the fleet: runs spread over agents, resumed, made elsewhere when their agent fails or dies, cancelled. QEMU is
# played by the stand-in of tests/collect; an agent's FAKE_QEMU says how its guests behave.
. "${0%/*}/tap.sh"
plan 33
cd "$work" || exit 1
export XDG_CACHE_HOME=$work/cache XDG_DATA_HOME=$work/data
fake=$SIOFLEET_BIN/tests/collect/fake_qemu
ln -s "$fake" qemu # its own name, so that its processes are told from those of other tests
touch kernel initrd
echo 'echo hello' >script
# ini RUNS [LINE...]: run.ini
ini() {
  printf '[collect]\naccel = tcg\nruns = %s\nnics = 2\nkernel = kernel\ninitrd = initrd\nqemu = qemu\n' "$1" >run.ini
  printf '%s\n' "${@:2}" >>run.ini
  printf '[workload]\nkind = script\nscript = script\n' >>run.ini
}
# start_agent NAME MODE LABELS
start_agent() {
  [ -f "fleet/$1.key" ] || { "$sf" keys new "fleet/$1.key" --role agent --name "$1" && "$sf" keys allow --data fleet/c "fleet/$1.key.pub"; }
  rm -f "fleet/$1.ready"
  start "$1" env FAKE_QEMU="$2" "$sf" agent --data "$work/fleet/$1" --connect "$SIOFLEET_CONNECT" \
    --server-key "$SIOFLEET_SERVER_KEY" --key "$work/fleet/$1.key" --cores 2 --labels "$3" --ready-file "$work/fleet/$1.ready"
  until_ok 30 test -f "fleet/$1.ready"
}
guests() { pgrep -f "^$work/qemu .*$1" | wc -l; }
no_guests() { [ "$(guests "")" -eq 0 ]; }
sql() { "$sf" results query --sql "$1" --csv | tail -n 1; }
job_field() { "$sf" ls jobs --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["items"][-1][sys.argv[1]])' "$1"; }

fleet_start 0 || exit 1
start_agent good ok pool=a
start_agent bad die pool=a

# planned without a run
ini 44
run collect run.ini --plan --json
ok "44 runs are planned" json 'd["schema"] == "siofleet.runs/1" and d["runs"] == 44 and d["known"] == 0 and d["missing"] == list(range(1, 45))'
ok "and nothing was started" test "$("$sf" ls jobs --json | grep -c '"job"')" -eq 0

# two runs; one agent fails every guest
ini 2
run collect run.ini --json
ok "runs are made" json 'd["schema"] == "siofleet.collection/1" and [r["status"] for r in d["runs"]] == ["done"] * 2 and d["runs"][1]["log"]["events"] == 1000'
ok "by the agent whose guests live" json '[r["agent"] for r in d["runs"]] == ["good"] * 2'
ok "what failed elsewhere is kept as an attempt" test "$(sql "SELECT count(*) > 0 FROM attempts WHERE kind = 'collect' AND agent = 'bad' AND cause = 'exit'")" = 1
kill "${tap_pids[-1]}" # bad
made=$(sql "SELECT count(*) FROM attempts WHERE kind = 'collect' AND cause = 'done'")
run collect run.ini -o logs --json
ok "the same RUN.ini again makes none" test "$rc:$(sql "SELECT count(*) FROM attempts WHERE kind = 'collect' AND cause = 'done'")" = "0:$made"
ok "the document is whole all the same" json '[r["log"]["path"] for r in d["runs"]] == ["logs/run-0001/log.slog", "logs/run-0002/log.slog"]'
ok "the logs are here" sh -c '"$0" log info logs/run-0002/log.slog --json | grep -q "\"events\": 1000"' "$sf"
ok "with serial log, provenance and workload" test -s logs/run-0001/l1.serial.log -a -s logs/run-0001/provenance.json -a -s logs/run-0001/workload-script.txt
printf '; a remark\n[workload]\nscript = ./script\nkind=script\n[collect]\nqemu = %s\naccel = tcg\ninitrd = initrd\nkernel = kernel\nnics=2\nruns = 2\n' "$work/qemu" >same.ini
run collect same.ini --plan --json
ok "a file that means the same names the same runs" json 'd["known"] == 2'
sed 's/nics=2/nics=1/' same.ini >other.ini
run collect other.ini --plan --json
ok "another one does not" json 'd["known"] == 0'
run collect run.ini --again
ok "--again makes them anew" test "$rc:$(sql "SELECT count(*) FROM attempts WHERE kind = 'collect' AND cause = 'done'")" = "0:$((made + 2))"

# cut off in the middle, and resumed
ini 44
start cut "$sf" collect run.ini
cut_pid=$pid
four() { [ "$(job_field done)" -ge 4 ]; }
ok "it goes on from what is known" until_ok 60 four
kill -INT "$cut_pid"
wait "$cut_pid"
rc=$?
ok "Ctrl-C is exit 5 and one line" test "$rc:$(grep -c '^siofleet: .*cancelled' cut.log)" = 5:1
ok "its guests are gone" until_ok 20 no_guests
ok "the job is cancelled" test "$(job_field state)" = cancelled
run collect run.ini --plan --json
known=$(python3 -c 'import json; print(json.load(open("out"))["known"])')
ok "what was done stays" test "$known" -ge 4 -a "$known" -lt 44
made=$(sql "SELECT count(*) FROM attempts WHERE kind = 'collect' AND cause = 'done'")
ini "$((known + 2))"
run collect run.ini --json
ok "resumed, only what is missing is made" test "$rc:$(sql "SELECT count(*) FROM attempts WHERE kind = 'collect' AND cause = 'done'")" = "0:$((made + 2))"

# an agent that dies in the middle of a run
start_agent slow mute pool=k
ini 1 'timeout = 300s'
start killed "$sf" collect run.ini --labels pool=k --json
killed_pid=$pid
one_guest() { [ "$(guests "")" -ge 1 ]; }
ok "a guest runs" until_ok 30 one_guest
kill -9 "${tap_pids[-2]}" # slow
start_agent spare ok pool=k
wait "$killed_pid"
rc=$?
sed -n '/^{/,$p' killed.log >out
ok "the run is made on another agent" json 'd["runs"][0]["status"] == "done" and d["runs"][0]["agent"] == "spare"'
ok "exit 0" test "$rc" -eq 0
ok "the first attempt is known as lost" test "$(sql "SELECT count(*) FROM attempts WHERE kind = 'collect' AND agent = 'slow' AND cause = 'lost'")" = 1
start_agent slow ok pool=k
ok "when it comes back, the guest that nobody waits for is ended" until_ok 30 no_guests
ok "nor is a folder of it left" until_ok 10 test -z "$(ls "$XDG_CACHE_HOME/siofleet/vm" 2>/dev/null)"

# a run that fails everywhere
start_agent sick panic pool=s
ini 1 'include_boot = no' 'timeout = 31s'
run collect run.ini --labels pool=s
ok "a run that fails twice fails, with its cause and its agent" sh -c "[ $rc -eq 1 ] && grep -q '^siofleet: run 1 on sick: .*Kernel panic' err"
run why "$(job_field job)"
ok "why says so too" sh -c "[ $rc -eq 0 ] && grep -qi 'panic' out"
t=$("$sf" results query --sql "SELECT max(task) AS t FROM attempts" --csv | tail -n 1)
run logs "$t"
ok "logs shows what its runner said" worked "Kernel panic"

# what no agent has
ini 1 'memory = 3T'
run collect run.ini --detach
id=$(cat out)
ok "--detach prints the job" test "$rc:${#id}" = 0:64
run why "$id"
ok "why names what is missing" worked "it asks for [0-9]* MiB of memory; agent .* comes nearest, with [0-9]* MiB of memory"
run cancel "$id"
ok "cancel ends it" worked
run collect missing.ini
ok "no file is one line" fails 1 "missing.ini"
ini 1 'kernel = nowhere'
sed -i '/^kernel = kernel/d' run.ini
run collect run.ini
ok "a part that is not there is usage, before anything starts" fails 2 "run.ini:.*nowhere"
run collect --local run.ini --plan
ok "what belongs to a fleet is refused with --local" test "$rc" -eq 2
