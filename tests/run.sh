#!/usr/bin/env bash
# One command that runs the tests on a bare Debian 12: packages, builds (plain, ASan+UBSan, TSan, libFuzzer), every CTest
# label within its cap of tests/budget.ini. Prints what each step took.
#   tests/run.sh [--all] [-L LABEL]...
# --all      also the long run of the simulator (or SIOFLEET_LONG=1): 100,000 seeds from 1 on, or SIOFLEET_SIM_SEEDS from
#            SIOFLEET_SIM_FROM on; -L sim-long runs it alone
# -L LABEL   only this label (of every build that has it)
# Closing line: `N passed, N failed, N skipped`; exit 1 when anything failed.
set -uo pipefail
src=$(cd "$(dirname "$0")/.." && pwd)
only=()
while [ $# -gt 0 ]; do
  case $1 in
    --all) export SIOFLEET_LONG=1 ;;
    -L) [ $# -gt 1 ] || { echo "siofleet: -L: a value is missing" >&2; exit 2; }; only+=("$2"); shift ;;
    -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "siofleet: $1: unknown option (--all, -L LABEL)" >&2; exit 2 ;;
  esac
  shift
done

passed=0 failed=0 skipped=0
start=$SECONDS
work=$(mktemp -d "${TMPDIR:-/tmp}/sf-run-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
figures="$work/figures"
: >"$figures"

cap() { # cap NAME: its seconds, empty when it has none
  sed -n '/^\[budget\]/,$p' "$src/tests/budget.ini" | sed -n "s/^$1 *= *\([0-9]*\).*/\1/p"
}

step() { # step NAME COMMAND...: within the cap, time noted
  local name=$1 s=$SECONDS limit rc
  shift
  limit=$(cap "$name")
  if [ -z "$limit" ]; then
    echo "$name: no cap in tests/budget.ini"
    failed=$((failed + 1))
    return 1
  fi
  timeout --kill-after=20 "$limit" "$@"
  rc=$?
  [ $rc -eq 124 ] && echo "$name: stopped at its cap of $limit s"
  printf '%-20s %5d s of %5d\n' "$name" $((SECONDS - s)) "$limit" >>"$figures"
  return $rc
}

count() { # count JUNIT: add up what ctest reports; a skip is printed with its reason
  local line
  line=$(python3 - "$1" <<'P'
import sys, xml.etree.ElementTree as E
r = E.parse(sys.argv[1]).getroot()
p = f = s = 0
for c in r.iter("testcase"):
    st = c.get("status")
    if c.find("skipped") is not None or st in ("notrun", "disabled"):
        s += 1
        out = (c.findtext("system-out") or "").strip().splitlines()
        why = [l for l in out if "skip" in l.lower()] or out[-1:] or ["no reason given"]
        print("skipped %s: %s" % (c.get("name"), why[0].strip()), file=sys.stderr)
    elif c.find("failure") is not None or st == "fail":
        f += 1
    else:
        p += 1
print(p, f, s)
P
  ) || { failed=$((failed + 1)); return; }
  read -r p f s <<<"$line"
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}

wanted() {
  [ ${#only[@]} -eq 0 ] && return 0
  local l
  for l in "${only[@]}"; do [ "$l" = "$1" ] && return 0; done
  return 1
}

labels_of() { ctest --test-dir "$1" --print-labels 2>/dev/null | sed -n 's/^  \([a-z0-9-]*\)$/\1/p'; }

run_labels() { # run_labels BUILD DIR [LABEL...]: each label of a build within its cap; without LABEL all it has
  local build=$1 dir=$2 l junit
  shift 2
  local list=("$@")
  [ ${#list[@]} -gt 0 ] || mapfile -t list < <(labels_of "$dir")
  for l in "${list[@]}"; do
    wanted "$l" || continue
    labels_of "$dir" | grep -qx -- "$l" || continue
    echo "== $build.$l"
    junit="$work/$build.$l.xml"
    step "$build.$l" ctest --test-dir "$dir" -L "^$l\$" --output-on-failure --no-tests=error -j "$(jobs_of "$l")" \
      --output-junit "$junit" --test-output-size-passed 4096 2>&1 | grep -v '^ *$'
    if [ "${PIPESTATUS[0]}" -ne 0 ] && [ ! -s "$junit" ]; then
      failed=$((failed + 1))
    fi
    [ -s "$junit" ] && count "$junit"
  done
}

# labels whose tests start whole fleets or measure run alone, the others two at a time
jobs_of() { case $1 in unit | oracle | golden | fuzz-replay | fuzz | cli | lint) echo 2 ;; *) echo 1 ;; esac; }

die() { # a step without which nothing can be said
  failed=$((failed + 1))
  finish
}

finish() {
  echo "== seconds"
  sort "$figures"
  printf '%-20s %5d s\n' total $((SECONDS - start))
  echo "$passed passed, $failed failed, $skipped skipped"
  [ "$failed" -eq 0 ]
  exit
}

step deps "$src/deploy/deps.sh" build test || die
build() { # build NAME CMAKE-ARG...: folder in $built; a failure counts, the other builds go on
  built=""
  if step "build.$1" "$src/deploy/build.sh" "$@" >"$work/dir"; then
    built=$(tail -n 1 "$work/dir")
  else
    echo "build.$1 failed"
    failed=$((failed + 1))
    return 1
  fi
}

needs_collect() { [ -f "$src/qemu-patch/build.sh" ] && wanted collect; }

build dev -DCMAKE_BUILD_TYPE=RelWithDebInfo -DSIOFLEET_TESTS=ON -DSIOFLEET_WERROR=ON || finish
dev=$built
mapfile -t labels < <(labels_of "$dev" | grep -vx collect)
[ ${#labels[@]} -gt 0 ] && run_labels dev "$dev" "${labels[@]}"
if { [ -n "${SIOFLEET_LONG:-}" ] && wanted sim; } || { [ ${#only[@]} -gt 0 ] && wanted sim-long; }; then
  echo "== sim-long"
  if step sim-long "$dev/tests/sim/sim" --jobs 2 --from "${SIOFLEET_SIM_FROM:-1}" --seeds "${SIOFLEET_SIM_SEEDS:-100000}"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
  fi
fi
if needs_collect; then
  if step deps "$src/deploy/deps.sh" qemu && step qemu "$src/qemu-patch/build.sh" >"$work/qemu"; then
    # a test needs it; without it that one is skipped by name
    step disk sh "$src/collect/guest/disk.sh" >/dev/null || { echo "disk: no disk image"; failed=$((failed + 1)); }
    run_labels dev "$dev" collect
  else
    echo "qemu: the patched QEMU could not be built"
    failed=$((failed + 1))
  fi
fi

sanitized=(unit oracle cli agent fleet sim fuzz-replay)
any=0
for l in "${sanitized[@]}"; do wanted "$l" && any=1; done
if [ $any = 1 ]; then
  build asan -DCMAKE_BUILD_TYPE=RelWithDebInfo -DSIOFLEET_TESTS=ON -DSIOFLEET_SANITIZE=address,undefined &&
    run_labels asan "$built" "${sanitized[@]}"
fi
if wanted race; then
  build tsan -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_C_COMPILER=clang -DSIOFLEET_TESTS=ON -DSIOFLEET_SANITIZE=thread && {
    # libgomp gives false races; LLVM's runtime with its race annotations does not
    export OMP_TOOL_LIBRARIES=/usr/lib/llvm-14/lib/libarcher.so
    run_labels tsan "$built" race
  }
fi
if wanted fuzz; then
  build fuzz -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_C_COMPILER=clang -DSIOFLEET_FUZZ=ON -DSIOFLEET_SANITIZE=address,undefined &&
    run_labels fuzz "$built" fuzz
fi
finish
