"""Builds the operator's two libraries; everything else about the distribution is in pyproject.toml."""

from __future__ import annotations

import os
import runpy
import subprocess
from pathlib import Path

from setuptools import Extension, setup
from torch.utils.cpp_extension import BuildExtension, CppExtension

ROOT = Path(__file__).resolve().parent
CSRC = 'ops_dcnv3/csrc'
build = runpy.run_path(str(ROOT / 'ops_dcnv3/_build.py'))


def cpu_extension() -> Extension:
    return CppExtension(
        'ops_dcnv3._cpu',
        [f'{CSRC}/registration.cpp', f'{CSRC}/cpu/dcnv3_cpu.cpp'],
        py_limited_api=True,
        extra_compile_args=[
            '-O3',
            '-std=c++20',
            '-fvisibility=hidden',
            '-fno-math-errno',
            '-fno-trapping-math',
            '-Wall',
            '-Wno-psabi',
            *build['TARGET_MACROS'],
            f'-DDCNV3_SOURCE_HASH="{build["source_hash"]()}"',
        ],
    )


def cuda_extension() -> list[Extension]:
    """The CUDA library, if there is an nvcc. ``FORCE_CUDA=1`` requires one, ``FORCE_CUDA=0`` skips the library."""
    force_cuda = os.environ.get('FORCE_CUDA', '')
    if force_cuda not in ('', '0', '1'):
        raise SystemExit(f'FORCE_CUDA must be 0, 1 or unset, got {force_cuda!r}')
    if force_cuda == '0':
        return []
    if build['find_nvcc']() is None:
        if force_cuda == '1':
            raise SystemExit('FORCE_CUDA=1, but no nvcc was found in CUDA_HOME, on PATH or in /usr/local/cuda/bin')
        print('ops_dcnv3: no nvcc found, building the CPU operator only')
        return []
    return [Extension('ops_dcnv3._cuda', [f'{CSRC}/cuda/dcnv3_cuda.cu'], py_limited_api=True)]


class BuildLibraries(BuildExtension):
    """Builds the C++ library as torch does, and the CUDA library with the nvcc command of ``_build.py``."""

    def build_extensions(self) -> None:
        cuda = [extension for extension in self.extensions if extension.name.endswith('._cuda')]
        for extension in cuda:
            output = Path(self.get_ext_fullpath(extension.name))
            output.parent.mkdir(parents=True, exist_ok=True)
            command = build['nvcc_command'](build['find_nvcc'](), output, build['cuda_archs']())
            print(' '.join(command), flush=True)
            subprocess.run(command, check=True)
        self.extensions = [extension for extension in self.extensions if extension not in cuda]
        super().build_extensions()
        self.extensions += cuda


setup(
    ext_modules=[cpu_extension(), *cuda_extension()],
    cmdclass={'build_ext': BuildLibraries},
    options={'bdist_wheel': {'py_limited_api': 'cp310'}},
)
