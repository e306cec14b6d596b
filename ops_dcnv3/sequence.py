"""DCNv3 over sequences: the same operator on an image of one row."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .functional import dcnv3
from .layers import Linear, build_activation, build_norm, init_on_regular_grid

# How far, at least, a causal sample keeps before the position that it serves, in positions. A sample exactly at a
# position would read only that one, but its derivative by the offset is taken towards the next, which is the future.
CAUSAL_GAP = 2**-6
# Up to this length float32 tells a position from one that lies CAUSAL_GAP before it.
MAX_CAUSAL_LENGTH = 2**18


class DCNv3_1d(nn.Module):
    """Deformable convolution v3 over sequences, :class:`ops_dcnv3.DCNv3` with positions in place of pixels.

    Per position and group, ``kernel_size`` samples are taken at a regular grid displaced by learned offsets, linearly
    interpolated between neighbouring positions and weighted by a learned softmax. Time and memory grow linearly with
    the length. Beyond the ends the sequence counts as zero.

    With ``causal=True`` an output depends on its own and earlier positions only, and so do the gradients that start
    from it: the grid ends at the position itself, and an offset that would move a sample beyond it is cut there. All
    samples then lie 1/64 of a position earlier (in 16-bit types as much as their precision asks for).

    Args:
        channels: Number of channels C of input and output.
        groups: Number of groups; each has its own offsets and weights and C / groups channels.
        kernel_size: Number of sampling points. ``dilation * (kernel_size - 1)`` must be even.
        dilation: Distance between neighbouring sampling points, in positions.
        dw_kernel_size: Kernel of the depth-wise convolution that offsets and weights are predicted from, odd unless
            ``causal``; ``None`` for ``kernel_size``.
        causal: Whether outputs depend on no later position.
        act_layer: ``'GELU'``, ``'ReLU'`` or ``'SiLU'``.

    Raises:
        ValueError: A number does not fit as said above; in the forward, the input is not (N, L, C) or too long for
            ``causal``, more than 262,144 positions.

    Example:
        >>> layer = DCNv3_1d(channels=64, groups=4, kernel_size=5, causal=True)
        >>> layer(torch.rand(2, 100, 64)).shape
        torch.Size([2, 100, 64])
    """

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
        super().__init__()
        dw_kernel_size = kernel_size if dw_kernel_size is None else dw_kernel_size
        if groups < 1 or channels < 1 or channels % groups:
            raise ValueError(f'channels must be a positive multiple of groups={groups}, got {channels}')
        if kernel_size < 1 or dilation < 1 or dilation * (kernel_size - 1) % 2:
            raise ValueError(
                'kernel_size and dilation must be positive and dilation * (kernel_size - 1) even, '
                f'got kernel_size={kernel_size}, dilation={dilation}'
            )
        if dw_kernel_size < 1 or (dw_kernel_size % 2 == 0 and not causal):
            raise ValueError(f'dw_kernel_size must be positive, and odd unless causal, got {dw_kernel_size}')
        self.channels = channels
        self.groups = groups
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.causal = causal

        dw_padding = dw_kernel_size - 1 if causal else dw_kernel_size // 2
        self.dw_conv = nn.Sequential(
            nn.Conv2d(channels, channels, (1, dw_kernel_size), padding=(0, dw_padding), groups=channels),
            build_norm('LN', channels, channels_first_in=True),
            build_activation(act_layer),
        )
        self.offset = Linear(channels, groups * kernel_size)
        self.mask = Linear(channels, groups * kernel_size)
        self.input_proj = Linear(channels, channels)
        self.output_proj = Linear(channels, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Zero offsets and uniform weights to start with: the layer begins as an average over a regular grid."""
        init_on_regular_grid(self)

    def extra_repr(self) -> str:
        return (
            f'channels={self.channels}, groups={self.groups}, kernel_size={self.kernel_size}, '
            f'dilation={self.dilation}, causal={self.causal}'
        )

    def forward(self, input: Tensor) -> Tensor:
        """(N, L, C) -> (N, L, C)."""
        if input.dim() != 3 or input.shape[1] < 1 or input.shape[2] != self.channels:
            raise ValueError(f'input must be (N, L >= 1, C={self.channels}), got shape {tuple(input.shape)}')
        length = input.shape[1]
        if self.causal and length > MAX_CAUSAL_LENGTH:
            raise ValueError(f'input must have at most {MAX_CAUSAL_LENGTH} positions if causal, got {length}')
        row = input.unsqueeze(1)  # (N, 1, L, C)
        projected = self.input_proj(row)
        # A causal convolution is padded on both sides too, and its last outputs, which see padding only, are dropped.
        context = self.dw_conv(row.permute(0, 3, 1, 2))[:, :, :length]
        offset = self.offset(context)
        if self.causal:
            offset = self._into_the_past(offset)
        sampled = dcnv3(
            projected,
            F.pad(offset.unsqueeze(-1), (0, 1)).flatten(3).to(projected.dtype),  # along the row, not across it
            self.mask(context).to(projected.dtype),
            (1, self.kernel_size),
            padding=(0, self._middle),
            dilation=(1, self.dilation),
            groups=self.groups,
            mask_is_logits=True,
        )
        return self.output_proj(sampled).squeeze(1)

    @property
    def _middle(self) -> int:
        """Positions from the first point of the grid to its middle."""
        return self.dilation * (self.kernel_size - 1) // 2

    def _into_the_past(self, offset: Tensor) -> Tensor:
        """Offsets from the operator's centred grid: the last point moves to the present, and no point beyond it."""
        # Rounding to a 16-bit type must not close the gap.
        gap = max(CAUSAL_GAP, 2 * self._middle * torch.finfo(offset.dtype).eps)
        delay = self.dilation * torch.arange(self.kernel_size - 1, -1, -1, device=offset.device)
        per_group = offset.to(torch.promote_types(offset.dtype, torch.float32)).unflatten(-1, (self.groups, -1))
        # The last point starts at its bound, where clamp passes the whole gradient and minimum would pass half.
        return (per_group.clamp(max=delay) - (self._middle + gap)).flatten(3)
