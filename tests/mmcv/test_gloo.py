"""Processes of a group wait for gloo's threads when they end, whoever built the runner."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.device import get_device
from torch import distributed as dist

from mmcv_custom.engine import gloo
from tests.mmcv.tiny_training import runner


@pytest.fixture
def at_exit(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """What Python would call at the end."""
    registered: list[Callable[[], None]] = []

    def unregister(function: Callable[[], None]) -> None:
        registered[:] = [other for other in registered if other is not function]

    monkeypatch.setattr(gloo, 'atexit', SimpleNamespace(register=registered.append, unregister=unregister))
    return registered


@pytest.mark.skipif(get_device() != 'cpu', reason='on a GPU the processes communicate over NCCL')
def test_only_runners_in_a_group_make_it_wait(
    tmp_path: Path, at_exit: list[Callable[[], None]], monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(gloo.time, 'sleep', slept.append)
    runner(tmp_path / 'alone', 1)
    assert at_exit == []
    for name, value in dict(RANK=0, WORLD_SIZE=1, LOCAL_RANK=0, MASTER_ADDR='127.0.0.1', MASTER_PORT=free_port).items():
        monkeypatch.setenv(name, str(value))
    try:
        for name in ('first', 'second'):
            runner(tmp_path / name, 1, launcher='pytorch')
        (wait,) = at_exit
        wait()
        assert len(slept) == 1
    finally:
        dist.destroy_process_group()
    wait()
    assert len(slept) == 1
