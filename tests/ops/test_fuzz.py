"""The operator on calls that hypothesis draws, against its definition in float64.

Positions are exact in float32: offsets are multiples of 1/16 and scales powers of two. So the floor of a position,
where the gradient jumps, is the same in every dtype, and a tolerance follows from the number formats alone.
"""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
from dataclasses import dataclass

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from ops_dcnv3 import dcnv3
from ops_dcnv3.arguments import Geometry
from ops_dcnv3.reference import _sampling_positions
from tests.ops.cases import Case
from tests.support import ROOT

SANITIZED = 'DCNV3_SANITIZER' in os.environ  # the shadow memory of a sanitizer exceeds every limit
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
NAN, INF = float('nan'), float('inf')
WILD_OFFSETS = (0.0, 1.0, -1.0, -0.0, 3.0, 1 / 16, -1 / 16, 100.0, -3e4, 6e4, 1e30, -1e30, INF, -INF, NAN)
WILD_LOGITS = (0.0, 64.0, -64.0, 100.0, -100.0, 6e4, -6e4, 1e30, -1e30, -INF)  # none makes a weight NaN
NOT_FINITE = (INF, -INF, NAN)


# Layouts: the same numbers, laid out in memory in another way. What lies between them is NaN.


def _strided(t: Tensor) -> Tensor:
    room = t.new_full((*t.shape[:-1], 2 * t.shape[-1]), NAN)
    room[..., ::2] = t
    return room[..., ::2]


def _window(t: Tensor) -> Tensor:
    """Part of a larger tensor, from an address that is not aligned."""
    room = t.new_full([size + 2 for size in t.shape], NAN)
    window = room[tuple(slice(1, size + 1) for size in t.shape)]
    return window.copy_(t)


def _permuted(*order: int):
    inverse = [order.index(i) for i in range(4)]
    return lambda t: t.permute(order).contiguous().permute(inverse)


def _expanded(t: Tensor) -> Tensor:
    """All images are the first one; this changes the numbers."""
    return t[:1].expand_as(t)


LAYOUTS = {
    'contiguous': lambda t: t,
    'offset': lambda t: torch.cat([t.new_full((1,), NAN), t.flatten()])[1:].view(t.shape),
    'strided': _strided,
    'window': _window,
    'channels first': _permuted(0, 3, 1, 2),
    'transposed': _permuted(2, 1, 0, 3),
    'reversed': _permuted(3, 2, 1, 0),
    'expanded': _expanded,
    'negative': lambda t: torch._neg_view(-t),
}


@dataclass
class Call:
    """A call that was drawn; its tensors hold fixed random numbers with some wild ones among them."""

    geometry: Geometry
    batch: int
    size: tuple[int, int]
    group_channels: int
    dtype: torch.dtype
    layouts: tuple[str, ...]  # of input, offset, mask and the gradient of the output
    wanted: tuple[bool, ...]  # gradients of input, offset and mask
    threads: int
    wild_offsets: dict[int, float]  # by position in the flattened tensor, modulo its size
    wild_masks: dict[int, float]

    def tensors(self) -> tuple[Case, Tensor]:
        """The call, and the gradient of its output."""
        generator = torch.Generator().manual_seed(0)
        rows, columns = self.geometry.output_size(*self.size)
        channels, samples = self.geometry.groups * self.group_channels, self.geometry.groups * self.geometry.points

        def make(layout: str, scale: float, *shape: int) -> Tensor:
            numbers = (torch.randn(shape, generator=generator, dtype=torch.float64) * scale * 16).round() / 16
            return LAYOUTS[layout](numbers.clamp(-8, 8).to(self.dtype))

        def place(tensor: Tensor, wild: dict[int, float]) -> Tensor:
            flat = tensor.flatten()
            for index, value in wild.items() if flat.numel() else ():
                flat[index % flat.numel()] = value
            return flat.view(tensor.shape)

        output_shape = self.batch, rows, columns
        plain = [
            make('contiguous', 1, self.batch, *self.size, channels),
            place(make('contiguous', 2, *output_shape, 2 * samples), self.wild_offsets),
            place(make('contiguous', 1, *output_shape, samples), self.wild_masks),
        ]
        laid_out = (LAYOUTS[layout](t) for layout, t in zip(self.layouts, plain, strict=False))
        tensors = (t.detach().requires_grad_(wanted) for t, wanted in zip(laid_out, self.wanted, strict=True))
        return Case(*tensors, self.geometry), make(self.layouts[3], 1, *output_shape, channels)


def make_call(geometry: Geometry, size: tuple[int, int], **others) -> Call:
    """With a size of at least that of the kernel."""
    least = (
        dilation * (kernel - 1) + 1 - 2 * padding
        for kernel, padding, dilation in zip(geometry.kernel_size, geometry.padding, geometry.dilation, strict=True)
    )
    height, width = (max(drawn, needed) for drawn, needed in zip(size, least, strict=True))
    return Call(geometry, size=(height, width), **others)


