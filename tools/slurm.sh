#!/usr/bin/env bash
# Runs train.py or test.py as a Slurm job; slurm_train.sh and slurm_test.sh are the commands to use.
#   tools/slurm.sh PROGRAM PARTITION JOB_NAME [ARGUMENTS OF THE PROGRAM ...]
# Read from the environment: GPUS (8), GPUS_PER_NODE (8; 0 for CPU nodes, GPUS being the number of processes then),
# CPUS_PER_TASK (5), SRUN_ARGS, PYTHON, and MASTER_PORT (29500), which jobs that share a node must not share.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
per_node=${GPUS_PER_NODE:-8}
resources=(--ntasks "${GPUS:-8}" --cpus-per-task "${CPUS_PER_TASK:-5}")
[ "$per_node" = 0 ] || resources+=(--gres "gpu:$per_node" --ntasks-per-node "$per_node")
export PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}"
# SRUN_ARGS holds several words.
# shellcheck disable=SC2086
exec srun --partition "$2" --job-name "$3" "${resources[@]}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
  "${PYTHON:-python}" -u "$here/$1" "${@:4}" --launcher slurm
