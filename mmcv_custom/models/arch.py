"""The architecture options of InternImage, the seven published presets, and the paper's rules for scaling them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from ops_dcnv3 import DCNv3, DCNv3_pytorch

CORE_OPS: dict[str, type[DCNv3]] = {'DCNv3': DCNv3, 'DCNv3_pytorch': DCNv3_pytorch}
DEPTH_GROWTH = 1.09  # alpha of the scaling rules
WIDTH_GROWTH = 1.36  # beta; alpha * beta**1.99 is about 2, so that each step doubles the FLOPs


def is_int(value: Any, low: int) -> bool:
    """Whether a value from a config is an int of at least ``low``."""
    return isinstance(value, int) and value >= low


def is_number(value: Any) -> bool:
    """Whether a value from a config is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


@dataclass(frozen=True)
class Arch:
    """Options of the architecture, under the names that the official configs use.

    Args:
        channels: Width of the first stage; doubles from stage to stage.
        depths: Blocks per stage; as many stages as it has entries.
        groups: DCNv3 groups per stage.
        mlp_ratio: Hidden width of the MLPs divided by their input width.
        norm_layer: ``'LN'`` or ``'BN'``: the norm in the stem, between the stages and in DCNv3's depth-wise branch. All
            other norms are LN.
        act_layer: ``'GELU'``, ``'ReLU'`` or ``'SiLU'``.
        layer_scale: Initial value of the learned factors on the residual branches; ``None`` for no such factors.
        offset_scale: Factor on DCNv3's grid and offsets.
        post_norm: Normalise the output of the residual branches instead of their input.
        core_op: ``'DCNv3'`` (compiled) or ``'DCNv3_pytorch'`` (stock PyTorch operators).
        dw_kernel_size: Kernel of DCNv3's depth-wise convolution; ``None`` for DCNv3's own kernel size.
        res_post_norm: Normalise input and output of the residual branches (huge); excludes ``layer_scale``.
        level2_post_norm: Extra norms between the blocks of the third stage (huge and giant).
        level2_post_norm_block_ids: Indices of the third stage's blocks that are followed by such a norm.
        center_feature_scale: Blend sampled and projected features in DCNv3 (huge and giant).

    Raises:
        ValueError: Options contradict each other or are out of range.
    """

    channels: int = 64
    depths: Sequence[int] = (4, 4, 18, 4)
    groups: Sequence[int] = (4, 8, 16, 32)
    mlp_ratio: float = 4.0
    norm_layer: str = 'LN'
    act_layer: str = 'GELU'
    layer_scale: float | None = 1.0
    offset_scale: float = 1.0
    post_norm: bool = False
    core_op: str = 'DCNv3'
    dw_kernel_size: int | None = None
    res_post_norm: bool = False
    level2_post_norm: bool = False
    level2_post_norm_block_ids: Sequence[int] | None = None
    center_feature_scale: bool = False

    def __post_init__(self) -> None:
        for name, values in (('depths', self.depths), ('groups', self.groups)):
            if not isinstance(values, Sequence) or not values or not all(is_int(value, 1) for value in values):
                raise ValueError(f'{name} must be positive ints, one per stage, got {values}')
        if len(self.groups) != len(self.depths):
            raise ValueError(
                f'groups must have one entry per stage, {len(self.depths)} as depths={tuple(self.depths)} has, '
                f'got {tuple(self.groups)}'
            )
        if not is_int(self.channels, 2) or self.channels % 2:
            raise ValueError(
                f'channels must be even and positive (the stem begins with half of them), got {self.channels}'
            )
        for width, groups in zip(self.widths, self.groups, strict=True):
            if width % groups:
                raise ValueError(f'groups={tuple(self.groups)} must divide the widths {self.widths} of the stages')
        if self.core_op not in CORE_OPS:
            raise ValueError(f'core_op must be one of {", ".join(CORE_OPS)}, got {self.core_op!r}')
        if self.res_post_norm and self.layer_scale is not None:
            raise ValueError(
                f'res_post_norm=True needs layer_scale=None, got layer_scale={self.layer_scale}: '
                'with layer scale the published blocks never apply those norms'
            )
        for name in ('mlp_ratio', 'offset_scale', 'layer_scale'):
            value = getattr(self, name)
            if not is_number(value) and (name, value) != ('layer_scale', None):
                raise ValueError(f'{name} must be a finite number, got {value!r}')
        if self.mlp_ratio <= 0:
            raise ValueError(f'mlp_ratio must be positive, got {self.mlp_ratio}')
        if int(self.channels * self.mlp_ratio) < 1:
            raise ValueError(f'mlp_ratio={self.mlp_ratio} of channels={self.channels} leaves no hidden channel')
        if self.dw_kernel_size is not None and (not is_int(self.dw_kernel_size, 1) or self.dw_kernel_size % 2 == 0):
            raise ValueError(f'dw_kernel_size must be odd and positive, got {self.dw_kernel_size!r}')
        for name in ('post_norm', 'res_post_norm', 'level2_post_norm', 'center_feature_scale'):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f'{name} must be True or False, got {getattr(self, name)!r}')
        ids = self.level2_post_norm_block_ids
        if ids is not None and not (isinstance(ids, Sequence) and all(is_int(index, 0) for index in ids)):
            raise ValueError(f'level2_post_norm_block_ids must be ints, got {ids!r}')
        if self.level2_post_norm != bool(ids):
            raise ValueError(
                'level2_post_norm and level2_post_norm_block_ids must be given together, '
                f'got {self.level2_post_norm} and {ids}'
            )
        if ids and self.num_stages < 3:
            raise ValueError(f'level2_post_norm needs three stages or more, got depths={tuple(self.depths)}')
        if ids and not all(0 <= i < self.depths[2] for i in ids):
            raise ValueError(f'level2_post_norm_block_ids must lie in 0..{self.depths[2] - 1}, got {tuple(ids)}')
        if ids and len(set(ids)) < len(ids):
            raise ValueError(f'level2_post_norm_block_ids must differ from each other, got {tuple(ids)}')

    @property
    def num_stages(self) -> int:
        """Number of stages; four in the presets."""
        return len(self.depths)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(self.channels * 2**stage for stage in range(self.num_stages))

    @staticmethod
    def preset_of_width(channels: int) -> str | None:
        """Name of the preset whose first stage is ``channels`` wide, if there is one. Their widths all differ."""
        return next((name for name, arch in PRESETS.items() if arch.channels == channels), None)

    @classmethod
    def resolve(cls, name: str, overrides: dict[str, Any]) -> Arch:
        """The preset called ``name`` with some options replaced.

        Raises:
            ValueError: No such preset.
            TypeError: No such option.
        """
        if not isinstance(name, str) or name not in PRESETS:
            raise ValueError(f'arch must be one of {", ".join(PRESETS)}, got {name!r}')
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(overrides) - set(known))
        if unknown:
            raise TypeError(
                f'InternImage got the unknown keyword {unknown[0]!r}; its architecture knows {", ".join(known)}'
            )
        return replace(PRESETS[name], **overrides)

    @classmethod
    def stacked(cls, channels: int, group_channels: int, depth: int, depth_stage3: int) -> Arch:
        """The stacking rules of the paper (Sec. 3.2), by which four numbers give the whole network.

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
        groups = tuple(channels * 2**stage // group_channels for stage in range(4))
        return cls(channels=channels, depths=(depth, depth, depth_stage3, depth), groups=groups)

    def scaled(self, phi: float) -> Arch:
        """The scaling rules of the paper (Sec. 3.3): this architecture grown by phi steps of twice the FLOPs each.

        The total depth D = 3 L_1 + L_3 becomes alpha^phi D and the width beta^phi C_1, with alpha = 1.09 and
        beta = 1.36. The paper does not say how to round: here the width is rounded to a multiple of the channels per
        group, L_1 and D to integers, and stage 3 takes the rest of D. All other options stay.

        Args:
            phi: Number of steps, at least 0.

        Raises:
            ValueError: ``phi`` is negative, this architecture does not follow the stacking rules, or it has
                ``level2_post_norm``, for which there is no rule.
        """
        if phi < 0:
            raise ValueError(f'phi must be at least 0, got {phi}')
        group_channels = self.channels // self.groups[0]
        depth, total = self.depths[0], sum(self.depths)
        follows = tuple(self.depths) == (depth, depth, total - 3 * depth, depth)
        if not follows or tuple(self.groups) != tuple(width // group_channels for width in self.widths):
            raise ValueError(
                'scaled needs depths and groups that follow the stacking rules, '
                f'got {tuple(self.depths)} and {tuple(self.groups)}'
            )
        if self.level2_post_norm:
            raise ValueError('scaled cannot place the norms of level2_post_norm, got level2_post_norm=True')
        channels = round(WIDTH_GROWTH**phi * self.channels / group_channels) * group_channels
        depth = round(DEPTH_GROWTH**phi * depth)
        grown = Arch.stacked(channels, group_channels, depth, round(DEPTH_GROWTH**phi * total) - 3 * depth)
        return replace(self, channels=grown.channels, depths=grown.depths, groups=grown.groups)


# The options of the official configs. tests/mmcv/test_arch.py shows how far they follow the paper's rules.
PRESETS: dict[str, Arch] = {
    'tiny': Arch(),
    'small': Arch(channels=80, depths=(4, 4, 21, 4), groups=(5, 10, 20, 40), post_norm=True),
    'base': Arch(channels=112, depths=(4, 4, 21, 4), groups=(7, 14, 28, 56), post_norm=True),
    'large': Arch(channels=160, depths=(5, 5, 22, 5), groups=(10, 20, 40, 80), offset_scale=2.0, post_norm=True),
    'xlarge': Arch(channels=192, depths=(5, 5, 24, 5), groups=(12, 24, 48, 96), offset_scale=2.0, post_norm=True),
    'huge': Arch(
        channels=320,
        depths=(6, 6, 32, 6),
        groups=(10, 20, 40, 80),
        layer_scale=None,
        dw_kernel_size=5,
        res_post_norm=True,
        level2_post_norm=True,
        level2_post_norm_block_ids=(5, 11, 17, 23, 29),
        center_feature_scale=True,
    ),
    'giant': Arch(
        channels=512,
        depths=(2, 2, 48, 4),
        groups=(16, 32, 64, 128),
        layer_scale=None,
        post_norm=True,
        dw_kernel_size=5,
        level2_post_norm=True,
        level2_post_norm_block_ids=(5, 11, 17, 23, 29, 35, 41, 47),
        center_feature_scale=True,
    ),
}
