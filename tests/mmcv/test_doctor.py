"""The whole project's doctor: how the MM packages are installed, in one report with the operator's findings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mmcv_custom import doctor
from ops_dcnv3 import doctor as operator_doctor
from ops_dcnv3 import extension

SCRIPT = Path(doctor.__file__)
REINSTALL = 'pip install --force-reinstall --no-deps --no-build-isolation --no-cache-dir'


@pytest.fixture(scope='module')
def operator() -> dict[str, Any]:
    """What the operator's doctor finds here, where all is well."""
    findings = operator_doctor.examine()
    assert operator_doctor.diagnose(findings) == []
    return findings


@pytest.mark.parametrize(
    ('mmcv', 'has_ops'),
    [(['onedl-mmcv 2.3.6'], True), (['mmcv 2.1.0'], True), ([], None)],
    ids=['fork', 'upstream', 'none'],
)
def test_nothing_to_fix(operator: dict[str, Any], mmcv: list[str], has_ops: bool | None) -> None:
    report = {**operator, 'packages': {'mmcv': mmcv, 'mmdet': []}, 'mmcv_has_ops': has_ops}
    assert doctor.diagnose(report) == []
    printed = operator_doctor.render(doctor.tabulate(report), [])
    assert (mmcv or ['not installed'])[0] in printed and printed.endswith('Nothing to fix.')


@pytest.mark.parametrize(
    ('mmcv', 'has_ops', 'message', 'fix'),
    [
        (
            ['onedl-mmcv 2.3.6', 'mmcv 2.1.0'],
            True,
            'onedl-mmcv 2.3.6 and mmcv 2.1.0 overwrite each other: both install mmcv',
            f'pip uninstall -y mmcv && {REINSTALL} onedl-mmcv',
        ),
        (['onedl-mmcv 2.3.6'], False, 'mmcv is without its compiled operators', f'{REINSTALL} onedl-mmcv'),
        (
            ['mmcv-lite 2.1.0'],
            False,
            'mmcv-lite is enough for the backbone; detectors and segmentors need mmcv',
            f'pip uninstall -y mmcv-lite && {REINSTALL} onedl-mmcv',
        ),
    ],
    ids=['both families', 'no operators', 'lite'],
)
def test_one_problem_and_its_fix(
    operator: dict[str, Any], mmcv: list[str], has_ops: bool, message: str, fix: str
) -> None:
    report = {**operator, 'packages': {'mmcv': mmcv, 'mmdet': []}, 'mmcv_has_ops': has_ops}
    (problem,) = doctor.diagnose(report)
    assert message in problem.message and problem.fix == fix
    printed = operator_doctor.render(doctor.tabulate(report), [problem])
    assert printed.endswith(f'PROBLEM: {problem.message}\n    {fix}')


def test_the_report_adds_to_that_of_the_operator(tmp_path: Path) -> None:
    command = [sys.executable, '-W', 'ignore', SCRIPT, '--json']
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    findings = json.loads(result.stdout)
    assert result.returncode == bool(findings['problems'])
    assert findings.keys() == {*operator_doctor.examine(), 'packages', 'mmcv_has_ops', 'problems'}
    assert findings['packages'].keys() == {'mmengine', 'mmcv', 'mmdet', 'mmseg'}


def test_without_the_mm_packages_and_the_operator() -> None:
    # No distribution has metadata, mmengine and mmcv cannot be imported, and the operator has no library.
    program = (
        'import importlib.metadata as m, runpy, sys; '
        'm.MetadataPathFinder.find_distributions = lambda *a, **k: iter(()); '
        'sys.modules.update(dict.fromkeys(["mmengine", "mmcv", "ops_dcnv3._cpu"])); '
        f'sys.argv = ["doctor"]; runpy.run_path({str(SCRIPT)!r}, run_name="__main__")'
    )
    environment = {**os.environ, 'DCNV3_FORCE_REFERENCE': '0'}
    command = [sys.executable, '-W', 'ignore', '-c', program]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 1, result.stderr
    assert 'mmengine      not installed' in result.stdout
    assert 'PROBLEM: the operator is not built' in result.stdout
    assert result.stdout.rstrip().endswith(extension.BUILD_COMMAND)
