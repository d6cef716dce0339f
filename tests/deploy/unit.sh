#!/usr/bin/env bash
# The systemd units that `deploy up` would write, judged by systemd itself: for root and for a user, in folders with the
# names that need quoting most.
set -u
work=$(mktemp -d "${TMPDIR:-/tmp}/unit-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
command -v systemd-analyze >/dev/null || {
  echo "Bail out! systemd-analyze is not installed (deploy/deps.sh test)"
  exit 1
}
n=0
bad=0
export XDG_RUNTIME_DIR=$work
check() { # check NAME system|user DATA
  n=$((n + 1))
  local said
  sh "$SIOFLEET_SRC/deploy/remote/host.sh" "$3" unit 1 "$2" >"$work/siofleet-1.service"
  # `--man=no`: which manual pages this machine has is no fault of the unit
  said=$(cd "$work" && systemd-analyze verify --man=no "--$2" "$work/siofleet-1.service" 2>&1)
  status=$?
  # of other units of this machine it may say what it likes
  [ $status = 0 ] && said=$(printf '%s\n' "$said" | grep -F siofleet-1)
  if [ $status = 0 ] && [ -z "$said" ]; then echo "ok $n - $1"; else
    echo "not ok $n - $1"
    printf '%s\n' "status $status" "$said" "$(cat "$work/siofleet-1.service")" | sed 's/^/# /'
    bad=1
  fi
}
plain=$work/data
# shellcheck disable=SC2016 # as it stands
odd=$work/'my lab %i $HOME "q" \ ; end'
for data in "$plain" "$odd"; do
  mkdir -p "$data"
  printf 'agent\n--data\nx\n' >"$data/args"
  check "a system unit for '${data##*/}'" system "$data"
  check "a user unit for '${data##*/}'" user "$data"
done
# what systemd makes of the words: its own reader of command lines, undone by hand
n=$((n + 1))
want=$(printf '%s' "$odd" | sed 's/[\\"]/\\&/g; s/%/%%/g; s/\$/$$/g')
if grep -qxF "ExecStart=/bin/sh \"$want/current/run.sh\" \"$want\"" "$work/siofleet-1.service" &&
  grep -qx 'Restart=always' "$work/siofleet-1.service"; then echo "ok $n - it starts run.sh with the folder as one word, and again"; else
  echo "not ok $n - it starts run.sh with the folder as one word, and again"
  bad=1
fi
# and a unit that is wrong would be told
n=$((n + 1))
sed 's/^Restart=.*/Restart=sometimes/' "$work/siofleet-1.service" >"$work/x" && mv "$work/x" "$work/siofleet-1.service"
if systemd-analyze verify --man=no --system "$work/siofleet-1.service" 2>&1 | grep -q sometimes; then echo "ok $n - a wrong one is told"; else
  echo "not ok $n - a wrong one is told"
  bad=1
fi
echo "1..$n"
exit $bad
