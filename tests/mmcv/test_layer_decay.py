"""CustomLayerDecayOptimizerConstructor against the groups of the official one."""

from __future__ import annotations

import json
from typing import Any

import mmdet.utils
import mmengine.optim.optimizer.amp_optimizer_wrapper as amp
import mmseg.utils
import pytest
import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper, build_optim_wrapper
from mmengine.registry import DefaultScope
from torch import nn

import mmcv_custom.engine.layer_decay
from mmcv_custom import InternImage
from mmcv_custom.models.arch import PRESETS
from tests.support import DATA

GOLDEN = json.loads((DATA / 'layer_decay.json').read_text())
SMALL = dict(channels=16, depths=(1, 1, 2, 1), groups=(1, 2, 4, 8), core_op='DCNv3_pytorch')
LAST = 6  # layer of the head in a model with the backbone above


def make_model(head: dict[str, list[int]] | None = None, device: str = 'meta', **backbone: Any) -> nn.Module:
    """A model with a backbone, and parameters of any name and shape beside it."""
    model = nn.Module()
    with torch.device(device):
        model.backbone = InternImage(**(backbone or SMALL))
    for name, shape in (head or {}).items():
        *path, leaf = name.split('.')
        module = model
        for part in path:
            if part not in dict(module.named_children()):
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        module.register_parameter(leaf, nn.Parameter(torch.empty(shape, device=device)))
    return model


def build(model: nn.Module, lr: float = 1e-4, weight_decay: float = 0.05, **paramwise_cfg: Any) -> OptimWrapper:
    return build_optim_wrapper(
        model,
        dict(
            constructor='CustomLayerDecayOptimizerConstructor',
            optimizer=dict(type='AdamW', lr=lr, weight_decay=weight_decay),
            paramwise_cfg={'layer_decay_rate': 0.5, **paramwise_cfg},
        ),
    )


def groups_by_param(wrapper: OptimWrapper) -> dict[str, dict]:
    return {name: group for group in wrapper.optimizer.param_groups for name in group['param_names']}


@pytest.mark.parametrize('told', [True, False], ids=['depths given', 'depths from the model'])
@pytest.mark.parametrize('case', GOLDEN['cases'].values(), ids=list(GOLDEN['cases']))
def test_equals_official_groups(case: dict, told: bool) -> None:
    model = make_model(GOLDEN['head_shapes'], arch='tiny')
    options = case['paramwise_cfg'] if told else {'layer_decay_rate': case['paramwise_cfg']['layer_decay_rate']}
    wrapper = build(model, case['lr'], case['weight_decay'], **options)

    columns = ('group_name', 'lr_scale', 'lr', 'weight_decay')
    expected = [dict(zip(GOLDEN['columns'], row, strict=True)) for row in case['groups']]
    assert [[g[c] for c in columns] for g in wrapper.optimizer.param_groups] == [
        [e[c] for c in columns] for e in expected
    ]
    assert {g['group_name']: g['param_names'] for g in wrapper.optimizer.param_groups} == GOLDEN['params']
    parameters = dict(model.named_parameters())
    for row, group in zip(expected, wrapper.optimizer.param_groups, strict=True):
        assert all(parameters[n] is p for n, p in zip(group['param_names'], group['params'], strict=True))
        names = [name for name in group['param_names'] if name.startswith('backbone.')]
        assert all(model.backbone.get_layer_depth(name, 'backbone.') == (row['layer_id'], 32) for name in names)


@pytest.mark.parametrize('arch', PRESETS)
def test_every_preset_has_a_layer_for_every_parameter(arch: str) -> None:
    model = make_model({'head.weight': [2, 2]}, arch=arch)
    groups = groups_by_param(build(model, layer_decay_rate=0.9))
    assert sorted(groups) == sorted(name for name, _ in model.named_parameters())
    num_layers = sum(PRESETS[arch].depths) + 2
    layers = {int(group['group_name'].split('_')[1]) for group in groups.values()}
    assert layers == set(range(num_layers))
    for group in groups.values():
        assert group['lr_scale'] == 0.9 ** (num_layers - 1 - int(group['group_name'].split('_')[1]))


@pytest.mark.parametrize(
    'name, layer',
    [
        ('patch_embed.conv1.weight', 0),
        ('levels.0.blocks.0.dcn.offset.weight', 1),
        ('levels.0.blocks.5.mlp.fc1.weight', 6),
        ('levels.0.downsample.conv.weight', 7),
        ('levels.0.norm.0.weight', 7),
        ('levels.1.blocks.0.dcn.center_feature_scale_proj_weight', 7),
        ('levels.1.downsample.norm.1.bias', 13),
        ('levels.2.blocks.31.res_post_norm1.0.weight', 44),
        ('levels.2.norm.0.weight', 45),
        ('levels.2.post_norms.4.0.weight', 17),  # after block 29, yet counted with block 4
        ('levels.3.blocks.5.mlp.fc2.weight', 50),
        ('levels.3.norm.0.weight', 45),  # after the last block, yet counted with the first of its stage
    ],
)
def test_layers_of_huge(name: str, layer: int) -> None:
    group = groups_by_param(build(make_model(arch='huge')))[f'backbone.{name}']
    assert group['group_name'].startswith(f'layer_{layer}_')
    assert group['lr_scale'] == 0.5 ** (51 - layer)


