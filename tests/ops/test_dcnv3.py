"""Values, gradients and errors of the operator, compiled and reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ops_dcnv3 import dcnv3, dcnv3_reference
from ops_dcnv3.arguments import Geometry
from tests.ops.cases import (
    ASYMMETRIC,
    DEVICES,
    GOLDENS,
    LOGITS,
    gradients,
    load_golden,
    make_case,
    oracle,
    relative_error,
)

OPERATORS = [pytest.param(dcnv3, id='compiled'), pytest.param(dcnv3_reference, id='reference')]

GEOMETRIES = {
    'asymmetric': ASYMMETRIC,
    'logits': LOGITS,
    'padding_h': Geometry((3, 3), (1, 1), (2, 0), (1, 1), 1, 1.0),
    'padding_w': Geometry((3, 3), (1, 1), (0, 2), (1, 1), 1, 1.0),
    'even_dilated': Geometry((2, 4), (2, 3), (1, 2), (3, 1), 3, 0.7),
    'point': Geometry((1, 1), (1, 1), (0, 0), (1, 1), 2, 2.0),
    'large_kernel': Geometry((13, 13), (3, 3), (6, 6), (1, 1), 1, 0.3),
}


@pytest.mark.parametrize('operator', OPERATORS)
@pytest.mark.parametrize('name', GEOMETRIES)
def test_matches_nested_loops(operator, name):
    case = make_case(GEOMETRIES[name], size=(5, 4) if name != 'large_kernel' else (7, 6))
    torch.testing.assert_close(operator(*case.args), oracle(case), rtol=0, atol=1e-12)


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-13), (torch.float32, 2e-6)], ids=['fp64', 'fp32'])
@pytest.mark.parametrize('operator', OPERATORS)
@pytest.mark.parametrize('name', GOLDENS)
def test_matches_golden(name, operator, dtype, tolerance, device):
    case, expected = load_golden(name)
    case = case.to(device, dtype)
    output = operator(*case.args)
    grads = gradients(output, case, expected['grad_output'].to(device, dtype))
    assert relative_error(output, expected['output']) < tolerance
    for key, grad in zip(('grad_input', 'grad_offset', 'grad_mask'), grads, strict=True):
        # At exactly integer positions only the compiled operator follows the floor rule for the offset gradient.
        if not (key == 'grad_offset' and 'zero_offset' in name and operator is dcnv3_reference):
            assert relative_error(grad, expected[key]) < tolerance, key


def test_goldens_detect_a_wrong_operator():
    case, expected = load_golden('dcnv3_core_k3_base')
    shifted = dcnv3(case.input, case.offset + 1e-3, case.mask, *case.geometry)
    assert relative_error(shifted, expected['output']) > 1e-5
    case, expected = load_golden('dcnv3_core_k3_zero_offset')
    assert not torch.equal(expected['grad_offset'], torch.zeros_like(expected['grad_offset']))


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('group_channels', [1, 2, 3, 4, 7, 8, 15, 16, 20, 32, 33, 48, 70, 300])
@pytest.mark.parametrize('groups', [1, 3, 20])
def test_any_channels_per_group(group_channels, groups, device):
    """Vectors with and without a remainder, and more groups than one chunk of the plan."""
    geometry = ASYMMETRIC._replace(groups=groups)
    case = make_case(geometry, batch=1, group_channels=group_channels, requires_grad=True).to(device)
    grad_output = torch.randn_like(dcnv3_reference(*case.args))
    output, expected = dcnv3(*case.args), dcnv3_reference(*case.args)
    assert relative_error(output, expected) < 1e-13
    grads = zip(gradients(output, case, grad_output), gradients(expected, case, grad_output), strict=True)
    assert all(relative_error(grad, other) < 1e-13 for grad, other in grads)


@pytest.mark.parametrize('geometry', [ASYMMETRIC, LOGITS], ids=['weights', 'logits'])
@pytest.mark.parametrize('operator', OPERATORS)
def test_gradcheck(operator, geometry):
    case = make_case(geometry, batch=1, group_channels=2, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *tensors: operator(*tensors, *case.geometry), case.tensors)


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('operator', OPERATORS)
@pytest.mark.parametrize('mask_is_logits', [False, True], ids=['weights', 'logits'])
@pytest.mark.parametrize(
    'dtype, tolerance',
    [(torch.float64, 1e-14), (torch.float32, 5e-6), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)],
    ids=['fp64', 'fp32', 'bf16', 'fp16'],
)
def test_dtypes(dtype, tolerance, mask_is_logits, operator, device):
    """Against float64 on the same rounded numbers, so that only the operator's own error counts."""
    geometry = Geometry((3, 3), (1, 1), (1, 1), (1, 1), 2, 1.0, mask_is_logits)
    case = make_case(geometry, size=(40, 60), group_channels=16, dtype=dtype, requires_grad=True).to(device)
    exact = case.to(torch.float64)
    output, expected = operator(*case.args), dcnv3_reference(*exact.args)
    assert output.dtype == dtype
    assert relative_error(output, expected) < tolerance
    grad_output = torch.randn_like(output)
    for grad, other in zip(
        gradients(output, case, grad_output), gradients(expected, exact, grad_output.double()), strict=True
    ):
        assert grad.dtype == dtype
        assert relative_error(grad, other) < tolerance


