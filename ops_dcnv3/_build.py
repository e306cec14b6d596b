"""How the CUDA library is compiled: one nvcc command, for ``setup.py`` and for the check that needs no GPU.

torch's own CUDAExtension is no help here: it insists on a CUDA build of torch, which the stable ABI makes needless at
build time. Imports nothing of this package but its neighbours by path, because ``setup.py`` runs this file before the
package exists.
"""

from __future__ import annotations

import os
import re
import runpy
import shutil
import sysconfig
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEFAULT_CUDA_ARCHS = '8.0;9.0+PTX'
# Least torch whose stable ABI the sources use: 2.10.
TARGET_MACROS = ('-DTORCH_TARGET_VERSION=0x020a000000000000',)


def source_hash() -> str:
    """The fingerprint that goes into the libraries."""
    return runpy.run_path(str(HERE / '_sources.py'))['source_hash']()


def find_nvcc() -> str | None:
    """Path of the CUDA compiler: that of ``CUDA_HOME`` if set, else from ``PATH`` or the usual place, or None."""
    if home := os.environ.get('CUDA_HOME'):
        candidates = [f'{home}/bin/nvcc']
    else:
        candidates = [shutil.which('nvcc') or '', '/usr/local/cuda/bin/nvcc']
    return next((path for path in candidates if os.path.isfile(path)), None)


def cuda_archs() -> list[str]:
    """Architectures from ``TORCH_CUDA_ARCH_LIST``, such as ``['8.0', '9.0', '9.0+PTX']``; by default 8.0, 9.0 and PTX.

    Raises:
        ValueError: An entry is not of the form ``major.minor`` with an optional ``+PTX``.
    """
    text = os.environ.get('TORCH_CUDA_ARCH_LIST', '').strip('; ,') or DEFAULT_CUDA_ARCHS
    archs: list[str] = []
    for entry in re.split(r'[;,\s]+', text):
        if not re.fullmatch(r'\d+\.\d[a-f]?(\+PTX)?', entry):
            raise ValueError(
                f'TORCH_CUDA_ARCH_LIST must hold entries such as 8.0 or 9.0+PTX, got {entry!r} in {text!r}'
            )
        archs.append(entry.removesuffix('+PTX'))
        if entry.endswith('+PTX'):
            archs.append(entry)
    return archs


def nvcc_command(nvcc: str, output: Path, archs: list[str], warnings_as_errors: bool = False) -> list[str]:
    """The command that compiles and links the CUDA library; no GPU and no CUDA build of torch is needed."""
    import torch
    from torch.utils.cpp_extension import include_paths

    command = [nvcc, '-O3', '-std=c++20', '-shared', '-Xcompiler=-fPIC', '-Xcompiler=-fvisibility=hidden', '-DUSE_CUDA']
    command += [
        *TARGET_MACROS,
        '-DPy_LIMITED_API=0x030A0000',
        f'-DDCNV3_SOURCE_HASH="{source_hash()}"',
        f'-DDCNV3_CUDA_ARCHS="{" ".join(archs)}"',
    ]
    for arch in archs:
        number = arch.removesuffix('+PTX').replace('.', '')
        kind = 'compute' if arch.endswith('+PTX') else 'sm'
        command.append(f'-gencode=arch=compute_{number},code={kind}_{number}')
    if warnings_as_errors:
        command += ['-Werror=all-warnings', '-Xcompiler=-Wall,-Wextra,-Werror', '-Xptxas=--warn-on-spills']
    for path in [*include_paths(), sysconfig.get_path('include')]:
        command += ['-isystem', path]
    libraries = Path(torch.__file__).parent / 'lib'
    command += [
        f'-L{libraries}',
        # libtorch leads to libtorch_cuda, which knows the current stream; nothing else makes its symbols visible.
        '-Xlinker=--no-as-needed',
        '-ltorch',
        '-ltorch_cpu',
        '-o',
        str(output),
        str(HERE / 'csrc/cuda/dcnv3_cuda.cu'),
    ]
    return command
