#!/usr/bin/env bash
# Includes follow the arrows of the design, and each third-party header has its one home.
set -u
cd "${SIOFLEET_SRC:-$(dirname "$0")/../..}" || exit 1
bad=0

# folder: prefixes it may include
allowed() {
  case $1 in
    proto/base) echo 'proto/base/' ;;
    proto/lib) echo 'proto/(base|lib)/' ;;
    proto/format) echo 'proto/(base|lib|format)/' ;;
    proto/wire) echo 'proto/(base|lib|format|wire)/' ;;
    proto/link) echo 'proto/(base|lib|wire|link)/' ;;
    proto/cas) echo 'proto/(base|lib|cas)/' ;;
    proto/bulk) echo 'proto/(base|lib|wire|bulk)/' ;;
    proto/xfer) echo 'proto/(base|lib|wire|cas|bulk|xfer)/' ;;
    proto/client) echo 'proto/' ;;
    perf | perf/compat) echo '(proto/(base|lib|format)|perf)/' ;;
    collect) echo '(proto/(base|lib|format)|collect)/' ;;
    agent) echo '(proto|perf|collect|agent)/' ;;
    coordinator) echo '(proto/|perf/(arch|points|recipe|sweep|rowout)\.h|coordinator/)' ;;
    deploy) echo '(proto/|collect/kit\.h|deploy/)' ;;
    coordinator/cli) echo '.*' ;;
    *) echo '^$' ;;
  esac
}

while IFS=: read -r file line text; do
  inc=${text#*\"}
  inc=${inc%%\"*}
  dir=$(dirname "$file")
  if ! [[ $inc =~ ^$(allowed "$dir") ]]; then
    echo "$file:$line: '$dir' may not include '$inc'"
    bad=1
  fi
done < <(grep -nE '^#include "' proto/*/*.[ch] perf/*.[ch] perf/compat/*.[ch] collect/*.[ch] agent/*.[ch] \
  coordinator/*.[ch] coordinator/cli/*.[ch] deploy/*.[ch] 2>/dev/null)

# header: the files that may include it
home() {
  local hits
  hits=$(grep -lE "^ *# *include <$1>" -r proto perf collect agent coordinator deploy --include='*.[ch]' | grep -vE "^($2)$")
  [ -z "$hits" ] && return
  echo "$hits" | sed "s#\$#: <$1> belongs in $2#"
  bad=1
}
home 'zmq\.h' 'proto/link/.*'
home 'msgpack.*' 'proto/wire/.*'
home 'sqlite3\.h' 'coordinator/store_in\.h'
home 'libssh2.*' 'deploy/ssh\.c'
home 'sodium.*' 'proto/lib/(hash|aead|locked)\.c|proto/link/.*'
home 'openssl/.*' 'proto/lib/aead\.c'
home 'intel-ipsec-mb\.h' 'proto/lib/gcm\.c'
home 'zstd\.h' 'proto/lib/zio\.c'
home 'ini\.h' 'proto/lib/ini\.c'
home 'jansson\.h' 'proto/lib/json\.h'
home 'microhttpd\.h' 'coordinator/http\.c'

exit $bad
