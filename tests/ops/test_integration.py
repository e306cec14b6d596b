"""The operator within PyTorch: dispatcher contracts, compilation, export, FLOP counters, fallback."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import library
from torch.utils.flop_counter import FlopCounterMode

from ops_dcnv3 import DCNv3, DCNv3_pytorch, dcnv3, dcnv3_reference
from tests.ops.cases import ASYMMETRIC, DEVICES, LOGITS, make_case

SAMPLES = {
    'fp64': dict(requires_grad=True),
    'no_grad': dict(),
    'fp32_16_channels': dict(dtype=torch.float32, group_channels=16, requires_grad=True),
    'bf16': dict(dtype=torch.bfloat16, requires_grad=True),
    'empty_batch': dict(batch=0, requires_grad=True),
    'logits': dict(geometry=LOGITS, requires_grad=True),
}


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('name', SAMPLES)
def test_opcheck_forward(name, device):
    case = make_case(**SAMPLES[name]).to(device)
    library.opcheck(torch.ops.dcnv3.forward, case.args)


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('needs', [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize('geometry', [ASYMMETRIC, LOGITS], ids=['weights', 'logits'])
def test_opcheck_backward(needs, geometry, device):
    case = make_case(geometry).to(device)
    grad_output = torch.randn_like(dcnv3(*case.args))
    library.opcheck(torch.ops.dcnv3.backward, (grad_output, *case.args, *needs, False))


def test_second_derivatives_are_refused():
    case = make_case(requires_grad=True)
    (grad,) = torch.autograd.grad(dcnv3(*case.args).square().sum(), case.input, create_graph=True)
    with pytest.raises(RuntimeError, match='differentiated only once.*dcnv3_reference'):
        grad.sum().backward()


@pytest.fixture
def deterministic():
    yield torch.use_deterministic_algorithms
    torch.use_deterministic_algorithms(False)


def test_the_cpu_gradient_is_deterministic(deterministic):
    case = make_case(requires_grad=True)
    deterministic(True)
    dcnv3(*case.args).sum().backward()


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize('logits', [False, True])
def test_the_deterministic_gradient_is_correct_and_reproducible(deterministic, logits, dtype, device):
    """On a GPU the other one sums in any order."""
    geometry = ASYMMETRIC._replace(mask_is_logits=logits)
    case = make_case(geometry, size=(20, 30), group_channels=16, dtype=dtype, requires_grad=True).to(device)
    grad_output = torch.randn_like(dcnv3(*case.args))
    expected = torch.autograd.grad(dcnv3(*case.args), case.tensors, grad_output)
    deterministic(True)
    runs = [torch.autograd.grad(dcnv3(*case.args), case.tensors, grad_output) for _ in range(3)]
    for grads in zip(expected, *runs, strict=True):
        assert all(torch.equal(grad, grads[1]) for grad in grads[2:])
        torch.testing.assert_close(grads[1], grads[0])


def test_forward_mode_is_refused():
    """torch would silently drop the tangents of an operator without a formula."""
    case = make_case()
    tangents = tuple(torch.ones_like(t) for t in case.tensors)
    with pytest.raises(RuntimeError, match='dcnv3 has no forward-mode derivative'):
        torch.func.jvp(lambda *tensors: dcnv3(*tensors, *case.geometry), case.tensors, tangents)


@pytest.fixture(params=[DCNv3, DCNv3_pytorch])
def layer(request):
    torch.manual_seed(0)
    layer = request.param(channels=32, groups=2)
    torch.nn.init.normal_(layer.offset.weight, std=0.5)
    return layer


@pytest.mark.parametrize('dynamic', [None, True, False])
def test_compile_without_graph_breaks(layer, dynamic):
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend='aot_eager', dynamic=dynamic)
    x = torch.randn(2, 6, 5, 32, requires_grad=True)
    y = torch.randn(2, 6, 5, 32)
    expected = torch.autograd.grad(layer(x), x, y)[0]
    torch.testing.assert_close(torch.autograd.grad(compiled(x), x, y)[0], expected)
    other = torch.randn(2, 7, 9, 32)
    torch.testing.assert_close(compiled(other), layer(other))


@pytest.mark.slow
def test_compile_with_inductor():
    torch._dynamo.reset()
    layer = DCNv3(channels=32, groups=2)
    x = torch.randn(2, 6, 5, 32)
    torch.testing.assert_close(torch.compile(layer, fullgraph=True)(x), layer(x), rtol=1e-4, atol=1e-5)


def test_compile_under_autocast():
    torch._dynamo.reset()
    layer = DCNv3(channels=32, groups=2)
    compiled = torch.compile(layer, fullgraph=True, backend='aot_eager')
    x = torch.randn(1, 6, 5, 32)
    with torch.autocast('cpu', torch.bfloat16):
        output = compiled(x)
        expected = layer(x)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output, expected, rtol=2e-2, atol=2e-2)


def test_export(layer):
    height = torch.export.Dim('height', min=4, max=64)
    x = torch.randn(2, 6, 5, 32)
    program = torch.export.export(layer, (x,), dynamic_shapes=({1: height},))
    calls = [node.target for node in program.graph.nodes if node.op == 'call_function']
    assert (torch.ops.dcnv3.forward.default in calls) == (type(layer) is DCNv3)
    for rows in (6, 9):
        x = torch.randn(2, rows, 5, 32)
        torch.testing.assert_close(program.module()(x), layer(x))


def test_flop_counter_follows_the_official_rule():
    """5 multiply-adds per output channel and point, two FLOPs each; the full backward costs two forwards."""
    case = make_case(requires_grad=True)
    rows, columns = ASYMMETRIC.output_size(5, 4)
    forward = 2 * 5 * 2 * rows * columns * 6 * ASYMMETRIC.points
    with FlopCounterMode(display=False) as counter:
        output = dcnv3(*case.args)
    assert counter.get_total_flops() == forward
    with FlopCounterMode(display=False) as counter:
        output.sum().backward()
    assert counter.get_total_flops() == 2 * forward


def _run(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, '-c', code], env=os.environ | environment, capture_output=True, text=True, check=False
    )


PROBE = """
import torch, warnings
warnings.simplefilter('always')
from ops_dcnv3 import dcnv3, extension
from tests.ops.cases import make_case, oracle
case = make_case()
for _ in range(2):
    output = dcnv3(*case.args)
