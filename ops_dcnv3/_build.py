"""How the libraries are built: the sources and their fingerprint, and the nvcc command of the CUDA library.

torch's CUDAExtension is not used because it requires a CUDA build of torch, which the stable ABI makes unnecessary at
build time. This file imports the standard library only: ``setup.py`` and ``tools/setup_env.py`` run it by its path,
before the package or torch can be imported.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sysconfig
from pathlib import Path

CSRC = Path(__file__).resolve().parent / 'csrc'
SOURCE_SUFFIXES = frozenset({'.h', '.cpp', '.cuh', '.cu'})
DEFAULT_CUDA_ARCHS = '8.0;9.0+PTX'
# The sources use the stable ABI of torch 2.10.
TARGET_MACROS = ('-DTORCH_TARGET_VERSION=0x020a000000000000',)


def source_files() -> list[Path]:
    """All C++ and CUDA files of the operator, sorted; empty in a wheel without them."""
    return sorted(path for path in CSRC.rglob('*') if path.suffix in SOURCE_SUFFIXES)


def source_hash() -> str | None:
    """SHA-256 (16 hex digits) over names and contents of :func:`source_files`; None without files.

    It is compiled into the libraries, so that a library built from other sources is noticed.
    """
    files = source_files()
    if not files:
        return None
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(CSRC).as_posix().encode() + b'\0' + path.read_bytes() + b'\0')
    return digest.hexdigest()[:16]


def find_nvcc() -> str | None:
    """Path of the CUDA compiler, or None: in ``CUDA_HOME`` if that is set, else on ``PATH`` or in /usr/local/cuda."""
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
    """The command that compiles and links the CUDA library; it needs neither a GPU nor a CUDA build of torch."""
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
        # libtorch loads libtorch_cuda, whose symbols the library needs; the linker would drop libtorch as unused.
        '-Xlinker=--no-as-needed',
        '-ltorch',
        '-ltorch_cpu',
        '-o',
        str(output),
        str(CSRC / 'cuda/dcnv3_cuda.cu'),
    ]
    return command
