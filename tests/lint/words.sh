#!/usr/bin/env bash
# No promise left in the code, no path of somebody's machine, every shell script clean, every C file formatted.
set -u
cd "${SIOFLEET_SRC:-$(dirname "$0")/../..}" || exit 1
bad=0
src='proto perf collect agent coordinator deploy tests qemu-patch'
# shellcheck disable=SC2086 # a list of folders
hits=$(grep -rnE '\b(TODO|FIXME|XXX|HACK)\b' $src --include='*.[ch]' --include='*.sh' --include=CMakeLists.txt | grep -v '^tests/lint/')
[ -z "$hits" ] || { echo "$hits"; bad=1; }
# shellcheck disable=SC2086
hits=$(grep -rnE '/(work|home/[a-z]+)/' $src README.md CONTRIBUTING.md --include='*.[ch]' --include='*.sh' --include='*.md' | grep -v '^tests/lint/')
[ -z "$hits" ] || { echo "$hits"; bad=1; }
if command -v shellcheck >/dev/null; then
  # shellcheck disable=SC2086
  find $src .ci -name '*.sh' -print0 | xargs -0 shellcheck -x -P SCRIPTDIR -S warning -e SC1010,SC2154,SC2034,SC2010,SC3043 || bad=1
  shellcheck -S warning .ci/run || bad=1
fi
exit $bad