@pytest.mark.parametrize(
    'name, shape, decayed',
    [
        ('backbone.levels.0.blocks.0.dcn.dw_conv.0.weight', None, True),
        ('backbone.levels.0.blocks.0.dcn.mask.weight', None, True),
        ('backbone.levels.0.blocks.0.dcn.mask.bias', None, False),
        ('backbone.levels.0.blocks.0.gamma1', None, False),
        ('backbone.levels.0.downsample.norm.1.weight', None, False),
        ('head.fc.weight', [2, 2], True),
        ('head.fc.bias', [2, 2], False),
        ('head.norm.weight', [2, 2], False),
        ('head.relative_position_bias_table', [2, 2], False),
        ('head.sampling_offsets.weight', [2, 2], False),
        ('head.reference_points.weight', [2, 2], True),
    ],
)
def test_weight_decay(name: str, shape: list[int] | None, decayed: bool) -> None:
    group = groups_by_param(build(make_model({name: shape} if shape else None)))[name]
    assert group['weight_decay'] == (0.05 if decayed else 0.0)
    assert ('no_decay' in group['group_name']) is not decayed


OFFSETS, POINTS = 'encoder.layers.0.self_attn.sampling_offsets.weight', 'decoder.reference_points_fc.weight'
PIXEL_DECODER = 'decode_head.pixel_decoder.encoder.layers.0.self_attn.sampling_offsets.weight'


@pytest.mark.parametrize(
    'name, options, layer, scale, suffix',
    [
        # the heads of mmdet 3
        (OFFSETS, {}, LAST, 1.0, '_offset_lr_scale'),
        (OFFSETS, {'offset_lr_scale': 0.3}, LAST, 0.3, '_offset_lr_scale'),
        (POINTS, {'offset_lr_scale': 0.3}, LAST, 0.3, '_offset_lr_scale'),
        (POINTS, {'offset_lr_scale': 0.3, 'dino_head': True}, LAST, 0.1, '_0.1x'),
        (OFFSETS, {'dino_head': True}, LAST, 0.1, '_0.1x'),
        ('level_embed', {'dino_head': True}, 0, 0.5**6, ''),
        ('query_embedding.weight', {'dino_head': True, 'offset_lr_scale': 0.3}, LAST, 1.0, ''),
        ('dn_query_generator.label_embedding.weight', {}, LAST, 1.0, ''),
        # Mask2Former of mmseg 1
        ('decode_head.level_embed.weight', {}, 0, 0.5**6, ''),
        ('decode_head.mask_embed.0.weight', {}, 0, 0.5**6, ''),
        ('decode_head.cls_embed.weight', {}, 0, 0.5**6, ''),
        ('decode_head.query_embed.weight', {}, 0, 0.5**6, ''),
        ('decode_head.query_feat.weight', {}, 0, 0.5**6, ''),
        ('decode_head.pixel_decoder.level_encoding.weight', {}, LAST, 1.0, ''),
        ('panoptic_head.query_embed.weight', {}, LAST, 1.0, ''),
        (PIXEL_DECODER, {'offset_lr_scale': 0.3}, LAST, 1.0, ''),
        (PIXEL_DECODER, {'dino_head': True}, LAST, 0.1, '_0.1x'),
        # the backbone
        ('backbone.levels.0.blocks.0.dcn.offset.weight', {'offset_lr_scale': 0.3, 'dino_head': True}, 1, 0.5**5, ''),
        ('backbone.levels.0.blocks.0.dcn.offset.weight', {'backbone_small_lr': True}, 1, 0.5**5 * 0.1, ''),
        ('neck.conv.weight', {'backbone_small_lr': True}, LAST, 1.0, ''),
        ('level_embed', {'backbone_small_lr': True}, 0, 0.5**6 * 0.1, ''),
    ],
)
def test_options_and_head_names(name: str, options: dict, layer: int, scale: float, suffix: str) -> None:
    wrapper = build(make_model(None if name.startswith('backbone.') else {name: [2, 2]}), **options)
    group = groups_by_param(wrapper)[name]
    decay = 'no_decay' if 'sampling_offsets' in name else 'decay'
    assert (group['group_name'], group['lr_scale']) == (f'layer_{layer}_{decay}{suffix}', scale)
    assert group['lr'] == scale * 1e-4


