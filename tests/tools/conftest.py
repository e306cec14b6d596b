"""A tiny data set and the programs of tools/, run as a user runs them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.demo import digits

ROOT = Path(__file__).parents[2]
Run = Callable[..., 'subprocess.CompletedProcess[str]']


@pytest.fixture(scope='session')
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the demo's data set, small, where its configs look: in data/digits."""
    folder = tmp_path_factory.mktemp('workplace')
    digits.generate(folder / 'data' / 'digits', train=8, val=3, size=64)
    return folder


@pytest.fixture
def free_port() -> int:
    """A TCP port of this machine that nobody uses."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


@pytest.fixture(scope='session')
def run(workplace: Path) -> Run:
    """Starts ``python ARGUMENTS`` in the workplace; a non-zero exit code fails the test unless ``check=False``."""

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
