"""What several tests of checkpoints share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mmengine.runner import CheckpointLoader

from mmcv_custom.checkpoint import backbone, contents, filling, forms, safe_loading
from tests.mmcv.tiny_training import runner


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is logged while checkpoints are read and models are filled."""
    lines: list[str] = []
    for module in (backbone, contents, filling, forms, safe_loading):
        monkeypatch.setattr(module, 'print_log', lambda text, *_: lines.append(text))
    return lines


@pytest.fixture
def schemes() -> Iterator[None]:
    """Puts MMEngine's own loaders back."""
    before = CheckpointLoader._schemes.copy()
    yield
    CheckpointLoader._schemes = before


@pytest.fixture(scope='session')
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with iter_1.pth to iter_4.pth and the best of them. Tests that change it take a copy."""
    folder = tmp_path_factory.mktemp('trained')
    runner(folder, 4, checkpoint=dict(save_best='growing/value', rule='greater')).train()
    return folder
