"""Layer-wise learning rates with the parameter groups of the official schedules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

from mmengine.dist import is_main_process
from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from ..models import InternImage, internimage_layer_depth

_UNDECAYED = ('relative_position', 'norm', 'sampling_offsets')
# Parts of the Mask2Former head that have the stem's learning rate in the official configs. The official rules for
# detection and segmentation differ only here; detectors have no decode_head, so one set of rules serves both.
_SEGMENTATION_EMBEDDINGS = tuple(
    f'decode_head.{name}' for name in ('mask_embed', 'cls_embed', 'query_embed', 'query_feat')
)


@dataclass(frozen=True)
class LayerDecayOptions:
    """The options in ``paramwise_cfg``.

    Args:
        layer_decay_rate: Factor on the learning rate per layer, from the head down; in (0, 1].
        num_layers: Blocks of the backbone. Optional: compared with the model's if given.
        depths: Blocks per stage. Needed only if the backbone has no ``get_layer_depth``; compared with it otherwise.
        backbone_small_lr: Multiply every learning rate below the base rate by another 0.1.
        dino_head: Multiply the learning rates of sampling offsets and reference points in the head by 0.1.
        offset_lr_scale: Factor on the learning rates of sampling offsets and reference points, except in
            ``decode_head`` and where ``dino_head`` applies. The backbone has no such names: DCNv3's offsets have their
            block's rate.
        backbone_prefix: Prefix of the backbone's parameter names in the model.
        custom_keys: Part of a parameter's name -> ``lr_mult`` and ``decay_mult``, applied on top of all other factors.
            Of several keys that match, the longest counts.

    Raises:
        ValueError: A value out of range.
    """

    layer_decay_rate: float
    num_layers: int | None = None
    depths: Sequence[int] | None = None
    backbone_small_lr: bool = False
    dino_head: bool = False
    offset_lr_scale: float = 1.0
    backbone_prefix: str = 'backbone.'
    custom_keys: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.layer_decay_rate <= 1:
            raise ValueError(f'layer_decay_rate must lie in (0, 1], got {self.layer_decay_rate}')
        if self.backbone_prefix and not self.backbone_prefix.endswith('.'):
            raise ValueError(f'backbone_prefix must end with a dot or be empty, got {self.backbone_prefix!r}')
        for key, options in self.custom_keys.items():
            _check_known(f'custom_keys[{key!r}]', options, ('lr_mult', 'decay_mult'))


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class CustomLayerDecayOptimizerConstructor(DefaultOptimWrapperConstructor):
    """Learning rates that decrease from the head to the stem by a factor per layer.

    The backbone's ``get_layer_depth(name, prefix) -> (layer, number of layers)``, a convention of MMPretrain, gives the
    layers. Groups and their names are those of the official detection and segmentation configs. 1-D parameters, biases,
    norms, relative positions and sampling offsets have no weight decay. Frozen parameters are left out.

    Args:
        optim_wrapper_cfg: As for any constructor; its ``optimizer`` needs ``lr`` and ``weight_decay``.
        paramwise_cfg: See :class:`LayerDecayOptions`.

    Raises:
        ValueError: An option is unknown, missing or out of range; when called: ``depths`` or ``num_layers`` differ from
            the model's, or ``backbone_prefix`` names none of its modules.

    Example:
        >>> optim_wrapper = dict(type='OptimWrapper', constructor='CustomLayerDecayOptimizerConstructor',
        ...                      optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
        ...                      paramwise_cfg=dict(layer_decay_rate=0.94))
    """

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        _check_known('paramwise_cfg', self.paramwise_cfg, [option.name for option in fields(LayerDecayOptions)])
        if 'layer_decay_rate' not in self.paramwise_cfg:
            raise ValueError(f'paramwise_cfg must hold layer_decay_rate, got {dict(self.paramwise_cfg)}')
        if self.base_lr is None or self.base_wd is None:
            raise ValueError(f'optimizer must hold lr and weight_decay, got {dict(self.optimizer_cfg)}')
        self.options = LayerDecayOptions(**self.paramwise_cfg)

    def add_params(
        self, params: list[dict], module: nn.Module, prefix: str = '', is_dcn_module: int | float | None = None
    ) -> None:
        """Appends the model's parameter groups to ``params``. The last two arguments, the base class's, are unused."""
        layer_of = self._layer_rule(module)
        groups: dict[str, dict[str, Any]] = {}
        frozen = 0
        for name, parameter in module.named_parameters():  # yields shared parameters once
            if not parameter.requires_grad:
                frozen += 1
                continue
            group = self._group(name, parameter.ndim, *layer_of(name))
            group = groups.setdefault(group['group_name'], group)
            group['params'].append(parameter)
            group['param_names'].append(name)
        params.extend(groups.values())
        if is_main_process():
            print_log(_table(list(groups.values()), frozen), 'current')

    def _layer_rule(self, model: nn.Module) -> Callable[[str], tuple[int, int]]:
        """A function from a parameter's name to its layer and the number of layers. Checks the options."""
        prefix, depths, num_layers = self.options.backbone_prefix, self.options.depths, self.options.num_layers
        try:
            backbone = model.get_submodule(prefix.removesuffix('.'))
        except AttributeError as error:
            children = ', '.join(name for name, _ in model.named_children())
            raise ValueError(f'backbone_prefix={prefix!r} names no module of the model: {children}') from error
        rule: Callable[[str], tuple[int, int]]
        if callable(get_layer_depth := getattr(backbone, 'get_layer_depth', None)):
            rule = partial(get_layer_depth, prefix=prefix)
        elif depths is not None:
            rule = partial(_layer_from_depths, prefix=prefix, depths=depths)
        else:
            raise ValueError(f'{type(backbone).__name__} has no get_layer_depth, so paramwise_cfg must hold depths')

        blocks = rule(next(name for name, _ in model.named_parameters()))[1] - 2  # without stem and head
        if num_layers not in (None, blocks):
            raise ValueError(f'num_layers={num_layers}, but the backbone has {blocks} blocks')
        if depths is not None and sum(depths) != blocks:
            raise ValueError(f'depths={tuple(depths)} are {sum(depths)} blocks, but the backbone has {blocks}')
        if depths is not None and isinstance(backbone, InternImage) and tuple(depths) != tuple(backbone.arch.depths):
            raise ValueError(f'depths={tuple(depths)}, but the backbone has {tuple(backbone.arch.depths)}')
        return rule

    def _group(self, name: str, ndim: int, layer: int, num_layers: int) -> dict[str, Any]:
        """The group of one parameter, still empty."""
        options = self.options
        if 'level_embed' in name or name.startswith(_SEGMENTATION_EMBEDDINGS):
            layer = 0
        decayed = ndim != 1 and not name.endswith('.bias') and not any(part in name for part in _UNDECAYED)
        group_name = f'layer_{layer}_{"decay" if decayed else "no_decay"}'
        weight_decay = self.base_wd if decayed else 0.0
        scale = options.layer_decay_rate ** (num_layers - layer - 1)
        if options.backbone_small_lr and scale < 1:
            scale *= 0.1
        if 'sampling_offsets' in name or 'reference_points' in name:
            if options.dino_head and layer == num_layers - 1:
                group_name += '_0.1x'
                scale *= 0.1
            elif not name.startswith('decode_head.'):
                group_name += '_offset_lr_scale'
                scale *= options.offset_lr_scale
        for key in sorted(sorted(options.custom_keys), key=len, reverse=True):  # MMEngine's order
            if key in name:
                group_name += f'_custom_{key}'
                scale *= options.custom_keys[key].get('lr_mult', 1.0)
                weight_decay *= options.custom_keys[key].get('decay_mult', 1.0)
                break
        return {
            'weight_decay': weight_decay,
            'params': [],
            'param_names': [],
            'lr_scale': scale,
            'group_name': group_name,
            'lr': scale * self.base_lr,
        }


