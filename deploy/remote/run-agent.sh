#!/bin/sh
# run-agent DATA: the agent of DATA with the arguments of DATA/agent.args (one a line; no shell reads them again).
set -eu
cd "$1"
set --
while IFS= read -r arg || [ -n "$arg" ]; do set -- "$@" "$arg"; done <agent.args
exec current/siofleet "$@"
