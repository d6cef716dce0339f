# shellcheck shell=bash
# A Slurm cluster on one machine: munged, slurmctld and N slurmd from Debian's packages, no systemd. For tests and benches that
# run in namespaces of their own (slurm_alone): everything is gone with the script, however it ends.
#
#   slurm_alone "$0" "$@"   first of all: the script again, alone in network, mount, process and host name namespaces
#   slurm_need              or the reason why not, as TAP, and status 1
#   slurm_up DIR NODES CPUS [LINE...]   nodes n1..nN with so many cpus each (more than there are is fine); more lines for slurm.conf.
#                           Exports SLURM_CONF, so that sbatch, squeue ... of this shell ask this cluster
#   slurm_node I / slurm_node_stop I    its slurmd; the jobs of a stopped one run on
#   slurm_ctld / slurm_ctld_stop        slurmctld
#   slurm_down              stops the daemons (their jobs first); slurm_alone does without

slurm_dir=
slurm_nodes=0

slurm_alone() {
  [ "${SLURM_LAB:-}" = 1 ] || SLURM_LAB=1 exec unshare -n -m -u -p -f --mount-proc --kill-child bash "$@"
  # Slurm resolves names for configured addresses only, and those of 127.0.0.1 do not count
  ip link set lo up && ip addr add 10.79.0.1/32 dev lo && hostname head && mount -t tmpfs none /run && echo 10.79.0.1 head >/run/hosts && mount --bind /run/hosts /etc/hosts
}

slurm_need() {
  local why='' p
  [ "$(id -u)" = 0 ] || why="needs root for namespaces"
  for p in munged slurmctld slurmd sbatch squeue; do command -v $p >/dev/null || why="$p is not installed"; done
  unshare -n -p -f true 2>/dev/null || why="namespaces cannot be made here"
  [ -z "$why" ] && return 0
  echo "1..0 # SKIP $why"
  return 1
}

slurm_wait() { # slurm_wait WHAT LOG CMD...: until it succeeds, a minute at most
  local what=$1 log=$2 n=0
  shift 2
  until "$@" >/dev/null 2>&1; do
    n=$((n + 1))
    [ $n -lt 600 ] || {
      echo "Bail out! $what does not start: $(tail -n 2 "$log")"
      exit 1
    }
    sleep 0.1
  done
}

slurm_ctld() {
  slurmctld -D -f "$SLURM_CONF" >/dev/null 2>&1 &
  slurm_wait slurmctld "$slurm_dir/slurmctld.log" timeout 5 scontrol ping
}
slurm_stop() { # slurm_stop PIDFILE
  local p
  p=$(cat "$1" 2>/dev/null) || return 0
  kill "$p" 2>/dev/null
  while kill -0 "$p" 2>/dev/null; do sleep 0.1; done
  wait "$p" 2>/dev/null
  rm -f "$1"
}
slurm_ctld_stop() { slurm_stop "$slurm_dir/slurmctld.pid"; }
slurm_node() { slurmd -D -N "n$1" -f "$SLURM_CONF" >/dev/null 2>&1 & }
slurm_node_stop() { slurm_stop "$slurm_dir/slurmd.n$1.pid"; }
slurm_idle() { [ "$(sinfo -h -N -p all -t idle -o %N | wc -l)" = "$slurm_nodes" ]; }

slurm_up() {
  local i cpus=$3
  slurm_dir=$1/slurm
  slurm_nodes=$2
  shift 3
  mkdir -p "$slurm_dir/state"
  head -c 1024 /dev/urandom >"$slurm_dir/munge.key"
  chmod 400 "$slurm_dir/munge.key"
  munged -F --force --num-threads=2 --key-file="$slurm_dir/munge.key" --socket="$slurm_dir/munge.sock" --pid-file="$slurm_dir/munged.pid" \
    --log-file="$slurm_dir/munged.log" --seed-file="$slurm_dir/munged.seed" >/dev/null 2>&1 &
  export SLURM_CONF=$slurm_dir/slurm.conf
  {
    cat <<CONF
ClusterName=lab
SlurmctldHost=head
SlurmctldPort=16817
AuthType=auth/munge
AuthInfo=socket=$slurm_dir/munge.sock
CredType=cred/munge
SlurmUser=root
StateSaveLocation=$slurm_dir/state
SlurmctldPidFile=$slurm_dir/slurmctld.pid
SlurmctldLogFile=$slurm_dir/slurmctld.log
SlurmdSpoolDir=$slurm_dir/spool.%n
SlurmdPidFile=$slurm_dir/slurmd.%n.pid
SlurmdLogFile=$slurm_dir/slurmd.%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0,bf_interval=2
ReturnToService=2
KillWait=5
SlurmdTimeout=20
MinJobAge=300
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
    for i in $(seq 1 "$slurm_nodes"); do
      echo "NodeName=n$i NodeHostname=head Port=$((17000 + i)) CPUs=$cpus State=UNKNOWN"
    done
    [ $# = 0 ] || printf '%s\n' "$@"
  } >"$SLURM_CONF"
  slurm_wait munged "$slurm_dir/munged.log" test -S "$slurm_dir/munge.sock"
  slurm_ctld
  for i in $(seq 1 "$slurm_nodes"); do slurm_node "$i"; done
  slurm_wait "a node" "$slurm_dir/slurmd.n1.log" slurm_idle
}

slurm_down() {
  local i
  scancel -u "$(id -un)" 2>/dev/null
  for i in $(seq 1 "$slurm_nodes"); do slurm_node_stop "$i"; done
  slurm_ctld_stop
  slurm_stop "$slurm_dir/munged.pid"
}
