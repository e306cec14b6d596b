"""What distinguishes one InternImage from another: the options of its architecture and the seven published settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from ops_dcnv3 import DCNv3, DCNv3_pytorch

CORE_OPS: dict[str, type[DCNv3]] = {'DCNv3': DCNv3, 'DCNv3_pytorch': DCNv3_pytorch}


@dataclass(frozen=True)
class Arch:
    """Options of the architecture, under the names that the official configs use.

    Args:
        channels: Width of the first stage; doubles from stage to stage.
        depths: Blocks per stage.
        groups: DCNv3 groups per stage.
        mlp_ratio: Hidden width of the MLPs over their input's.
        norm_layer: ``'LN'`` or ``'BN'``, in the stem, between the stages and in DCNv3's depth-wise branch. All others
            are LN.
        act_layer: ``'GELU'``, ``'ReLU'`` or ``'SiLU'``.
        layer_scale: First value of the learned factors on the residual branches; ``None`` for no such factors.
        offset_scale: Factor on DCNv3's grid and offsets.
        post_norm: Normalise the output of the residual branches instead of their input.
        core_op: ``'DCNv3'`` (compiled) or ``'DCNv3_pytorch'`` (stock PyTorch operators).
        dw_kernel_size: Kernel of DCNv3's depth-wise convolution; ``None`` for DCNv3's own kernel size.
        res_post_norm: Normalise input and output of the residual branches (huge); excludes ``layer_scale``.
        level2_post_norm: Extra norms between the blocks of the third stage (huge and giant).
        level2_post_norm_block_ids: Blocks of the third stage that such a norm follows.
        center_feature_scale: Blend of sampled and projected features in DCNv3 (huge and giant).

    Raises:
        ValueError: Options that contradict each other or are out of range.
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
            if not isinstance(values, Sequence) or len(values) != 4 or min(values) < 1:
                raise ValueError(f'{name} must be four positive ints, one per stage, got {values}')
        if self.channels < 2 or self.channels % 2:
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
        if self.mlp_ratio <= 0:
            raise ValueError(f'mlp_ratio must be positive, got {self.mlp_ratio}')
        ids = self.level2_post_norm_block_ids
        if self.level2_post_norm != bool(ids):
            raise ValueError(
                'level2_post_norm and level2_post_norm_block_ids must be given together, '
                f'got {self.level2_post_norm} and {ids}'
            )
        if ids and not all(0 <= i < self.depths[2] for i in ids):
            raise ValueError(f'level2_post_norm_block_ids must lie in 0..{self.depths[2] - 1}, got {tuple(ids)}')
        if ids and len(set(ids)) < len(ids):
            raise ValueError(f'level2_post_norm_block_ids must differ from each other, got {tuple(ids)}')

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the four stages."""
        return tuple(self.channels * 2**stage for stage in range(4))

    @classmethod
    def resolve(cls, name: str, overrides: dict[str, Any]) -> Arch:
        """The preset called ``name`` with some options replaced.

        Raises:
            ValueError: No such preset.
            TypeError: No such option.
        """
        if name not in PRESETS:
            raise ValueError(f'arch must be one of {", ".join(PRESETS)}, got {name!r}')
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(overrides) - set(known))
        if unknown:
            raise TypeError(
                f'InternImage got the unknown keyword {unknown[0]!r}; its architecture knows {", ".join(known)}'
            )
        return replace(PRESETS[name], **overrides)


# The settings of the official configs. How far they follow the paper's rules: tests/models/test_scaling.py.
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
