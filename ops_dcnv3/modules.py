"""The layers DCNv3 and DCNv3_1d: projections around the operator, and the prediction of offsets and weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .arguments import Pair, check_geometry, require_ints, require_tensors
from .functional import dcnv3
from .layers import Linear, Scalable, build_activation, build_norm, scaled
from .reference import dcnv3_reference

# Distance, in positions, that a causal sample keeps before the position it is taken for. A sample exactly at a position
# would read only that one, but its derivative by the offset also reads the next one, which is the future.
CAUSAL_GAP = 2**-6
# Up to this length float32 tells a position from one that lies CAUSAL_GAP before it.
MAX_CAUSAL_LENGTH = 2**18


class _DeformableLayer(nn.Module):
    """What deformable layers share, over images and over sequences, which are images of one row.

    A subclass checks its own arguments, keeps them as attributes, adds its layers and calls :meth:`reset_parameters`.
    """

    _repr_names: ClassVar[tuple[str, ...]]  # arguments that the repr shows
    _initializers: ClassVar[dict[str, Callable[[Tensor], Tensor]]] = {  # of the weights of linear layers
        'offset': nn.init.zeros_,
        'mask': nn.init.zeros_,
        'input_proj': nn.init.xavier_uniform_,
        'output_proj': nn.init.xavier_uniform_,
    }

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        require_ints(channels=channels, groups=groups)
        if groups < 1 or channels < 1 or channels % groups:
            raise ValueError(f'channels must be a positive multiple of groups={groups}, got {channels}')
        self.channels = channels
        self.groups = groups

    def _add_layers(
        self, points: int, dimensions: int, dw_kernel_size: Pair, dw_padding: Pair, act_layer: str, norm_layer: str
    ) -> None:
        """Adds the layers of DCNv3 for ``points`` samples per group, with offsets in ``dimensions`` dimensions."""
        channels, samples = self.channels, self.groups * points
        self.dw_conv = nn.Sequential(
            nn.Conv2d(channels, channels, dw_kernel_size, padding=dw_padding, groups=channels),
            build_norm(norm_layer, channels, channels_first_in=True),
            build_activation(act_layer),
        )
        self.offset = Linear(channels, samples * dimensions)
        self.mask = Linear(channels, samples)
        self.input_proj = Linear(channels, channels)
        self.output_proj = Linear(channels, channels)

    def reset_parameters(self) -> None:
        """Starts with zero offsets and equal weights: the new layer averages over a regular grid."""
        for name, initialize in self._initializers.items():
            linear = getattr(self, name)
            initialize(linear.weight)
            nn.init.zeros_(linear.bias)

    def extra_repr(self) -> str:
        return ', '.join(f'{name}={getattr(self, name)}' for name in self._repr_names)


class DCNv3(Scalable, _DeformableLayer):
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
        ValueError: ``channels`` is not a multiple of ``groups``, the padding changes the size, ``dw_kernel_size`` is
            even, or another argument is not one of the values above; in the forward, the input is not (N, H, W, C).
        TypeError: In the forward, the input is not a tensor.

    Example:
        >>> layer = DCNv3(channels=64, groups=4)
        >>> layer(torch.rand(2, 14, 14, 64)).shape
        torch.Size([2, 14, 14, 64])
    """

    operator: Callable[..., Tensor] = staticmethod(dcnv3)
    _repr_names = ('channels', 'groups', 'kernel_size', 'padding', 'dilation', 'offset_scale', 'center_feature_scale')

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
        super().__init__(channels, groups)
        dw_kernel_size = kernel_size if dw_kernel_size is None else dw_kernel_size
        require_ints(kernel_size=kernel_size, dw_kernel_size=dw_kernel_size, padding=padding, dilation=dilation)
        check_geometry(kernel_size, 1, padding, dilation, groups, offset_scale)
        if 2 * padding != dilation * (kernel_size - 1):
            raise ValueError(
                'padding must preserve the size, 2 * padding == dilation * (kernel_size - 1), '
                f'got padding={padding}, dilation={dilation}, kernel_size={kernel_size}'
            )
        if dw_kernel_size < 1 or dw_kernel_size % 2 == 0:
            raise ValueError(f'dw_kernel_size must be odd and positive, got {dw_kernel_size}')
        self.kernel_size = kernel_size
        self.padding = padding
        self.dilation = dilation
        self.offset_scale = offset_scale
        self.center_feature_scale = center_feature_scale

        dw_padding = dw_kernel_size // 2
        self._add_layers(
            points=kernel_size**2,
            dimensions=2,
            dw_kernel_size=(dw_kernel_size, dw_kernel_size),
            dw_padding=(dw_padding, dw_padding),
            act_layer=act_layer,
            norm_layer=norm_layer,
        )
        if center_feature_scale:
            self.center_feature_scale_proj_weight = nn.Parameter(torch.zeros(groups, channels))
            self.center_feature_scale_proj_bias = nn.Parameter(torch.zeros(groups))
        self.reset_parameters()

    def forward(self, input: Tensor, scale: Tensor | None = None) -> Tensor:
        """(N, H, W, C) -> (N, H, W, C), times ``scale`` (C,) if given."""
        require_tensors(input=input)
        if input.dim() != 4 or input.shape[1] < 1 or input.shape[2] < 1 or input.shape[3] != self.channels:
            raise ValueError(
                f'input must be (N, H, W, C={self.channels}) with at least one pixel, got shape {tuple(input.shape)}'
            )
        projected = self.input_proj(input)
        context = self.dw_conv(input.permute(0, 3, 1, 2))  # (N, H, W, C)
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


