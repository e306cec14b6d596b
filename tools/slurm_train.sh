#!/usr/bin/env bash
# Train as a Slurm job, one task per GPU; slurm.sh lists what is read from the environment.
#   tools/slurm_train.sh PARTITION JOB_NAME CONFIG [ARGUMENTS OF train.py ...]
[ $# -ge 3 ] || { sed -n '3s/^# */usage: /p' "$0" >&2; exit 2; }
exec "$(dirname "$0")/slurm.sh" train.py "$@"