@pytest.mark.parametrize('operator', OPERATORS)
@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
@pytest.mark.parametrize('device', DEVICES)
def test_logits_equal_a_softmax_before_the_operator(dtype, operator, device):
    """Also where exp of a logit itself would overflow, or some weights are exactly zero."""
    case = make_case(dtype=dtype, requires_grad=True).to(device)
    logits = torch.randn_like(case.mask).unflatten(-1, (2, 6)) * 5
    logits[0] += torch.tensor([1e4, -1e4], dtype=dtype, device=device)[:, None]
    logits[1, 0, 0, 0, :5] = -torch.inf
    logits[1, 0, 1, 1, 2] -= 200
    logits = logits.detach().requires_grad_()
    mask = logits.softmax(-1).flatten(3)
    expected = operator(case.input, case.offset, mask, *case.geometry)
    output = operator(case.input, case.offset, logits.flatten(3), *case.geometry._replace(mask_is_logits=True))
    tolerance = dict(rtol=0, atol=1e-13 if dtype == torch.float64 else 1e-5)
    torch.testing.assert_close(output, expected, **tolerance)
    grad_output, tensors = torch.randn_like(output), (case.input, case.offset, logits)
    grads = torch.autograd.grad(output, tensors, grad_output)
    torch.testing.assert_close(grads, torch.autograd.grad(expected, tensors, grad_output), **tolerance)
    assert grads[2].abs().max() > 0.01


@pytest.mark.parametrize('operator', OPERATORS)
def test_a_nan_logit_affects_its_group_only(operator):
    case = make_case(LOGITS)
    case.mask[0, 0, 0, 7] = torch.nan
    is_nan = operator(*case.args).isnan()
    assert is_nan[0, 0, 0, 3:].all() and is_nan.sum() == 3


@pytest.mark.parametrize('operator', OPERATORS)
def test_16_bit_positions_are_computed_in_float32(operator):
    """bfloat16 represents all integers only up to 256: positions in bfloat16 would be wrong by whole pixels."""
    geometry = Geometry((1, 1), (1, 1), (0, 0), (1, 1), 1, 1.0)
    input = torch.arange(600.0).bfloat16().view(1, 1, 600, 1)
    offset, mask = torch.zeros(1, 1, 600, 2), torch.ones(1, 1, 600, 1)
    output = operator(input, offset.bfloat16(), mask.bfloat16(), *geometry)
    torch.testing.assert_close(output, input, rtol=0, atol=0)