def pairs(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


def calls(
    mask_is_logits: bool, wild_masks: tuple[float, ...], wild_least: int = 0, large: bool = False
) -> st.SearchStrategy[Call]:
    """Calls with at least ``wild_least`` of ``wild_masks`` among the mask's numbers; ``large`` enough for threads."""
    return st.builds(
        make_call,
        geometry=st.builds(
            Geometry,
            kernel_size=pairs(3 if large else 1, 4),
            stride=pairs(1, 1 if large else 3),
            padding=pairs(0, 4),
            dilation=pairs(1, 3),
            groups=st.sampled_from((3, 5, 7) if large else (1, 2, 3, 5, 7)),
            offset_scale=st.sampled_from((1.0, 0.5, 2.0, 0.25, -1.0, 0.0)),
            mask_is_logits=st.just(mask_is_logits),
        ),
        batch=st.sampled_from((1, 2, 3, 1, 2, 3, 0)),
        size=pairs(16, 32) if large else pairs(1, 9),
        group_channels=st.integers(8 if large else 1, 40),
        dtype=st.sampled_from(DTYPES),
        layouts=st.tuples(*[st.sampled_from(sorted(LAYOUTS))] * 4),
        wanted=st.sampled_from([wanted for wanted in itertools.product((True, False), repeat=3) if any(wanted)]),
        threads=st.integers(2, 4) if large else st.sampled_from((1, 2)),
        wild_offsets=st.dictionaries(st.integers(0, 2000), st.sampled_from(WILD_OFFSETS), max_size=8),
        wild_masks=st.dictionaries(st.integers(0, 1000), st.sampled_from(wild_masks), min_size=wild_least, max_size=8),
    )


FINITE = calls(False, (0.0, 1.0, -1.0, 8.0)) | calls(True, WILD_LOGITS)
LARGE = calls(False, (0.0,), large=True) | calls(True, WILD_LOGITS, large=True)
NON_FINITE = calls(False, NOT_FINITE, 1) | calls(True, NOT_FINITE, 1)


@dataclass
class Definition:
    """Output and gradients in float64, the gradient of the mask before a softmax."""

    output: Tensor
    grad_input: Tensor
    grad_offset: Tensor
    grad_weights: Tensor


def define(case: Case, weights: Tensor, grad_output: Tensor, magnitudes: bool = False) -> Definition:
    """DCNv3 as gathered corners, whose gradient follows the floor rule.

    With ``magnitudes`` every product counts with its absolute value: the sum is what rounding errors are relative to.
    """
    input, offset, weights, grad_output = (
        t.detach().double().resolve_neg() for t in (case.input, case.offset, weights, grad_output)
    )
    if magnitudes:
        input, weights, grad_output = input.abs(), weights.abs(), grad_output.abs()
    input, offset, weights = (t.requires_grad_() for t in (input, offset, weights))
    groups = case.geometry.groups
    batch, height, width, channels = input.shape
    x, y = _sampling_positions(offset.unflatten(-1, (groups, -1, 2)), case.geometry)
    inside = (x > -1) & (x < width) & (y > -1) & (y < height)
    x, y = (torch.where(inside, t, -2.0) for t in (x, y))

    def neighbours(position: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
        """Index and weight of the two pixels around a position along one axis."""
        low = position.detach().floor()
        fraction = position - low
        lower = 1 - fraction
        if magnitudes:  # the same value, with the derivative 1 in place of -1
            lower = lower.detach() + fraction - fraction.detach()
        corners = ((low.long(), lower), (low.long() + 1, fraction))
        return [(i.clamp(0, size - 1), torch.where((i >= 0) & (i < size), weight, 0)) for i, weight in corners]

    image = torch.arange(batch).view(-1, 1, 1, 1, 1)
    group = torch.arange(groups).view(-1, 1)
    per_group = input.unflatten(-1, (groups, channels // groups))
    value = sum(
        (weight_y * weight_x).unsqueeze(-1) * per_group[image, row, column, group]
        for row, weight_y in neighbours(y, height)
        for column, weight_x in neighbours(x, width)
    )
    used = torch.where(inside, weights.unflatten(-1, (groups, -1)), 0)
    output = (used.unsqueeze(-1) * value).sum(-2).flatten(3)
    return Definition(output.detach(), *torch.autograd.grad(output, (input, offset, weights), grad_output))


def softmax_weights(case: Case) -> Tensor:
    mask = case.mask.detach().double()
    if not case.geometry.mask_is_logits:
        return mask
    return mask.unflatten(-1, (case.geometry.groups, -1)).softmax(-1).flatten(3)


def softmax_gradient(weights: Tensor, grads: Tensor, groups: int, sign: int) -> Tensor:
    weights, grads = (t.unflatten(-1, (groups, -1)) for t in (weights, grads))
    return (weights * (grads + sign * (weights * grads).sum(-1, keepdim=True))).flatten(3)


def assert_close(name: str, actual: Tensor, expected: Tensor, magnitude: Tensor, terms: int, where: Tensor) -> None:
    """Within what rounding each of the terms of a sum, and then the result, to its format can make of it."""
    computed = torch.finfo(torch.promote_types(actual.dtype, torch.float32))
    stored = torch.finfo(actual.dtype)
    # exp leaves its smallest values out, and products of small numbers lose bits below the normal ones.
    bound = terms * (computed.eps / 2 * magnitude.abs() + 2.0**20 * computed.smallest_normal)
    bound += stored.eps / 2 * (expected.abs() + bound) + stored.smallest_normal * stored.eps
    difference = (actual.detach().double() - expected).abs()
    wrong = where & ~(difference <= bound)
    assert not wrong.any(), (
        f'{name}: {int(wrong.sum())} of {wrong.numel()} differ, the first at {wrong.nonzero()[0].tolist()}: '
        f'{actual[wrong][0].item()} for {expected[wrong][0].item()}, allowed {bound[wrong][0].item():.3g}'
    )


def check(call: Call) -> None:
    """Compares output and gradients. A group of one pixel whose weights are not finite may hold anything."""
    case, grad_output = call.tensors()
    groups, points = case.geometry.groups, case.geometry.points
    before = torch.get_num_threads()
    torch.set_num_threads(call.threads)
    try:
        output = dcnv3(*case.args)
        leaves = [t for t in case.tensors if t.requires_grad]
        found = iter(torch.autograd.grad(output, leaves, grad_output))
    finally:
        torch.set_num_threads(before)
    weights = softmax_weights(case)
    finite = weights.isfinite().unflatten(-1, (groups, points)).all(-1)  # by image, row, column and group
    weights = torch.where(finite.repeat_interleave(points, -1), weights, 0)
    exact = define(case, weights, grad_output)
    size = define(case, weights, grad_output, magnitudes=True)
    if case.geometry.mask_is_logits:
        exact.grad_weights = softmax_gradient(weights, exact.grad_weights, groups, -1)
        size.grad_weights = softmax_gradient(weights, size.grad_weights.abs(), groups, 1)
    # Four products per sample; per pixel of the input all samples at most. A softmax adds the error of its exponent,
    # which is below 88 in float32 and 709 in float64, and of its sums.
    terms = 8 + 4 * points + call.group_channels + output.shape[1] * output.shape[2] * points
    if case.geometry.mask_is_logits:
        terms += 2 * points + (88 if call.dtype != torch.float64 else 709)

    assert output.dtype == call.dtype and output.is_contiguous()
    by_channel = finite.repeat_interleave(call.group_channels, -1)
    assert_close('output', output, exact.output, size.output, terms, by_channel)
    for name, repeats in (('input', 0), ('offset', 2 * points), ('weights', points)):
        if not getattr(case, 'mask' if name == 'weights' else name).requires_grad:
            continue
        grad, name = next(found), f'grad_{name}'
        where = finite.repeat_interleave(repeats, -1) if repeats else finite.all().expand(grad.shape)
        assert grad.dtype == call.dtype
        assert_close(name, grad, getattr(exact, name), getattr(size, name), terms, where)


fixed = hypothesis.settings(max_examples=300, derandomize=True, deadline=None, database=None)


@fixed
@hypothesis.given(FINITE)
def test_agrees_with_the_definition(call):
    check(call)


@fixed
@hypothesis.given(NON_FINITE)
def test_weights_that_are_not_finite_stay_in_their_group(call):
    check(call)


@hypothesis.settings(fixed, max_examples=30)
@hypothesis.given(LARGE)
def test_threads_agree_with_the_definition(call):
    check(call)


@pytest.mark.parametrize('examples', [300, pytest.param(20_000, marks=pytest.mark.long)])
def test_wrong_arguments_of_the_bare_operators_end_no_process(examples):
    """In a process of its own, of limited memory."""
    command = [sys.executable, '-W', 'ignore', '-m', 'tests.ops.fuzz_bare', str(examples)]
    if not SANITIZED:
        command = ['prlimit', f'--as={12 * 2**30}', *command]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    assert done.stdout.endswith('every call returned or raised\n')


@pytest.mark.parametrize(
    'examples', [pytest.param(3000, marks=pytest.mark.slow), pytest.param(20_000, marks=pytest.mark.long)]
)
def test_agrees_with_the_definition_at_length(examples):
    """On other calls in every run; DCNV3_FUZZ_SEED repeats one."""
    seed = int(os.environ.get('DCNV3_FUZZ_SEED') or random.SystemRandom().randrange(2**32))
    print(f'DCNV3_FUZZ_SEED={seed}')
    random_calls = hypothesis.settings(fixed, max_examples=examples, derandomize=False)
    random_calls(hypothesis.seed(seed)(hypothesis.given(FINITE | NON_FINITE)(check)))()
