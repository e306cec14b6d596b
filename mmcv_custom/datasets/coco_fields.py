"""Kinds of values in COCO files."""

from __future__ import annotations

from typing import Any, TypeGuard

import numpy as np

FARTHEST = 1e6  # pixels: no image is as large
LARGEST = 2**63  # whole numbers from there on are taken for no numbers


def is_id(value: Any) -> bool:
    """Whether a value can be an id: a whole number or a string, not true or false."""
    return type(value) is int or type(value) is str or (type(value) is float and value.is_integer())


def number_or_nan(value: Any) -> float:
    """A number of the file as it is, NaN for anything else."""
    return value if is_number(value) else np.nan


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a number, not true or false."""
    return type(value) is float or (type(value) is int and abs(value) < LARGEST)


def is_flag(value: Any) -> bool:
    """Whether a value is 0, 1, false or true."""
    return type(value) in (int, float, bool) and value in (0, 1)


def is_box(value: Any) -> TypeGuard[list[float]]:
    """Whether a value is a list of four numbers."""
    return type(value) is list and len(value) == 4 and all(map(is_number, value))
