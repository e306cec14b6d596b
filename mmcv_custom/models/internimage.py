"""The InternImage backbone (https://arxiv.org/abs/2211.05778)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from mmcv.cnn.bricks.drop import DropPath
from mmengine.model import BaseModule, PretrainedInit, initialize
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ops_dcnv3 import DCNv3
from ops_dcnv3.layers import Linear, Scalable, build_activation, build_norm, scaled

from ..checkpoint import load_pretrained_backbone
from .arch import CORE_OPS, Arch, is_int, is_number


class Stem(nn.Module):
    """Two 3x3 convolutions of stride 2: (N, in_channels, H, W) -> (N, H/4, W/4, C)."""

    def __init__(self, in_channels: int, channels: int, norm_layer: str, act_layer: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels // 2, 3, stride=2, padding=1)
        self.norm1 = build_norm(norm_layer, channels // 2, channels_first_in=True, channels_first_out=True)
        self.act = build_activation(act_layer)
        self.conv2 = nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1)
        self.norm2 = build_norm(norm_layer, channels, channels_first_in=True)

    def forward(self, x: Tensor) -> Tensor:
        # From here on every feature map is channels last in memory, whatever its shape says.
        x = x.contiguous(memory_format=torch.channels_last)
        x = self.act(self.norm1(self.conv1(x)))
        return self.norm2(self.conv2(x))


class Downsample(nn.Module):
    """A 3x3 convolution of stride 2: (N, H, W, C) -> (N, H/2, W/2, 2C)."""

    def __init__(self, channels: int, norm_layer: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=False)
        self.norm = build_norm(norm_layer, 2 * channels, channels_first_in=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x.permute(0, 3, 1, 2)))


class MLP(Scalable, nn.Module):
    """Two linear layers: (N, H, W, C) -> (N, H, W, C), times ``scale`` (C,) if given."""

    def __init__(self, channels: int, hidden: int, act_layer: str, drop_rate: float) -> None:
        super().__init__()
        self.fc1 = Linear(channels, hidden)
        self.act = build_activation(act_layer)
        self.fc2 = Linear(hidden, channels)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        return self.drop(scaled(self.fc2, self.drop(self.act(self.fc1(x))), scale))


class Block(nn.Module):
    """DCNv3 and MLP, each a residual branch: (N, H, W, C) -> (N, H, W, C).

    The branch is normalised before (default), after (``post_norm``) or both (``res_post_norm``), and scaled per channel
    (``layer_scale``) by its last layer: hooks on ``dcn`` and ``mlp``, or on the norms after them, see scaled outputs.
    """

    gamma1: nn.Parameter | None
    gamma2: nn.Parameter | None

    def __init__(self, arch: Arch, stage: int, drop_rate: float, drop_path_rate: float, with_cp: bool) -> None:
        super().__init__()
        channels = arch.widths[stage]
        self.post_norm = arch.post_norm
        self.with_cp = with_cp
        self.norm1 = build_norm('LN', channels)
        self.dcn = CORE_OPS[arch.core_op](
            channels,
            arch.groups[stage],
            dw_kernel_size=arch.dw_kernel_size,
            offset_scale=arch.offset_scale,
            act_layer=arch.act_layer,
            norm_layer=arch.norm_layer,
            center_feature_scale=arch.center_feature_scale,
        )
        self.norm2 = build_norm('LN', channels)
        self.mlp = MLP(channels, int(channels * arch.mlp_ratio), arch.act_layer, drop_rate)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0 else nn.Identity()
        for name in ('gamma1', 'gamma2'):
            first_value = None if arch.layer_scale is None else torch.full((channels,), float(arch.layer_scale))
            self.register_parameter(name, None if first_value is None else nn.Parameter(first_value))
        self.res_post_norm1 = build_norm('LN', channels) if arch.res_post_norm else nn.Identity()
        self.res_post_norm2 = build_norm('LN', channels) if arch.res_post_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.with_cp and torch.is_grad_enabled():
            return checkpoint(self._forward, x, use_reentrant=False)
        return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        if self.post_norm:
            x = x + self.drop_path(scaled(self.norm1, self.dcn(x), self.gamma1))
            return x + self.drop_path(scaled(self.norm2, self.mlp(x), self.gamma2))
        # A norm after a scale would undo it: an arch has layer_scale or res_post_norm, never both.
        x = x + self.drop_path(self.res_post_norm1(scaled(self.dcn, self.norm1(x), self.gamma1)))
        return x + self.drop_path(self.res_post_norm2(scaled(self.mlp, self.norm2(x), self.gamma2)))


class Stage(nn.Module):
    """Blocks of one resolution: (N, H, W, C) -> (N, H, W, C). ``downsample`` is the step to the next stage, if any."""

    def __init__(
        self, arch: Arch, stage: int, drop_rate: float, drop_path_rates: Sequence[float], with_cp: bool
    ) -> None:
        super().__init__()
        channels = arch.widths[stage]
        self.blocks = nn.ModuleList(Block(arch, stage, drop_rate, rate, with_cp) for rate in drop_path_rates)
        # With post_norm the blocks' outputs are normalised already, unless center_feature_scale follows.
        self.norm = build_norm('LN', channels) if not arch.post_norm or arch.center_feature_scale else None
        self.post_norm_block_ids = tuple(arch.level2_post_norm_block_ids or ()) if stage == 2 else ()
        if self.post_norm_block_ids:
            self.post_norms = nn.ModuleList(build_norm('LN', channels) for _ in self.post_norm_block_ids)
        self.downsample = Downsample(channels, arch.norm_layer) if stage + 1 < arch.num_stages else None

    def forward(self, x: Tensor) -> Tensor:
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.post_norm_block_ids:
                x = self.post_norms[self.post_norm_block_ids.index(index)](x)
        return x if self.norm is None else self.norm(x)


def internimage_layer_depth(param_name: str, depths: Sequence[int]) -> int:
    """Id of a backbone parameter's layer for layer-wise learning rates: 0 the stem, then one per block.

    As in the official schedules: the norm and the downsampling after a stage count with the first block of the next
    stage (after the last, with that stage's own first block), and the k-th of the ``post_norms`` with block k.

    Args:
        param_name: Name within the backbone, such as ``levels.2.blocks.3.mlp.fc1.weight``.
        depths: Blocks per stage.

    Raises:
        ValueError: No parameter of an InternImage is called so.
    """
    top, *path = param_name.split('.')
    if top == 'patch_embed':
        return 0
    if top != 'levels' or len(path) < 3:
        raise ValueError(f'param_name must begin with patch_embed. or levels.<stage>., got {param_name!r}')
    stage, part = int(path[0]), path[1]
    if part in ('norm', 'downsample'):
        return 1 + sum(depths[: min(stage + 1, len(depths) - 1)])
    return 1 + sum(depths[:stage]) + int(path[2])


@MODELS.register_module()
class InternImage(BaseModule):
    """InternImage, a backbone of DCNv3 blocks. Stage i, from 0, has stride 4 * 2^i: four stages reach from 4 to 32.

    Args:
        arch: Published preset to start from: tiny, small, base, large, xlarge, huge or giant. Further keywords replace
            single options of it.
        out_indices: Stages whose features are returned, of 0, 1, 2, 3 (with ``depths`` of another length, fewer or
            more); ``None`` for all.
        drop_path_rate: Stochastic depth, the rate of the last block.
        drop_path_type: ``'linear'``: rates grow from 0 over the blocks; ``'uniform'``: all blocks have the same.
        drop_rate: Dropout after the stem and in the MLPs.
        frozen_stages: -1 trains everything, 0 freezes the stem, k the stem and the first k stages.
        with_cp: Recompute each block in the backward, which saves memory.
        in_channels: Channels of the image.
        init_cfg: ``dict(type='Pretrained', checkpoint=...)`` reads official and converted checkpoints, see
            :func:`mmcv_custom.checkpoint.load_pretrained_backbone`; anything else is MMEngine's.
        **arch_options: Any of :class:`mmcv_custom.models.Arch`, among them ``channels``, ``depths``, ``groups``,
            ``core_op``.

    Raises:
        TypeError: Unknown keyword, or ``init_cfg`` without a type.
        ValueError: A value out of range or of a wrong type.

    Example:
        >>> model = InternImage('tiny', core_op='DCNv3_pytorch').eval()
        >>> [tuple(f.shape) for f in model(torch.rand(1, 3, 64, 64))]
        [(1, 64, 16, 16), (1, 128, 8, 8), (1, 256, 4, 4), (1, 512, 2, 2)]
    """

    def __init__(
        self,
        arch: str = 'tiny',
        out_indices: Sequence[int] | None = None,
        drop_path_rate: float = 0.2,
        drop_path_type: str = 'linear',
        drop_rate: float = 0.0,
        frozen_stages: int = -1,
        with_cp: bool = False,
        in_channels: int = 3,
        init_cfg: dict | list[dict] | None = None,
        **arch_options: Any,
    ) -> None:
        configs = init_cfg if isinstance(init_cfg, list | tuple) else [] if init_cfg is None else [init_cfg]
        if not all(isinstance(cfg, dict) and 'type' in cfg for cfg in configs):
            raise TypeError(f'init_cfg must be a dict with a type, a list of such or None, got {init_cfg!r}')
        super().__init__(init_cfg)
        self.arch = Arch.resolve(arch, arch_options)
        stages = range(self.arch.num_stages)
        out_indices = stages if out_indices is None else out_indices
        out_indices = tuple(out_indices) if isinstance(out_indices, Sequence) else out_indices
        if not isinstance(out_indices, tuple) or not out_indices or not all(index in stages for index in out_indices):
            raise ValueError(f'out_indices must be one or more of {", ".join(map(str, stages))}, got {out_indices}')
        if not is_number(drop_path_rate) or not 0 <= drop_path_rate < 1:
            raise ValueError(f'drop_path_rate must lie in [0, 1), got {drop_path_rate}')
        if not is_number(drop_rate) or not 0 <= drop_rate <= 1:
            raise ValueError(f'drop_rate must lie in [0, 1], got {drop_rate}')
        if not is_int(in_channels, 1):
            raise ValueError(f'in_channels must be a positive int, got {in_channels!r}')
        if not isinstance(with_cp, bool):
            raise ValueError(f'with_cp must be True or False, got {with_cp!r}')
        if drop_path_type not in ('linear', 'uniform'):
            raise ValueError(f"drop_path_type must be 'linear' or 'uniform', got {drop_path_type!r}")
        if not isinstance(frozen_stages, int) or not -1 <= frozen_stages <= len(stages):
            known = ', '.join(map(str, range(-1, len(stages))))
            raise ValueError(f'frozen_stages must be {known} or {len(stages)}, got {frozen_stages}')
        self.out_indices = out_indices
        self.frozen_stages = frozen_stages

        depths = self.arch.depths
        start = 0.0 if drop_path_type == 'linear' else drop_path_rate
        rates = torch.linspace(start, drop_path_rate, sum(depths), device='cpu').split(list(depths))
        self.patch_embed: nn.Module = Stem(in_channels, self.arch.channels, self.arch.norm_layer, self.arch.act_layer)
        self.pos_drop = nn.Dropout(drop_rate)
        self.levels = nn.ModuleList(
            Stage(self.arch, stage, drop_rate, rates[stage].tolist(), with_cp) for stage in stages
        )
        self._freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, in_channels, H, W) -> one (N, C_i, H_i, W_i) per stage of ``out_indices``, contiguous."""
        return self.forward_stages(self.forward_stem(x))

    def forward_stem(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, H/4, W/4, C)."""
        return self.pos_drop(self.patch_embed(x))

    def forward_stages(self, x: Tensor, additions: Sequence[Tensor] | None = None) -> tuple[Tensor, ...]:
        """What follows the stem: (N, H/4, W/4, C) -> one (N, C_i, H_i, W_i) per stage of ``out_indices``, contiguous.

        Args:
            x: The stem's output.
            additions: One (N, H_i, W_i, C_i) per stage, added to what enters it, as in composite backbones.
        """
        outputs = []
        for index, stage in enumerate(cast(Sequence[Stage], self.levels)):
            x = stage(x if additions is None else x + additions[index])
            if index in self.out_indices:
                # mmcv's RoIAlign reads memory as (N, C, H, W) whatever the strides: channels last comes out as garbage.
                outputs.append(x.permute(0, 3, 1, 2).contiguous())
            if stage.downsample is not None:
                x = stage.downsample(x)
        return tuple(outputs)

    def init_weights(self) -> None:
        """Draws the weights, or loads them where ``init_cfg`` asks for it.

        The MLPs get a truncated normal of std 0.02; DCNv3 keeps its own start, of zero offsets and equal weights.
        """
        configs = [self.init_cfg] if isinstance(self.init_cfg, dict) else list(self.init_cfg or [])
        pretrained = [cfg for cfg in configs if cfg['type'] in ('Pretrained', PretrainedInit)]
        initialize(self, [cfg for cfg in configs if cfg not in pretrained])
        for cfg in pretrained:
            if 'checkpoint' not in cfg:
                raise ValueError(f'init_cfg of type Pretrained must name a checkpoint, got {cfg}')
            load_pretrained_backbone(self, **{key: value for key, value in cfg.items() if key != 'type'})
        if not configs:
            for module in self.modules():
                if isinstance(module, MLP):
                    for layer in (module.fc1, module.fc2):
                        nn.init.trunc_normal_(layer.weight, std=0.02)
                        nn.init.zeros_(layer.bias)
                elif isinstance(module, DCNv3):
                    module.reset_parameters()

    def train(self, mode: bool = True) -> InternImage:
        """As in PyTorch, but frozen stages stay in evaluation mode."""
        super().train(mode)
        self._freeze()
        return self

    def _freeze(self) -> None:
        if self.frozen_stages < 0:
            return
        for module in (self.patch_embed, *self.levels[: self.frozen_stages]):
            module.eval()
            for parameter in module.parameters():
                parameter.requires_grad_(False)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Layer id of a parameter and number of layers, for layer-wise learning rates.

        Args:
            param_name: Name of a parameter of the model that holds this backbone.
            prefix: What that model puts before this backbone's names, such as ``'backbone.'``. A name without it
                belongs to the head, which is the last layer.
        """
        num_layers = sum(self.arch.depths) + 2
        if not param_name.startswith(prefix):
            return num_layers - 1, num_layers
        return internimage_layer_depth(param_name[len(prefix) :], self.arch.depths), num_layers
