"""What all tests share: one thread per process, slow tests only on request, and a tiny dataset to run programs on."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

# Before torch is imported, and inherited by the programs that tests start: several test processes share few cores, and
# threads that wait for a busy core spin. A test about threads sets their number itself.
os.environ.setdefault('OMP_NUM_THREADS', '1')

from tests.support import ROOT, Run  # noqa: E402
from tools.demo import digits  # noqa: E402


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out slow tests unless RUN_SLOW or CI is set, and long ones unless RUN_LONG is."""
    skipped = set()
    if not (os.environ.get('RUN_SLOW') or os.environ.get('CI')):
        skipped.add('slow')
    if not os.environ.get('RUN_LONG'):
        skipped.add('long')
    left_out = [item for item in items if any(item.get_closest_marker(name) for name in skipped)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope='session', autouse=True)
def read_metafiles_once() -> Iterator[None]:
    """MMEngine reads all metafiles of mmdet or mmseg for every config of theirs that a config builds on: 0.5 s each."""
    from mmengine.config import utils

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, 'load', cache(utils.load))
        yield


@pytest.fixture(scope='session', autouse=True)
def leave_modules_out_of_garbage_collection() -> None:
    """MMEngine's datasets collect garbage when they are built: looking through all of torch and mmdet takes 0.5 s."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def seed() -> None:
    """The same random numbers in every test, whichever run before it in the same process."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope='session')
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small dataset of the demo where the demo's configs look for it, in data/digits."""
    folder = tmp_path_factory.mktemp('workplace')
    digits.generate(folder / 'data' / 'digits', train=8, val=3, size=64)
    return folder


@pytest.fixture(scope='session')
def run(workplace: Path) -> Run:
    """Runs ``python ARGUMENTS`` in the workplace; a non-zero exit code fails the test unless ``check=False``."""

    def start(*arguments: str | Path, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', *map(str, arguments)],
            cwd=workplace,
            env={**os.environ, 'PYTHONPATH': str(ROOT), 'CUDA_VISIBLE_DEVICES': '', **variables},
            capture_output=True,
            text=True,
            timeout=300,
        )
        if check:
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done

    return start


@pytest.fixture
def free_port() -> int:
    """A TCP port of this machine that nobody uses."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]
