#!/bin/sh
# run DATA: the service of DATA with the arguments of DATA/args (one a line; no shell reads them again).
set -eu
cd "$1"
rm -f run/ready # of a service that was killed
if [ -d cache ]; then # of a collection pack: what collects finds QEMU and guest image there
    XDG_CACHE_HOME=$PWD/cache
    export XDG_CACHE_HOME
    for lib in cache/lib/*; do
        if [ -e "$lib" ]; then export LD_LIBRARY_PATH="$PWD/cache/lib"; fi
        break
    done
fi
set --
while IFS= read -r arg || [ -n "$arg" ]; do set -- "$@" "$arg"; done <args
exec current/siofleet "$@"
