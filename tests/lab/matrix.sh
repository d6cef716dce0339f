#!/usr/bin/env bash
# The matrix of real faults: in each row a fleet of its own (a coordinator, two agents, their shims and tasks, in network
# namespaces) works on a sweep while it is hurt and healed. Every row ends with the CSV of an undisturbed run, byte for
# byte, an audit that finds nothing missing, and nothing left behind.
#   matrix.sh [--row NAME]... [--jobs N] [--list] [--update]
# --row: only these; --jobs: rows at a time (6; they mostly wait); --update: the table goes into tests/lab/README.md.
# The table and what a failed row has logged are in BUILD/lab-matrix.
# shellcheck disable=SC2154,SC2016,SC2317,SC2034 # lab.sh sets lab_dir; eval expands; cells call functions by name
set -u
here=$(cd "$(dirname "$0")" && pwd)
: "${SIOFLEET_BIN:?names the build folder}"
SIOFLEET_SRC=${SIOFLEET_SRC:-$(cd "$here/../.." && pwd)}
# shellcheck source=tests/lab/lab.sh
. "$here/lab.sh"
# shellcheck source=tests/lab/hurt.sh
. "$here/hurt.sh"

names=() opts=() hurts=() heals=() wants=()
# row NAME SETTINGS HURT HEAL EXPECT: SETTINGS are assignments (hurt.sh, "a row"), the others commands of hurt.sh. EXPECT sees
# what the row has come to in $attempts $requeued $late $equal.
row() {
  names+=("$1") opts+=("$2") hurts+=("$3") heals+=("$4") wants+=("$5")
}

# ---- the table
row undisturbed 'lease=8000' '' '' '[ $requeued = 0 ] && [ $late = 0 ] && [ $equal = 0 ]'

row coordinator-kill '' 'sig c KILL' 'coordinator' 'epoch_is 2'
row coordinator-stop-1s 'lease=8000' 'sig c STOP; nap 1' 'sig c CONT' '[ $requeued = 0 ]'
row coordinator-stop-long '' 'sig c STOP; nap 2.5' 'sig c CONT' 'epoch_is 1'
row agent-kill 'lease=8000' 'sig a1 KILL' 'agent 1' '[ $requeued = 0 ] && says c "boot 2, 1 cores, holds [12] tasks"'
row agent-kill-long '' 'sig a1 KILL; nap 2.5' 'agent 1' '[ $requeued -ge 1 ]'
row agent-stop-1s 'lease=8000' 'sig a1 STOP; nap 1' 'sig a1 CONT' '[ $requeued = 0 ]'
row agent-stop-long '' 'sig a1 STOP; nap 2.5' 'sig a1 CONT' '[ $requeued -ge 1 ]'
row shim-kill '' 'sig shim1 KILL' '' '[ $requeued -ge 1 ]'
row shim-stop-1s 'lease=8000' 'sig shim1 STOP; nap 1' 'sig shim1 CONT' '[ $requeued = 0 ]'
row shim-stop-long '' 'sig shim1 STOP; nap 2.5' 'sig shim1 CONT' '[ $requeued = 0 ]'
row task-kill '' 'sig task1 KILL' '' '[ $requeued -ge 1 ]'
row task-stop-1s 'lease=8000' 'sig task1 STOP; nap 1' 'sig task1 CONT' '[ $requeued = 0 ]'
row task-stop-long '' 'sig task1 STOP; nap 2.5' 'sig task1 CONT' '[ $requeued = 0 ]'
row all-kill '' 'sig c KILL; sig a1 KILL; sig a2 KILL' 'agent_begin 1; agent_begin 2; coordinator; registered' 'epoch_is 2'
row agent-kill-half-open 'lease=8000' 'sever 1 both; sig a1 KILL; mend 1' 'agent 1' '[ $requeued -le 1 ]' # one may have been granted meanwhile
row host-dies '' 'host_kill 1' 'agent 1' '[ $requeued -ge 1 ]'

row cut-short 'lease=8000' 'sever 1 both; nap 1' 'mend 1' '[ $requeued = 0 ]'
row cut-long '' 'sever 1 both; nap 2.5' 'mend 1' '[ $requeued -ge 1 ]'
row cut-to-coordinator '' 'sever 1 out; nap 2.5' 'mend 1' '[ $requeued -ge 1 ]'
row cut-to-agent '' 'sever 1 in; nap 2.5' 'mend 1' 'true'
row cut-flapping '' 'flap 1 6' 'mend 1' 'true'
row cut-both-agents '' 'sever 1 both; sever 2 both; nap 2.5' 'mend 1; mend 2' 'true'
row reset-upload 'events=120000 rate=8mbit when=submitting' 'reset_port 0' 'mend 0' 'true'
row reset-fetch 'events=120000 rate=8mbit when=fetching' 'reset_port 0' 'mend 0' 'true'
row loss-1-percent 'events=120000 when=start' 'lose 1 1; lose 2 1' '' '[ $(lost 1) -gt 0 ] && [ $(lost 2) -gt 0 ]'
row link-1-mbit 'rate=1mbit' '' '' 'true'

