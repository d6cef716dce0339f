#!/usr/bin/env bash
# hypersio-perf: what the reference aborts on, hangs on or leaves undefined is one line on stderr and exit 2; what it
# merely reports keeps its exit status.
set -u
bin="$SIOFLEET_BIN/tests/perf/hypersio_perf"
home=$(mktemp -d "${TMPDIR:-/tmp}/sf-front-XXXXXX") || exit 1
trap 'rm -rf "$home"' EXIT
export HYPERSIO_HOME="$home"
logs="$home/build/qemu_logs" traces="$home/build/hypersio_traces"
mkdir -p "$logs" "$traces"
cd "$home" || exit 1

hit() { echo "vtd_iotlb_page_hit IOTLB page hit sid 0x$1 iova 0x$2 pmask 0xfffffffffffff000 slpte 0x5003 domain 0x$3"; }
for i in 1 2 3 4 5 6 7 8; do hit 10 "${i}004" 1; hit 18 "${i}008" 2; done >"$logs/a_0.txt"
{
  echo "vtd_iotlb_page_update sid 0x10 iova 0x1000 slpte 0x2 level 0x4 domain 0x1"
  echo "vtd_iotlb_page_update sid 0x10 iova 0x11112222333344445 slpte 0x2 level 0x1 domain 0x1"
  cat "$logs/a_0.txt"
} >"$logs/odd_0.txt"
: >"$logs/empty_0.txt"
cache() { printf '%s\nsize:%s\nassoc:%s\ngroups:%s\nhistlen:0\n' "$@"; }
{ cache CC 16 16 1; cache IOTLB 8 4 1; cache L2PAGE 8 4 1; cache L3PAGE 8 4 1; } >caches
{ cat caches; printf 'PREFETCH\nsize:4\nassoc:2\ngroups:0\nhistlen:2\n'; } >good.cfg
sed 's/groups:1/groups:0/' good.cfg >groups0.cfg
sed 's/groups:1/groups:8/' good.cfg >groups8.cfg
sed 's/histlen:2/histlen:0/' good.cfg >history0.cfg
{ cat good.cfg; echo 'histlen:x2'; } >number.cfg
{ echo 'size:4'; cat good.cfg; } >early.cfg
sed '/^CC$/,/^IOTLB$/s/assoc:16/assoc:-16/' good.cfg >minus.cfg
{ head -n 10 good.cfg; echo; tail -n +11 good.cfg; } >emptyline.cfg

