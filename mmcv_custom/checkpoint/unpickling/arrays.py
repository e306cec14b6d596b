"""Arrays and scalars of numpy, of plain numbers only, and single texts of numpy."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from .refusals import is_count, require, require_supported
from .tensors import MAX_DIMS, check_empty

_NUMBERS = {'b1', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8'}  # as numpy pickles its dtypes
_TEXT = re.compile(r'U\d{1,6}')
_OTHER = 'which is not supported: save a tensor, a list or numbers'


def make_dtype(code: Any, align: Any = False, copy: Any = False) -> np.dtype:
    require(type(code) is str, 'a dtype of numpy has no name')
    supported = code in _NUMBERS or bool(_TEXT.fullmatch(code))
    require_supported(supported, f'an array of numpy is of the dtype {code:.20}, {_OTHER}')
    return np.dtype(code)


def _check_numbers(dtype: Any, shape: tuple[int, ...], data: Any) -> None:
    require(isinstance(dtype, np.dtype) and type(data) is bytes, 'numbers of numpy must be bytes of a dtype')
    require_supported(dtype.kind != 'U', f'an array of numpy is of the dtype {dtype.str[1:]}, {_OTHER}')
    size = math.prod(shape) * dtype.itemsize
    require(len(data) == size, f'numbers of numpy need {size} bytes, and have {len(data)}')
    require(dtype.kind != 'b' or set(data) <= {0, 1}, 'truth values of numpy must be 0 or 1')


def make_scalar(dtype: Any, data: Any) -> Any:
    if isinstance(dtype, np.dtype) and dtype.kind == 'U':
        require(type(data) is bytes and len(data) == dtype.itemsize, 'a text of numpy is of another length')
        return np.str_(data.decode('utf-32-le').rstrip('\0'))
    _check_numbers(dtype, (), data)
    return np.frombuffer(data, dtype)[0]


def build_array(array: np.ndarray, state: Any) -> None:
    require(array.size == 0 and type(state) is tuple and len(state) == 5, 'an array of numpy has a forged state')
    version, shape, dtype, fortran, data = state
    require(version == 1 and type(fortran) is bool, 'an array of numpy has a forged state')
    require(type(shape) is tuple and len(shape) <= MAX_DIMS, 'an array of numpy has a forged shape')
    require(all(map(is_count, shape)), 'an array of numpy has a forged shape')
    if 0 in shape:
        check_empty(shape)
    _check_numbers(dtype, shape, data)
    array.__setstate__((1, shape, dtype, fortran, data))


def build_dtype(dtype: np.dtype, state: Any) -> None:
    if dtype.kind == 'U':
        require(state == (3, '<', None, None, None, dtype.itemsize, 4, 8), 'a numpy dtype has a forged state')
        return
    plain = (None, None, None, -1, -1, 0)
    require_supported(state != (3, '>', *plain), f'an array of numpy is big-endian, {_OTHER}')
    require(state in ((3, order, *plain) for order in '<|='), 'a numpy dtype has a forged state')