def test_custom_keys_come_on_top_and_the_longest_wins() -> None:
    head = {'head.fc.weight': [2, 2], 'head.fc.bias': [2], 'neck.weight': [2, 2]}
    keys = {
        'backbone.levels.0': dict(lr_mult=0.5, decay_mult=2.0),
        'backbone.levels.0.blocks.0.mlp': dict(lr_mult=4.0),
        'head': dict(lr_mult=10.0, decay_mult=0.5),
    }
    groups = groups_by_param(build(make_model(head), custom_keys=keys))
    plain = groups_by_param(build(make_model(head)))

    def factors(name: str) -> tuple[float, float]:
        new, old = groups[name], plain[name]
        decay = new['weight_decay'] / old['weight_decay'] if old['weight_decay'] else new['weight_decay']
        return new['lr'] / old['lr'], decay

    assert factors('backbone.levels.0.blocks.0.dcn.mask.weight') == (0.5, 2.0)
    assert factors('backbone.levels.0.blocks.0.mlp.fc1.weight') == (4.0, 1.0)
    assert factors('backbone.levels.1.blocks.0.mlp.fc1.weight') == (1.0, 1.0)
    assert factors('head.fc.weight') == (pytest.approx(10.0), 0.5)
    assert factors('head.fc.bias') == (pytest.approx(10.0), 0.0)
    assert factors('neck.weight') == (1.0, 1.0)
    assert groups['neck.weight']['group_name'] == 'layer_6_decay'
    assert groups['head.fc.weight']['group_name'] == 'layer_6_decay_custom_head'