@pytest.mark.parametrize('operator', OPERATORS)
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=['bf16', 'fp16'])
def test_autocast(operator, dtype):
    case = make_case(dtype=torch.float32)
    with torch.autocast('cpu', dtype):
        output = operator(*case.args)
        mixed = operator(case.input.to(dtype), case.offset, case.mask, *case.geometry)
        double = operator(*make_case(dtype=torch.float64).args)
    assert (output.dtype, double.dtype) == (dtype, torch.float64)
    torch.testing.assert_close(output, operator(*case.to(dtype).args), rtol=0, atol=0)
    torch.testing.assert_close(mixed, output, rtol=0, atol=0)
    assert operator(*case.args).dtype == torch.float32


@pytest.mark.parametrize('device', DEVICES)
def test_non_contiguous_inputs(device):
    case = make_case(requires_grad=True).to(device)
    expected = dcnv3(*case.args)
    strided = [t.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_() for t in case.tensors]
    assert not any(t.is_contiguous() for t in strided)
    output = dcnv3(*strided, *case.geometry)
    assert torch.equal(output, expected)
    grad_output = torch.randn_like(expected).transpose(1, 2).contiguous().transpose(1, 2)
    for grad, other in zip(
        torch.autograd.grad(output, strided, grad_output),
        gradients(expected, case, grad_output.contiguous()),
        strict=True,
    ):
        assert relative_error(grad, other) < 1e-14
    expanded = dcnv3(case.input[:1].expand(2, -1, -1, -1), case.offset, case.mask, *case.geometry)
    assert torch.equal(expanded, dcnv3(case.input[:1].repeat(2, 1, 1, 1), case.offset, case.mask, *case.geometry))


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('operator', OPERATORS)
@pytest.mark.parametrize('batch', [0, 1, 33])
def test_batch_sizes(operator, batch, device):
    case = make_case(batch=batch, requires_grad=True).to(device)
    output = operator(*case.args)
    assert output.shape == (batch, *case.geometry.output_size(5, 4), 6)
    output.sum().backward()
    assert all(t.grad.shape == t.shape for t in case.tensors)
    if batch > 1:
        last = operator(*(t[-1:] for t in case.tensors), *case.geometry)
        torch.testing.assert_close(output[-1:], last, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    'wanted', [(True, False, False), (False, True, False), (False, False, True), (False, True, True)]
)
def test_gradients_only_where_needed(wanted):
    case = make_case()
    for tensor, needed in zip(case.tensors, wanted, strict=True):
        tensor.requires_grad_(needed)
    full = make_case(requires_grad=True)
    dcnv3(*case.args).sum().backward()
    dcnv3(*full.args).sum().backward()
    for tensor, needed, other in zip(case.tensors, wanted, full.tensors, strict=True):
        assert (tensor.grad is not None) == needed
        if needed:
            assert torch.equal(tensor.grad, other.grad)


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('operator', OPERATORS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize('value', [float('nan'), float('inf'), float('-inf'), 1e30, -1e30, 3e9, -3e9, 60000.0])
def test_extreme_offsets_sample_nothing(value, dtype, operator, device):
    case = make_case(dtype=dtype).to(device)
    offset = case.offset.clone()
    offset[:, 0, 0] = value
    extreme = type(case)(case.input, offset, case.mask, case.geometry)
    for tensor in extreme.tensors:
        tensor.requires_grad_()
    output = operator(*extreme.args)
    assert torch.all(output[:, 0, 0] == 0)
    torch.testing.assert_close(output[:, 1:], operator(*case.args)[:, 1:], rtol=0, atol=0)
    assert output[:, 1:].abs().max() > 0
    output.sum().backward()
    assert all(torch.isfinite(t.grad).all() for t in extreme.tensors)
    assert torch.all(extreme.offset.grad[:, 0, 0] == 0) and torch.all(extreme.mask.grad[:, 0, 0] == 0)


@pytest.mark.parametrize('bits', [0x7FC00000, 0x7FFFFFFF, 0x7FC00001, -1])
@pytest.mark.parametrize('point', range(6))
def test_any_nan_among_the_logits_reaches_the_output(point, bits):
    """Whatever its bits: those of a GPU's NaN differ from a CPU's."""
    case = make_case(LOGITS, dtype=torch.float32)
    case.mask[0, 0, 0, point] = torch.tensor(bits, dtype=torch.int32).view(torch.float32)
    output = dcnv3(*case.args).unflatten(-1, (2, -1))
    assert output[0, 0, 0, 0].isnan().all()
    assert output.isnan().sum() == output.shape[-1]


def test_samples_outside_read_no_pixel():
    """Not even with weight zero: zero times infinity would be NaN."""
    case = make_case(Geometry((1, 1), (1, 1), (0, 0), (1, 1), 1, 1.0), batch=1, group_channels=1)
    case.input[0, 0, 0] = float('inf')
    offset = torch.full_like(case.offset, 100.0)
    assert torch.all(dcnv3(case.input, offset, case.mask, *case.geometry) == 0)


def _arguments(**changes):
    case = make_case(dtype=torch.float32)
    arguments = dict(zip(('input', 'offset', 'mask'), case.tensors, strict=True)) | case.geometry._asdict()
    return arguments | {key: change(arguments[key]) if callable(change) else change for key, change in changes.items()}


ERRORS = {
    'rank of input': (
        dict(input=lambda t: t[0]),
        r'input must have 4 dimensions \(N, H, W, C\), got 3 with shape \(5, 4, 6\)',
    ),
    'rank of offset': (dict(offset=lambda t: t.flatten()), 'offset must have 4 dimensions'),
    'rank of mask': (dict(mask=lambda t: t[..., None]), 'mask must have 4 dimensions'),
    'channels': (dict(groups=4), 'channels of input must be a positive multiple of groups=4, got 6'),
    'no channels': (
        dict(input=lambda t: t[..., :0]),
        'channels of input must be a positive multiple of groups=2, got 0',
    ),
    'offset': (
        dict(offset=lambda t: t[..., :-1]),
        r'offset must have shape .*kernel_w\*2\) = \(2, 2, 3, 24\), got \(2, 2, 3, 23\)',
    ),
    'mask': (dict(mask=lambda t: t[:, 1:]), r'mask must have shape .* = \(2, 2, 3, 12\), got \(2, 1, 3, 12\)'),
    'batch of mask': (dict(mask=lambda t: t[1:]), r'mask must have shape'),
    'empty output': (dict(kernel_size=(9, 2)), r'kernel_size=\(9, 2\).* output of -\d+x3 for an input of 5x4'),
    'no rows': (dict(input=lambda t: t[:, :0], padding=(4, 0)), 'for an input of 0x4; neither may be empty'),
    'no columns': (dict(input=lambda t: t[:, :, :0], padding=(1, 4)), 'for an input of 5x0; neither may be empty'),
    'dtype of offset': (
        dict(offset=lambda t: t.double()),
        'offset must have the dtype of input, torch.float32, got torch.float64',
    ),
    'dtype of mask': (dict(mask=lambda t: t.half()), 'mask must have the dtype of input'),
    'integers': (dict(input=lambda t: t.long()), 'input must have one of the dtypes torch.float64.*, got torch.int64'),
    'device': (dict(mask=lambda t: t.to('meta')), 'mask must be on the device of input, cpu, got meta'),
    'kernel 0': (dict(kernel_size=0), 'kernel_size must be an int >= 1 or a pair .* got 0'),
    'kernel pair': (dict(kernel_size=(3, 0)), r'kernel_size must be .* got \(3, 0\)'),
    'kernel triple': (dict(kernel_size=(3, 3, 3)), r'kernel_size must be .* got \(3, 3, 3\)'),
    'kernel float': (dict(kernel_size=3.0), 'kernel_size must be an int'),
    'stride 0': (dict(stride=(0, 1)), r'stride must be .* got \(0, 1\)'),
    'dilation 0': (dict(dilation=0), 'dilation must be an int >= 1'),
    'padding': (dict(padding=-1), 'padding must be an int >= 0 .* got -1'),
    'groups 0': (dict(groups=0), 'groups must be an int >= 1, got 0'),
    'mask_is_logits': (dict(mask_is_logits='False'), "mask_is_logits must be True or False, got 'False'"),
    'offset_scale': (dict(offset_scale=float('nan')), 'offset_scale must be a finite number, got nan'),
    'offset_scale None': (dict(offset_scale=None), 'offset_scale must be a finite number, got None'),
    'offset_scale array': (dict(offset_scale=np.ones(2)), 'offset_scale must be a finite number, got array'),
    'offset_scale text': (dict(offset_scale='1'), "offset_scale must be a finite number, got '1'"),
    'groups None': (dict(groups=None), 'groups must be an int >= 1, got None'),
    'padding None': (dict(padding=None), 'padding must be an int >= 0 .* got None'),
}


@pytest.mark.parametrize('operator', OPERATORS)
@pytest.mark.parametrize('name', ERRORS)
def test_errors_name_argument_value_and_expectation(operator, name):
    changes, message = ERRORS[name]
    with pytest.raises(ValueError, match=f'dcnv3: .*{message}'):
        operator(**_arguments(**changes))
    operator(**_arguments())


@pytest.mark.parametrize('operator', OPERATORS)
@pytest.mark.parametrize('autocast', [False, True])
@pytest.mark.parametrize('argument', ['input', 'offset', 'mask'])
@pytest.mark.parametrize(
    'change, got', [(None, 'None'), (Tensor.tolist, 'list'), (Tensor.numpy, 'ndarray')], ids=['none', 'list', 'numpy']
)
def test_what_is_no_tensor_is_named(operator, autocast, argument, change, got):
    with (
        torch.autocast('cpu', torch.bfloat16, enabled=autocast),
        pytest.raises(TypeError, match=f'^dcnv3: {argument} must be a torch.Tensor, got {got}$'),
    ):
        operator(**_arguments(**{argument: change}))


def bare_arguments(**changes):
    """Arguments of torch.ops.dcnv3, with a list of any length where a pair is expected."""
    arguments = _arguments(**changes)
    for key in ('kernel_size', 'stride', 'padding', 'dilation'):
        arguments[key] = [arguments[key]] * 2 if isinstance(arguments[key], int) else list(arguments[key])
    return list(arguments.values())


# With a meta tensor nothing is read, and offset_scale is never an index. The schema refuses what has another type.
NOT_BARE = ('kernel triple', 'kernel float', 'device', 'offset_scale', 'offset_scale None', 'offset_scale array')
NOT_BARE += ('offset_scale text', 'groups None', 'padding None')
BARE_ERRORS = {name: ERRORS[name][0] for name in ERRORS if name not in NOT_BARE} | {
    'single number': dict(kernel_size=[1]),
    'no number': dict(dilation=[]),
    'huge kernel': dict(groups=2, kernel_size=[2**28, 2**28], padding=[2**27, 2**27]),
    'huge stride': dict(stride=[2**40, 1]),
}


@pytest.mark.parametrize('name', BARE_ERRORS)
def test_the_bare_operators_check_too(name):
    """torch.ops.dcnv3 can be called without the wrapper and must not read out of bounds."""
    arguments = bare_arguments(**BARE_ERRORS[name])
    with pytest.raises(RuntimeError, match='dcnv3|meta'):
        torch.ops.dcnv3.forward(*arguments)
    with pytest.raises(RuntimeError, match='dcnv3|meta'):
        torch.ops.dcnv3.backward(torch.rand(2, 2, 3, 6), *arguments, True, True, False)


@pytest.mark.parametrize('change', [lambda g: g[..., :-1], lambda g: g[1:], lambda g: g.double(), lambda g: g[0]])
def test_the_bare_backward_checks_its_gradient(change):
    arguments, grad_output = bare_arguments(), torch.rand(2, 2, 3, 6)
    torch.ops.dcnv3.backward(grad_output, *arguments, True, True, False)
    with pytest.raises(RuntimeError, match='dcnv3: grad_output must have'):
        torch.ops.dcnv3.backward(change(grad_output), *arguments, True, True, False)