row store-full 'tmpfs="c 8m"' 'fill c; nap 2' 'unfill c' 'says c "nothing new is accepted" && says c "writing works again"'
row spool-full 'tmpfs="a1/tasks 512k"' 'fill a1/tasks; nap 2' 'unfill a1/tasks' 'says a1 space'
row cache-full 'tmpfs="a1/cache 512k" when=start' 'fill a1/cache' 'nap 2; unfill a1/cache' 'says a1 "disk is full"'
row coordinator-no-fds '' 'fds c; sig a1 KILL; agent_begin 1; nap 2' 'fds_back c; registered' 'alive c && epoch_is 1'
row agent-no-fds '' 'fds a1; nap 2' 'fds_back a1' 'alive a1'

row trace-flipped 'absent=2' 'flip $(artefact c trace); agent 2' 'absent=' 'says c damaged'
row trace-halved 'absent=2' 'halve $(artefact c trace); agent 2' 'absent=' 'says c damaged'
row cached-trace-flipped '' 'flip $(artefact a1 trace)' '' 'true'
row cached-trace-halved '' 'halve $(artefact a1 trace)' '' 'true'
row rows-flipped '' 'sig a1 KILL; flip $lab_dir/a1/tasks/*/rows' 'agent 1' 'true'
row store-halved '' 'ends c && put_by && halve $lab_dir/c/store.db && refused c 4 damaged && fsck_finds' 'put_back && coordinator' 'epoch_is 2'
row store-flipped '' 'ends c && put_by && flip_page $lab_dir/c/store.db && fsck_finds' 'put_back && coordinator' 'epoch_is 2'
row store-repaired '' 'ends c && flip_result $lab_dir/c/store.db && refused c 4 damaged && fsck_finds' 'repaired && coordinator' '! epoch_is 2'
row store-log-cut '' 'sig c KILL && cut_commit $lab_dir/c/store.db-wal && refused c 4 damaged && fsck_finds' 'repaired && coordinator' '! epoch_is 2'

row agent-older 'speaks[c]=2 speaks[a2]=2' '' '' 'says c "agent .a1. .*speaks protocol 1, this coordinator 2"'
row agent-newer 'speaks[a1]=2' '' '' 'says c "agent .a1. .*speaks protocol 2" && says a1 "speaks protocol 1, this program 2"'
row agent-much-older 'speaks[c]=3 speaks[a2]=3 speaks[user]=3 absent=1' 'refused a1 3 "upgrade siofleet of the agent"' '' 'says c "a1.*upgrade siofleet of the agent"'
row agent-much-newer 'speaks[a1]=3 absent=1' 'refused a1 3 "upgrade siofleet of the coordinator"' '' 'says c "a1.*upgrade siofleet of the coordinator"'
row upgrade-coordinator-first '' 'ends c && speaks[c]=2 && coordinator' 'sig a1 KILL; speaks[a1]=2; agent 1' 'epoch_is 2'
row upgrade-agents-first '' 'sig a1 KILL; speaks[a1]=2; agent 1' 'ends c && speaks[c]=2 && coordinator' 'epoch_is 2'

row noise-agent '' 'babble 2 agent 5000' '' 'says c refused && alive c'
row noise-reader '' 'babble 2 reader 5000' '' 'says c refused && alive c'
row noise-stranger '' 'babble 2 stranger 5000' '' 'says c "is not allowed" && alive c'
row noise-no-key '' 'babble 2 - 300' '' 'says c "handshake failed" && alive c'

row clock-coordinator 'fake=c' 'clock +1d; nap 1; clock -1d; nap 1' 'clock +0' '[ $requeued = 0 ] && epoch_is 1'
row clock-agent 'fake=a1' 'clock +1d; nap 1; clock -1d; nap 1' 'clock +0' '[ $requeued = 0 ]'
row data-copied 'agents=3 absent=3' 'cp -a $lab_dir/a1 $lab_dir/a3 && cp $lab_dir/a1.key $lab_dir/a3.key && agent 3 && lab_until 10 says a1 "fenced by its boot 2"' 'absent=1; refused a1 3 "one of them is a copy" && rm -r $lab_dir/a1/tasks' 'alive a3'

matrix "$@"
