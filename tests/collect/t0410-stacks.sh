#!/usr/bin/env bash
# Real QEMU stacks through the verb: quick, both tracers side by side, 24 NICs, two nested guests; no leftovers.
# Needs the patched QEMU in the cache (qemu-patch/build.sh); the guest image is made here when it is missing.
. "${0%/*}/../cli/tap.sh"
case ${1:-} in
quick | many | tenants) ;;
*) echo "usage: t0410-stacks.sh quick|many|tenants" >&2; exit 2 ;;
esac
if ! sh "$src/qemu-patch/build.sh" --check >/dev/null 2>&1; then
  echo "1..0 # skip: the patched QEMU is not built (qemu-patch/build.sh)"
  tap_plan=0
  exit 77
fi
ini() { # ini PROFILE [sed-script]: the shipped profile, changed
  "$sf" collect init "$1" | sed "${2:-}" >"$work/$1.ini"
}
no_qemu() { ! pgrep -f "qemu-system-x86_64 -name siofleet-.*$work" >/dev/null; }

case $1 in
quick)
  plan 16
  ini quick
  run collect --local "$work/quick.ini" -o "$work/q" --json
  ok "quick works" json 'd["runs"][0]["status"]=="done" and d["tracer"]=="ring" and d["accel"] in ("tcg","kvm")'
  ok "its default gives at least 150000 events of one device, none lost" \
    json 'd["runs"][0]["log"]["events"]>=150000 and d["runs"][0]["log"]["devices"]==1 and d["runs"][0]["log"]["dropped"]==0'
  ok "the provenance names series and hash" json 'len(d["qemu"]["series"])==64 and len(d["qemu"]["hash"])==64 and len(d["image"])==64'
  ok "iperf3's own result is there" python3 -c 'import json,sys; d=json.load(open(sys.argv[1])); assert d["end"]["sum_sent"]["bytes"]>=40<<20' "$work/q/run-0001/workload-nic1.json"
  log=$work/q/run-0001/log.slog
  run log info "$log" --json
  ok "the log reads back: a walk for each fill" json 'd["source"]=="ring" and d["by_kind"]["page_update"]>0 and d["by_kind"]["slpte_fetch"]>=d["by_kind"]["page_update"]*2'
  ok "a late start has the cached context" json 'd["by_kind"]["cc_update"]>=1'
  ok "at rest at most 3 bytes an event" test "$(stat -c %s "$log")" -le $((3 * $("$sf" log info "$log" --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["events"])')))
  ok "nothing runs any more" no_qemu

  # the same run by both tracers: the text is regenerated from the ring, line by line, and so is the trace
  ini quick 's/^tracer.*/tracer = both/; s/^bytes.*/bytes = 2M/; s/^nics.*/nics = 2/'
  run collect --local "$work/quick.ini" -o "$work/b" --json
  ok "both tracers at once" worked
  "$sf" log cat "$work/b/run-0001/log.slog" | grep -E 'vtd_(iotlb_(page_(update|hit)|cc_(update|hit))|slpte_fetch) ' >"$work/cat"
  zstd -dc "$work/b/run-0001/run.log.zst" | grep vtd_ >"$work/text"
  ok "the ring's log prints the text log" cmp "$work/cat" "$work/text"
  trace() { # trace NAME LOG: build it, print its id
    "$sf" trace build --log "$2" --tenants 2 --devices-per-log 2 -o "$work/$1.trc" --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["id"])'
  }
  a=$(trace a "$work/b/run-0001/log.slog")
  b=$(trace b "$work/b/run-0001/run.log.zst")
  ok "both give the same trace id" test -n "$a" -a "$a" = "$b"
  mkdir "$work/ea" "$work/eb"
  "$sf" trace export "$work/a.trc" --hypersio "$work/ea" --prefix t
  "$sf" trace export "$work/b.trc" --hypersio "$work/eb" --prefix t
  ok "and the same bytes as HyperSIO's files" sh -c "[ $(find "$work/ea" -size +1k | wc -l) -ge 1 ] && diff -r $work/ea $work/eb"
  rm -f "$work"/*.trc
  ok "at rest the text takes a few bytes an event" test "$(stat -c %s "$work/b/run-0001/run.log.zst")" -le $((4 * $(wc -l <"$work/text")))

  # a runner that is killed takes its QEMU along; the next start sweeps
  ini quick 's/^bytes.*/duration = 60s/'
  start hang "$sf" collect --local "$work/quick.ini" -o "$work/k"
  booted() { pgrep -P "$(pgrep -P "$pid" | head -1)" -f 'qemu-system-x86_64 -name siofleet-l1'; }
  ok "a run is under way" until_ok 60 booted
  runner=$(pgrep -P $pid | head -1)
  qemus=$(pgrep -P "$runner" | tr '\n' ' ')
  kill -KILL $pid "$runner"
  wait $pid 2>/dev/null
  gone() { for q in $qemus; do kill -0 "$q" 2>/dev/null && return 1; done; return 0; }
  ok "kill -9: QEMU and its helpers die with the runner" until_ok 20 gone
  run vm ls --json
  ok "and no log was published" test ! -e "$work/k/run-0001"
  ;;
many)
  plan 3
  ini many
  run collect --local "$work/many.ini" -o "$work/m" --json
  ok "24 NICs work" json 'd["runs"][0]["status"]=="done" and len(d["runs"][0]["workload"])==24'
  ok "all of them are in the log" json 'd["runs"][0]["log"]["devices"]==24 and d["runs"][0]["log"]["dropped"]==0'
  ok "nothing runs any more" no_qemu
  ;;
tenants)
  plan 3
  ini tenants 's/^duration.*/duration = 3s/'
  run collect --local "$work/tenants.ini" -o "$work/t" --json
  ok "two nested guests work" json 'd["runs"][0]["status"]=="done" and [w["exit"] for w in d["runs"][0]["workload"]]==[0,0]'
  ok "each is a device of its own in the log" json 'd["runs"][0]["log"]["devices"]==2 and d["runs"][0]["log"]["events"]>1000'
  ok "nothing runs any more" no_qemu
  ;;
esac
