"""The data check remembers what passed, and only that."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mmengine.config import Config
from PIL import Image

from mmcv_custom.cli import check_data
from mmcv_custom.cli import data as module
from mmcv_custom.datasets import Report, check_datasets
from mmcv_custom.errors import UserError
from tests.support import CONFIGS


@pytest.fixture
def folder(workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a copy of the digits."""
    shutil.copytree(workplace / 'data', tmp_path / 'data')
    monkeypatch.chdir(tmp_path)
    return tmp_path / 'data/digits'


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The splits of each check that was really made."""
    calls: list[tuple[str, ...]] = []

    def check(cfg: Config, used: list[str]) -> Report:
        calls.append(tuple(used))
        return check_datasets(cfg, used)

    monkeypatch.setattr(module, 'check_datasets', check)
    return calls


def config() -> Config:
    cfg = Config.fromfile(CONFIGS / 'demo/mask-rcnn_digits.py')
    cfg.work_dir = 'work'
    return cfg


def replace_image(folder: Path) -> None:
    Image.new('RGB', (64, 64)).save(folder / 'images/val/00000.png')


CHANGES: dict[str, Callable[[Path, Config], object]] = {
    'annotation file': lambda folder, cfg: os.utime(folder / 'annotations/train.json', (1, 1)),
    'image': lambda folder, cfg: replace_image(folder),
    'new image': lambda folder, cfg: shutil.copy(folder / 'images/val/00000.png', folder / 'images/val/new.png'),
    'pipeline': lambda folder, cfg: cfg.train_dataloader.dataset.pipeline.insert(3, dict(type='RandomFlip', prob=0.5)),
    'metric': lambda folder, cfg: cfg.val_evaluator.update(metric=['bbox']),
}


@pytest.mark.parametrize('change', CHANGES)
def test_what_changed_is_checked_again(change: str, folder: Path, checked: list, capsys: pytest.CaptureFixture) -> None:
    cfg = config()
    for _ in range(2):
        check_data(cfg, 'train', 'val')
    first, second = (line for line in capsys.readouterr().out.splitlines() if 'data check' in line)
    assert checked == [('train', 'val')] and first == second and first.startswith('data check passed: train: 8 images')
    CHANGES[change](folder, cfg)
    check_data(cfg, 'train', 'val')
    assert len(checked) == 2


def test_what_does_not_matter_does_not(folder: Path, checked: list) -> None:
    cfg = config()
    check_data(cfg, 'train', 'val')
    cfg.optim_wrapper.optimizer.lr = 1.0
    cfg.train_cfg.max_iters = 7
    check_data(cfg, 'train', 'val')
    assert len(checked) == 1
    assert {path.name for path in folder.iterdir()} == {'images', 'masks', 'annotations', 'digits.json'}


def test_errors_are_not_remembered(folder: Path, checked: list, capsys: pytest.CaptureFixture) -> None:
    (folder / 'images/val/00001.png').write_text('')
    for count in (1, 2):
        with pytest.raises(SystemExit, match='--skip-data-check'):
            check_data(config(), 'train', 'val')
        assert len(checked) == count
    assert capsys.readouterr().err.count('it is empty') == 2


@pytest.mark.parametrize('content', ['', '[1]', '{"a": 1', '\x00'])
def test_a_damaged_cache_is_no_obstacle(content: str, folder: Path, checked: list) -> None:
    Path('work').mkdir()
    Path('work/data_check.json').write_text(content)
    for _ in range(2):
        check_data(config(), 'train', 'val')
    assert len(checked) == 1


def test_only_the_first_process_checks(folder: Path, checked: list, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = config()
    cfg.launcher = 'pytorch'
    monkeypatch.setenv('RANK', '1')
    check_data(cfg, 'train', 'val')
    assert not checked
    monkeypatch.setenv('RANK', '0')
    check_data(cfg, 'train', 'val')
    assert len(checked) == 1


def test_a_cache_that_cannot_be_written_is_named(folder: Path) -> None:
    Path('work/data_check.json').mkdir(parents=True)
    with pytest.raises(UserError, match='work/data_check.json.*move it away'):
        check_data(config(), 'train', 'val')
    assert [path.name for path in Path('work').iterdir()] == ['data_check.json']
