#!/usr/bin/env bash
# Runs train.py or test.py as a Slurm job; slurm_train.sh and slurm_test.sh are the commands to use.
#   tools/slurm.sh PROGRAM PARTITION JOB_NAME [ARGUMENTS OF THE PROGRAM ...]
# Read from the environment: GPUS (8), GPUS_PER_NODE (8; 0 for CPU nodes, GPUS being the number of processes then),
# CPUS_PER_TASK (5), SRUN_ARGS, PYTHON, and MASTER_PORT (29500), which jobs that share a node must not share.
set -euo pipefail
fail() { echo "error: $*" >&2; exit 1; }
here=$(cd "$(dirname "$0")" && pwd)
gpus=${GPUS:-8} per_node=${GPUS_PER_NODE:-8} cpus=${CPUS_PER_TASK:-5}
[[ $gpus =~ ^[1-9][0-9]*$ ]] || fail "GPUS must be a positive number, got '$gpus'"
[[ $per_node =~ ^[0-9]+$ ]] || fail "GPUS_PER_NODE must be a number, got '$per_node'"
[[ $cpus =~ ^[1-9][0-9]*$ ]] || fail "CPUS_PER_TASK must be a positive number, got '$cpus'"
command -v srun >/dev/null || fail "there is no program 'srun': this is no machine of a Slurm cluster"
resources=(--ntasks "$gpus" --cpus-per-task "$cpus")
[ "$per_node" = 0 ] || resources+=(--gres "gpu:$per_node" --ntasks-per-node "$per_node")
export PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}"
# SRUN_ARGS holds several words.
# shellcheck disable=SC2086
exec srun --partition "$2" --job-name "$3" "${resources[@]}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
  "${PYTHON:-python}" -u "$here/$1" "${@:4}" --launcher slurm
