#!/usr/bin/env bash
# Options of RUN.ini on real QEMU, each with what it must show in the log or in the result.
#   t0440-options.sh          those that are worth their seconds in CI
#   t0440-options.sh all [WORDS]   every one, or those whose name has the words (five minutes on an idle machine); SIOFLEET_BIN names
#                                  the build folder
. "${0%/*}/../cli/tap.sh"
if ! sh "$src/qemu-patch/build.sh" --check >/dev/null 2>&1; then
  echo "1..0 # skip: the patched QEMU is not built (qemu-patch/build.sh)"
  tap_plan=0
  exit 77
fi
all=${1:-} words=${2:-}
cd "$work" || exit 1
export XDG_DATA_HOME=$work/data
no_qemu() { ! pgrep -f "qemu-system-x86_64 -name siofleet-.*$work" >/dev/null; }
show() { # show PYTHON: of d (the collection), r (its first run), l (log info), w (iperf3's documents), a (QEMU's arguments)
  python3 - "$work" "$1" <<'P'
import json, glob, sys
work, check = sys.argv[1:]
d = json.load(open(work + "/out"))
r = d["runs"][0]
try: l = json.load(open(work + "/info"))
except Exception: l = None
w = []
for x in r["workload"]:
    try: w.append(json.load(open(x["path"])))
    except Exception: w.append(None)
a = " ".join(json.load(open(work + "/o/run-0001/provenance.json"))["commands"]["l1"])
k = l["by_kind"] if l else {}
sent = [x["end"]["sum_sent"]["bytes"] for x in w if x and "end" in x]
dev = [x["events"] for x in l["devices"]] if l else []
print(r["log"] and r["log"]["events"], k, sent)
assert eval(check)
P
}
n=0
try() { # try ci|all NAME PROFILE SED CHECK
  local when=$1 name=$2 profile=$3 change=$4 check=$5 s=$SECONDS
  [ "$when" = ci ] || [ "$all" = all ] || return 0
  case $name in *"$words"*) ;; *) return 0 ;; esac
  rm -rf o info
  "$sf" collect init "$profile" | sed "$change" >run.ini
  run collect --local run.ini -o o --json
  log=$(python3 -c 'import json; print(json.load(open("out"))["runs"][0]["log"]["path"])' 2>/dev/null)
  [ -z "$log" ] || "$sf" log info "$log" --json >info 2>/dev/null
  n=$((n + 1))
  tap_plan=$n
  ok "$name ($((SECONDS - s)) s)" show "$check"
  echo "# $(head -n 1 check | cut -c1-200)"
}
fast='s/^bytes.*/bytes = 3M/'

