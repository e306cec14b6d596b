"""The CPU kernel: correct for every instruction set, and the same bits for any number of threads."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from ops_dcnv3 import dcnv3, dcnv3_reference, extension
from ops_dcnv3.arguments import Geometry
from tests.ops.cases import PLAIN, gradients, make_case, relative_error

STRIDED = Geometry((3, 3), (2, 2), (2, 2), (2, 2), 20, 1.5)  # more groups than one chunk of the plan

ISAS = extension.describe()['cpu']['isas']

COMPARE = """
import torch
from ops_dcnv3 import dcnv3, dcnv3_reference, extension
from tests.ops.cases import PLAIN, gradients, make_case, relative_error
for dtype, tolerance in ((torch.float64, 1e-13), (torch.float32, 2e-5), (torch.bfloat16, 5e-2), (torch.float16, 5e-3)):
    for group_channels, mask_is_logits in ((3, False), (16, True), (32, False), (40, True)):
        geometry = PLAIN._replace(mask_is_logits=mask_is_logits)
        case = make_case(geometry, group_channels=group_channels, dtype=dtype, requires_grad=True)
        output, expected = dcnv3(*case.args), dcnv3_reference(*case.args)
        assert relative_error(output, expected) < tolerance
        grad_output = torch.randn_like(output)
        for grad, other in zip(gradients(output, case, grad_output), gradients(expected, case, grad_output)):
            assert relative_error(grad, other) < tolerance, (dtype, group_channels)
print(extension.describe()['cpu']['isa'])
"""


@pytest.mark.parametrize('isa', ISAS)
def test_every_instruction_set(isa):
    environment = os.environ | {'DCNV3_CPU_ISA': isa}
    result = subprocess.run(
        [sys.executable, '-c', COMPARE], env=environment, capture_output=True, text=True, check=False
    )
    best = extension.describe()['cpu']['isa']
    if ISAS.index(isa) < ISAS.index(best):
        assert 'DCNV3_CPU_ISA must be one of' in result.stderr  # this machine lacks it
    else:
        assert result.stdout.split()[-1:] == [isa], result.stderr


def test_an_unknown_instruction_set_is_an_error():
    environment = os.environ | {'DCNV3_CPU_ISA': 'sse9'}
    code = 'from ops_dcnv3 import extension; print(extension.describe()["errors"])'
    result = subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True, text=True, check=True)
    assert 'DCNV3_CPU_ISA must be one of' in result.stdout and 'got sse9' in result.stdout


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('batch', [1, 3])
@pytest.mark.parametrize('size', [(37, 23), (1, 3000), (2, 2500)])
@pytest.mark.parametrize('mask_is_logits', [False, True])
def test_same_bits_for_any_number_of_threads(mask_is_logits, size, batch, dtype, threads):
    """Offsets of several pixels, so that every band of pixels samples other bands; short and long rows."""
    case = make_case(
        PLAIN._replace(mask_is_logits=mask_is_logits),
        batch,
        size,
        group_channels=16,
        dtype=dtype,
        spread=6,
        requires_grad=True,
    )
    results = []
    for number in (1, 2, 3, 5, 8):
        threads(number)
        output = dcnv3(*case.args)
        results.append((output, *gradients(output, case, torch.ones_like(output))))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    expected = dcnv3_reference(*case.args)
    expected = (expected, *gradients(expected, case, torch.ones_like(expected)))
    for ours, theirs in zip(results[0], expected, strict=True):
        # At column 3000 a position in float32 is rounded to 2^-12 pixels.
        assert relative_error(ours, theirs) < (1e-3 if dtype == torch.float32 else 3e-2)


@pytest.mark.parametrize('size', [(37, 23), (1, 3000), (2, 2500)])
@pytest.mark.parametrize('number', [1, 3, 8])
def test_bands_and_chunks_add_up(number, size, threads):
    """In float64: at column 3000 rounding in float32 may move a position across a pixel, where the gradient jumps."""
    threads(number)
    case = make_case(STRIDED, 1, size, group_channels=4, dtype=torch.float64, spread=6, requires_grad=True)
    output, expected = dcnv3(*case.args), dcnv3_reference(*case.args)
    assert relative_error(output, expected) < 1e-9
    for ours, theirs in zip(
        gradients(output, case, torch.ones_like(output)),
        gradients(expected, case, torch.ones_like(output)),
        strict=True,
    ):
        assert relative_error(ours, theirs) < 1e-9


@pytest.mark.parametrize('needed', [0, 1, 2])
def test_a_gradient_computed_alone_is_the_same(needed, threads):
    threads(3)
    case = make_case(PLAIN, 1, (37, 23), group_channels=16, dtype=torch.float32, spread=6, requires_grad=True)
    output = dcnv3(*case.args)
    together = gradients(output, case, torch.ones_like(output))
    tensors = [t.detach().requires_grad_(i == needed) for i, t in enumerate(case.args[:3])]
    dcnv3(*tensors, *case.args[3:]).sum().backward()
    torch.testing.assert_close(tensors[needed].grad, together[needed], rtol=1e-6, atol=1e-6)


def test_large_images_agree_across_threads(threads):
    """Large enough that more than one thread works on them."""
    threads(4)
    case = make_case(PLAIN, 2, (64, 96), group_channels=16, dtype=torch.float32, spread=3, requires_grad=True)
    output, expected = dcnv3(*case.args), dcnv3_reference(*case.args)
    grad_output = torch.randn_like(output)
    assert relative_error(output, expected) < 1e-5
    for grad, other in zip(gradients(output, case, grad_output), gradients(expected, case, grad_output), strict=True):
        assert relative_error(grad, other) < 1e-4
