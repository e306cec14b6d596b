"""DCNv3 in plain PyTorch: the definition that the compiled kernels are tested against."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .arguments import Geometry, IntOrPair, check_geometry, check_tensors, require_tensors
from .autocast import autocast


def dcnv3_reference(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    kernel_size: IntOrPair,
    stride: IntOrPair = 1,
    padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    offset_scale: float = 1.0,
    mask_is_logits: bool = False,
) -> Tensor:
    """Same arguments, result and errors as :func:`ops_dcnv3.dcnv3`, in plain PyTorch.

    Runs on any device, can be traced, exported and differentiated. Slow: it stores every sample of every point. 16-bit
    inputs are sampled in float32, because 16 bits are too few for a pixel position; float64 stays float64.
    """
    geometry = check_geometry(kernel_size, stride, padding, dilation, groups, offset_scale, mask_is_logits)
    require_tensors('dcnv3: ', input=input, offset=offset, mask=mask)
    input, offset, mask = autocast(input, offset, mask)
    check_tensors(input, offset, mask, geometry)
    return sample_with_grid(input, offset, mask, geometry)


def sample_with_grid(input: Tensor, offset: Tensor, mask: Tensor, geometry: Geometry) -> Tensor:
    """The reference, for arguments that are already checked."""
    batch, height, width, channels = input.shape
    rows, columns = offset.shape[1:3]
    groups, points = geometry.groups, geometry.points
    dtype = torch.promote_types(input.dtype, torch.float32)

    offset = offset.to(dtype).view(batch, rows, columns, groups, points, 2)
    x, y = _sampling_positions(offset, geometry)
    # Also false for NaN. Positions outside are replaced by a finite one, so that nothing is computed with NaN or inf.
    inside = (x > -1) & (x < width) & (y > -1) & (y < height)
    x = torch.where(inside, x, -2.0)
    y = torch.where(inside, y, -2.0)
    # grid_sample wants -1 and 1 at the outer edges of the border pixels.
    grid = torch.stack(((2 * x + 1) / width - 1, (2 * y + 1) / height - 1), dim=-1)
    grid = grid.permute(0, 3, 1, 2, 4, 5).reshape(batch * groups, rows * columns, points, 2)

    per_group = input.to(dtype).view(batch, height, width, groups, channels // groups)
    per_group = per_group.permute(0, 3, 4, 1, 2).reshape(batch * groups, channels // groups, height, width)
    samples = F.grid_sample(per_group, grid, mode='bilinear', padding_mode='zeros', align_corners=False)

    weights = mask.to(dtype).view(batch, rows, columns, groups, points)
    if geometry.mask_is_logits:
        weights = weights.softmax(-1)
    weights = weights.permute(0, 3, 1, 2, 4).reshape(batch * groups, 1, rows * columns, points)
    output = (samples * weights).sum(-1).view(batch, channels, rows, columns)
    return output.permute(0, 2, 3, 1).contiguous().to(input.dtype)


def _sampling_positions(offset: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """Pixel positions (x, y) of all samples, each (N, H_out, W_out, G, P), for offsets (N, H_out, W_out, G, P, 2).

    Points are ordered w-outer, h-inner. ``offset_scale`` multiplies the learned offsets and the dilated grid around its
    middle, rounded down, but does not move the middle.
    """
    rows, columns = offset.shape[1:3]

    def axis(which: int, size: int) -> tuple[Tensor, Tensor]:
        kernel, stride, padding, dilation = (pair[which] for pair in geometry[:4])
        middle = (dilation * (kernel - 1)) // 2
        centre = torch.arange(size, dtype=offset.dtype, device=offset.device) * stride + (middle - padding)
        taps = torch.arange(kernel, dtype=offset.dtype, device=offset.device) * dilation - middle
        return centre, taps * geometry.offset_scale

    centre_y, taps_y = axis(0, rows)
    centre_x, taps_x = axis(1, columns)
    points_x = taps_x.repeat_interleave(geometry.kernel_size[0])
    points_y = taps_y.repeat(geometry.kernel_size[1])
    x = centre_x.view(1, 1, columns, 1, 1) + points_x + offset[..., 0] * geometry.offset_scale
    y = centre_y.view(1, rows, 1, 1, 1) + points_y + offset[..., 1] * geometry.offset_scale
    return x, y
