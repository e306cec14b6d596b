"""What all tests share: one thread per process, and slow tests only where they are asked for."""

from __future__ import annotations

import os

import pytest

# Before torch is imported, and inherited by the programs that tests start: several test processes share few cores, and
# threads that wait for a busy core spin. A test about threads sets their number itself.
os.environ.setdefault('OMP_NUM_THREADS', '1')


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get('RUN_SLOW') or os.environ.get('CI'):
        return
    slow = [item for item in items if item.get_closest_marker('slow')]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if item not in slow]


@pytest.fixture(autouse=True)
def seed() -> None:
    """The same random numbers in every test, whichever run before it in the same process."""
    import torch

    torch.manual_seed(0)
