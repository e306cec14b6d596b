"""The commands of docs/custom_data.md, run one after another as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT


def commands(page: str) -> str:
    """The commands in the bash blocks of a page."""
    return ''.join(re.findall(r'^```bash\n(.*?)^```$', (ROOT / 'docs' / page).read_text(), re.M | re.S))


@pytest.mark.slow
def test_own_data(tmp_path: Path) -> None:
    (tmp_path / 'tools').symlink_to(ROOT / 'tools')
    (tmp_path / 'configs').mkdir()
    done = subprocess.run(
        ['bash', '-e', '-c', f'python() {{ {sys.executable} -W ignore "$@"; }}\n{commands("custom_data.md")}'],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'CUDA_VISIBLE_DEVICES': ''},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    for folder, number in (('samples', 16), ('pictures', 6), ('segments', 6)):
        assert len(list((tmp_path / folder).glob('*.png'))) == number
    written = {path.stem for path in (tmp_path / 'configs').glob('*.py')}
    assert written == {'my_digits', 'my_detector', 'my_masks'}
    assert done.stdout.count('data check passed') == 9


def test_the_page_has_commands_of_every_tool() -> None:
    script = commands('custom_data.md')
    assert all(f'tools/{tool}.py' in script for tool in ('new_config', 'check_data', 'train', 'test'))
