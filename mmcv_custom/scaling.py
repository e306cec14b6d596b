"""The stacking and scaling rules of the InternImage paper (https://arxiv.org/abs/2211.05778, Sec. 3.2 and 3.3)."""

from __future__ import annotations

from typing import NamedTuple

ALPHA = 1.09  # growth of the depth per step of phi
BETA = 1.36  # growth of the width; alpha * beta**1.99 is about 2, which doubles the FLOPs per step


class Shape(NamedTuple):
    """Widths, groups and depths of the four stages."""

    channels: tuple[int, ...]
    groups: tuple[int, ...]
    depths: tuple[int, ...]


def stack(channels: int, group_channels: int, depth: int, depth_stage3: int) -> Shape:
    """The stacking rules (Sec. 3.2): four numbers give the whole network.

    C_i = 2^(i-1) C_1; G_i = C_i / C'; L_1 = L_2 = L_4; L_1 <= L_3.

    Args:
        channels: C_1, width of the first stage.
        group_channels: C', channels per group.
        depth: L_1, blocks of stages 1, 2 and 4.
        depth_stage3: L_3, blocks of stage 3.

    Raises:
        ValueError: C_1 is no multiple of C', or L_1 > L_3.
    """
    if channels % group_channels:
        raise ValueError(f'channels must be a multiple of group_channels={group_channels}, got {channels}')
    if depth > depth_stage3:
        raise ValueError(f'depth must be at most depth_stage3={depth_stage3}, got {depth}')
    widths = tuple(channels * 2**stage for stage in range(4))
    return Shape(widths, tuple(width // group_channels for width in widths), (depth, depth, depth_stage3, depth))


def scale(phi: float, channels: int = 64, group_channels: int = 16, depth: int = 4, depth_stage3: int = 18) -> Shape:
    """The scaling rules (Sec. 3.3): an origin model grown by phi steps, each of about twice the FLOPs.

    The total depth D = 3 L_1 + L_3 becomes alpha^phi D and the width beta^phi C_1, with alpha = 1.09 and beta = 1.36.
    The paper does not say how to round: here the width goes to the nearest multiple of C', L_1 and D to the nearest
    integer, and stage 3 takes what L_1 leaves of D.

    Args:
        phi: Number of steps, at least 0.
        channels, group_channels, depth, depth_stage3: The origin, by default InternImage-T; as in :func:`stack`.

    Raises:
        ValueError: ``phi`` is negative.
    """
    if phi < 0:
        raise ValueError(f'phi must be at least 0, got {phi}')
    total_depth = round(ALPHA**phi * (3 * depth + depth_stage3))
    scaled_depth = round(ALPHA**phi * depth)
    scaled_channels = round(BETA**phi * channels / group_channels) * group_channels
    return stack(scaled_channels, group_channels, scaled_depth, total_depth - 3 * scaled_depth)
