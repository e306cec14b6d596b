"""What several tests of the tools share; their fixtures are in conftest.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.support import ROOT

DETECTOR = str(ROOT / 'configs/demo/mask-rcnn_digits.py')
SEGMENTOR = str(ROOT / 'configs/demo/upernet_digits.py')
LONG = 300 * 'x'  # longer than a file name may be
Mistake = Callable[..., str]  # the fixture `mistake`


def everything(folder: Path) -> dict[str, int]:
    """All files and folders with the time of their last change."""
    return {str(path.relative_to(folder)): path.lstat().st_mtime_ns for path in folder.rglob('*')}