def _layer_from_depths(name: str, prefix: str, depths: Sequence[int]) -> tuple[int, int]:
    """``get_layer_depth`` for a backbone with InternImage's parameter names but without the method."""
    num_layers = sum(depths) + 2
    if not name.startswith(prefix):
        return num_layers - 1, num_layers
    return internimage_layer_depth(name.removeprefix(prefix), depths), num_layers


def _check_known(what: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    for option in given:
        if option not in known:
            raise ValueError(f'{what} holds the unknown option {option!r}; known are {", ".join(known)}')


def _table(groups: Sequence[Mapping[str, Any]], frozen: int) -> str:
    width = max((len(group['group_name']) for group in groups), default=0)
    lines = [
        f'{len(groups)} parameter groups; {frozen} frozen tensors are left out',
        f'{"group":{width}}  {"lr scale":>10}  {"lr":>10}  {"decay":>8}  {"tensors":>7}  {"parameters":>13}',
    ]
    for group in groups:
        lines.append(
            f'{group["group_name"]:{width}}  {group["lr_scale"]:10.4g}  {group["lr"]:10.4g}  '
            f'{group["weight_decay"]:8.4g}  {len(group["params"]):7}  {sum(p.numel() for p in group["params"]):13,}'
        )
    return '\n'.join(lines)
