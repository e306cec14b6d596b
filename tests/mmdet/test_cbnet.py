"""The composite backbone, its neck and its detector: equality with the published ones, and their contracts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmcv_custom import InternImage
from mmdet_custom import CBChannelMapper, CBInternImage
from tests.mmdet.detectors import build_dino, make_samples, without_gradient
from tests.support import golden_weights, load_tensors

NECK = dict(in_channels=[32, 64, 128], kernel_size=1, out_channels=64, num_outs=4)
NECK |= dict(type='CBChannelMapper', act_cfg=None, norm_cfg=dict(type='GN', num_groups=32))
TINY = dict(channels=16, depths=[1, 1, 2, 1], groups=[1, 2, 4, 8])


def tiny(**options: Any) -> CBInternImage:
    """A backbone whose second module listens to the first."""
    model = MODELS.build(dict(type='CBInternImage', **(TINY | options)))
    with torch.no_grad():
        for stage in range(4):
            getattr(model.cb_modules[1], f'gamma{stage}').normal_()
    return model


def build_cb_dino(**changes: Any) -> Any:
    """A detector without what is random in training, but for noise too small to matter."""
    quiet = {'backbone.type': 'CBInternImage', 'backbone.drop_path_rate': 0.0, 'neck': [NECK]}
    quiet |= {'dn_cfg.label_noise_scale': 1e-6, 'dn_cfg.box_noise_scale': 1e-9}
    model = build_dino('CBDINO', **(quiet | changes))
    with torch.no_grad():
        for stage in range(4):
            getattr(model.backbone.cb_modules[1], f'gamma{stage}').normal_()
    return model


def golden_model(golden: dict[str, torch.Tensor], half_gammas: bool) -> nn.Module:
    backbone = dict(type='CBInternImage', arch='huge', half_gammas=half_gammas)
    backbone |= TINY | dict(depths=[1, 1, 3, 1], level2_post_norm_block_ids=[0, 2])
    model = nn.ModuleDict(dict(backbone=MODELS.build(backbone), neck=MODELS.build([NECK]))).eval()
    model.load_state_dict(golden_weights(golden))
    return model


def largest_error(model: nn.Module, golden: dict[str, torch.Tensor]) -> list[float]:
    """Of the features of the first and of the second module, and of the neck's."""
    with torch.no_grad():
        features = model.backbone(golden['img'])
        parts = {'feats/0': features[0], 'feats/1': features[1], 'neck': model.neck(features)}
    return [
        max((tensor - golden[f'{part}/{level}']).abs().max().item() for level, tensor in enumerate(tensors))
        for part, tensors in parts.items()
    ]


def test_golden():
    golden = load_tensors('cb_backbone_tiny')
    assert max(largest_error(golden_model(golden, half_gammas=True), golden)) < 1e-4


def test_factors_are_exact_by_default():
    """The published features are those of rounded factors, and of nothing else."""
    golden = load_tensors('cb_backbone_tiny')
    model = golden_model(golden, half_gammas=False)
    first, second, neck = largest_error(model, golden)
    assert first < 1e-4 < 5e-4 < second < 2e-3 and neck > 5e-4
    lead = model.backbone.cb_modules[1]
    for stage in range(4):
        gamma = getattr(lead, f'gamma{stage}').data
        gamma.copy_(gamma.half())
    assert max(largest_error(model, golden)) < 1e-4


@pytest.mark.parametrize('size', [(64, 96), (33, 65), (70, 50)])
def test_any_image_size(size):
    with torch.no_grad():
        first, second = tiny(out_indices=(0, 2, 3))(torch.rand(2, 3, *size))
    expected = InternImage(out_indices=(0, 2, 3), **TINY)(torch.rand(2, 3, *size))
    assert [f.shape for f in first] == [f.shape for f in second] == [f.shape for f in expected]
    assert all(feature.is_contiguous() for feature in first + second)


def test_begins_as_two_separate_backbones():
    model = CBInternImage(**TINY).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        features = model(image)
        for module, expected in zip(model.cb_modules, features, strict=True):
            weights = {name: value for name, value in module.state_dict().items() if not name.startswith('gamma')}
            stem = {f'patch_embed.{k}': v for k, v in model.cb_modules[0].patch_embed.state_dict().items()}
            single = InternImage(out_indices=(1, 2, 3), **TINY).eval()
            single.load_state_dict(weights | stem)
            assert all(map(torch.equal, single(image), expected))


