"""What several tests of checkpoints share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from mmengine.runner import CheckpointLoader

from mmcv_custom.checkpoint import backbone, contents, filling, forms, safe_loading


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
