"""What several test modules share: where things are, recorded data, and how a program is run."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / 'configs'
DATA = ROOT / 'tests/data'
OFFICIAL_CHECKPOINTS = 'https://huggingface.co/OpenGVLab/InternImage/resolve/main/'
Run = Callable[..., 'subprocess.CompletedProcess[str]']  # the fixture `run` of conftest.py


def load_arrays(name: str) -> dict[str, NDArray]:
    """All arrays of tests/data/NAME.npz."""
    with np.load(DATA / f'{name}.npz') as file:
        return {key: file[key] for key in file.files}


def load_tensors(name: str) -> dict[str, Tensor]:
    """All arrays of tests/data/NAME.npz, as tensors."""
    return {key: torch.from_numpy(value) for key, value in load_arrays(name).items()}


def golden_weights(golden: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict among recorded tensors, under the official names."""
    return {key.removeprefix('weights/'): value for key, value in golden.items() if key.startswith('weights/')}