def test_each_stage_gets_features_of_the_same_and_the_later_ones():
    """Row i, column j of the connections brings stage i + j of the first to stage i of the second."""
    model = tiny(out_indices=(0, 1, 2, 3)).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        _, before = model(image)
        for row, linears in enumerate(model.cb_linears):
            assert isinstance(linears[0], nn.Identity) and len(linears) == 4 - row
            for column, linear in enumerate(linears[1:], start=1):
                width = model.arch.widths
                assert linear.weight.shape == (width[row], width[row + column], 1, 1)
                bias = linear.bias.clone()
                linear.bias.add_(1)
                changed = [not torch.equal(a, b) for a, b in zip(before, model(image)[1], strict=True)]
                assert changed == [stage >= row for stage in range(4)]
                linear.bias.copy_(bias)


@pytest.mark.parametrize('options', [dict(), dict(half_gammas=True), dict(with_cp=True)], ids=str)
def test_gradients_flow_through_both(options):
    model = tiny(drop_path_rate=0.0, **options).train()
    sum(feature.square().sum() for feature in model(torch.rand(2, 3, 64, 64))[1]).backward()
    assert without_gradient(model) == []
    assert all(parameter.grad.any() for parameter in model.cb_modules[0].patch_embed.parameters())


def test_checkpointing_gives_identical_gradients():
    gradients = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        model = tiny(with_cp=with_cp, drop_path_rate=0.5).train()
        sum(f.square().sum() for features in model(torch.ones(2, 3, 64, 64)) for f in features).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(map(torch.equal, *gradients))


@pytest.mark.parametrize('frozen_stages', [-1, 0, 2])
def test_frozen_stages(frozen_stages):
    model = tiny(frozen_stages=frozen_stages).train()
    sum(feature.sum() for features in model(torch.rand(1, 3, 64, 64)) for feature in features).backward()
    for name, parameter in model.named_parameters():
        top, _, part, *rest = name.split('.')
        inside = top == 'cb_modules' and not part.startswith('gamma')
        frozen = inside and (0 if part == 'patch_embed' else 1 + int(rest[0])) <= frozen_stages
        assert (parameter.grad is None) == frozen, name
    for module in model.cb_modules:
        assert [stage.training for stage in module.levels] == [index > frozen_stages for index in range(1, 5)]


def test_one_checkpoint_for_both(tmp_path):
    source = InternImage(**TINY)
    torch.save(source.state_dict(), tmp_path / 'backbone.pth')
    model = CBInternImage(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'backbone.pth')), **TINY)
    before = [parameter.clone() for parameter in model.cb_linears.parameters()]
    model.init_weights()
    for module in model.cb_modules:
        state = module.state_dict()
        shared = [name for name in source.state_dict() if name in state]
        assert len(shared) >= len(source.state_dict()) - 8  # tensors of the stem
        assert all(torch.equal(state[name], source.state_dict()[name]) for name in shared)
    assert not any(getattr(model.cb_modules[1], f'gamma{stage}').any() for stage in range(4))
    assert all(map(torch.equal, before, model.cb_linears.parameters()))


def test_layer_decay_leaves_the_backbone_at_the_full_rate():
    """The official rules know none of its names."""
    model = nn.ModuleDict(dict(backbone=CBInternImage(**TINY), neck=nn.Linear(2, 2)))
    paramwise = dict(num_layers=5, layer_decay_rate=0.5, depths=[1, 1, 2, 1], backbone_small_lr=True)
    optimizer = dict(type='AdamW', lr=1e-4, weight_decay=0.05)
    constructor = 'CustomLayerDecayOptimizerConstructor'
    wrapper = build_optim_wrapper(model, dict(constructor=constructor, optimizer=optimizer, paramwise_cfg=paramwise))
    groups = wrapper.optimizer.param_groups
    assert {group['lr_scale'] for group in groups} == {1.0}
    assert {name for group in groups for name in group['param_names']} == {name for name, _ in model.named_parameters()}
    undecayed = {name for group in groups if not group['weight_decay'] for name in group['param_names']}
    assert 'backbone.cb_modules.1.gamma0' in undecayed and 'backbone.cb_linears.0.1.weight' not in undecayed


