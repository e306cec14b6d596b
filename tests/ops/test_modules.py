"""The DCNv3 layer around the operator."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn

from ops_dcnv3 import DCNv3, DCNv3_1d, DCNv3_pytorch

OPTIONS = {
    'default': dict(),
    'kernel_5': dict(kernel_size=5, padding=2),
    'dilated': dict(dilation=2, padding=2),
    'wide_depthwise': dict(dw_kernel_size=7),
    'scaled': dict(offset_scale=2.0, center_feature_scale=True),
    'batch_norm': dict(norm_layer='BN', act_layer='ReLU'),
}


@pytest.mark.parametrize('options', OPTIONS.values(), ids=OPTIONS)
def test_compiled_and_reference_share_parameters_and_results(options):
    torch.manual_seed(0)
    layer, other = (cls(24, 3, **options).double() for cls in (DCNv3, DCNv3_pytorch))
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3)
    other.load_state_dict(layer.state_dict())
    x = torch.randn(2, 7, 6, 24, dtype=torch.float64)
    output = layer(x)
    assert output.shape == x.shape and output.is_contiguous()
    torch.testing.assert_close(output, other(x), rtol=0, atol=1e-11)


def test_a_new_layer_averages_a_regular_grid():
    layer = DCNv3(16, 2)
    for name in ('offset', 'mask'):
        assert not any(p.any() for p in getattr(layer, name).parameters())
    x = torch.randn(1, 5, 5, 16)
    projected = layer.input_proj(x).permute(0, 3, 1, 2)
    average = nn.functional.avg_pool2d(projected, 3, stride=1, padding=1).permute(0, 2, 3, 1)
    torch.testing.assert_close(layer(x), layer.output_proj(average), rtol=1e-4, atol=1e-5)


def test_empty_batch():
    layer = DCNv3(16, 2, center_feature_scale=True)
    output = layer(torch.rand(0, 5, 4, 16))
    output.sum().backward()
    assert output.shape == (0, 5, 4, 16) and not layer.input_proj.weight.grad.any()


def test_published_parameter_names():
    names = {name: tuple(p.shape) for name, p in DCNv3(64, 4, center_feature_scale=True).named_parameters()}
    assert names == {
        'center_feature_scale_proj_weight': (4, 64),
        'center_feature_scale_proj_bias': (4,),
        'dw_conv.0.weight': (64, 1, 3, 3),
        'dw_conv.0.bias': (64,),
        'dw_conv.1.1.weight': (64,),
        'dw_conv.1.1.bias': (64,),
        'offset.weight': (72, 64),
        'offset.bias': (72,),
        'mask.weight': (36, 64),
        'mask.bias': (36,),
        'input_proj.weight': (64, 64),
        'input_proj.bias': (64,),
        'output_proj.weight': (64, 64),
        'output_proj.bias': (64,),
    }


def test_repr():
    text = repr(DCNv3(64, 4, padding=2, dilation=2))
    assert text.startswith('DCNv3(\n  channels=64, groups=4, kernel_size=3, padding=2, dilation=2, offset_scale=1.0, ')


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast_trains(dtype):
    layer = DCNv3(32, 2, center_feature_scale=True)
    x = torch.randn(1, 6, 6, 32)
    with torch.autocast('cpu', dtype):
        output = layer(x)
    output.float().sum().backward()
    assert output.dtype == dtype
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in layer.parameters())
    torch.testing.assert_close(output.float(), layer(x), rtol=5e-2, atol=5e-2)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(groups=5), 'multiple of groups=5, got 32'),
        (dict(groups=0), 'groups=0'),
        (dict(kernel_size=5), 'padding must preserve the size.*padding=1, dilation=1, kernel_size=5'),
        (dict(offset_scale=float('nan')), 'offset_scale must be a finite number, got nan'),
        (dict(dilation=0, padding=0), 'dilation must be an int >= 1'),
        (dict(kernel_size=2), 'padding must preserve the size'),
        (dict(dw_kernel_size=4), 'dw_kernel_size must be odd and positive, got 4'),
        (dict(norm_layer='GN'), "norm_layer must be one of LN, BN, got 'GN'"),
        (dict(act_layer='Tanh'), "act_layer must be one of GELU, ReLU, SiLU, got 'Tanh'"),
        (dict(act_layer=['GELU']), r"act_layer must be one of GELU, ReLU, SiLU, got \['GELU'\]"),
        (dict(channels=None), 'channels must be an int, got None'),
        (dict(groups='2'), "groups must be an int, got '2'"),
        (dict(kernel_size=(3, 3)), r'kernel_size must be an int, got \(3, 3\)'),
        (dict(dw_kernel_size=3.0), 'dw_kernel_size must be an int, got 3.0'),
        (dict(padding=None), 'padding must be an int, got None'),
        (dict(dilation=[1]), r'dilation must be an int, got \[1\]'),
        (dict(offset_scale=None), 'offset_scale must be a finite number, got None'),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        DCNv3(**(dict(channels=32, groups=2) | options))


@pytest.mark.parametrize('layer_type', [DCNv3, DCNv3_pytorch])
@pytest.mark.parametrize(
    'shape', [(), (32,), (5, 32), (5, 6, 32), (2, 5, 6, 31), (2, 32, 5, 6), (2, 0, 6, 32), (2, 5, 0, 32)]
)
def test_an_input_of_another_shape_is_named(layer_type, shape):
    with pytest.raises(ValueError, match=rf'input must be \(N, H, W, C=32\) .*, got shape {re.escape(str(shape))}$'):
        layer_type(32, 2)(torch.rand(shape))


@pytest.mark.parametrize('layer', [DCNv3(32, 2), DCNv3_1d(32, 2)], ids=['2d', '1d'])
@pytest.mark.parametrize('value, got', [(None, 'None'), ([1.0], 'list'), (np.ones((2, 5, 6, 32)), 'ndarray')])
def test_an_input_that_is_no_tensor_is_named(layer, value, got):
    with pytest.raises(TypeError, match=f'^input must be a torch.Tensor, got {got}$'):
        layer(value)
