"""Compiles the CUDA library for sm_80 and sm_90 with warnings as errors; needs nvcc but neither a GPU nor a CUDA build
of torch.

Run it as ``make cuda-check``. Without nvcc it checks nothing, says so and exits with 0.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from ops_dcnv3 import _build

ARCHS = ['8.0', '9.0']


def main() -> int:
    nvcc = _build.find_nvcc()
    if nvcc is None:
        print('cuda-check: SKIPPED, no nvcc was found in CUDA_HOME, on PATH or in /usr/local/cuda/bin')
        return 0
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, '_cuda.abi3.so')
        status = subprocess.run(_build.nvcc_command(nvcc, library, ARCHS, warnings_as_errors=True)).returncode
        if status:
            print('cuda-check: FAILED, see the messages of nvcc above', file=sys.stderr)
            return 1
        # Without libtorch the symbols of libtorch_cuda stay undefined, which shows only where a GPU is used.
        needed = subprocess.run(['readelf', '-d', library], capture_output=True, text=True, check=True).stdout
        if '[libtorch.so]' not in needed:
            print('cuda-check: FAILED, the library does not load libtorch.so', file=sys.stderr)
            return 1
        size = library.stat().st_size // 1024
        print(f'cuda-check: compiled for {", ".join(ARCHS)} without a warning ({size} KiB, {nvcc})')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
