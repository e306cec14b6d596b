"""The layers around the operator: same numbers as PyTorch's, by the faster of its operators."""

from __future__ import annotations

import contextlib

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ops_dcnv3.layers import GELU, Linear


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
def test_linear_layers_compute_what_pytorch_does(shape, dtype, bias, channels_first):
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


def test_linear_layers_start_and_are_saved_as_in_pytorch():
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


def test_linear_layers_compile_to_one_graph():
    layer, x = Linear(6, 10), torch.randn(1, 4, 4, 6)
    compiled = torch.compile(layer, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(x), layer(x))


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
