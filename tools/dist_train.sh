#!/usr/bin/env bash
# Train with several processes on this machine: one per GPU, or where there is none, on its CPUs.
#   tools/dist_train.sh CONFIG PROCESSES [ARGUMENTS OF train.py ...]
[ $# -ge 2 ] || { sed -n '3s/^# */usage: /p' "$0" >&2; exit 2; }
exec "$(dirname "$0")/dist.sh" train.py "$2" "$1" "${@:3}"
