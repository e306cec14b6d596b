#!/usr/bin/env python3
"""Runs the operator's tests on libraries built with sanitizers; exit code 1 where one of them reports something.

    python tools/sanitizers.py [--only memory|threads] [--isa avx2] [-- PYTEST_ARGUMENTS]

AddressSanitizer and UndefinedBehaviorSanitizer run together, over the tests of values, errors and wild arguments.
ThreadSanitizer runs over the tests with threads; there torch's parallel loop is replaced by one whose threads it sees.
At the end each run is one line: sanitizers, instruction set, pytest's summary, number of reports.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.cpp_extension import include_paths

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from ops_dcnv3 import _build, extension  # noqa: E402

BUILD = ROOT / 'build' / 'sanitizers'
COPIED = ('ops_dcnv3', 'tests', 'tools', 'pyproject.toml')
LIBRARIES = Path(torch.__file__).parent / 'lib'
FLAGS = ['-O1', '-g1', '-fno-omit-frame-pointer', '-std=c++20', '-shared', '-fPIC']
REPORT = re.compile(r'ERROR: AddressSanitizer|WARNING: ThreadSanitizer|: runtime error: ')


@dataclass(frozen=True)
class Kind:
    """Sanitizers that one library is built with, and the tests for it."""

    name: str
    options: tuple[str, ...]
    runtimes: tuple[str, ...]
    tests: tuple[str, ...]
    environment: dict[str, str]


KINDS = {
    'memory': Kind(
        'Address+UndefinedBehavior',
        ('-fsanitize=address,undefined', '-fno-sanitize-recover=undefined'),
        ('libasan.so', 'libubsan.so', 'libstdc++.so'),
        # Without the tests that choose an instruction set themselves, and oneDNN's code under autocast.
        (
            'tests/ops/test_fuzz.py',
            'tests/ops/test_dcnv3.py',
            'tests/ops/test_cpu_kernel.py',
            '-k',
            'not autocast and not instruction_set',
        ),
        # Python itself leaks. What is too large must fail as without a sanitizer.
        {'ASAN_OPTIONS': 'detect_leaks=0:allocator_may_return_null=1', 'UBSAN_OPTIONS': 'print_stacktrace=1'},
    ),
    'threads': Kind(
        'Thread',
        ('-fsanitize=thread',),
        ('libtsan.so', 'libstdc++.so'),
        ('tests/ops/test_cpu_kernel.py', 'tests/ops/test_fuzz.py', '-k', 'thread or band or alone'),
        {'OMP_NUM_THREADS': '4'},
    ),
}
# torch's own threads synchronise through libgomp, which the sanitizer does not see into.
UNSEEN = ('libtorch_cpu.so', 'libtorch_python.so', 'libc10.so', 'libgomp.so', 'ld-linux')
SUPPRESSIONS = ''.join(f'called_from_lib:{name}\n' for name in UNSEEN)
SUPPRESSIONS += 'mutex:capsule_dealloc\n'  # torch unlocks one while Python ends


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', choices=sorted(KINDS), help='these sanitizers only')
    parser.add_argument('--isa', help='this instruction set only (default: all that this machine has)')
    parser.add_argument('pytest', nargs='*', help='further arguments of pytest, after --')
    options = parser.parse_args()
    held = extension.describe()['cpu']
    if held is None:
        parser.error(f'the operator is not built: {extension.BUILD_COMMAND}')
    isas = held['isas'][held['isas'].index(held['isa']) :]
    if options.isa is not None and options.isa not in isas:
        parser.error(f'--isa must be one of {", ".join(isas)} on this machine, got {options.isa!r}')
    lines, failed = [], False
    for key, kind in KINDS.items():
        if options.only in (None, key):
            tree = BUILD / key
            build(kind, tree)
            for isa in [options.isa] if options.isa else isas:
                line, passed = run(kind, tree, isa, options.pytest)
                lines.append(line)
                failed |= not passed
    print('\n'.join(lines))
    return int(failed)


def build(kind: Kind, tree: Path) -> None:
    """Copies what the tests need and compiles the CPU library there."""
    start = time.monotonic()
    shutil.rmtree(tree, ignore_errors=True)
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns('*.so', '__pycache__'))
        else:
            shutil.copy(source, tree / name)
    command = ['g++', *FLAGS, *kind.options, *_build.TARGET_MACROS, '-fvisibility=hidden', '-Wno-psabi']
    command += ['-DPy_LIMITED_API=0x030A0000', f'-DDCNV3_SOURCE_HASH="{_build.source_hash()}"']
    for path in [*include_paths(), sysconfig.get_path('include')]:
        command += ['-isystem', path]
    command += [f'ops_dcnv3/csrc/{name}.cpp' for name in ('registration', 'cpu/dcnv3_cpu')]
    command += [f'-L{LIBRARIES}', '-ltorch_cpu', '-lc10', '-o', 'ops_dcnv3/_cpu.abi3.so']
    subprocess.run(command, cwd=tree, check=True)
    if kind is KINDS['threads']:
        loop = ['g++', *FLAGS, *kind.options, 'tests/ops/emulation/threads.cpp', '-o', 'threads.so']
        subprocess.run(loop, cwd=tree, check=True)
        (tree / 'suppressions.txt').write_text(SUPPRESSIONS)
    print(f'{kind.name}: compiled in {time.monotonic() - start:.0f} s', flush=True)


def run(kind: Kind, tree: Path, isa: str, arguments: list[str]) -> tuple[str, bool]:
    """One run of pytest: its line of the summary, and whether all tests passed without a report."""
    preload = [
        subprocess.check_output(['gcc', f'-print-file-name={name}'], text=True).strip() for name in kind.runtimes
    ]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', **kind.environment, 'PYTHONPATH': str(tree)}
    environment |= {'DCNV3_CPU_ISA': isa, 'DCNV3_SANITIZER': kind.name}
    if kind is KINDS['threads']:
        preload.append(str(tree / 'threads.so'))
        environment['TSAN_OPTIONS'] = f'suppressions={tree}/suppressions.txt'
    start = time.monotonic()
    # env sets LD_PRELOAD, so that no program on the way to Python is run under the sanitizer. Without setarch a kernel
    # with much address space randomisation leaves no room for the shadow memory.
    command = ['setarch', '-R', 'env', f'LD_PRELOAD={":".join(preload)}', sys.executable, '-m', 'pytest', '-s', '-q']
    command += ['-p', 'no:cacheprovider', '-p', 'no:xdist', *kind.tests, *arguments]
    process = subprocess.Popen(
        command, cwd=tree, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    reports, summary = 0, 'no summary of pytest'
    for text in process.stdout:
        print(text, end='', flush=True)
        reports += bool(REPORT.search(text))
        if re.search(r'\d (passed|failed|error)', text):
            summary = text.strip(' =\n')
    code = process.wait()
    line = f'{kind.name}Sanitizer, {isa}: {summary}, reports: {reports}, {time.monotonic() - start:.0f} s'
    return line, code == 0 and reports == 0


if __name__ == '__main__':
    sys.exit(main())
