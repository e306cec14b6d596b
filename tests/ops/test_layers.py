"""The layers around the operator: the same results as PyTorch's layers, by the faster of PyTorch's operators."""

from __future__ import annotations

import contextlib

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.utils._python_dispatch import TorchDispatchMode

from ops_dcnv3.layers import GELU, LayerNorm, Linear, build_norm, scaled


class CalledOperators(TorchDispatchMode):
    """Collects the names of the operators that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def operators_of(layer: nn.Module, *inputs: Tensor) -> set[str]:
    with CalledOperators() as called:
        layer(*inputs)
    return called.names


@pytest.mark.parametrize('shape', [(2, 5, 7, 6), (1, 1, 1, 6), (3, 1, 9, 6), (0, 4, 4, 6), (2, 0, 4, 6), (2, 9, 6)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('channels_first', [False, True])
def test_linear_layers_match_pytorch(shape, dtype, bias, channels_first):
    torch.manual_seed(0)
    layer = Linear(6, 10, bias, dtype=dtype)
    x = torch.randn(shape, dtype=dtype)
    if channels_first:  # in memory
        x = x.movedim(-1, 1).contiguous().movedim(1, -1)
    inputs = (x.requires_grad_(), *layer.parameters())
    output, expected = layer(x), F.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(output, expected)
    grad = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad(output, inputs, grad), torch.autograd.grad(expected, inputs, grad), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_linear_layers_initialize_and_save_as_in_pytorch():
    torch.manual_seed(0)
    ours = Linear(6, 10).state_dict()
    torch.manual_seed(0)
    theirs = nn.Linear(6, 10).state_dict()
    assert list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    'shape, dtype, autocast, convolution',
    [
        ((1, 4, 4, 6), torch.float32, False, True),
        ((1, 4, 4, 6), torch.float32, True, False),
        ((1, 4, 4, 6), torch.bfloat16, False, False),
        ((1, 4, 4, 6), torch.float64, False, False),
        ((4, 4, 6), torch.float32, False, False),
        ((4, 6), torch.float32, False, False),
    ],
)
def test_linear_layers_are_convolutions_where_that_is_faster(shape, dtype, autocast, convolution):
    layer, x = Linear(6, 10, dtype=dtype), torch.randn(shape, dtype=dtype)
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        assert ('convolution' in operators_of(layer, x)) == convolution


def test_exported_linear_layers_are_linear_layers():
    layer, x = Linear(6, 10), torch.randn(1, 4, 4, 6)
    nodes = [str(node.target) for node in torch.export.export(layer, (x,)).graph.nodes]
    assert any('linear' in node for node in nodes) and not any('conv' in node for node in nodes)


@pytest.mark.parametrize('autocast', [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize('scale', [None, torch.linspace(-1, 1, 10)])
def test_linear_layers_compile_to_one_graph(scale, autocast):
    layer, x = Linear(6, 10), torch.randn(1, 8, 8, 6)
    compiled = torch.compile(layer, fullgraph=True, backend='aot_eager')
    with torch.autocast('cpu', autocast, enabled=autocast is not None):
        output, expected = compiled(x, scale), layer(x, scale)
    torch.testing.assert_close(output, expected, **({'rtol': 2e-2, 'atol': 2e-2} if autocast else {}))


SCALABLE = {
    'linear': lambda: Linear(6, 10),
    'linear without bias': lambda: Linear(6, 10, bias=False),
    'layer norm': lambda: build_norm('LN', 6),
    'layer norm without parameters': lambda: LayerNorm(6, elementwise_affine=False),
    'batch norm': lambda: build_norm('BN', 6).eval(),
    'another': lambda: nn.Sequential(nn.Linear(6, 10)),
}
AUTOCAST = [None, torch.bfloat16, torch.float16]
SMALL, LARGE = (1, 2, 2, 6), (1, 8, 8, 6)  # outputs smaller and larger than a linear layer's weight


@pytest.mark.parametrize('layer', SCALABLE)
@pytest.mark.parametrize('shape', [SMALL, LARGE, (2, 0, 4, 6)])
@pytest.mark.parametrize(
    'dtype, autocast',
    [*((torch.float32, dtype) for dtype in AUTOCAST), (torch.float64, None), (torch.bfloat16, None)],
)
def test_scaled_layers_compute_scaled_outputs(layer, shape, dtype, autocast):
    torch.manual_seed(0)
    module = SCALABLE[layer]().to(dtype)
    x = torch.randn(shape, dtype=dtype, requires_grad=True)
    channels = module(x).shape[-1]
    scale = torch.randn(channels, dtype=dtype, requires_grad=True)
    inputs = (x, scale, *module.parameters())
    with torch.autocast('cpu', autocast, enabled=autocast is not None):
        output, expected = scaled(module, x, scale), scale * module(x)
    # Scaling weights and scaling outputs round differently.
    tolerance = {'rtol': 2e-2, 'atol': 2e-2} if autocast or dtype == torch.bfloat16 else {}
    torch.testing.assert_close(output, expected, **tolerance)
    grad = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad(output, inputs, grad), torch.autograd.grad(expected, inputs, grad), strict=True
    ):
        torch.testing.assert_close(ours, theirs, **(tolerance and {'rtol': 5e-2, 'atol': 0.2}))


def count_saved_numbers(function, *inputs: Tensor) -> int:
    """How many numbers autograd saves for the backward, without those of the inputs."""
    known = {x.untyped_storage().data_ptr() for x in inputs}
    saved: dict[int, Tensor] = {}

    def pack(x: Tensor) -> Tensor:
        if x.untyped_storage().data_ptr() not in known:
            saved[x.untyped_storage().data_ptr()] = x
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        function(*inputs)
    return sum(x.numel() for x in saved.values())


@pytest.mark.parametrize(
    'layer, positions, dtype, autocast, keeps_output',
    [
        (lambda: Linear(6, 10), 37, torch.float32, None, False),
        (lambda: Linear(6, 10), 37, torch.float32, torch.bfloat16, False),
        # Weights times a small scale vanish in float16, and are rounded twice in bfloat16.
        (lambda: Linear(6, 10), 37, torch.float32, torch.float16, True),
        (lambda: Linear(6, 10), 37, torch.bfloat16, None, True),
        # The weight is larger than the output.
        (lambda: Linear(6, 10), 6, torch.float32, None, True),
        (lambda: build_norm('LN', 6), 37, torch.float32, None, False),
        (lambda: build_norm('LN', 6), 37, torch.bfloat16, None, True),
        (lambda: nn.LayerNorm(6), 37, torch.float32, None, True),
    ],
)
def test_scaled_layers_keep_no_output_where_that_is_exact_and_cheaper(layer, positions, dtype, autocast, keeps_output):
    module = layer().to(dtype)
    x = torch.randn(1, 1, positions, 6, dtype=dtype)
    scale = nn.Parameter(torch.ones(module(x).shape[-1], dtype=dtype))
    with torch.autocast('cpu', autocast, enabled=autocast is not None):
        without = count_saved_numbers(lambda x, *_: module(x), x, scale, *module.parameters())
        kept = count_saved_numbers(lambda x, scale, *_: scaled(module, x, scale), x, scale, *module.parameters())
        outputs = module(x).numel()
    assert (kept - without >= outputs) == keeps_output, (kept, without, outputs)


@pytest.mark.parametrize('layer', ['linear', 'layer norm'])
@pytest.mark.parametrize('scale', [1e-5, 1e-7])
def test_small_scales_survive_float16(layer, scale):
    torch.manual_seed(0)
    module, x = SCALABLE[layer](), torch.randn(LARGE)
    with torch.autocast('cpu', torch.float16):
        output = scaled(module, x.half(), torch.full((module(x).shape[-1],), scale))
    torch.testing.assert_close(output, scale * module(x), rtol=2e-3, atol=2e-3 * scale)


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.norm, self.scale = Linear(6, 6), build_norm('LN', 6), nn.Parameter(torch.rand(6))

    def forward(self, x):
        return scaled(self.norm, scaled(self.linear, x, self.scale), self.scale)


def test_scaled_layers_export_for_any_size():
    model = Scaled()
    size = torch.export.Dim('size', min=2, max=1024)
    exported = torch.export.export(model, (torch.randn(1, 4, 1, 6),), dynamic_shapes=({1: size},))
    for height in (2, 100):
        x = torch.randn(1, height, 1, 6)
        torch.testing.assert_close(exported.module()(x), model(x))
    # The outputs are multiplied, not the weights: the model may be converted to float16.
    products = [node for node in exported.graph.nodes if 'mul' in str(node.target)]
    assert [node.meta['val'].dim() for node in products] == [4, 4]


def test_scaled_layers_are_compiled_once_for_all_sizes():
    model = Scaled()
    counter = CompileCounter()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=counter)
    for height in (2, 4, 5, 100):  # the first output is smaller than the weight
        x = torch.randn(1, height, 3, 6)
        torch.testing.assert_close(compiled(x), model(x))
    assert counter.frame_count == 1


def test_hooks_on_inputs_keep_the_scale():
    layer, x, scale = Linear(6, 10), torch.randn(LARGE), torch.linspace(-1, 1, 10)
    expected = scale * layer(2 * x)
    layer.register_forward_pre_hook(lambda module, args: 2 * args[0])
    torch.testing.assert_close(scaled(layer, x, scale), expected)


def test_parametrized_weights_are_computed_once_per_call():
    class Count(nn.Module):
        calls = 0

        def forward(self, weight):
            self.calls += 1
            return 2 * weight

    layer, x, scale = Linear(6, 10), torch.randn(LARGE), torch.linspace(-1, 1, 10)
    expected = scale * F.linear(x, 2 * layer.weight, layer.bias)
    count = Count()
    nn.utils.parametrize.register_parametrization(layer, 'weight', count)
    count.calls = 0
    torch.testing.assert_close(scaled(layer, x, scale), expected)
    assert count.calls == 1


@pytest.mark.parametrize('grad, in_place', [(torch.enable_grad, False), (torch.no_grad, True)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('approximate', ['none', 'tanh'])
def test_gelu_takes_no_memory_without_gradients(
    grad: type[contextlib.AbstractContextManager], in_place: bool, approximate: str, dtype: torch.dtype
):
    x = torch.randn(100, dtype=dtype)
    expected = F.gelu(x, approximate=approximate)
    before = x.clone()
    with grad():
        output = GELU(approximate)(x)
    torch.testing.assert_close(output, expected, rtol=0, atol=0)
    assert (output.data_ptr() == x.data_ptr()) == in_place
    assert torch.equal(x, expected if in_place else before)
