#!/usr/bin/env bash
# The same job with other programs from Debian's packages, where it is the same: N times `true`, or N empty tasks. One line of
# JSON a program: its rate, and whether it has what a fleet has (durable: an accepted task survives a power loss; encrypted).
#
#   tests/bench/fleet/others.sh [--install] [N]
#
# What is not installed is left out with a word on stderr; --install gets it first (root).
# shellcheck disable=SC2154 # slurm_dir is set by slurm-cluster.sh
set -u
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/lab/slurm-cluster.sh
. "$here/../../lab/slurm-cluster.sh"

say() { # say NAME N SECONDS DURABLE ENCRYPTED
  awk -v name="$1" -v n="$2" -v s="$3" -v d="$4" -v e="$5" \
    'BEGIN { printf "{\"name\":\"%s\",\"tasks\":%d,\"per_s\":%.1f,\"durable\":%s,\"encrypted\":%s}\n", name, n, n / s, d, e }'
}
since() { awk -v a="$1" -v b="$(date +%s.%N)" 'BEGIN { print b - a }'; }

run_slurm() {
  local t
  dir=$(mktemp -d "${TMPDIR:-/tmp}/sf-others-XXXXXX") || return 1
  trap 'slurm_down 2>/dev/null; rm -rf "$dir"' EXIT
  slurm_up "$dir" 1 2 MaxArraySize=20000 >&2
  t=$(date +%s.%N)
  sbatch -Q -D / -o /dev/null --array="1-$1" --wrap true >&2 || return 1
  while [ "$(squeue -h -r | wc -l)" -gt 0 ]; do sleep 0.2; done
  # its state is written by and by, and its messages are signed, not sealed
  say slurm "$1" "$(since "$t")" false false
}

if [ "${1:-}" = --slurm ]; then
  run_slurm "$2"
  exit
fi
if [ "${1:-}" = --install ]; then
  apt-get install -y --no-install-recommends parallel python3-distributed munge slurmctld slurmd slurm-client >&2 || exit 1
  shift
fi
n=${1:-1000}

if command -v parallel >/dev/null; then
  t=$(date +%s.%N)
  seq "$n" | parallel --will-cite -j2 -n1 true
  say parallel "$n" "$(since "$t")" false false
else
  echo "others.sh: parallel is not installed" >&2
fi

if /usr/bin/python3 -c 'import distributed' 2>/dev/null; then
  /usr/bin/python3 - "$n" <<'P'
import json, logging, sys, time
from distributed import Client, LocalCluster
if __name__ == "__main__":
    n = int(sys.argv[1]) * 10
    with LocalCluster(n_workers=1, threads_per_worker=2, processes=False, protocol="tcp://", dashboard_address=None,
                      silence_logs=logging.ERROR) as cluster, Client(cluster) as client:
        client.submit(int, 0).result()
        t = time.monotonic()
        client.gather(client.map(abs, range(1, n + 1)))
        s = time.monotonic() - t
    print(json.dumps({"name": "dask.distributed", "tasks": n, "per_s": round(n / s, 1), "durable": False, "encrypted": False}))
P
else
  echo "others.sh: dask.distributed is not installed" >&2
fi

if slurm_need >&2; then
  unshare -n -m -u -p -f --mount-proc --kill-child bash -c '
    ip link set lo up && ip addr add 10.79.0.1/32 dev lo && hostname head && mount -t tmpfs none /run &&
      echo 10.79.0.1 head >/run/hosts && mount --bind /run/hosts /etc/hosts && exec bash "$0" --slurm "$1"' "$0" "$((n / 5))"
else
  echo "others.sh: Slurm is not installed, or there are no namespaces" >&2
fi
