"""Files of torch.save for tests, and a comparison of what is read from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor


class Call:
    """Pickles as a call of a function, which is made where the pickle is read without care."""

    def __init__(self, function: Callable, *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Callable, tuple]:
        return self.function, self.args


def saved(content: Any, folder: Path, **options: Any) -> bytes:
    """The bytes of a file of torch.save."""
    torch.save(content, folder / 'saved.pth', **options)
    return (folder / 'saved.pth').read_bytes()


def assert_same(one: Any, other: Any) -> None:
    """What we read is what torch reads without care."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        one, other = list(one.values()), list(other.values())
    if isinstance(one, HistoryBuffer):
        one, other = one.data, other.data
    if isinstance(one, list | tuple):
        for pair in zip(one, other, strict=True):
            assert_same(*pair)
    elif isinstance(one, Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other) and one.requires_grad == other.requires_grad
    else:
        assert np.array_equal(one, other)