try all "vCPUs: 2" quick "$fast; s/^vcpus.*/vcpus = 2/" '"-smp 2" in a and r["log"]["events"]>1000'
nocm='s/^caching_mode.*/caching_mode = no/'
try ci "no caching mode, strict: an invalidation for each unmapping" quick "$fast; $nocm; s/^invalidation.*/invalidation = strict/" '"caching-mode=off" in a and "iommu.strict=1" in a and k["invalidate"] > 500'
try all "no caching mode, lazy: few" quick "$fast; $nocm" '"iommu.strict=0" in a and k["invalidate"] < 200'
try all "caching mode: Linux is strict whatever it is told" quick "$fast" '"iommu.strict=0" in a and k["invalidate"] > 500'
try ci "icount: guest time, one vCPU" quick "$fast; s/^vcpus.*/vcpus = 1\nicount = 3/" '"shift=3,sleep=off" in a and l["duration_ns"] > 0'
try all "THP off" quick "$fast; s/^vcpus.*/vcpus = 1\nthp = no/" '"transparent_hugepage=never" in a and r["log"]["events"]>1000'
try all "include_boot" quick "$fast; s/^include_boot.*/include_boot = yes/" 'k["cc_update"] >= 1 and r["log"]["events"]>1000'
try all "direction rx, to an e1000e" quick "$fast; s/^direction.*/direction = rx/; s/^nic_model.*/nic_model = e1000e/" '"e1000e,netdev" in a and w[0]["start"]["test_start"]["reverse"] == 1 and sent[0] >= 3 << 20'
try all "direction both" quick "s/^bytes.*/duration = 2s/; s/^direction.*/direction = both/" 'w[0]["end"]["sum_sent_bidir_reverse"]["bytes"] > 1 << 20 and sent[0] > 1 << 20'
try ci "UDP, 200-byte datagrams, a rate" quick "s/^bytes.*/duration = 2s\nrate = 5M\nlength = 200/; s/^proto.*/proto = udp/" 'w[0]["start"]["test_start"]["protocol"]=="UDP" and w[0]["start"]["test_start"]["blksize"]==200'
try all "bounded by bytes" quick "s/^bytes.*/bytes = 5M/" 'sent[0] >= 5 << 20 and sent[0] < 8 << 20'
try all "timed" quick "s/^bytes.*/duration = 3s/" '2.5 < w[0]["end"]["sum_sent"]["seconds"] < 6'
try all "balanced: a rate gives four cards equal shares" quick "s/^nics.*/nics = 4/; s/^bytes.*/duration = 3s/; s/^; rate.*/rate = 10M/" 'len(sent)==4 and min(sent) > 0.7*max(sent) and min(dev) > 0.5*max(dev)'
try all "e1000e" quick "$fast; s/^nic_model.*/nic_model = e1000e/" '"e1000e,netdev" in a and sent[0] >= 3 << 20 and dev[0]>300'
try all "virtio" quick "$fast; s/^nic_model.*/nic_model = virtio/" '"iommu_platform=on" in a and sent[0] >= 3 << 20 and dev[0]>300'
try ci "ATS: a device-IOTLB is invalidated" quick "$fast; s/^nic_model.*/nic_model = virtio/; s/^ats.*/ats = yes/" '"device-iotlb=on" in a and k["ats"]>100 and "ats" in d["lacks"]'
try all "disks: nvme, written" quick "s/^nic_model.*/nic_model = nvme/; s/^bytes.*/bytes = 8M/" 'r["workload"][0]["exit"]==0 and r["log"]["events"]>500'
try ci "disks: virtio-blk, 4 KiB at random, reads and writes" quick "s/^nic_model.*/nic_model = virtio-blk/; s/^bytes.*/bytes = 1M\nblock = 4K\npattern = rand/; s/^direction.*/direction = both/" 'r["workload"][0]["exit"]==0 and "256 blocks of 4096, rand, both" in open(r["workload"][0]["path"]).read() and r["log"]["events"]>256'
try all "disks: virtio-blk, two, read" quick "s/^nics.*/nics = 2/; s/^nic_model.*/nic_model = virtio-blk/; s/^bytes.*/bytes = 8M/; s/^direction.*/direction = rx/" '[x["exit"] for x in r["workload"]]==[0,0] and len(dev)==2'
try ci "text tracer, compressed at rest" quick "$fast; s/^tracer.*/tracer = log/" 'r["log"]["path"].endswith("run.log.zst") and k["slpte_fetch"]>0 and k["cc_update"]>=1 and "time" in d["lacks"]'
try all "tracing off: no log" quick "$fast; s/^tracer.*/tracer = off/" 'r["log"] is None and sent[0] >= 3 << 20'
if command -v qemu-system-x86_64 >/dev/null; then
  try all "stock QEMU" quick "$fast; s/^tracer.*/tracer = stock/" 'd["qemu"]["series"] is None and "level" in d["lacks"] and k["page_hit"]>100'
fi
try all "two runs at once" quick "$fast; s/^runs.*/runs = 2/" '[x["status"] for x in d["runs"]]==["done","done"] and d["runs"][0]["log"]["id"] != d["runs"][1]["log"]["id"]'
try all "24 cards: e1000e" many "s/^duration.*/duration = 2s/; s/^nic_model.*/nic_model = e1000e/" 'len(dev)==24'
try all "24 cards: virtio" many "s/^duration.*/duration = 2s/; s/^nic_model.*/nic_model = virtio/" 'len(dev)==24'
try all "24 disks: nvme" many "s/^duration.*/bytes = 1M/; s/^nic_model.*/nic_model = nvme/" 'len(dev)==24 and all(x["exit"]==0 for x in r["workload"])'
try all "tenants: 4 KiB pages without THP" tenants "s/^duration.*/duration = 3s/; s/^thp.*/thp = no/" 'len(dev)==2 and l["pages"]>200'
try all "tenants: UDP to the guests" tenants "s/^duration.*/duration = 3s\nrate = 5M/; s/^proto.*/proto = udp/; s/^direction.*/direction = rx/" 'len(dev)==2'
ok "nothing runs any more" no_qemu
tap_plan=$((n + 1))
echo "1..$tap_plan"
