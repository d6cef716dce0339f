#!/usr/bin/env bash
# What a coordinator says when it cannot: one line, the exit code of the contract, and a store that stays intact.
. "${0%/*}/../cli/tap.sh"
plan 33
cd "$work" || exit 1
small_log a.log 4 2000
small_sweep s.ini s
one_line() { [ "$rc" -eq "$1" ] && [ "$(grep -c '^siofleet: ' "$work/err")" -eq 1 ] && grep -q "^siofleet: .*$2" "$work/err"; }
# ends COMMAND...: like run, for what would serve for ever if it worked
ends() {
  timeout 20 "$sf" "$@" >"$work/out" 2>"$work/err"
  rc=$?
}

run coordinator
ok "no --data is exit 2" one_line 2 "--data"
run coordinator --data c0 --lease-ms 1000 --heartbeat-ms 900
ok "a heartbeat as long as the lease is exit 2" one_line 2 "--heartbeat-ms"
ends coordinator --data c0 --listen nonsense
ok "what is no endpoint is exit 2" one_line 2 "nonsense"

fleet_start 1 || exit 1
ends coordinator --data other --listen "$SIOFLEET_CONNECT"
ok "a port in use is exit 1" one_line 1 "in use"
ends coordinator --data fleet/c --listen 'tcp://127.0.0.1:*'
ok "a store that another coordinator has is exit 1" one_line 1 "another coordinator"
run sweep run s.ini --csv want.csv
ok "the first coordinator did not notice" worked

"$sf" keys new stranger --role agent --name stranger
ends agent --data x1 --connect "$SIOFLEET_CONNECT" --server-key "$SIOFLEET_SERVER_KEY" --key stranger
ok "an agent with a key that is not allowed is exit 3" one_line 3 "."
"$sf" keys new user --role user --name user && "$sf" keys allow --data fleet/c user.pub
ends agent --data x2 --connect "$SIOFLEET_CONNECT" --server-key "$SIOFLEET_SERVER_KEY" --key user
ok "an agent with a user's key is exit 3" one_line 3 "."
run ls --key fleet/a1.key
ok "a user with an agent's key is exit 3" one_line 3 "."
cp -r fleet/a1 x3 && rm -f x3/install
ends agent --data x3 --connect "$SIOFLEET_CONNECT" --server-key "$SIOFLEET_SERVER_KEY" --key fleet/a1.key --name other
ok "one key for two installs is exit 3" one_line 3 "another install"
"$sf" keys new fleet/a9.key --role agent --name a9 && "$sf" keys allow --data fleet/c fleet/a9.key.pub
ends agent --data x4 --connect "$SIOFLEET_CONNECT" --server-key "$SIOFLEET_SERVER_KEY" --key fleet/a9.key --name a1
ok "one name for two agents is exit 3" one_line 3 "taken"
run ls agents --json
ok "none of them changed anything" json '[(a["name"],a["state"]) for a in d["items"]]==[("a1","ready")]'

run sweep submit want.csv
ok "what is no sweep is exit 2" one_line 2 "want.csv"
run sweep wait ffffffff
ok "a sweep that is not there is exit 1" one_line 1 "ffffffff"
run cancel 4711
ok "a task that is not there is exit 1" one_line 1 "4711"

kill -TERM "$coordinator_pid"
wait "$coordinator_pid"
rc=$?
ok "SIGTERM ends it with exit 0" test "$rc" -eq 0
ok "and its ready file is gone" test ! -e fleet/ready
run ls
ok "then there is no coordinator (exit 3)" one_line 3 "."
fleet_listen=$SIOFLEET_CONNECT
fleet_start 0
run results query --sweep last --csv
ok "a restart knows the results" cmp "$work/out" want.csv
run results query --sweep last --csv --data fleet/c
ok "so does --data beside it" cmp "$work/out" want.csv
stop_all

mkdir -p bad
cp fleet/c/store.db bad/store.db
printf 'garbage' | dd of=bad/store.db conv=notrunc bs=1 seek=0 2>/dev/null
ends coordinator --data bad --listen 'tcp://127.0.0.1:*'
ok "a damaged store is exit 4" one_line 4 "damaged"
mkdir -p newer
cp fleet/c/store.db newer/store.db
python3 - <<'E'
f = open("newer/store.db", "r+b")
f.seek(60)
f.write((99).to_bytes(4, "big"))
E
ends coordinator --data newer --listen 'tcp://127.0.0.1:*'
ok "a store of a newer version is exit 1" one_line 1 "version 99"
chmod 644 fleet/c/keys/coordinator
ends coordinator --data fleet/c --listen 'tcp://127.0.0.1:*'
ok "a secret key that others may read is refused" one_line 3 "keys/coordinator"
chmod 600 fleet/c/keys/coordinator

# a full disk
mnt=$work/small
umount_small() { mountpoint -q "$mnt" && umount -l "$mnt"; }
mkdir -p "$mnt"
if [ "$(id -u)" -eq 0 ] && mount -t tmpfs -o size=6m none "$mnt" 2>/dev/null; then
  trap 'umount_small; tap_end' EXIT
  fleet_listen=
  mkdir -p fleet2 && mv fleet fleet.old
  mkdir -p fleet && ln -s "$mnt/c" fleet/c && mkdir "$mnt/c"
  ok "full disk: a fleet on a small one" fleet_start 1
  sed 's/name = s/name = slow\npace_ms = 200/; s/64..512/64..4096/' s.ini >slow.ini
  "$sf" perf sweep slow.ini --csv >slow.csv 2>/dev/null
  run sweep submit slow.ini
  id=$(cat "$work/out")
  ok "full disk: a sweep is accepted before" worked
  dd if=/dev/zero of="$mnt/fill" bs=4k 2>/dev/null
  told() { grep -q "nothing new is accepted" coordinator.log; }
  big() { # more than the write-ahead log has room for without growing
    sed "s/name = s/name = b$1/; s/64..512/64..8192/; /iotlb_entries/a l2_entries = 16..16384:x2\nl3_entries = 16..16384:x2" s.ini >big.ini
    run sweep submit big.ini
    [ "$rc" -ne 0 ]
  }
  i=0
  refused() { i=$((i + 1)); big $i; }
  until_ok 30 refused
  ok "full disk: a submit is refused with one line and exit 1" one_line 1 "no space"
  ok "full disk: the coordinator says so once, and lives" until_ok 10 told
  run ls sweeps
  ok "full disk: reading works" worked
  rm "$mnt/fill"
  run sweep wait "$id" --timeout 60s
  ok "full disk: with space again the sweep completes" worked
  run results query --sweep "$id" --csv
  ok "full disk: and nothing is lost" cmp "$work/out" slow.csv
  stop_all
  run results query --sql "SELECT count(*) FROM sweeps" --data fleet/c --csv
  ok "full disk: the store is intact" worked
  ok "full disk: it can be started again" fleet_start 0
  stop_all
  ok "full disk: nothing holds it" umount "$mnt"
  trap tap_end EXIT
else
  echo "# SKIPPED, LOUDLY: a full disk needs root and mount" >&2
  for i in $(seq 10); do ok "full disk # SKIP needs root and mount" true; done
fi