def test_neck_maps_both_in_training_and_the_second_otherwise():
    neck = MODELS.build(NECK)
    features = tiny()(torch.rand(1, 3, 64, 64))
    both = neck.train()(features)
    second = neck.eval()(features)
    assert len(both) == 2 and all(map(torch.equal, both[1], second))
    assert not any(map(torch.equal, both[0], second))
    assert [tuple(feature.shape) for feature in second] == [(1, 64, side, side) for side in (8, 4, 2, 1)]


@pytest.mark.parametrize('objects', [[2], [1, 0, 4]], ids=['one image', 'three images'])
@pytest.mark.parametrize('weight', [0.5, 2.0])
def test_losses_are_those_of_two_detectors(objects, weight):
    model = build_cb_dino(assistant_loss_weight=weight).train()
    samples = make_samples([(96, 120 + index) for index in range(len(objects))], objects)
    images = torch.rand(len(objects), 3, 128, 160)
    losses = model.loss(images, samples)
    for prefix, factor, features in zip(('assistant.', ''), (weight, 1.0), model.extract_feat(images), strict=True):
        outputs = model.forward_transformer(features, samples)
        for name, expected in model.bbox_head.loss(**outputs, batch_data_samples=samples).items():
            torch.testing.assert_close(losses.pop(prefix + name), factor * expected, rtol=1e-4, atol=1e-5)
    assert losses == {}


@pytest.mark.parametrize('objects', [[2], [1, 0, 4], [0]], ids=str)
def test_training_reaches_every_parameter(objects):
    model = build_cb_dino().train()
    samples = make_samples([(128, 160)] * len(objects), objects)
    total, logged = model.parse_losses(model.loss(torch.rand(len(objects), 3, 128, 160), samples))
    assert total.isfinite() and total.item() == pytest.approx(sum(v.item() for k, v in logged.items() if k != 'loss'))
    total.backward()
    assert without_gradient(model) == []


def test_detects_by_the_second_module_alone(monkeypatch):
    model = build_cb_dino().eval()
    images = torch.rand(2, 3, 128, 160)
    results = []
    forward = model.backbone.forward
    for spoil in (0.0, torch.nan):
        spoiled = lambda x, by=spoil: ([feature + by for feature in forward(x)[0]], forward(x)[1])  # noqa: E731
        monkeypatch.setattr(model.backbone, 'forward', spoiled)
        with torch.no_grad():
            results.append(model.predict(images, make_samples([(128, 160), (96, 120)])))
    for clean, spoiled in zip(*results, strict=True):
        assert clean.pred_instances.scores.isfinite().all()
        assert torch.equal(clean.pred_instances.bboxes, spoiled.pred_instances.bboxes)
        assert torch.equal(clean.pred_instances.scores, spoiled.pred_instances.scores)


ERRORS = [
    (dict(out_indices=[(0, 1, 2, 3), (1, 2, 3)]), ValueError, r'out_indices must be ints, .*got \[\(0, 1, 2, 3\)'),
    (dict(out_indices=(1, 4)), ValueError, r'out_indices must be one or more of 0, 1, 2, 3, got \(1, 4\)'),
    (dict(out_indices=()), ValueError, 'out_indices must be one or more'),
    (dict(cb_zero_init=True), TypeError, "unknown keyword 'cb_zero_init'"),
    (dict(frozen_stages=7), ValueError, 'frozen_stages must be .* got 7'),
]


@pytest.mark.parametrize('options, error, message', ERRORS, ids=lambda value: str(value)[:40])
def test_errors(options, error, message):
    with pytest.raises(error, match=message):
        CBInternImage(**(TINY | options))


@pytest.mark.parametrize('sets', [1, 3], ids=['one set', 'three tensors'])
def test_neck_refuses_the_features_of_one_backbone(sets):
    neck = MODELS.build(NECK)
    assert isinstance(neck, CBChannelMapper)
    inputs = [[torch.rand(1, 32, 8, 8)]] if sets == 1 else [torch.rand(1, 32, 8, 8)] * 3
    with pytest.raises(ValueError, match=f'inputs must be the two sets of features of a CBInternImage, got {sets} of'):
        neck(inputs)


def test_detector_refuses_another_backbone():
    with pytest.raises(TypeError, match='backbone must be a CBInternImage, got InternImage'):
        build_dino('CBDINO')
