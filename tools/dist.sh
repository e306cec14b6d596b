#!/usr/bin/env bash
# Runs train.py or test.py in several processes of this machine; dist_train.sh and dist_test.sh are the commands to use.
#   tools/dist.sh PROGRAM PROCESSES [ARGUMENTS OF THE PROGRAM ...]
# Read from the environment, for several machines: NNODES (1), NODE_RANK (0), MASTER_ADDR (127.0.0.1), PORT (29500); PYTHON.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" -m torch.distributed.run \
  --nnodes "${NNODES:-1}" --node-rank "${NODE_RANK:-0}" --nproc-per-node "$2" \
  --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "${PORT:-29500}" \
  "$here/$1" "${@:3}" --launcher pytorch
