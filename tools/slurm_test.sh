#!/usr/bin/env bash
# Evaluate as a Slurm job, one task per GPU; slurm.sh lists what is read from the environment.
#   tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [ARGUMENTS OF test.py ...]
[ $# -ge 4 ] || { sed -n '3s/^# */usage: /p' "$0" >&2; exit 2; }
exec "$(dirname "$0")/slurm.sh" test.py "$@"
