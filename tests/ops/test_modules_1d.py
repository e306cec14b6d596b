"""DCNv3 over sequences: values, gradients, and that a causal layer ignores later positions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from ops_dcnv3 import DCNv3_1d
from ops_dcnv3.modules import CAUSAL_GAP, MAX_CAUSAL_LENGTH
from tests.ops.cases import DEVICES

OPTIONS = {
    'default': dict(),
    'kernel_5': dict(kernel_size=5),
    'dilated': dict(kernel_size=4, dilation=2, dw_kernel_size=3),
    'point': dict(kernel_size=1),
    'wide_depthwise': dict(dw_kernel_size=7, act_layer='SiLU'),
}
MODES = pytest.mark.parametrize('causal', [False, True], ids=['centred', 'causal'])


def make_layer(spread: float = 1.0, dtype: torch.dtype = torch.float64, **options) -> DCNv3_1d:
    """A layer with random parameters and offsets of the order of ``spread`` positions."""
    layer = DCNv3_1d(8, 2, **options)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.4)
    nn.init.normal_(layer.offset.bias, std=spread)
    return layer.to(dtype)


def by_definition(layer: DCNv3_1d, x: Tensor) -> Tensor:
    """The layer as a loop over samples."""
    batch, length, channels = x.shape
    values = layer.input_proj(x)
    context = layer.dw_conv(x.transpose(1, 2).unsqueeze(2))[:, 0, :length]
    offset = layer.offset(context).view(batch, length, layer.groups, -1)
    weights = layer.mask(context).view(batch, length, layer.groups, -1).softmax(-1)
    per_group = channels // layer.groups
    rows = []
    for n in range(batch):
        for t in range(length):
            for group in range(layer.groups):
                mine = slice(group * per_group, (group + 1) * per_group)
                total = torch.zeros(per_group, dtype=x.dtype)
                for point in range(layer.kernel_size):
                    tap = layer.dilation * (layer.kernel_size - 1 - point)
                    shift = offset[n, t, group, point].item()
                    if layer.causal:
                        position = t - tap - CAUSAL_GAP + min(shift, tap)
                    else:
                        position = t - tap + layer.dilation * (layer.kernel_size - 1) / 2 + shift
                    low = math.floor(position)
                    for place, weight in ((low, 1 - (position - low)), (low + 1, position - low)):
                        if 0 <= place < length:
                            total = total + weights[n, t, group, point] * weight * values[n, place, mine]
                rows.append(total)
    return layer.output_proj(torch.stack(rows).view(batch, length, channels))


@MODES
@pytest.mark.parametrize('options', OPTIONS.values(), ids=OPTIONS)
def test_matches_its_definition(options, causal):
    layer = make_layer(causal=causal, **options)
    x = torch.randn(2, 9, 8, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), by_definition(layer, x), rtol=0, atol=1e-12)


@MODES
def test_gradcheck(causal):
    layer = make_layer(causal=causal)
    x = torch.randn(1, 6, 8, dtype=torch.float64, requires_grad=True)
    names, parameters = zip(*layer.named_parameters(), strict=True)

    def run(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), x)

    assert torch.autograd.gradcheck(run, (x, *parameters), fast_mode=True)


def test_new_layers_average_a_regular_grid():
    x = torch.randn(1, 7, 8, dtype=torch.float64)
    for causal in (False, True):
        layer = DCNv3_1d(8, 2, dilation=2, causal=causal).double()
        shifts = (0, 2, 4) if causal else (-2, 0, 2)
        projected = layer.input_proj(x)
        places = torch.arange(7).unsqueeze(1) - torch.tensor(shifts)
        valid = (places >= 0) & (places < 7)
        average = (projected[:, places.clamp(0, 6)] * valid.unsqueeze(-1)).sum(2) / 3
        # The gap of causal samples mixes neighbours in this proportion.
        atol = 2 * CAUSAL_GAP * projected.abs().max().item() if causal else 1e-12
        torch.testing.assert_close(layer(x), layer.output_proj(average), rtol=0, atol=atol)


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize('spread', [0.0, 1.0, 100.0])
@pytest.mark.parametrize('kernel_size', [3, 9])
def test_causal_outputs_ignore_later_positions(kernel_size, spread, dtype, device):
    """Bit for bit, for any offsets, and even where later positions are not finite."""
    layer = make_layer(spread, dtype, kernel_size=kernel_size, causal=True).to(device)
    x = torch.randn(2, 24, 8, dtype=dtype, device=device)
    expected = layer(x)
    for value in (1e3, float('nan'), float('inf')):
        other = x.clone()
        other[:, 10:] = value
        output = layer(other)
        assert torch.equal(output[:, :10], expected[:, :10])
        assert not torch.equal(output[:, 10:], expected[:, 10:])


def test_centred_outputs_depend_on_later_positions():
    layer = make_layer()
    x = torch.randn(2, 24, 8, dtype=torch.float64)
    other = x.clone()
    other[:, 10:] += 1
    assert not torch.equal(layer(other)[:, 9], layer(x)[:, 9])


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize('is_new', [True, False])
def test_causal_gradients_ignore_later_positions(is_new, dtype):
    """Without the gap, the derivative of a sample at a whole position would read the next position."""
    options = dict(kernel_size=9, causal=True)
    layer = DCNv3_1d(8, 2, **options).to(dtype) if is_new else make_layer(100.0, dtype, **options)
    x = torch.randn(2, 24, 8, dtype=dtype)
    other = torch.cat([x[:, :10], torch.randn(2, 14, 8, dtype=dtype)], 1)
    results = []
    for inputs in (x, other):
        inputs.requires_grad_()
        results.append(torch.autograd.grad(layer(inputs)[:, :10].square().sum(), (inputs, *layer.parameters())))
    assert not results[0][0][:, 10:].any()
    for grad, same in zip(results[0][1:], results[1][1:], strict=True):
        torch.testing.assert_close(grad, same, rtol=0, atol=0)


def test_every_point_of_a_new_causal_layer_learns():
    """Even the last one, which starts at its bound."""
    layer = DCNv3_1d(8, 2, kernel_size=5, causal=True)
    layer(torch.randn(2, 24, 8)).square().sum().backward()
    assert layer.offset.bias.grad.ne(0).all()


def test_the_longest_causal_sequence():
    layer = DCNv3_1d(1, 1, causal=True)
    x = torch.randn(1, MAX_CAUSAL_LENGTH, 1)
    x.requires_grad_()
    (grad,) = torch.autograd.grad(layer(x)[0, -2].sum(), x)
    assert grad[0, -1] == 0 and grad[0, -2] != 0
    with torch.no_grad():
        prefix = layer(x[:, :-1])
    assert torch.equal(layer(x)[:, :-1], prefix)


@MODES
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast_trains(dtype, causal):
    layer = make_layer(dtype=torch.float32, causal=causal)
    x = torch.randn(2, 12, 8)
    with torch.autocast('cpu', dtype):
        output = layer(x)
    output.float().sum().backward()
    assert output.dtype == dtype
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())
    torch.testing.assert_close(output.float(), layer(x), rtol=0.1, atol=0.1)


@MODES
def test_compiles_without_graph_breaks(causal):
    torch._dynamo.reset()
    layer = make_layer(causal=causal)
    x = torch.randn(2, 12, 8, dtype=torch.float64)
    compiled = torch.compile(layer, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(x), layer(x))


def test_repr():
    arguments = 'channels=8, groups=2, kernel_size=5, dilation=1, causal=True'
    assert repr(DCNv3_1d(8, 2, kernel_size=5, causal=True)).startswith(f'DCNv3_1d(\n  {arguments}\n  (dw_conv)')


def test_empty_batch():
    layer = DCNv3_1d(8, 2, causal=True)
    output = layer(torch.rand(0, 5, 8))
    output.sum().backward()
    assert output.shape == (0, 5, 8) and not layer.input_proj.weight.grad.any()


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(groups=3), 'channels must be a positive multiple of groups=3, got 8'),
        (dict(groups=0), 'groups=0'),
        (dict(kernel_size=0), 'kernel_size and dilation must be positive.*got kernel_size=0, dilation=1'),
        (dict(kernel_size=4), r'dilation \* \(kernel_size - 1\) even, got kernel_size=4, dilation=1'),
        (dict(dilation=0), 'got kernel_size=3, dilation=0'),
        (dict(dw_kernel_size=4), 'odd unless causal, got 4'),
        (dict(dw_kernel_size=0, causal=True), 'dw_kernel_size must be positive.* got 0'),
        (dict(act_layer='Tanh'), "act_layer must be one of GELU, ReLU, SiLU, got 'Tanh'"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        DCNv3_1d(**(dict(channels=8, groups=2) | options))


def test_errors_of_the_forward():
    with pytest.raises(ValueError, match=r'input must be \(N, L >= 1, C=8\), got shape \(5, 8\)'):
        DCNv3_1d(8, 2)(torch.rand(5, 8))
    for shape in ((1, 5, 9), (1, 0, 8)):
        with pytest.raises(ValueError, match='input must be'):
            DCNv3_1d(8, 2)(torch.rand(shape))
    too_long = torch.rand(1, MAX_CAUSAL_LENGTH + 1, 1)
    with pytest.raises(ValueError, match='input must have at most 262144 positions if causal, got 262145'):
        DCNv3_1d(1, 1, causal=True)(too_long)
    assert DCNv3_1d(1, 1)(too_long).shape == too_long.shape
