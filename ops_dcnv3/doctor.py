"""Reports what the operator's libraries hold and what this machine has, and how to fix what does not fit.

``python -m ops_dcnv3.doctor [--json]`` ends with exit code 1 where something has to be fixed. It also works where the
compiled operator is missing or broken.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from . import _build, extension
from ._version import __version__
from .functional import dcnv3
from .reference import dcnv3_reference

CPU_ISAS = {'AVX512': ['avx512', 'avx2', 'baseline'], 'AVX2': ['avx2', 'baseline']}
TOLERANCE = 1e-4  # absolute, for float32 values of magnitude 1 to 10


@dataclass(frozen=True)
class Problem:
    """Something that has to be fixed, and the command that fixes it."""

    message: str
    fix: str


def examine() -> dict[str, Any]:
    """All findings about the operator and this machine, as JSON-able data."""
    gpus = find_gpus()
    return {
        'ops_dcnv3': __version__,
        'python': {'version': platform.python_version(), 'path': sys.executable},
        'torch': {'version': torch.__version__, 'cuda': torch.version.cuda},
        'compilers': find_compilers(),
        'machine': {'cpu_isas': CPU_ISAS.get(torch.backends.cpu.get_cpu_capability(), ['baseline']), 'gpus': gpus},
        'extension': extension.describe(),
        'checks': [check(device) for device in (['cpu', 'cuda'] if gpus else ['cpu'])],
    }


def diagnose(report: dict[str, Any]) -> list[Problem]:
    """What has to be fixed according to a report of :func:`examine`."""
    built, gpus = report['extension'], report['machine']['gpus']
    build = built['build_command']
    problems = [Problem(f'a library of the operator does not load: {error}', build) for error in built['errors']]
    if built['cpu'] is None and not problems:
        problems.append(Problem('the operator is not built; the slow reference takes its place', build))
    stale = [kind for kind in ('cpu', 'cuda') if built[kind] and built[kind]['stale']]
    if stale:
        problems.append(Problem(f'{" and ".join(stale)} library built from other sources than those present', build))
    if gpus:
        problems += diagnose_cuda(built['cuda'], sorted({gpu['capability'] for gpu in gpus}), build)
    for failed in (check for check in report['checks'] if not check['passed']):
        problems.append(Problem(f'on {failed["device"]} the operator fails its check: {failed["result"]}', build))
    return problems


def diagnose_cuda(cuda: dict[str, Any] | None, capabilities: list[str], build: str) -> list[Problem]:
    build = f'FORCE_CUDA=1 TORCH_CUDA_ARCH_LIST="{" ".join(capabilities)}" {build}'
    if cuda is None:
        return [Problem('there is a GPU, but the operator is built for the CPU only', build)]
    if not cuda['loaded']:
        return [Problem(f'the CUDA library {cuda["path"]} is not loaded', build)]
    missing = [capability for capability in capabilities if not covers(cuda['archs'], capability)]
    if missing:
        held = ', '.join(cuda['archs'])
        return [Problem(f'the CUDA library holds {held} and lacks the architecture {", ".join(missing)}', build)]
    return []


def covers(archs: list[str], capability: str) -> bool:
    """Whether a library built for ``archs``, such as '8.0' and '9.0+PTX', runs on a GPU of a capability such as '8.6'.

    Machine code runs on later minor versions of its major version, PTX on everything later.
    """
    major, minor = (int(part) for part in capability.split('.'))
    for arch in archs:
        number, _, ptx = arch.partition('+')
        arch_major, arch_minor = (int(part) for part in number.rstrip('abcdef').split('.'))
        if ptx and (arch_major, arch_minor) <= (major, minor):
            return True
        if not ptx and arch_major == major and arch_minor <= minor:
            return True
    return False


def check(device: str) -> dict[str, Any]:
    """Compares output and gradients of :func:`dcnv3` and its reference in float32."""
    finding: dict[str, Any] = {'device': device, 'kernel': 'compiled' if extension.has_kernel(device) else 'reference'}
    try:
        differences = compare(device)
    except RuntimeError as error:  # such as that of a kernel built for other GPUs
        return {**finding, 'passed': False, 'result': str(error).splitlines()[0]}
    result = ', '.join(f'{name} {value:.1e}' for name, value in differences.items())
    return {**finding, 'passed': max(differences.values()) <= TOLERANCE, 'result': result, 'differences': differences}


def compare(device: str) -> dict[str, float]:
    """Largest absolute differences of output and gradients, on a geometry without any symmetry."""
    generator = torch.Generator().manual_seed(0)
    shapes = {'input': (2, 9, 7, 48), 'offset': (2, 5, 7, 3 * 6 * 2), 'mask': (2, 5, 7, 3 * 6)}
    tensors = [torch.randn(shape, generator=generator).to(device).requires_grad_() for shape in shapes.values()]
    weights = torch.randn(2, 5, 7, 48, generator=generator).to(device)
    geometry = dict(kernel_size=(3, 2), stride=(2, 1), padding=(1, 1), dilation=(1, 2), groups=3, offset_scale=0.5)

    def results(operator: Callable[..., Tensor]) -> list[Tensor]:
        output = operator(*tensors, **geometry)
        return [output.detach(), *torch.autograd.grad(output, tensors, weights)]

    names = ['output', *(f'grad_{name}' for name in shapes)]
    pairs = zip(results(dcnv3), results(dcnv3_reference), strict=True)
    return {name: float((ours - theirs).abs().max()) for name, (ours, theirs) in zip(names, pairs, strict=True)}


def find_gpus() -> list[dict[str, str]]:
    """Name and capability of each GPU that torch can use."""
    if not torch.cuda.is_available():
        return []
    properties = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [{'name': p.name, 'capability': f'{p.major}.{p.minor}'} for p in properties]


def find_compilers() -> dict[str, str | None]:
    """The version line of each compiler; None for one that is missing."""
    nvcc = _build.find_nvcc()
    return {
        'c++': version_line(shlex.split(os.environ.get('CXX', 'c++')), ''),
        'nvcc': version_line([nvcc], 'release') if nvcc else None,
    }


def version_line(command: list[str], keyword: str) -> str | None:
    """The first line of ``command --version`` that contains the keyword."""
    try:
        text = subprocess.run([*command, '--version'], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return next((line for line in text.splitlines() if keyword in line), None)


def tabulate(report: dict[str, Any]) -> dict[str, str]:
    """The rows of the printed table, by their names, for a report of :func:`examine`."""
    built, machine = report['extension'], report['machine']
    cpu = built['cpu']
    cuda_of_torch = report['torch']['cuda']
    return {
        'ops_dcnv3': report['ops_dcnv3'],
        'Python': f'{report["python"]["version"]}, {report["python"]["path"]}',
        'torch': f'{report["torch"]["version"]}, {f"CUDA {cuda_of_torch}" if cuda_of_torch else "without CUDA"}',
        **{name: version or 'not found' for name, version in report['compilers'].items()},
        'CPU': f'has {", ".join(machine["cpu_isas"])}',
        'CPU library': f'{cpu["path"]}, holds {", ".join(cpu["isas"])}, uses {cpu["isa"]}' if cpu else 'not built',
        'GPU': ', '.join(f'{gpu["name"]} ({gpu["capability"]})' for gpu in machine['gpus'])
        or 'none that torch can use',
        'CUDA library': describe_cuda(built['cuda']),
        **{f'check on {c["device"]}': f'{c["kernel"]} against reference: {c["result"]}' for c in report['checks']},
    }


def describe_cuda(cuda: dict[str, Any] | None) -> str:
    if cuda is None:
        return 'not built'
    return f'{cuda["path"]}, ' + (f'holds {", ".join(cuda["archs"])}' if cuda['loaded'] else 'not loaded')


def render(rows: dict[str, str], problems: list[Problem]) -> str:
    """The rows as a table, and the problems with the commands that fix them."""
    width = max(len(name) for name in rows)
    lines = [f'{name:{width}}  {text}' for name, text in rows.items()]
    if not problems:
        return '\n'.join([*lines, '', 'Nothing to fix.'])
    return '\n'.join([*lines, '', *(f'PROBLEM: {problem.message}\n    {problem.fix}' for problem in problems)])


def run(
    argv: list[str] | None,
    description: str | None,
    examine: Callable[[], dict[str, Any]],
    diagnose: Callable[[dict[str, Any]], list[Problem]],
    tabulate: Callable[[dict[str, Any]], dict[str, str]],
) -> int:
    """The command line of a doctor that is made of these functions: prints its report and returns the exit code."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--json', action='store_true', help='print the report as JSON')
    options = parser.parse_args(argv)
    report = examine()
    problems = diagnose(report)
    if options.json:
        print(json.dumps({**report, 'problems': [asdict(problem) for problem in problems]}, indent=2))
    else:
        print(render(tabulate(report), problems))
    return 1 if problems else 0


def main(argv: list[str] | None = None) -> int:
    return run(argv, __doc__, examine, diagnose, tabulate)


if __name__ == '__main__':
    sys.exit(main())
