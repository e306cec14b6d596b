"""The backbone: equality with the published model, and its contracts."""

from __future__ import annotations

import gzip
import json
import warnings

import numpy as np
import pytest
import torch
from mmengine.analysis import get_model_complexity_info
from mmengine.registry import MODELS
from torch import Tensor, nn

from mmcv_custom import InternImage
from mmcv_custom.models.arch import PRESETS
from ops_dcnv3 import DCNv3
from tests.support import DATA, load_arrays

GOLDENS = sorted(path.stem for path in DATA.glob('backbone_*.npz'))
PUBLISHED_KEYS = json.loads(gzip.decompress((DATA / 'state_dict_keys.json.gz').read_bytes()))
PUBLISHED_PARAMETERS = dict(
    tiny=28769520, small=48502560, base=94909920, large=218952370, xlarge=328971228, huge=1073122480, giant=3052781184
)

TINY = dict(channels=16, depths=[1, 1, 2, 1], groups=[1, 2, 4, 8])


def tiny(**options) -> InternImage:
    torch.manual_seed(0)
    return InternImage(**(TINY | options))


def golden_model(golden: dict[str, np.ndarray], dtype: torch.dtype, **options) -> InternImage:
    config = json.loads(str(golden['config']))
    model = InternImage(**config, **options).eval()
    weights = {key[3:]: torch.from_numpy(value) for key, value in golden.items() if key.startswith('sd/')}
    assert list(model.state_dict()) == list(weights)
    model.load_state_dict(weights)
    return model.to(dtype)


@pytest.mark.parametrize('core_op', ['DCNv3', 'DCNv3_pytorch'])
@pytest.mark.parametrize('name', GOLDENS)
def test_golden_float64(name, core_op):
    golden = load_arrays(name)
    model = golden_model(golden, torch.float64, core_op=core_op)
    intermediate = {}
    for part in ('patch_embed', 'levels.0.blocks.0.dcn'):
        hook = lambda module, args, output, part=part: intermediate.update({part: output.detach()})  # noqa: E731
        model.get_submodule(part).register_forward_hook(hook)
    x = torch.from_numpy(golden['x']).double().requires_grad_()
    outputs = model(x)
    block = model.levels[0].blocks[0]
    for part, value in intermediate.items():
        expected = torch.from_numpy(golden[f'mid64/{part}'])
        if part.endswith('dcn') and block.gamma1 is not None and not block.post_norm:
            expected = block.gamma1 * expected  # the official block scales what the layer returns, ours has it scaled
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-9)
    for index, output in enumerate(outputs):
        torch.testing.assert_close(output, torch.from_numpy(golden[f'out64/{index}']), rtol=0, atol=1e-9)
    sum((output * golden_tensor(golden, f'grad_out/{i}', x)).sum() for i, output in enumerate(outputs)).backward()
    torch.testing.assert_close(x.grad, torch.from_numpy(golden['grad_x']), rtol=0, atol=1e-9)
    parameters = dict(model.named_parameters())
    assert list(parameters) == golden['param_names'].tolist()
    for key, norm, total in zip(golden['param_names'], golden['param_grad_l2'], golden['param_grad_sum'], strict=True):
        grad = parameters[key].grad
        assert (grad is None) == np.isnan(norm), key
        if grad is not None:
            np.testing.assert_allclose([grad.norm().item(), grad.sum().item()], [norm, total], rtol=1e-9, atol=1e-9)


def golden_tensor(golden: dict[str, np.ndarray], key: str, like: Tensor) -> Tensor:
    return torch.from_numpy(golden[key]).to(like)


