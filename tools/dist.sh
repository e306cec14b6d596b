#!/usr/bin/env bash
# Runs train.py or test.py in several processes of this machine; dist_train.sh and dist_test.sh are the commands to use.
#   tools/dist.sh PROGRAM PROCESSES [ARGUMENTS OF THE PROGRAM ...]
# Read from the environment, for several machines: NNODES (1), NODE_RANK (0), MASTER_ADDR (127.0.0.1), PORT (29500); PYTHON.
set -euo pipefail
fail() { echo "error: $*" >&2; exit 1; }
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python} nodes=${NNODES:-1} node=${NODE_RANK:-0} port=${PORT:-29500}
[[ $2 =~ ^([1-9][0-9]{0,3}|auto|cpu|gpu)$ ]] || fail "PROCESSES must be a positive number, auto, cpu or gpu, got '$2'"
[[ $nodes =~ ^[1-9][0-9]*(:[1-9][0-9]*)?$ ]] || fail "NNODES must be a positive number or MIN:MAX, got '$nodes'"
[[ $node =~ ^[0-9]+$ && 10#$node -lt ${nodes#*:} ]] || fail "NODE_RANK must be a number below NNODES=$nodes, got '$node'"
[[ $port =~ ^[1-9][0-9]{0,4}$ && $port -lt 65536 ]] || fail "PORT must be a number from 1 to 65535, got '$port'"
command -v "$python" >/dev/null || fail "there is no program '$python': set PYTHON to the Python to use"
if [[ 10#$node -eq 0 ]] && (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
  fail "port $port is in use, by another training perhaps: set PORT to a free one"
fi
# torchrun, which would print a traceback of its own after the error of a process.
launch='import sys
from torch.distributed import DistError
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main
try:
    main()
except ChildFailedError:
    sys.exit(1)
except DistError as problem:
    sys.exit("error: the processes cannot meet; is PORT in use? " + " ".join(str(problem).split()))'
export PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -c "$launch" \
  --nnodes "$nodes" --node-rank "$node" --nproc-per-node "$2" \
  --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "$port" \
  "$here/$1" "${@:3}" --launcher pytorch
