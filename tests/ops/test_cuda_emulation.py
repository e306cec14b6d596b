"""The CUDA kernels emulated on the CPU, one thread after the other.

This tests what the kernels compute, that their threads wait for each other, and that they access nothing outside their
tensors. It does not test the code that nvcc generates.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ops_dcnv3 import dcnv3
from ops_dcnv3.arguments import Geometry
from tests.ops.cases import ASYMMETRIC, Case, make_case, relative_error

SOURCE = Path(__file__).parent / 'emulation' / 'kernels.cpp'
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
TOLERANCES = dict(zip(DTYPES, (1e-13, 2e-6, 1e-2, 1e-3), strict=True))
GUARD = 64  # NaNs before and after the numbers of a tensor

SQUARE = Geometry((3, 3), (1, 1), (1, 1), (1, 1), 2, 1.0)
GEOMETRIES = {
    'square': SQUARE,
    'asymmetric': ASYMMETRIC,
    'point': Geometry((1, 1), (1, 1), (0, 0), (1, 1), 3, 2.0),
    'row': Geometry((1, 5), (1, 1), (0, 2), (1, 1), 4, 1.0),
    'large_kernel': Geometry((7, 7), (3, 3), (3, 3), (1, 1), 1, 0.3),  # more points than are staged at once
}


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('emulation')


def compile_kernels(folder: Path, arch: int) -> ctypes.CDLL:
    compiler = shutil.which('g++')
    if compiler is None:
        pytest.skip('no g++')
    library = folder / f'kernels_{arch}.so'
    options = ['-std=c++20', '-O1', '-shared', '-fPIC', '-Wall', '-Werror', '-Wno-unknown-pragmas']
    options += ['-fsanitize=alignment,bounds', '-fsanitize-undefined-trap-on-error']
    include = Path(torch.__file__).parent / 'include'
    subprocess.run(
        [compiler, *options, f'-DEMULATED_ARCH={arch}', '-isystem', include, SOURCE, '-o', library], check=True
    )
    return ctypes.CDLL(str(library))


@pytest.fixture(scope='module')
def kernels(folder: Path) -> ctypes.CDLL:
    """Compiled as for sm_90."""
    return compile_kernels(folder, 900)


def guarded(tensor: Tensor) -> Tensor:
    """A copy with NaN before and after it in memory."""
    memory = torch.full((tensor.numel() + 2 * GUARD,), float('nan'), dtype=tensor.dtype)
    return memory[GUARD:-GUARD].view(tensor.shape).copy_(tensor)


def is_guarded(tensor: Tensor) -> bool:
    memory = tensor._base
    return bool(memory[:GUARD].isnan().all() and memory[-GUARD:].isnan().all())


class Emulation:
    """Calls the kernels as the operator does, on copies of a case's tensors."""

    def __init__(self, kernels: ctypes.CDLL, case: Case, logits: bool, grid: tuple[int, int] = (2, 1)) -> None:
        batch, *size, channels = case.input.shape
        geometry = case.geometry
        numbers = [*size, *geometry.output_size(*size), *(n for pair in geometry[:4] for n in pair)]
        numbers += [geometry.groups, batch, channels // geometry.groups]
        dtype = case.input.dtype
        wide = numbers[-1] % (16 // dtype.itemsize) == 0
        self.kernels = kernels
        self.inputs = [guarded(tensor.detach()) for tensor in case.tensors]
        self.output_shape = (*case.mask.shape[:3], channels)
        self.call = (
            (ctypes.c_int64 * len(numbers))(*numbers),
            ctypes.c_double(geometry.offset_scale),
            DTYPES.index(dtype),
            ctypes.c_bool(wide),
            *grid,
            ctypes.c_bool(logits),
        )

    def forward(self) -> Tensor:
        output = guarded(self.inputs[0].new_full(self.output_shape, float('inf')))
        self.kernels.forward(*self.call, *map(address, (*self.inputs, output)))
        assert is_guarded(output)
        return output

    def backward(self, grad_output: Tensor, deterministic: bool) -> list[Tensor]:
        input, offset, mask = self.inputs
        grad_output = guarded(grad_output)
        sums = torch.zeros(input.shape, dtype=torch.float64 if input.dtype == torch.float64 else torch.float32)
        fixed = torch.zeros(input.shape, dtype=torch.int64) if deterministic else None
        grads = [guarded(sums), *(guarded(torch.full_like(t, float('inf'))) for t in (offset, mask))]
        self.kernels.backward(
            *self.call,
            address(grad_output),
            ctypes.c_int64(grad_output.numel()),
            address(input),
            ctypes.c_int64(input.numel()),
            address(offset),
            address(mask),
            ctypes.c_int64(mask.numel()),
            address(fixed),
            *map(address, grads),
        )
        assert all(map(is_guarded, grads))
        return grads


def address(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def expected_results(case: Case, logits: bool, grad_output: Tensor) -> Iterator[Tensor]:
    """Output and gradients of the CPU operator in float64."""
    exact = case.to(torch.float64)
    for tensor in exact.tensors:
        tensor.requires_grad_()
    weights = exact.mask
    if logits:
        weights = weights.unflatten(-1, (case.geometry.groups, -1)).softmax(-1).flatten(3)
    output = dcnv3(exact.input, exact.offset, weights, *case.geometry)
    yield output
    yield from torch.autograd.grad(output, exact.tensors, grad_output.double())


def check(kernels: ctypes.CDLL, name: str, group_channels: int, dtype: torch.dtype, logits: bool) -> None:
    case = make_case(GEOMETRIES[name], size=(7, 6), group_channels=group_channels, dtype=dtype)
    case.offset[0, 0, 0, :2] = float('nan')
    case.offset[0, -1, -1, -1] = -1e4
    emulation = Emulation(kernels, case, logits)
    output = emulation.forward()
    grad_output = torch.randn(output.shape).to(dtype)
    expected = list(expected_results(case, logits, grad_output))
    for deterministic in (False, True):
        results = [output, *emulation.backward(grad_output, deterministic)]
        for result, truth in zip(results, expected, strict=True):
            assert relative_error(result, truth) < TOLERANCES[dtype]


@pytest.mark.parametrize('logits', [False, True], ids=['weights', 'logits'])
@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize(
    'name, group_channels', [('square', 16), ('square', 5), ('asymmetric', 1), ('asymmetric', 24), ('row', 8)]
)
def test_the_kernels_match_the_cpu_operator(kernels, name, group_channels, dtype, logits):
    check(kernels, name, group_channels, dtype, logits)


@pytest.mark.parametrize('name, group_channels', [('large_kernel', 16), ('large_kernel', 140), ('point', 4)])
def test_many_points_and_many_channels(kernels, name, group_channels):
    check(kernels, name, group_channels, torch.float32, logits=True)


def test_without_vector_atomics(folder):
    check(compile_kernels(folder, 800), 'square', 16, torch.float32, logits=False)


def test_fixed_point_does_not_depend_on_the_order(kernels):
    """A sum in floating point depends on the order of blocks and threads."""
    case = make_case(SQUARE, batch=3, size=(9, 8), group_channels=16, dtype=torch.float32)
    grad_output = torch.randn(3, 9, 8, 32)
    grids = [(1, 1), (3, 1), (2, 3)]
    for deterministic in (True, False):
        results = [Emulation(kernels, case, False, grid).backward(grad_output, deterministic)[0] for grid in grids]
        assert all(torch.equal(result, results[0]) for result in results) == deterministic


def test_fixed_point_of_gradients_that_are_not_finite_is_nan(kernels):
    case = make_case(SQUARE, group_channels=4, dtype=torch.float32)
    for value in (float('nan'), float('inf')):
        grad_output = torch.ones(2, 5, 4, 8)
        grad_output[1, 2, 3, 4] = value
        assert Emulation(kernels, case, False).backward(grad_output, True)[0].isnan().all()
    assert not Emulation(kernels, case, False).backward(torch.zeros(2, 5, 4, 8), True)[0].any()


@pytest.mark.parametrize('value', [float('nan'), float('inf'), 1e30])
@pytest.mark.parametrize('logits', [False, True])
def test_fixed_point_of_weights_that_are_not_finite_is_nan(value, logits, kernels):
    case = make_case(SQUARE, group_channels=4, dtype=torch.float32)
    case.mask[0] = value
    grad_input = Emulation(kernels, case, logits).backward(torch.full((2, 5, 4, 8), 1e30), True)[0]
    # Equal logits, however large, give equal weights. A weight of 1e30 times this gradient overflows float32.
    assert grad_input.isfinite().all() if logits and value == 1e30 else grad_input.isnan().all()


def test_a_sample_outside_reads_no_pixel(kernels):
    case = make_case(GEOMETRIES['point'], group_channels=4, dtype=torch.float32)
    case.input.fill_(float('inf'))
    case.offset.fill_(100.0)
    emulation = Emulation(kernels, case, False)
    grads = emulation.backward(torch.ones(emulation.output_shape), False)
    assert not any(result.any() for result in (emulation.forward(), *grads))


def test_fixed_point_holds_the_largest_sum(kernels):
    """All 64 samples in one pixel, with the largest weight and gradient."""
    geometry = GEOMETRIES['point']._replace(groups=1, offset_scale=1.0)
    case = make_case(geometry, batch=1, size=(8, 8), group_channels=4, dtype=torch.float32)
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing='ij')
    case.offset.copy_(-torch.stack([columns, rows], dim=-1))
    case.mask.fill_(1.0)
    grad_input, *_ = Emulation(kernels, case, False).backward(torch.ones(1, 8, 8, 4), True)
    assert grad_input[0, 0, 0].tolist() == [64.0] * 4 and grad_input.sum() == 256.0