assert torch.allclose(output, oracle(case), atol=1e-12)
print(extension.has_kernel('cpu'))
"""


def test_reference_can_be_forced():
    forced, free = _run(PROBE, DCNV3_FORCE_REFERENCE='1'), _run(PROBE)
    assert (forced.stdout.strip(), free.stdout.strip()) == ('False', 'True'), forced.stderr + free.stderr
    assert 'Warning' not in forced.stderr + free.stderr


def test_fallback_warns_once_and_names_the_fix():
    """Without the library the reference is used, after one warning; compiled, without a graph break."""
    without_library = """
import importlib.util as util
real = util.find_spec
util.find_spec = lambda name, *args: None if name in ('ops_dcnv3._cpu', 'ops_dcnv3._cuda') else real(name, *args)
"""
    result = _run(without_library + PROBE)
    assert result.stdout.strip() == 'False', result.stderr
    assert result.stderr.count('UserWarning: ops_dcnv3 has no compiled kernel for cpu tensors') == 1
    assert 'pip install --no-build-isolation -e .' in result.stderr
    compiled = _run(
        without_library
        + """
import torch
from ops_dcnv3 import DCNv3
layer = DCNv3(16, 1)
print(torch.compile(layer, fullgraph=True, backend='eager')(torch.randn(1, 4, 4, 16)).shape)
"""
    )
    assert 'torch.Size([1, 4, 4, 16])' in compiled.stdout, compiled.stderr


def test_a_broken_library_is_reported():
    """With a library that does not load the reference is used, and the warning quotes the loader."""
    result = _run(
        """
import importlib
real = importlib.import_module
def fail(name, *args):
    if name == 'ops_dcnv3._cpu':
        raise ImportError('undefined symbol: torch_parallel_for')
    return real(name, *args)
importlib.import_module = fail
"""
        + PROBE
    )
    assert result.stdout.strip() == 'False', result.stderr
    assert 'undefined symbol: torch_parallel_for' in result.stderr


def test_meta_tensors():
    case = make_case().to('meta')
    assert dcnv3(*case.args).shape == dcnv3_reference(*make_case().args).shape


@pytest.mark.parametrize('name', ['forward', 'backward'])
def test_fakes_name_a_missing_tensor(name):
    """torch passes None where the schema says Tensor."""
    case = make_case()
    input, _, mask = case.to('meta').tensors
    before, after = ([torch.empty_like(input)], [True, True, False]) if name == 'backward' else ([], [])
    with pytest.raises(TypeError, match='^dcnv3: offset must be a torch.Tensor, got None$'):
        getattr(torch.ops.dcnv3, name)(*before, input, None, mask, *case.geometry, *after)
