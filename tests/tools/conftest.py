"""Where the tests of the tools run, how a mistake is made, and how a config is written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config

from mmcv_custom.engine.runner import LAUNCHERS
from tests.tools.helpers import DETECTION, DETECTOR, NAMES, SEGMENTATION, Mistake, Write, everything
from tools import new_config
from tools.demo import digits

CONFIGS = {
    'empty.py': b'',
    'binary.py': b'\x00\xff\xfe\x80',
    'syntax.py': b'model = dict(\n',
    'raises.py': b"raise RuntimeError('first line\\nsecond line')\n",
    'exits.py': b'import sys\nsys.exit(0)\n',
    'list.json': b'[1, 2]',
    'text.txt': b'model = None\n',
    'imports.py': b"custom_imports = dict(imports=['nowhere'], allow_failed_imports=False)\n",
    'no_val_cfg.py': f'_base_ = {DETECTOR!r}\nval_cfg = None\n'.encode(),
    'no_model.py': f'_base_ = {DETECTOR!r}\nmodel = None\n'.encode(),
    'text_model.py': f'_base_ = {DETECTOR!r}\nmodel = "MaskRCNN"\n'.encode(),
    'text_loader.py': f'_base_ = {DETECTOR!r}\ntrain_dataloader = "abc"\n'.encode(),
    'no_evaluator.py': f'_base_ = {DETECTOR!r}\ntest_evaluator = test_dataloader = test_cfg = None\n'.encode(),
}


@pytest.fixture
def cluttered(tmp_path: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the digits, configs, weights, and things that are in the way."""
    (tmp_path / 'data').symlink_to(workplace / 'data')
    for name, content in CONFIGS.items():
        (tmp_path / name).write_bytes(content)
    for name in ('folder', 'folder.pkl', 'no_images', 'pictures'):
        (tmp_path / name).mkdir()
    for name in ('mine.txt', 'mine.pkl', 'weights.pth', 'pictures/mine.png'):
        (tmp_path / name).write_text('mine')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'hub'))
    for name in {'MASTER_ADDR', 'MASTER_PORT', *(name for names in LAUNCHERS.values() for name in names)}:
        monkeypatch.setenv(name, 'restored after the test')
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def mistake(cluttered: Path, monkeypatch: pytest.MonkeyPatch) -> Mistake:
    """Runs a program that must end with one line, which it returns, and leave nothing but the folder ``work``."""

    def start(program: Any, *arguments: str, leaves: tuple[str, ...] = ()) -> str:
        def others(folder: Path) -> dict[str, int]:
            return {name: time for name, time in everything(folder).items() if name.split('/')[0] not in leaves}

        before = others(cluttered)
        monkeypatch.setattr('sys.argv', ['program', *arguments])
        with pytest.raises(SystemExit) as left:
            program.main()
        text = left.value.code
        assert isinstance(text, str), f'exit code {text!r} without a message'  # Python prints it and exits with 1
        assert text.startswith('error: ') and '\n' not in text and 'Traceback' not in text
        assert others(cluttered) == before
        return text

    return start


@pytest.fixture(scope='session')
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset of the demo in data/digits; every digit is in every split."""
    folder = tmp_path_factory.mktemp('dataset')
    digits.generate(folder / 'data/digits', train=8, val=5, size=64)
    return folder


@pytest.fixture
def place(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a copy of the dataset, in which the test runs."""
    shutil.copytree(dataset, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write(place: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Runs the tool and reads what it wrote; ``data`` replaces the dataset of the demo."""

    def call(name: str, *arguments: str, data: list[str] | None = None) -> Config:
        segments = 'upernet' in name or 'mask2former' in name or 'segformer' in name
        default = [*SEGMENTATION, *(() if '--classes' in arguments else ('--classes', *NAMES))]
        data = data if data is not None else default if segments else DETECTION
        monkeypatch.setattr('sys.argv', ['new_config.py', name, *data, *arguments])
        new_config.main()
        return Config.fromfile(arguments[arguments.index('--out') + 1] if '--out' in arguments else 'my_digits.py')

    return call