@pytest.mark.parametrize('core_op', ['DCNv3', 'DCNv3_pytorch'])
@pytest.mark.parametrize('name', GOLDENS)
def test_golden_float32(name, core_op):
    golden = load_arrays(name)
    model = golden_model(golden, torch.float32, core_op=core_op)
    x = torch.from_numpy(golden['x']).requires_grad_()
    outputs = model(x)
    for index, output in enumerate(outputs):
        torch.testing.assert_close(output.double(), torch.from_numpy(golden[f'out64/{index}']), rtol=0, atol=1e-4)
    sum((output * golden_tensor(golden, f'grad_out/{i}', x)).sum() for i, output in enumerate(outputs)).backward()
    expected = torch.from_numpy(golden['grad_x'])
    assert (x.grad - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize('stages', [1, 2, 3])
@pytest.mark.parametrize('name', GOLDENS)
def test_fewer_stages_give_the_same_features(name: str, stages: int) -> None:
    """As in the official class: a stage's features depend on the stages before it only."""
    golden = load_arrays(name)
    config = json.loads(str(golden['config']))
    config.update(depths=config['depths'][:stages], groups=config['groups'][:stages], out_indices=range(stages))
    if stages < 3 and config.get('level2_post_norm'):
        config.update(level2_post_norm=False, level2_post_norm_block_ids=None)
    model = InternImage(**config).eval().double()
    weights = {key[3:]: torch.from_numpy(value) for key, value in golden.items() if key.startswith('sd/')}
    model.load_state_dict({key: weights[key] for key in model.state_dict()})
    with torch.no_grad():
        outputs = model(torch.from_numpy(golden['x']).double())
    assert len(outputs) == stages and model.levels[-1].downsample is None
    for index, output in enumerate(outputs):
        torch.testing.assert_close(output, torch.from_numpy(golden[f'out64/{index}']), rtol=0, atol=1e-9)


def test_layers_and_freezing_of_fewer_stages() -> None:
    model = tiny(depths=[1, 2, 2], groups=[1, 2, 4], frozen_stages=3)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    layers = {name: model.get_layer_depth(name)[0] for name, _ in model.named_parameters()}
    assert sorted(set(layers.values())) == [0, 1, 2, 3, 4, 5]
    assert layers['levels.0.downsample.conv.weight'] == 2  # the first block of the next stage
    assert layers['levels.2.norm.0.weight'] == 4  # after the last stage, its own first block


def test_goldens_tell_wrong_details():
    """The data separates what is easily got wrong: the epsilon of the norms and the exact GELU."""
    golden = load_arrays('backbone_t_like')
    for change in ('eps', 'gelu'):
        model = golden_model(golden, torch.float64)
        for module in model.modules():
            if change == 'eps' and isinstance(module, nn.LayerNorm):
                module.eps = 1e-5
            if change == 'gelu' and isinstance(module, nn.GELU):
                module.approximate = 'tanh'
        with torch.no_grad():
            outputs = model(torch.from_numpy(golden['x']).double())
        assert max((o - torch.from_numpy(golden[f'out64/{i}'])).abs().max() for i, o in enumerate(outputs)) > 1e-5


@pytest.mark.parametrize('arch', PRESETS)
def test_state_dict_is_the_published_one(arch):
    with torch.device('meta'):
        model = InternImage(arch)
    assert [[name, list(tensor.shape)] for name, tensor in model.state_dict().items()] == PUBLISHED_KEYS[arch]
    assert sum(p.numel() for p in model.parameters()) == PUBLISHED_PARAMETERS[arch]


def test_explicit_keywords_replace_the_preset():
    assert tiny().arch == InternImage('tiny', **TINY).arch
    model = tiny(layer_scale=None)
    assert model.arch.layer_scale is None and model.arch.channels == 16
    with torch.device('meta'):
        large = InternImage('large', depths=[1, 1, 1, 1], offset_scale=1.0)
    assert large.arch.offset_scale == 1.0 and large.arch.channels == 160 and large.arch.post_norm
    assert len(large.levels[2].blocks) == 1


def test_registered_for_every_scope():
    for name in ('InternImage', 'mmengine.InternImage'):
        assert isinstance(MODELS.build(dict(type=name, **TINY)), InternImage)
    for scope in ('mmdet', 'mmseg'):
        __import__(f'{scope}.registry')
        child = __import__(f'{scope}.registry', fromlist=['MODELS']).MODELS
        assert isinstance(child.build(dict(type='InternImage', **TINY)), InternImage)


@pytest.mark.parametrize('out_indices', [(0, 1, 2, 3), (1, 3), (2,)])
def test_feature_shapes(out_indices):
    outputs = tiny(out_indices=out_indices)(torch.rand(2, 3, 64, 96))
    assert [tuple(o.shape) for o in outputs] == [(2, 16 * 2**i, 16 // 2**i, 24 // 2**i) for i in out_indices]


@pytest.mark.parametrize('size', [(33, 65), (70, 50), (32, 32)])
def test_any_image_size(size):
    outputs = tiny()(torch.rand(1, 3, *size))
    sizes = list(size)
    for _ in range(2):
        sizes = [(s + 1) // 2 for s in sizes]
    for output in outputs:
        assert list(output.shape[2:]) == sizes
        sizes = [(s + 1) // 2 for s in sizes]


def test_train_returns_the_model():
    model = tiny()
    assert model.train() is model and model.training
    assert model.eval() is model and not model.training


@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 2, 3, 4])
def test_frozen_stages(frozen_stages):
    model = tiny(frozen_stages=frozen_stages, norm_layer='BN').train()
    sum(output.sum() for output in model(torch.rand(2, 3, 64, 64, requires_grad=True))).backward()
    for index, part in enumerate([model.patch_embed, *model.levels]):
        frozen = index <= frozen_stages
        assert all(p.requires_grad != frozen and (p.grad is None) == frozen for p in part.parameters())
        assert all(module.training != frozen for module in part.modules())


@pytest.mark.parametrize('options', [{}, dict(frozen_stages=1), dict(post_norm=True)], ids=str)
def test_checkpointing_gives_identical_gradients(options):
    """Drop path included: the recomputation draws the same random numbers."""
    grads = []
    for with_cp in (False, True):
        model = tiny(with_cp=with_cp, drop_path_rate=0.5, **options).train()
        torch.manual_seed(1)
        sum(output.square().sum() for output in model(torch.ones(2, 3, 64, 64))).backward()
        grads.append({name: p.grad for name, p in model.named_parameters()})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        assert (grad is None) == (grads[1][name] is None)
        assert grad is None or torch.equal(grad, grads[1][name]), name


def test_checkpointing_recomputes(monkeypatch):
    calls = []
    forward = DCNv3.forward
    monkeypatch.setattr(DCNv3, 'forward', lambda self, x, **options: calls.append(1) or forward(self, x, **options))
    for with_cp, expected in ((False, 5), (True, 10)):
        calls.clear()
        tiny(with_cp=with_cp)(torch.rand(1, 3, 32, 32))[-1].sum().backward()
        assert len(calls) == expected
    calls.clear()
    with torch.no_grad():
        tiny(with_cp=True)(torch.rand(1, 3, 32, 32))
    assert len(calls) == 5


@pytest.mark.parametrize('name', ['dcn', 'mlp', 'norm1', 'mlp.fc2', 'dcn.output_proj'])
@pytest.mark.parametrize('options', [{}, {'post_norm': True}, {'layer_scale': None}])
def test_layers_may_be_replaced_by_ones_that_know_no_scale(name, options):
    model, x = tiny(**options).eval(), torch.rand(1, 3, 64, 64)
    expected = model(x)
    for block in model.levels[0].blocks:
        block.set_submodule(name, nn.Sequential(block.get_submodule(name), nn.Identity()))
    for ours, theirs in zip(model(x), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize('options', [{}, {'post_norm': True}])
@pytest.mark.parametrize('size', [32, 160])
def test_residuals_are_added_in_float32_under_autocast(options, size):
    dtypes = set()
    model = tiny(**options).eval()
    for level in model.levels:
        for block in level.blocks:
            block.register_forward_hook(lambda module, args, output: dtypes.add(output.dtype))
    with torch.autocast('cpu', torch.bfloat16):
        model(torch.rand(1, 3, size, size))
    assert dtypes == {torch.float32}


def test_init_weights_keeps_offsets_and_masks_at_zero():
    model = tiny()
    model.init_weights()
    layers = [module for module in model.modules() if isinstance(module, DCNv3)]
    assert len(layers) == 5
    for layer in layers:
        assert not any(p.any() for p in (*layer.offset.parameters(), *layer.mask.parameters()))
        assert layer.input_proj.weight.std() > 0.05  # Xavier, not the MLPs' 0.02
    weight = model.levels[3].blocks[0].mlp.fc1.weight
    assert 0.019 < weight.std() < 0.021


def test_drop_path_rates():
    rates = lambda model: [getattr(b.drop_path, 'drop_prob', 0.0) for s in model.levels for b in s.blocks]  # noqa: E731
    np.testing.assert_allclose(rates(tiny(drop_path_rate=0.4)), [0, 0.1, 0.2, 0.3, 0.4], atol=1e-7)
    np.testing.assert_allclose(rates(tiny(drop_path_rate=0.4, drop_path_type='uniform')), [0.4] * 5, atol=1e-7)
    assert rates(tiny(drop_path_rate=0.0)) == [0] * 5


@pytest.mark.parametrize('arch', ['tiny', 'huge'])
def test_layer_depths_cover_the_backbone(arch):
    with torch.device('meta'):
        model = InternImage(arch)
    depths = {name: model.get_layer_depth(f'backbone.{name}', 'backbone.') for name, _ in model.named_parameters()}
    layers = sum(model.arch.depths) + 2
    assert {count for _, count in depths.values()} == {layers}
    assert {depth for depth, _ in depths.values()} == set(range(layers - 1))
    assert model.get_layer_depth('neck.conv.weight', 'backbone.') == (layers - 1, layers)
    with pytest.raises(ValueError, match="must begin with patch_embed. .*'neck.conv.weight'"):
        model.get_layer_depth('neck.conv.weight')


def test_complexity_follows_the_official_rule():
    """Official: 4.87G at 224x224, of convolutions, linear layers and DCNv3; MMEngine counts the norms too."""
    model = InternImage('tiny').eval()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        info = get_model_complexity_info(model, (3, 224, 224), show_table=False, show_arch=False)
    norms = 5 * sum(  # MMEngine's count per normalised number
        size * channels * number
        for size, channels, number in (
            (112 * 112, 32, 1),
            (56 * 56, 64, 1 + 3 * 4 + 1),
            (28 * 28, 128, 1 + 3 * 4 + 1),
            (14 * 14, 256, 1 + 3 * 18 + 1),
            (7 * 7, 512, 1 + 3 * 4 + 1),
        )
    )
    assert info['flops'] - norms == 4865064960


ERRORS = [
    (dict(depth=[1, 1, 1, 1]), TypeError, "unknown keyword 'depth'.*depths"),
    (dict(arch='nano'), ValueError, "arch must be one of tiny, .*got 'nano'"),
    (dict(depths=[1, 1, 1]), ValueError, r'groups must have one entry per stage, 3 .*\(1, 1, 1\).*got \(1, 2, 4, 8\)'),
    (dict(groups=[1, 2, 4]), ValueError, r'groups must have one entry per stage, 4 .*got \(1, 2, 4\)'),
    (dict(depths=[]), ValueError, r'depths must be positive ints, one per stage, got \[\]'),
    (dict(depths=[1, 0, 1, 1]), ValueError, r'depths must be positive ints, .*got \[1, 0, 1, 1\]'),
    (dict(depths=[1], groups=[1], frozen_stages=2), ValueError, 'frozen_stages must be -1, 0 or 1, got 2'),
    (dict(depths=[1, 1], groups=[1, 2], out_indices=(0, 2)), ValueError, r'one or more of 0, 1, got \(0, 2\)'),
    (
        dict(depths=[1, 1], groups=[1, 2], level2_post_norm=True, level2_post_norm_block_ids=[0]),
        ValueError,
        r'level2_post_norm needs three stages or more, got depths=\(1, 1\)',
    ),
    (dict(groups=[3, 2, 4, 8]), ValueError, 'must divide the widths'),
    (dict(depths=4), ValueError, 'depths must be positive ints, one per stage, got 4'),
    (dict(mlp_ratio=0), ValueError, 'mlp_ratio must be positive, got 0'),
    (dict(channels=15), ValueError, 'channels must be even and positive.*got 15'),
    (dict(core_op='DCNv4'), ValueError, "core_op must be one of DCNv3, DCNv3_pytorch, got 'DCNv4'"),
    (dict(norm_layer='GN'), ValueError, "norm_layer must be one of LN, BN, got 'GN'"),
    (dict(act_layer='Tanh'), ValueError, 'act_layer must be one of'),
    (dict(out_indices=(0, 4)), ValueError, r'out_indices must be .* got \(0, 4\)'),
    (dict(out_indices=()), ValueError, 'out_indices must be one or more'),
    (dict(frozen_stages=5), ValueError, 'frozen_stages must be .* got 5'),
    (dict(drop_path_rate=1.0), ValueError, r'drop_path_rate must lie in \[0, 1\), got 1.0'),
    (dict(drop_path_type='cosine'), ValueError, "drop_path_type must be .*'cosine'"),
    (dict(res_post_norm=True), ValueError, 'res_post_norm=True needs layer_scale=None, got layer_scale=1.0'),
    (dict(level2_post_norm=True), ValueError, 'level2_post_norm_block_ids must be given together'),
    (dict(level2_post_norm_block_ids=[0]), ValueError, 'must be given together'),
    (dict(level2_post_norm=True, level2_post_norm_block_ids=[1, 1]), ValueError, r'must differ .* got \(1, 1\)'),
    (dict(level2_post_norm=True, level2_post_norm_block_ids=[2]), ValueError, r'must lie in 0..1, got \(2,\)'),
]


@pytest.mark.parametrize('options, error, message', ERRORS, ids=lambda value: str(value)[:40])
def test_errors(options, error, message):
    with pytest.raises(error, match=message):
        tiny(**options)