@pytest.mark.parametrize(
    'options, message',
    [
        ({'layer_decay_rat': 0.9}, "unknown option 'layer_decay_rat'; known are layer_decay_rate, num_layers"),
        ({'norm_decay_mult': 0.0}, "unknown option 'norm_decay_mult'"),
        ({'custom_keys': {'head': {'lr': 1}}}, r"custom_keys\['head'\] holds the unknown option 'lr'"),
        ({'layer_decay_rate': 0.0}, r'layer_decay_rate must lie in \(0, 1\], got 0.0'),
        ({'layer_decay_rate': 1.1}, r'layer_decay_rate must lie in \(0, 1\], got 1.1'),
        ({'num_layers': 6}, 'num_layers=6, but the backbone has 5 blocks'),
        ({'depths': [1, 1, 3, 1]}, r'depths=\(1, 1, 3, 1\) are 6 blocks, but the backbone has 5'),
        ({'depths': [1, 2, 1, 1]}, r'depths=\(1, 2, 1, 1\), but the backbone has \(1, 1, 2, 1\)'),
        ({'backbone_prefix': 'backbone'}, "backbone_prefix must end with a dot or be empty, got 'backbone'"),
        ({'backbone_prefix': 'encoder.'}, "backbone_prefix='encoder.' names no module of the model: backbone, neck"),
        ({'backbone_prefix': 'neck.'}, 'Module has no get_layer_depth, so paramwise_cfg must hold depths'),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(make_model({'neck.weight': [2, 2]}), **options)


@pytest.mark.parametrize('optimizer', [dict(type='AdamW', lr=0.1), dict(type='AdamW', weight_decay=0.1)])
def test_optimizer_needs_lr_and_weight_decay(optimizer: dict) -> None:
    cfg = dict(constructor='CustomLayerDecayOptimizerConstructor', optimizer=optimizer)
    with pytest.raises(ValueError, match='optimizer must hold lr and weight_decay'):
        build_optim_wrapper(make_model(), cfg | dict(paramwise_cfg=dict(layer_decay_rate=1.0)))


@pytest.mark.parametrize('paramwise_cfg', [None, {}, {'num_layers': 5}])
def test_rate_is_required(paramwise_cfg: dict | None) -> None:
    optimizer = dict(type='AdamW', lr=0.1, weight_decay=0.1)
    cfg = dict(constructor='CustomLayerDecayOptimizerConstructor', optimizer=optimizer, paramwise_cfg=paramwise_cfg)
    with pytest.raises(ValueError, match='paramwise_cfg must hold layer_decay_rate'):
        build_optim_wrapper(make_model(), cfg)


def test_matching_depths_are_accepted() -> None:
    told = build(make_model(), num_layers=5, depths=[1, 1, 2, 1])
    assert [g['lr'] for g in told.optimizer.param_groups] == [
        g['lr'] for g in build(make_model()).optimizer.param_groups
    ]


@pytest.mark.parametrize('prefix', ['', 'model.', 'model.teacher.'])
def test_backbone_prefix(prefix: str) -> None:
    model = make_model().backbone
    for name in reversed(prefix.split('.')[:-1]):
        outer = nn.Module()
        outer.add_module(name, model)
        model = outer
    found = groups_by_param(build(model, backbone_prefix=prefix))
    plain = groups_by_param(build(make_model()))
    assert {name.removeprefix(prefix): group['group_name'] for name, group in found.items()} == {
        name.removeprefix('backbone.'): group['group_name'] for name, group in plain.items()
    }


def test_depths_serve_a_backbone_that_cannot_tell() -> None:
    model = make_model({'head.weight': [2, 2]})
    plain = {name: group['group_name'] for name, group in groups_by_param(build(model)).items()}
    mute = nn.Module()
    mute.patch_embed, mute.levels = model.backbone.patch_embed, model.backbone.levels
    model.backbone = mute
    found = groups_by_param(build(model, depths=[1, 1, 2, 1]))
    assert {name: group['group_name'] for name, group in found.items()} == plain
    with pytest.raises(ValueError, match='num_layers=6, but the backbone has 5 blocks'):
        build(model, depths=[1, 1, 2, 1], num_layers=6)


def test_wrapped_model() -> None:
    model = make_model(device='cpu')
    assert groups_by_param(build(nn.DataParallel(model))).keys() == groups_by_param(build(model)).keys()


def test_frozen_parameters_are_left_out() -> None:
    model = make_model(frozen_stages=1, **SMALL)
    names = groups_by_param(build(model)).keys()
    assert not any(name.startswith(('backbone.patch_embed', 'backbone.levels.0')) for name in names)
    assert names == {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_shared_parameters_come_once() -> None:
    model = make_model({'head.a.weight': [2, 2], 'head.b.weight': [2, 2]})
    assert {'head.a.weight', 'head.b.weight'} <= groups_by_param(build(model)).keys()
    model.head.b.weight = model.head.a.weight
    wrapper = build(model)
    assert 'head.b.weight' not in groups_by_param(wrapper)
    parameters = [parameter for group in wrapper.optimizer.param_groups for parameter in group['params']]
    assert len(parameters) == len(set(map(id, parameters))) == len(list(model.parameters()))


@pytest.mark.parametrize('options', [{}, {'fused': True}, {'foreach': True}], ids=str)
@pytest.mark.parametrize('wrapper_type', ['OptimWrapper', 'AmpOptimWrapper'])
def test_wrappers_and_optimizers(wrapper_type: str, options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amp, 'is_cuda_available', lambda: True)  # which AmpOptimWrapper insists on
    model = make_model(device='cpu')
    cfg = dict(
        type=wrapper_type,
        constructor='CustomLayerDecayOptimizerConstructor',
        optimizer=dict(type='AdamW', lr=0.01, weight_decay=0.0, **options),
        paramwise_cfg=dict(layer_decay_rate=0.5),
    )
    wrapper = build_optim_wrapper(model, cfg)
    assert isinstance(wrapper, {'OptimWrapper': OptimWrapper, 'AmpOptimWrapper': AmpOptimWrapper}[wrapper_type])
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    wrapper.optimizer.step()
    groups = groups_by_param(wrapper)
    for name, parameter in model.named_parameters():  # the first step of Adam is the learning rate
        torch.testing.assert_close(before[name] - parameter, torch.full_like(parameter, groups[name]['lr']))

    again = build_optim_wrapper(model, cfg)
    again.load_state_dict(wrapper.state_dict())
    assert groups_by_param(again).keys() == groups.keys()


@pytest.mark.parametrize('scope, register', [('mmdet', mmdet.utils), ('mmseg', mmseg.utils)], ids=['mmdet', 'mmseg'])
def test_bare_name_is_found_in_scope(scope: str, register: Any) -> None:
    register.register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope(scope):
        assert groups_by_param(build(make_model())).keys() == groups_by_param(build(make_model())).keys()
        with pytest.raises(KeyError, match='NoSuchConstructor'):
            build_optim_wrapper(make_model(), dict(constructor='NoSuchConstructor', optimizer=dict(type='AdamW')))


@pytest.mark.parametrize('main', [True, False])
def test_one_table_from_the_main_process(main: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[str] = []
    monkeypatch.setattr(mmcv_custom.engine.layer_decay, 'is_main_process', lambda: main)
    monkeypatch.setattr(mmcv_custom.engine.layer_decay, 'print_log', lambda text, *_: printed.append(text))
    wrapper = build(make_model({'head.weight': [2, 2]}, frozen_stages=0, **SMALL))
    assert len(printed) == main
    if main:
        title, header, *rows = printed[0].splitlines()
        assert title == f'{len(rows)} parameter groups; 8 frozen tensors are left out'
        assert header.split() == ['group', 'lr', 'scale', 'lr', 'decay', 'tensors', 'parameters']
        assert [row.split()[0] for row in rows] == [group['group_name'] for group in wrapper.optimizer.param_groups]
        assert rows[-1].split() == ['layer_6_decay', '1', '0.0001', '0.05', '1', '4']
