#!/usr/bin/env bash
# Install the Debian packages that a purpose needs, and nothing else.
#   deploy/deps.sh [build|test|qemu]...     default: build
# build  compile siofleet            test  build, and run the tests
# qemu   build the patched QEMU and the guest images of collections
# Already installed: says nothing, touches nothing. Not root: uses sudo.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

build="gcc libc6-dev musl-tools make cmake ninja-build pkg-config libzmq3-dev libmsgpack-dev libssh2-1-dev libssl-dev libsqlite3-dev libzstd-dev
libxxhash-dev libsodium-dev libjansson-dev libinih-dev libgomp1"
[ "$(dpkg --print-architecture)" != amd64 ] || build="$build libipsec-mb-dev" # faster AES, exists for amd64 only
test="$build libcriterion-dev clang libclang-rt-14-dev libfuzzer-14-dev libomp-14-dev python3 zstd sqlite3 jq iproute2 nftables
iperf3 rsync shellcheck systemd openssh-server openssh-client slurmctld slurmd slurm-client munge valgrind procps util-linux mount
ccache git faketime"

usage() {
  echo "siofleet: deps.sh: usage: deploy/deps.sh [build|test|qemu]..." >&2
  exit 2
}

[ $# -gt 0 ] || set -- build
want=()
for purpose in "$@"; do
  case $purpose in
    build) for p in $build; do want+=("$p"); done ;;
    test) for p in $test; do want+=("$p"); done ;;
    qemu) while read -r p _; do case $p in '' | '#'*) ;; *) want+=("$p") ;; esac; done <"$here/../qemu-patch/packages.txt" ;;
    *) usage ;;
  esac
done

missing=()
for p in "${want[@]}"; do
  [ "$(dpkg-query -W -f '${db:Status-Abbrev}' "$p" 2>/dev/null)" = "ii " ] || missing+=("$p")
done
[ ${#missing[@]} -gt 0 ] || exit 0

root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || {
    echo "siofleet: deps.sh: not root and no sudo; as root: apt-get install ${missing[*]}" >&2
    exit 1
  }
  root=(sudo)
fi
export DEBIAN_FRONTEND=noninteractive
echo "siofleet: installing ${#missing[@]} packages: ${missing[*]}" >&2
apt=("${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o Acquire::Retries=3 -o DPkg::Lock::Timeout=120)
"${apt[@]}" update >&2
"${apt[@]}" install -y --no-install-recommends "${missing[@]}" >&2
