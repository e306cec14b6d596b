"""The DCNv3 layer: projections around the operator."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .arguments import check_geometry
from .functional import dcnv3
from .layers import Linear, Scalable, build_activation, build_norm, init_on_regular_grid, scaled
from .reference import dcnv3_reference


class DCNv3(Scalable, nn.Module):
    """Deformable convolution v3 (InternImage, https://arxiv.org/abs/2211.05778, Sec. 3.1).

    A depth-wise convolution of the input predicts, per pixel and group, the offsets of the sampling points and their
    softmax weights; the operator samples the projected input there.

    Args:
        channels: Number of channels C of input and output.
        groups: Number of groups G; each has its own offsets and weights and C / G channels.
        kernel_size: Side of the square grid of sampling points.
        dw_kernel_size: Side of the depth-wise convolution's kernel, odd; ``None`` for ``kernel_size``.
        padding: Must preserve the size: ``2 * padding == dilation * (kernel_size - 1)``.
        dilation: Distance between neighbouring sampling points, in pixels.
        offset_scale: Factor on the grid and on the learned offsets.
        act_layer: ``'GELU'``, ``'ReLU'`` or ``'SiLU'``.
        norm_layer: ``'LN'`` or ``'BN'``, after the depth-wise convolution.
        center_feature_scale: Blend the sampled features with the projected input, by a learned weight per group.

    Raises:
        ValueError: ``channels`` is no multiple of ``groups``, the padding changes the size, or a kernel is even where
            that would.

    Example:
        >>> layer = DCNv3(channels=64, groups=4)
        >>> layer(torch.rand(2, 14, 14, 64)).shape
        torch.Size([2, 14, 14, 64])
    """

    operator: Callable[..., Tensor] = staticmethod(dcnv3)

    def __init__(
        self,
        channels: int,
        groups: int,
        kernel_size: int = 3,
        dw_kernel_size: int | None = None,
        padding: int = 1,
        dilation: int = 1,
        offset_scale: float = 1.0,
        act_layer: str = 'GELU',
        norm_layer: str = 'LN',
        center_feature_scale: bool = False,
    ) -> None:
        super().__init__()
        dw_kernel_size = kernel_size if dw_kernel_size is None else dw_kernel_size
        if groups < 1 or channels < 1 or channels % groups:
            raise ValueError(f'channels must be a positive multiple of groups={groups}, got {channels}')
        check_geometry(kernel_size, 1, padding, dilation, groups, offset_scale)
        if 2 * padding != dilation * (kernel_size - 1):
            raise ValueError(
                'padding must preserve the size, 2 * padding == dilation * (kernel_size - 1), '
                f'got padding={padding}, dilation={dilation}, kernel_size={kernel_size}'
            )
        if dw_kernel_size < 1 or dw_kernel_size % 2 == 0:
            raise ValueError(f'dw_kernel_size must be odd and positive, got {dw_kernel_size}')
        self.channels = channels
        self.groups = groups
        self.kernel_size = kernel_size
        self.padding = padding
        self.dilation = dilation
        self.offset_scale = offset_scale
        self.center_feature_scale = center_feature_scale

        points = kernel_size * kernel_size
        self.dw_conv = nn.Sequential(
            nn.Conv2d(channels, channels, dw_kernel_size, padding=dw_kernel_size // 2, groups=channels),
            build_norm(norm_layer, channels, channels_first_in=True),
            build_activation(act_layer),
        )
        self.offset = Linear(channels, groups * points * 2)
        self.mask = Linear(channels, groups * points)
        self.input_proj = Linear(channels, channels)
        self.output_proj = Linear(channels, channels)
        if center_feature_scale:
            self.center_feature_scale_proj_weight = nn.Parameter(torch.zeros(groups, channels))
            self.center_feature_scale_proj_bias = nn.Parameter(torch.zeros(groups))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Zero offsets and uniform weights to start with: the layer begins as an average over a regular grid."""
        init_on_regular_grid(self)

    def extra_repr(self) -> str:
        return (
            f'channels={self.channels}, groups={self.groups}, kernel_size={self.kernel_size}, padding={self.padding}, '
            f'dilation={self.dilation}, offset_scale={self.offset_scale}, '
            f'center_feature_scale={self.center_feature_scale}'
        )

    def forward(self, input: Tensor, scale: Tensor | None = None) -> Tensor:
        """(N, H, W, C) -> (N, H, W, C), times ``scale`` (C,) if given."""
        projected = self.input_proj(input)
        context = self.dw_conv(input.permute(0, 3, 1, 2))
        sampled = self.operator(
            projected,
            self.offset(context),
            self.mask(context),
            self.kernel_size,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            offset_scale=self.offset_scale,
            mask_is_logits=True,
        )
        if self.center_feature_scale:
            share = torch.sigmoid(
                F.linear(context, self.center_feature_scale_proj_weight, self.center_feature_scale_proj_bias)
            )
            share = share.repeat_interleave(self.channels // self.groups, dim=-1)
            sampled = torch.lerp(sampled, projected, share.to(projected.dtype))
        return scaled(self.output_proj, sampled, scale)


class DCNv3_pytorch(DCNv3):
    """DCNv3 on the reference operator: same parameters and results, no compiled code; for export and comparison."""

    operator = staticmethod(dcnv3_reference)
