"""The CPU kernel: correct for every instruction set, and the same bits for any number of threads."""

from __future__ import annotations

import os
import re
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


RUN_OUT_OF_MEMORY = """
import resource, sys
import torch
from ops_dcnv3 import dcnv3

SIDE = 2049  # of a kernel; the plan of one output pixel takes 72 bytes for each of its points, 302 MB


def limit_memory(mebibytes):
    pages = int(open('/proc/self/statm').read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + mebibytes * 2**20,) * 2)


def large_kernel(batch):
    shape = batch, 1, 1, SIDE**2
    offset = torch.zeros(batch, 1, 1, 2 * SIDE**2, dtype=torch.bfloat16)
    return torch.ones(batch, 1, 1, 1).bfloat16(), offset, torch.ones(shape).bfloat16(), SIDE, 1, SIDE // 2


def pixels(side, channels, dtype=torch.float32):
    tensors = torch.zeros(1, side, side, channels), torch.zeros(1, side, side, 2), torch.ones(1, side, side, 1)
    return tuple(t.to(dtype) for t in tensors)


def contiguous_input():
    _, *others = pixels(1, 1)
    limit_memory(100)
    dcnv3(torch.zeros(1).expand(1, 1, 1, 2**26), *others, 1)


def output():
    _, *others = pixels(41, 1)
    limit_memory(100)
    dcnv3(torch.zeros(1, 1, 1, 2**20), *others, 1, padding=20)


def plan(batch=1):
    arguments = large_kernel(batch)
    torch.set_num_threads(batch)
    limit_memory(100)
    dcnv3(*arguments)


def plan_of_threads():
    plan(batch=2)


def gradient(index, memory, *arguments):
    arguments[index].requires_grad_()
    output = dcnv3(*arguments)
    grad_output = torch.ones_like(output)
    limit_memory(memory)
    output.backward(grad_output)


def grad_input():
    gradient(0, 50, *pixels(1, 2**24), 1)


def grad_mask():
    gradient(2, 450, *large_kernel(1))


tensors = [t.requires_grad_() for t in pixels(64, 32)]
dcnv3(*tensors, 1).sum().backward()  # starts torch's threads
try:
    globals()[sys.argv[1]]()
except RuntimeError as error:
    print(error)
torch.ones(10).sum()
"""


@pytest.mark.skipif('DCNV3_SANITIZER' in os.environ, reason='the shadow memory of a sanitizer exceeds every limit')
@pytest.mark.parametrize(
    'name, message',
    [
        ('contiguous_input', '268435456 bytes for a contiguous input'),
        ('output', '7050625024 bytes for the output'),
        ('plan', r'3022\d{5} bytes for the plan of a thread'),
        ('plan_of_threads', r'3022\d{5} bytes for the plan of a thread'),
        ('grad_input', '67108864 bytes for the gradient of input'),
        ('grad_mask', "bytes for the gradients of a thread's samples"),
    ],
)
def test_out_of_memory_says_for_what_and_how_much(name, message):
    command = [sys.executable, '-W', 'ignore', '-c', RUN_OUT_OF_MEMORY, name]
    result = subprocess.run(
        command, env=os.environ | {'OMP_NUM_THREADS': '2'}, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    assert re.fullmatch(f'dcnv3: cannot allocate .*{message}: out of memory\n', result.stdout), result.stdout
