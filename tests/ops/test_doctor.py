"""The operator's doctor: its diagnosis of a report, its check of the operator, and its command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from ops_dcnv3 import doctor, extension
from tests.support import ROOT

BUILD = extension.BUILD_COMMAND
CPU = {'path': '/p/_cpu.abi3.so', 'source_hash': 'a', 'stale': False, 'isas': ['avx2', 'baseline'], 'isa': 'avx2'}
CUDA = {'path': '/p/_cuda.abi3.so', 'source_hash': 'a', 'stale': False, 'archs': ['8.0', '9.0'], 'loaded': True}
CHECK = {'device': 'cpu', 'kernel': 'compiled', 'passed': True, 'result': 'output 1.0e-06'}
H100, BLACKWELL = ({'name': name, 'capability': number} for name, number in (('H100', '9.0'), ('B200', '10.0')))


def report(
    cpu: dict[str, Any] | None = CPU,
    cuda: dict[str, Any] | None = CUDA,
    errors: tuple[str, ...] = (),
    gpus: tuple[dict[str, str], ...] = (),
    check: dict[str, Any] = CHECK,
) -> dict[str, Any]:
    return {
        'ops_dcnv3': '0.1.0',
        'python': {'version': '3.11.7', 'path': '/p/python'},
        'torch': {'version': '2.13.0', 'cuda': '13.0'},
        'compilers': {'c++': 'c++ 12', 'nvcc': None},
        'machine': {'cpu_isas': ['avx2', 'baseline'], 'gpus': list(gpus)},
        'extension': {'build_command': BUILD, 'source_hash': 'a', 'errors': list(errors), 'cpu': cpu, 'cuda': cuda},
        'checks': [check],
    }


@pytest.mark.parametrize(
    'good',
    [
        report(),
        report(cuda=None),  # not needed without a GPU
        report(cuda={**CUDA, 'loaded': False, 'stale': None, 'archs': None}),
        report(gpus=(H100,)),
        report(gpus=(BLACKWELL,), cuda={**CUDA, 'archs': ['9.0', '9.0+PTX']}),
    ],
    ids=['all', 'no CUDA library', 'no CUDA here', 'GPU', 'GPU by PTX'],
)
def test_nothing_to_fix(good: dict[str, Any]) -> None:
    problems = doctor.diagnose(good)
    assert problems == []
    assert doctor.render(doctor.tabulate(good), problems).endswith('Nothing to fix.')


@pytest.mark.parametrize(
    ('bad', 'message', 'fix'),
    [
        (report(cpu=None), 'the operator is not built', BUILD),
        (report(cpu=None, errors=('_cpu: undefined symbol',)), '_cpu: undefined symbol', BUILD),
        (report(cpu={**CPU, 'stale': True}), 'cpu library built from other sources', BUILD),
        (report(cuda={**CUDA, 'stale': True}), 'cuda library built from other sources', BUILD),
        (report(check={**CHECK, 'passed': False, 'result': 'output 3.0'}), 'fails its check: output 3.0', BUILD),
        (
            report(gpus=(BLACKWELL, H100)),
            'lacks the architecture 10.0',
            f'FORCE_CUDA=1 TORCH_CUDA_ARCH_LIST="10.0 9.0" {BUILD}',
        ),
        (report(gpus=(H100,), cuda=None), 'CPU only', f'FORCE_CUDA=1 TORCH_CUDA_ARCH_LIST="9.0" {BUILD}'),
        (
            report(gpus=(H100,), cuda={**CUDA, 'loaded': False, 'archs': None}),
            'is not loaded',
            f'FORCE_CUDA=1 TORCH_CUDA_ARCH_LIST="9.0" {BUILD}',
        ),
    ],
)
def test_one_problem_and_its_fix(bad: dict[str, Any], message: str, fix: str) -> None:
    (problem,) = doctor.diagnose(bad)
    assert message in problem.message
    assert problem.fix == fix
    assert f'PROBLEM: {problem.message}\n    {fix}' in doctor.render(doctor.tabulate(bad), [problem])


@pytest.mark.parametrize(
    ('archs', 'capability', 'covered'),
    [
        (['8.0'], '8.0', True),
        (['8.0'], '8.9', True),
        (['8.6'], '8.0', False),
        (['8.0'], '9.0', False),
        (['8.0', '9.0'], '9.0', True),
        (['8.0+PTX'], '12.0', True),
        (['9.0+PTX'], '8.9', False),
        (['9.0a'], '9.0', True),
        ([], '8.0', False),
    ],
)
def test_covers(archs: list[str], capability: str, covered: bool) -> None:
    assert doctor.covers(archs, capability) is covered


def test_the_check_sees_a_wrong_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check('cpu')['passed']
    monkeypatch.setattr(
        doctor, 'dcnv3', lambda *tensors, **geometry: 1.001 * doctor.dcnv3_reference(*tensors, **geometry)
    )
    assert not doctor.check('cpu')['passed']


def test_the_check_reports_a_kernel_that_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*tensors: Any, **geometry: Any) -> None:
        raise RuntimeError('no kernel image\nand so on')

    monkeypatch.setattr(doctor, 'dcnv3', broken)
    assert doctor.check('cpu')['result'] == 'no kernel image'
    assert not doctor.check('cpu')['passed']


def run_doctor(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The doctor in a process of its own, after ``code``."""
    program = f'import sys; {code}; from ops_dcnv3 import doctor; sys.exit(doctor.main(sys.argv[1:]))'
    return subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', program, *arguments],
        cwd=ROOT,
        env={**os.environ, 'DCNV3_FORCE_REFERENCE': '0'},
        capture_output=True,
        text=True,
    )


def test_on_this_machine() -> None:
    result = run_doctor('pass', '--json')
    findings = json.loads(result.stdout)
    assert result.returncode == bool(findings['problems'])
    assert findings['extension'] == json.loads(json.dumps(extension.describe()))
    assert findings['checks'][0]['passed']
    assert set(findings['checks'][0]['differences']) == {'output', 'grad_input', 'grad_offset', 'grad_mask'}


def test_without_the_library() -> None:
    result = run_doctor('sys.modules["ops_dcnv3._cpu"] = None')
    assert result.returncode == 1, result.stderr
    assert 'PROBLEM: the operator is not built' in result.stdout
    assert result.stdout.rstrip().endswith(BUILD)
