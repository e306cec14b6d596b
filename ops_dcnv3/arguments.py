"""Checks of the operator's arguments, shared by the compiled operator and the reference."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Pair = tuple[int, int]
IntOrPair = int | Sequence[int]

SUPPORTED_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


class Geometry(NamedTuple):
    """Everything but the tensors, in the order of the compiled operator's schema. Pairs are (h, w)."""

    kernel_size: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    offset_scale: float
    mask_is_logits: bool = False

    @property
    def points(self) -> int:
        """Number P of sampling points of a group."""
        return self.kernel_size[0] * self.kernel_size[1]

    def output_size(self, height: int, width: int) -> Pair:
        """Rows and columns of the output for an input of ``height`` x ``width``."""
        rows, columns = (
            (size + 2 * padding - (dilation * (kernel - 1) + 1)) // stride + 1
            for size, kernel, stride, padding, dilation in zip(
                (height, width), self.kernel_size, self.stride, self.padding, self.dilation, strict=True
            )
        )
        return rows, columns


def _pair(name: str, value: IntOrPair, minimum: int) -> Pair:
    pair = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, Sequence) else ()
    if len(pair) != 2 or not all(isinstance(v, int) and v >= minimum for v in pair):
        raise ValueError(f'dcnv3: {name} must be an int >= {minimum} or a pair (h, w) of such, got {value!r}')
    return pair[0], pair[1]


def check_geometry(
    kernel_size: IntOrPair,
    stride: IntOrPair,
    padding: IntOrPair,
    dilation: IntOrPair,
    groups: int,
    offset_scale: float,
    mask_is_logits: bool = False,
) -> Geometry:
    """The geometry with ints as pairs; raises ValueError where a number is out of range."""
    if not isinstance(groups, int) or groups < 1:
        raise ValueError(f'dcnv3: groups must be an int >= 1, got {groups!r}')
    if not isinstance(mask_is_logits, bool):
        raise ValueError(f'dcnv3: mask_is_logits must be True or False, got {mask_is_logits!r}')
    # Not math.isfinite, which torch.compile(dynamic=True) cannot trace. float first: it is the quick one to ask for.
    if not isinstance(offset_scale, (float, numbers.Real)) or not -math.inf < offset_scale < math.inf:
        raise ValueError(f'dcnv3: offset_scale must be a finite number, got {offset_scale!r}')
    return Geometry(
        _pair('kernel_size', kernel_size, 1),
        _pair('stride', stride, 1),
        _pair('padding', padding, 0),
        _pair('dilation', dilation, 1),
        groups,
        float(offset_scale),
        mask_is_logits,
    )


def require_tensors(prefix: str = '', **values: object) -> None:
    """Raises TypeError where one of the values is not a tensor; its message starts with ``prefix``."""
    for name, value in values.items():
        if not isinstance(value, Tensor):
            got = 'None' if value is None else type(value).__name__
            raise TypeError(f'{prefix}{name} must be a torch.Tensor, got {got}')


def require_ints(**values: object) -> None:
    """Raises ValueError where one of the values is not an int."""
    for name, value in values.items():
        if not isinstance(value, int):
            raise ValueError(f'{name} must be an int, got {value!r}')


def check_tensors(input: Tensor, offset: Tensor, mask: Tensor, geometry: Geometry) -> None:
    """Raises ValueError where the tensors do not fit each other or ``geometry``."""
    tensors = {'input': input, 'offset': offset, 'mask': mask}
    for name, tensor in tensors.items():
        if tensor.dim() != 4:
            expected = '(N, H, W, C)' if name == 'input' else '(N, H_out, W_out, channels)'
            raise ValueError(
                f'dcnv3: {name} must have 4 dimensions {expected}, got {tensor.dim()} with shape {tuple(tensor.shape)}'
            )
    if input.dtype not in SUPPORTED_DTYPES:
        supported = ', '.join(str(dtype) for dtype in SUPPORTED_DTYPES)
        raise ValueError(f'dcnv3: input must have one of the dtypes {supported}, got {input.dtype}')
    for name, tensor in tensors.items():
        if tensor.dtype != input.dtype:
            raise ValueError(f'dcnv3: {name} must have the dtype of input, {input.dtype}, got {tensor.dtype}')
        if tensor.device != input.device:
            raise ValueError(f'dcnv3: {name} must be on the device of input, {input.device}, got {tensor.device}')

    batch, height, width, channels = input.shape
    if channels == 0 or channels % geometry.groups:
        raise ValueError(
            f'dcnv3: the channels of input must be a positive multiple of groups={geometry.groups}, got {channels}'
        )
    rows, columns = geometry.output_size(height, width)
    if height < 1 or width < 1 or rows < 1 or columns < 1:
        raise ValueError(
            f'dcnv3: kernel_size={geometry.kernel_size}, stride={geometry.stride}, padding={geometry.padding} and '
            f'dilation={geometry.dilation} give an output of {rows}x{columns} for an input of {height}x{width}; '
            'neither may be empty'
        )
    samples = geometry.groups * geometry.points
    for name, tensor, count in (('offset', offset, 2 * samples), ('mask', mask, samples)):
        expected_shape = (batch, rows, columns, count)
        if tuple(tensor.shape) != expected_shape:
            factors = 'groups*kernel_h*kernel_w' + ('*2' if name == 'offset' else '')
            raise ValueError(
                f'dcnv3: {name} must have shape (N, H_out, W_out, {factors}) = {expected_shape}, '
                f'got {tuple(tensor.shape)}'
            )
