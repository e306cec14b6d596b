"""Inputs, results and comparisons that the operator's tests share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ops_dcnv3.arguments import Geometry
from tests.support import DATA, load_arrays

GOLDENS = sorted(path.stem for path in DATA.glob('dcnv3_core_*.npz'))

DEVICES = ['cpu', *(['cuda'] if torch.cuda.is_available() else [])]


@dataclass
class Case:
    """Tensors and geometry of one call."""

    input: Tensor
    offset: Tensor
    mask: Tensor
    geometry: Geometry

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.input, self.offset, self.mask

    @property
    def args(self) -> tuple:
        return *self.tensors, *self.geometry

    def to(self, *args, **kwargs) -> Case:
        tensors = (t.detach().to(*args, **kwargs).requires_grad_(t.requires_grad) for t in self.tensors)
        return Case(*tensors, self.geometry)


PLAIN = Geometry((3, 3), (1, 1), (1, 1), (1, 1), 3, 1.0)
# Height and width differ in every number, so that swapped axes show.
ASYMMETRIC = Geometry((3, 2), (2, 1), (1, 0), (2, 1), 2, 1.0)
LOGITS = ASYMMETRIC._replace(mask_is_logits=True)


def make_case(
    geometry: Geometry = ASYMMETRIC,
    batch: int = 2,
    size: tuple[int, int] = (5, 4),
    group_channels: int = 3,
    dtype: torch.dtype = torch.float64,
    spread: float = 1.5,
    seed: int = 0,
    requires_grad: bool = False,
) -> Case:
    """Random input, offsets of the order of ``spread`` pixels, and masks (logits, or their softmax).

    Offsets keep a distance from integers, where the gradient jumps.
    """
    generator = torch.Generator().manual_seed(seed)
    rows, columns = geometry.output_size(*size)
    samples = geometry.groups * geometry.points
    input = torch.randn(batch, *size, geometry.groups * group_channels, generator=generator, dtype=torch.float64)
    offset = spread * torch.randn(batch, rows, columns, samples * 2, generator=generator, dtype=torch.float64)
    offset = offset.floor() + 0.1 + 0.8 * (offset - offset.floor())
    mask = torch.randn(batch, rows, columns, geometry.groups, geometry.points, generator=generator, dtype=torch.float64)
    if not geometry.mask_is_logits:
        mask = mask.softmax(-1)
    tensors = (t.to(dtype).requires_grad_(requires_grad) for t in (input, offset, mask.flatten(3)))
    return Case(*tensors, geometry)


def load_golden(name: str, dtype: torch.dtype = torch.float64) -> tuple[Case, dict[str, Tensor]]:
    """A recorded call of the official operator, and its output, grad_output, grad_input, grad_offset and grad_mask.

    At exactly integer positions the offset gradient of the official reference depends on rounding; there grad_offset is
    that of the floor rule.
    """
    recorded = load_arrays(name)
    arrays = {key: torch.from_numpy(value) for key, value in recorded.items() if value.dtype == np.float64}
    numbers = recorded['args'].tolist()
    arrays['grad_offset'] = arrays.pop('grad_offset_floor_rule', arrays['grad_offset'])
    pairs = (tuple(numbers[i : i + 2]) for i in (0, 2, 4, 6))
    geometry = Geometry(*pairs, groups=numbers[8], offset_scale=float(arrays.pop('offset_scale')))
    tensors = (arrays.pop(key).to(dtype).requires_grad_() for key in ('input', 'offset', 'mask'))
    return Case(*tensors, geometry), arrays


def oracle(case: Case) -> Tensor:
    """DCNv3 as nested loops that follow the definition, in Python numbers."""
    (kh, kw), (sh, sw), (ph, pw), (dh, dw), groups, scale, mask_is_logits = case.geometry
    batch, height, width, channels = case.input.shape
    rows, columns = case.geometry.output_size(height, width)
    per_group = channels // groups
    output = torch.zeros(batch, rows, columns, channels, dtype=torch.float64)
    input, offset, mask = (t.detach().double() for t in case.tensors)
    if mask_is_logits:
        mask = mask.unflatten(-1, (groups, kh * kw)).softmax(-1).flatten(3)

    def pixel(n: int, y: int, x: int, c: int) -> float:
        return input[n, y, x, c].item() if 0 <= y < height and 0 <= x < width else 0.0

    for index in np.ndindex(batch, rows, columns, channels):
        n, row, column, c = index
        group = c // per_group
        for i, j in np.ndindex(kw, kh):  # w outer, h inner
            point = group * kh * kw + i * kh + j
            middle_y, middle_x = dh * (kh - 1) // 2, dw * (kw - 1) // 2
            shift_x, shift_y = offset[n, row, column, 2 * point : 2 * point + 2].tolist()
            y = row * sh - ph + middle_y + (j * dh - middle_y + shift_y) * scale
            x = column * sw - pw + middle_x + (i * dw - middle_x + shift_x) * scale
            if not (-1 < y < height and -1 < x < width):
                continue
            top, left = int(np.floor(y)), int(np.floor(x))
            value = sum(
                (1 - abs(y - yy)) * (1 - abs(x - xx)) * pixel(n, yy, xx, c)
                for yy in (top, top + 1)
                for xx in (left, left + 1)
            )
            output[index] += mask[n, row, column, point].item() * value
    return output


def gradients(output: Tensor, case: Case, grad_output: Tensor) -> Sequence[Tensor]:
    return torch.autograd.grad(output, case.tensors, grad_output)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Largest difference, divided by the largest expected magnitude."""
    scale = expected.abs().max().item() or 1.0
    return (actual.detach().double().cpu() - expected.double().cpu()).abs().max().item() / scale