n=0 bad=0
result() { # result OK TEXT
  n=$((n + 1))
  if [ "$1" = 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; bad=1; fi
}
refused() { # refused TEXT ARG...: exit 2, exactly one line
  local text=$1
  shift
  timeout 20 "$bin" "$@" >out 2>err
  local rc=$?
  [ $rc -eq 2 ] && [ "$(wc -l <err)" -eq 1 ] && grep -q '^hypersio-perf: ' err
  result $? "refused: $text"
}
exits() { # exits STATUS TEXT ARG...
  local want=$1 text=$2
  shift 2
  timeout 20 "$bin" "$@" >out 2>err
  local rc=$?
  [ $rc -eq "$want" ] && [ ! -s err ]
  result $? "exit $want: $text"
}

build=(--build --ltype txt --lbase a --tname a --tenantnum 2)
refused 'no tenantnum' --build --ltype txt --lbase a
refused 'no ltype' --build --lbase a --tenantnum 2
refused 'consec 0' "${build[@]}" --consec 0
refused 'unknown order' "${build[@]}" --order none
exits 1 'no devices: every log is read' --build --ltype txt --lbase empty --tname a --tenantnum 1 --maxdevperlog 0
exits 0 'no tenants: empty files' --build --ltype txt --lbase a --tname none --tenantnum 0
[ -f "$traces/none_tnt_0_rr3_iotlb_trace.bin" ] && [ ! -s "$traces/none_tnt_0_rr3_iotlb_trace.bin" ]
result $? 'they are there'
exits 0 'the value of build is the number of tenants' --build 2 --ltype txt --lbase a --tname two
grep -q 'Target number of tenants: 2' out
result $? 'when no other is given'
exits 0 'no command' --order rr
grep -q '^\[ERROR\].*Incorrect options!$' out
result $? 'which is said'
refused 'no number' "${build[@]}" --consec x3
exits 1 'a missing log' "${build[@]}" --tenantnum 3 --maxdevperlog 2
exits 0 'two values in a row' --build a b
exits 0 'a build' "${build[@]}"
exits 0 'odd lines are skipped' --build --ltype txt --lbase odd --tname odd --tenantnum 2
[ "$(grep -c '^\[WARN\].*line ignored' out)" -eq 2 ] && grep -q 'Parsed 16 events' out
result $? 'a level of 4 and a value of 65 bits are one warning each'

run=(--run --prefix a_tnt_2_rr3 --iotlbrepl lru --tqueue 4)
exits 0 'a run' "${run[@]}" --config good.cfg --tenantnum 2
exits 0 'unknown options are ignored' "${run[@]}" --config good.cfg --tenants 2
grep -q 'Expected number of tenants: 4' out
result $? 'the number printed is the option before'
refused 'that option is empty' "${run[@]}" --config good.cfg --inorder --tenants 2
refused 'tqueue 0' "${run[@]}" --config good.cfg --tqueue 0 --tenantnum 2
refused 'no bandwidth' "${run[@]}" --config good.cfg --linkbwgbps 0 --tenantnum 2
refused 'slots below a ns' "${run[@]}" --config good.cfg --linkbwgbps 12337 --tenantnum 2
refused 'unknown policy' "${run[@]}" --config good.cfg --iotlbrepl fifo --tenantnum 2
refused 'groups 0' "${run[@]}" --config groups0.cfg --tenantnum 2
refused 'groups above sets' "${run[@]}" --config groups8.cfg --tenantnum 2
exits 0 'a minus wraps: no context cache' "${run[@]}" --config minus.cfg --tenantnum 2
grep -q '^ASSOCIATIVITY     : 18446744073709551600$' out
result $? 'the number is printed as it was read'
refused 'no history' "${run[@]}" --config history0.cfg --tenantnum 2
refused 'no number' "${run[@]}" --config number.cfg --tenantnum 2
refused 'a value without a section' "${run[@]}" --config early.cfg --tenantnum 2
refused 'no prefetcher section' "${run[@]}" --config caches --tenantnum 2
refused 'reading ended before the last section' "${run[@]}" --config emptyline.cfg --tenantnum 2
refused 'no configuration' "${run[@]}" --config none.cfg --tenantnum 2
exits 0 'no trace files' "${run[@]}" --config good.cfg --prefix none --tenantnum 2
! grep -q 'Time elapsed' out && grep -q '^\[ERROR\]' out
result $? 'error lines and no statistics'
cp "$traces"/a_tnt_2_rr3_cc_data.bin "$traces"/t_cc_data.bin
cp "$traces"/a_tnt_2_rr3_slpt_data.bin "$traces"/t_slpt_data.bin
head -c 100 "$traces"/a_tnt_2_rr3_iotlb_trace.bin >"$traces"/t_iotlb_trace.bin
refused 'a truncated trace' "${run[@]}" --config good.cfg --prefix t --tenantnum 2
: >"$traces"/t_iotlb_trace.bin
refused 'an empty trace' "${run[@]}" --config good.cfg --prefix t --tenantnum 2
head -c 96 /dev/zero >"$traces"/t_iotlb_trace.bin
refused 'no translations' "${run[@]}" --config good.cfg --prefix t --tenantnum 2
unset HYPERSIO_HOME
refused 'no home' "${run[@]}" --config good.cfg --tenantnum 2
echo "1..$n"
exit $bad