class DCNv3_1d(_DeformableLayer):
    """Deformable convolution v3 over sequences: :class:`DCNv3` with positions in place of pixels.

    Per position and group, ``kernel_size`` samples are taken at a regular grid displaced by learned offsets, linearly
    interpolated between neighbouring positions and weighted by a learned softmax. Time and memory grow linearly with
    the length. Beyond its ends the sequence counts as zero.

    With ``causal=True`` an output, and the gradients that start from it, depend on its own and earlier positions only:
    the grid ends at the position itself, and an offset that would move a sample beyond it is clamped. All samples then
    lie 1/64 of a position earlier (in 16-bit types more, as their precision requires).

    Args:
        channels: Number of channels C of input and output.
        groups: Number of groups G; each has its own offsets and weights and C / G channels.
        kernel_size: Number of sampling points. ``dilation * (kernel_size - 1)`` must be even.
        dilation: Distance between neighbouring sampling points, in positions.
        dw_kernel_size: Kernel of the depth-wise convolution that offsets and weights are predicted from, odd unless
            ``causal``; ``None`` for ``kernel_size``.
        causal: Whether outputs are independent of later positions.
        act_layer: ``'GELU'``, ``'ReLU'`` or ``'SiLU'``.

    Raises:
        ValueError: ``channels`` is not a multiple of ``groups``, or another argument is not one of the values above; in
            the forward, the input is not (N, L, C), or ``causal`` and longer than 262,144 positions.
        TypeError: In the forward, the input is not a tensor.

    Example:
        >>> layer = DCNv3_1d(channels=64, groups=4, kernel_size=5, causal=True)
        >>> layer(torch.rand(2, 100, 64)).shape
        torch.Size([2, 100, 64])
    """

    _repr_names = ('channels', 'groups', 'kernel_size', 'dilation', 'causal')

    def __init__(
        self,
        channels: int,
        groups: int,
        kernel_size: int = 3,
        dilation: int = 1,
        dw_kernel_size: int | None = None,
        causal: bool = False,
        act_layer: str = 'GELU',
    ) -> None:
        super().__init__(channels, groups)
        dw_kernel_size = kernel_size if dw_kernel_size is None else dw_kernel_size
        require_ints(kernel_size=kernel_size, dw_kernel_size=dw_kernel_size, dilation=dilation)
        if kernel_size < 1 or dilation < 1 or dilation * (kernel_size - 1) % 2:
            raise ValueError(
                'kernel_size and dilation must be positive and dilation * (kernel_size - 1) even, '
                f'got kernel_size={kernel_size}, dilation={dilation}'
            )
        if dw_kernel_size < 1 or (dw_kernel_size % 2 == 0 and not causal):
            raise ValueError(f'dw_kernel_size must be positive, and odd unless causal, got {dw_kernel_size}')
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.causal = causal

        self._add_layers(
            points=kernel_size,
            dimensions=1,
            dw_kernel_size=(1, dw_kernel_size),
            dw_padding=(0, dw_kernel_size - 1 if causal else dw_kernel_size // 2),
            act_layer=act_layer,
            norm_layer='LN',
        )
        self.reset_parameters()

    def forward(self, input: Tensor) -> Tensor:
        """(N, L, C) -> (N, L, C)."""
        require_tensors(input=input)
        if input.dim() != 3 or input.shape[1] < 1 or input.shape[2] != self.channels:
            raise ValueError(f'input must be (N, L >= 1, C={self.channels}), got shape {tuple(input.shape)}')
        length = input.shape[1]
        if self.causal and length > MAX_CAUSAL_LENGTH:
            raise ValueError(f'input must have at most {MAX_CAUSAL_LENGTH} positions if causal, got {length}')
        row = input.unsqueeze(1)  # (N, 1, L, C)
        projected = self.input_proj(row)
        # The convolution pads both ends. If causal, its last outputs belong to no position and are dropped.
        context = self.dw_conv(row.permute(0, 3, 1, 2))[:, :, :length]  # (N, 1, L, C)
        offset = self.offset(context)
        if self.causal:
            offset = self._clamp_to_past(offset)
        sampled = dcnv3(
            projected,
            F.pad(offset.unsqueeze(-1), (0, 1)).flatten(3).to(projected.dtype),  # pairs (x, y) with y = 0
            self.mask(context).to(projected.dtype),
            (1, self.kernel_size),
            padding=(0, self._half_width),
            dilation=(1, self.dilation),
            groups=self.groups,
            mask_is_logits=True,
        )
        return self.output_proj(sampled).squeeze(1)

    @property
    def _half_width(self) -> int:
        """Positions from the middle of the grid to its ends, and the padding that keeps the length."""
        return self.dilation * (self.kernel_size - 1) // 2

    def _clamp_to_past(self, offset: Tensor) -> Tensor:
        """Moves the last point of the operator's centred grid to the position itself, and no sample beyond that.

        (N, 1, L, groups * kernel_size) -> the same shape, in float32 or wider.
        """
        # The gap must survive the rounding to a 16-bit type.
        gap = max(CAUSAL_GAP, 2 * self._half_width * torch.finfo(offset.dtype).eps)
        delay = self.dilation * torch.arange(self.kernel_size - 1, -1, -1, device=offset.device)
        per_group = offset.to(torch.promote_types(offset.dtype, torch.float32)).unflatten(-1, (self.groups, -1))
        # The last point starts at its bound, where clamp passes the whole gradient and minimum would pass half.
        return (per_group.clamp(max=delay) - (self._half_width + gap)).flatten(3)
