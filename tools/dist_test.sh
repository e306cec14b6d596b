#!/usr/bin/env bash
# Evaluate with several processes on this machine: one per GPU, or where there is none, on its CPUs.
#   tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [ARGUMENTS OF test.py ...]
[ $# -ge 3 ] || { sed -n '3s/^# */usage: /p' "$0" >&2; exit 2; }
exec "$(dirname "$0")/dist.sh" test.py "$3" "$1" "$2" "${@:4}"
