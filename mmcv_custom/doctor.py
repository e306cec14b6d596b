"""Reports what the operator's doctor does, and how the MM packages are installed.

``python mmcv_custom/doctor.py [--json]`` ends with exit code 1 where something has to be fixed. It reads package
metadata and imports no MM package, so it also works where these are missing or broken; for the same reason it is run by
its path, because ``python -m mmcv_custom.doctor`` would import ``mmcv_custom`` first.
"""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path
from typing import Any

if __name__ == '__main__':  # sys.path[0] is this folder, whose module names would hide those of other packages
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from ops_dcnv3 import doctor as operator_doctor
from ops_dcnv3.doctor import Problem

# Distributions that install the same import package: the tested fork first, then upstream.
FAMILIES = {
    'mmengine': ('onedl-mmengine', 'mmengine'),
    'mmcv': ('onedl-mmcv', 'mmcv', 'mmcv-lite'),
    'mmdet': ('onedl-mmdetection', 'mmdet'),
    'mmseg': ('onedl-mmsegmentation', 'mmsegmentation'),
}


def examine() -> dict[str, Any]:
    """All findings about this installation and machine, as JSON-able data."""
    return {
        **operator_doctor.examine(),
        'packages': {name: find_installed(distributions) for name, distributions in FAMILIES.items()},
        'mmcv_has_ops': mmcv_has_ops(),
    }


def find_installed(distributions: tuple[str, ...]) -> list[str]:
    """Name and version of each one that is installed."""
    found = []
    for name in distributions:
        try:
            found.append(f'{name} {importlib.metadata.version(name)}')
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def mmcv_has_ops() -> bool | None:
    """Whether the installed mmcv holds its compiled operators; None without an mmcv."""
    names = [text.split()[0] for text in find_installed(FAMILIES['mmcv'])]
    files = [str(path) for name in names for path in importlib.metadata.files(name) or []]
    return any(path.startswith('mmcv/_ext') for path in files) if files else None


def diagnose(report: dict[str, Any]) -> list[Problem]:
    """What has to be fixed according to a report of :func:`examine`."""
    return operator_doctor.diagnose(report) + diagnose_packages(report['packages'], report['mmcv_has_ops'])


def diagnose_packages(packages: dict[str, list[str]], mmcv_has_ops: bool | None) -> list[Problem]:
    problems = []
    for name, found in packages.items():
        if len(found) > 1:
            fork, *others = (text.split()[0] for text in found)
            fix = f'pip uninstall -y {" ".join(others)} && {reinstall_command(fork)}'
            problems.append(Problem(f'{" and ".join(found)} overwrite each other: both install {name}', fix))
    if mmcv_has_ops is False:
        distribution = packages['mmcv'][0].split()[0]
        if distribution == 'mmcv-lite':
            message = 'mmcv-lite is enough for the backbone; detectors and segmentors need mmcv with its operators'
            problems.append(Problem(message, 'pip uninstall -y mmcv-lite && ' + reinstall_command('onedl-mmcv')))
        else:
            message = 'mmcv is without its compiled operators, as pip builds it where torch is out of sight'
            problems.append(Problem(message, reinstall_command(distribution)))
    return problems


def reinstall_command(distribution: str) -> str:
    return f'pip install --force-reinstall --no-deps --no-build-isolation --no-cache-dir {distribution}'


def tabulate(report: dict[str, Any]) -> dict[str, str]:
    """The rows of the printed table, by their names, for a report of :func:`examine`."""
    packages = {name: ', '.join(found) or 'not installed' for name, found in report['packages'].items()}
    return {**operator_doctor.tabulate(report), **packages}


def main(argv: list[str] | None = None) -> int:
    return operator_doctor.run(argv, __doc__, examine, diagnose, tabulate)


if __name__ == '__main__':
    sys.exit(main())
