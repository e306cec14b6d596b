"""The model of an old config, compared with that of a config here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, TypeGuard

from mmengine.config import Config

from ..models.arch import Arch
from .comparison import brief, same

_ARCH = [entry.name for entry in fields(Arch)]


def model_settings(old: Mapping[str, Any], cfg: Config, notes: list[str]) -> dict[str, Any]:
    """Settings of the backbone that differ from those in a config. What else differs is noted, with its path."""
    backbone = dict(old.get('backbone') or {})
    base = cfg.model.backbone
    preset = Arch.resolve(base.get('arch', 'tiny'), {key: base[key] for key in base if key in _ARCH})
    present = {**{name: getattr(preset, name) for name in _ARCH}, 'with_cp': False, 'frozen_stages': -1, **base}
    settings: dict[str, Any] = {}
    for key, value in backbone.items():
        if key in present and not same(present[key], value):
            settings[key] = value
        elif key not in present and key not in ('type', 'init_cfg', 'out_indices', 'pretrained') and value:
            notes.append(f'model.backbone.{key}={value!r}')
    old = {key: value for key, value in _moved(old, cfg).items() if key != 'backbone'}
    notes += _differences(old, cfg.model, 'model')
    return dict(backbone=settings) if settings else {}


def _moved(old: Mapping[str, Any], cfg: Config) -> dict[str, Any]:
    """The model with the options of DINO where mmdet 3 has them."""
    if not cfg.model.type.endswith('DINO'):
        return dict(old)
    head = dict(old.get('bbox_head') or {})
    moved = {**old, 'bbox_head': head}
    for key in ('as_two_stage', 'with_box_refine', 'positional_encoding', 'num_query', 'dn_cfg'):
        if key in head:
            moved['num_queries' if key == 'num_query' else key] = head.pop(key)
    if noise := (moved.get('dn_cfg') or {}).get('noise_scale'):
        rest = {key: value for key, value in moved['dn_cfg'].items() if key != 'noise_scale'}
        moved['dn_cfg'] = {**rest, **{f'{key}_noise_scale': value for key, value in noise.items()}}
    assigner = (old.get('train_cfg') or {}).get('assigner') or {}
    costs = [assigner[key] for key in ('cls_cost', 'reg_cost', 'iou_cost') if key in assigner]
    if len(costs) == 3:
        moved['train_cfg'] = dict(assigner=dict(match_costs=costs))
    return moved


def _differences(old: Any, new: Any, path: str) -> Iterator[str]:
    """The paths at which an old model differs from the new one; whole parts where the new one has none."""
    for key, value in old.items():
        if key in ('type', 'in_channels', 'class_weight', 'pretrained', 'norm_cfg') or key.endswith('_classes'):
            continue
        here, present = f'{path}.{key}', new.get(key) if isinstance(new, Mapping) else None
        if isinstance(value, Mapping) and isinstance(present, Mapping):
            yield from _differences(value, present, here)
        elif _is_list_of_dicts(value) and _is_list_of_dicts(present) and len(value) == len(present):
            for index, (one, other) in enumerate(zip(value, present, strict=True)):
                yield from _differences(one, other, f'{here}[{index}]')
        elif not same(value, present) and (present is not None or value not in (None, False, {}, 'mean')):
            yield brief(here, value)  # False and 'mean' are defaults


def _is_list_of_dicts(value: Any) -> TypeGuard[list]:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)
