#!/usr/bin/env bash
# net = tap: taps and bridges in a network namespace of this test's own, and nothing of them left, however a run ends.
. "${0%/*}/../cli/tap.sh"
if ! sh "$src/qemu-patch/build.sh" --check >/dev/null 2>&1; then
  echo "1..0 # skip: the patched QEMU is not built (qemu-patch/build.sh)"
  tap_plan=0
  exit 77
fi
# another namespace for the whole script: what a failing test leaves goes with it
if [ -z "${SF_TAPS_NS:-}" ]; then
  tap_plan=0
  rm -rf "$work"
  trap - EXIT
  if ! { [ -r /dev/net/tun ] && [ -w /dev/net/tun ] && unshare -rn true; } 2>/dev/null; then
    echo "1..0 # skip: no /dev/net/tun or no network namespaces here"
    exit 77
  fi
  SF_TAPS_NS=1 exec unshare -rn "$0"
fi
plan 10
ip link set lo up
links() { ip -o link | sed -n 's/^[0-9]*: \(sf[^:@]*\).*/\1/p'; }
no_links() { [ -z "$(links)" ]; }

"$sf" collect init quick | sed 's/^net .*/net = tap/; s/^nics .*/nics = 2/; s/^bytes.*/bytes = 4M/' >"$work/quick.ini"
run collect --local "$work/quick.ini" -o "$work/q" --json
ok "one guest over taps to the host" json 'd["runs"][0]["status"]=="done" and d["runs"][0]["log"]["devices"]==2'
ok "no tap is left" no_links
ip addr add 10.0.12.2/24 dev lo
run collect --local "$work/quick.ini" -o "$work/q2"
ok "an address that is taken is named" sh -c "[ $rc -eq 1 ] && tail -n 1 $work/err | grep -q '^siofleet: net = tap: 10.0.12.2 is an address'"
ok "no tap is left of the one before it" no_links
ip addr del 10.0.12.2/24 dev lo
setpriv --bounding-set -net_admin --inh-caps -net_admin "$sf" collect --local "$work/quick.ini" -o "$work/q3" >"$work/out" 2>"$work/err"
rc=$?
ok "no right to make links is one line" sh -c "[ $rc -eq 1 ] && tail -n 1 $work/err | grep -q '^siofleet: net = tap: .*CAP_NET_ADMIN'"

"$sf" collect init tenants | sed 's/^net .*/net = tap/' >"$work/tenants.ini"
both() { [ "$(links | grep -c 'b0[01]$')" -eq 2 ] && [ "$(links | wc -l)" -eq 6 ]; }
start first "$sf" collect --local "$work/tenants.ini" -o "$work/t1"
verb=$pid
ok "two L2s: a bridge and two taps each" until_ok 60 both
old=$(links | grep b00)
kill -KILL "$verb" "$(pgrep -P "$verb" | head -1)"
wait "$verb" 2>/dev/null
only_bridges() { [ "$(links | grep -c 'b0[01]$')" -eq 2 ] && [ "$(links | wc -l)" -eq 2 ]; }
ok "kill -9: the taps go with their QEMUs" until_ok 20 only_bridges
start second "$sf" collect --local "$work/tenants.ini" -o "$work/t2"
verb=$pid
swept() { both && ! links | grep -qx "$old"; }
ok "the next start removes the bridges it left" until_ok 60 swept
kill -TERM "$verb"
wait "$verb"
rc=$?
ok "a cancelled run is exit 5" test $rc -eq 5
ok "and takes its bridges along" no_links
