"""The operator: argument checks, dispatch, and its registration with autograd, fake tensors and the FLOP counter."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, library
from torch.autograd import forward_ad
from torch.utils.flop_counter import register_flop_formula

from . import extension
from .arguments import Geometry, IntOrPair, Pair, check_geometry, check_tensors, require_tensors
from .autocast import autocast
from .reference import sample_with_grid

# Multiply-adds per output channel and sampling point, as in the official FLOP counts: four corners and the weight.
MACS_PER_SAMPLE = 5


def dcnv3(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    kernel_size: IntOrPair,
    stride: IntOrPair = 1,
    padding: IntOrPair = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    offset_scale: float = 1.0,
    mask_is_logits: bool = False,
) -> Tensor:
    """Deformable convolution v3 (InternImage, https://arxiv.org/abs/2211.05778, Eq. 2), without its linear projections.

    Every output pixel is, per group, a weighted sum of P = kernel_h * kernel_w bilinear samples of the input, at a
    regular grid displaced by learned offsets. Outside the image the input counts as zero. A sample at least one pixel
    outside, or at a position that is not finite, contributes nothing and receives no gradient, provided that its
    weight, the output's gradient and the input at the border are finite.

    Runs on compiled CPU and CUDA kernels. Uses :func:`dcnv3_reference` where these are not built, after one warning, or
    if the environment variable ``DCNV3_FORCE_REFERENCE=1`` was set at import. Under autocast all three tensors are cast
    to its dtype. Differentiable once, in reverse mode; for second derivatives and ``torch.func.grad`` use
    :func:`dcnv3_reference`.

    Args:
        input: (N, H, W, C), float64, float32, bfloat16 or float16; group after group along C.
        offset: (N, H_out, W_out, groups*P*2): per group and point a pair (x, y), in input pixels.
        mask: (N, H_out, W_out, groups*P): the weights, or their logits. Points are ordered w-outer, h-inner.
        kernel_size: Shape of the grid, an int or a pair (h, w).
        stride: Distance of neighbouring outputs, in input pixels, an int or a pair (h, w).
        padding: Pixels added on each side, an int or a pair (h, w).
        dilation: Distance of neighbouring points, in input pixels, an int or a pair (h, w).
        groups: Number of groups; divides C.
        offset_scale: Factor on the grid, around its middle, and on the offsets.
        mask_is_logits: Whether the weights are the softmax of ``mask`` over the points of each group, instead of
            ``mask`` itself. Cheaper than a softmax before the operator, whose result the backward would have to keep.

    Returns:
        (N, H_out, W_out, C) with H_out = (H + 2*padding - dilation*(kernel - 1) - 1) // stride + 1, in the dtype of the
        input.

    Raises:
        TypeError: ``input``, ``offset`` or ``mask`` is not a tensor.
        ValueError: A rank, shape, dtype, device or number does not fit; the message names argument, value and
            expectation.
        RuntimeError: A second derivative is asked for, or there is not enough memory; the message says for what.

    Example:
        >>> input, offset = torch.rand(2, 8, 10, 32), torch.randn(2, 8, 10, 4 * 9 * 2)
        >>> logits = torch.randn(2, 8, 10, 4 * 9)
        >>> dcnv3(input, offset, logits, kernel_size=3, padding=1, groups=4, mask_is_logits=True).shape
        torch.Size([2, 8, 10, 32])
    """
    geometry = check_geometry(kernel_size, stride, padding, dilation, groups, offset_scale, mask_is_logits)
    require_tensors('dcnv3: ', input=input, offset=offset, mask=mask)
    input, offset, mask = autocast(input, offset, mask)
    check_tensors(input, offset, mask, geometry)
    if extension.has_kernel(input.device.type):
        _refuse_forward_mode(input, offset, mask)
        return torch.ops.dcnv3.forward(input, offset, mask, *geometry)
    extension.warn_about_fallback(input.device.type)
    return sample_with_grid(input, offset, mask, geometry)


def _refuse_forward_mode(*tensors: Tensor) -> None:
    """Raises in forward mode; torch would silently drop the tangents, as the operator has no forward-mode formula."""
    if not torch.compiler.is_compiling() and any(forward_ad.unpack_dual(t).tangent is not None for t in tensors):
        raise RuntimeError('dcnv3 has no forward-mode derivative')


def _fake_forward(
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    offset_scale: float,
    mask_is_logits: bool = False,
) -> Tensor:
    require_tensors('dcnv3: ', input=input, offset=offset, mask=mask)  # torch passes None for a tensor
    geometry = Geometry(kernel_size, stride, padding, dilation, groups, offset_scale, mask_is_logits)
    batch, height, width, channels = input.shape
    return input.new_empty(batch, *geometry.output_size(height, width), channels)


def _fake_backward(
    grad_output: Tensor,
    input: Tensor,
    offset: Tensor,
    mask: Tensor,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    offset_scale: float,
    mask_is_logits: bool,
    needs_input: bool,
    needs_sampling: bool,
    deterministic: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    require_tensors('dcnv3: ', grad_output=grad_output, input=input, offset=offset, mask=mask)
    return (
        input.new_empty(input.shape if needs_input else 0),
        offset.new_empty(offset.shape if needs_sampling else 0),
        mask.new_empty(mask.shape if needs_sampling else 0),
    )


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, offset, mask, *geometry = inputs
    ctx.save_for_backward(input, offset, mask)
    ctx.geometry = geometry


def _backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    needs_input, needs_offset, needs_mask = ctx.needs_input_grad[:3]
    input, offset, mask = ctx.saved_tensors
    # The gradients of offset and mask share their products, so the kernel computes both or neither.
    grads = torch.ops.dcnv3.backward(
        grad_output,
        input,
        offset,
        mask,
        *ctx.geometry,
        needs_input,
        needs_offset or needs_mask,
        torch.are_deterministic_algorithms_enabled(),
    )
    wanted = (g if needed else None for g, needed in zip(grads, ctx.needs_input_grad, strict=False))
    return *wanted, *(None for _ in ctx.geometry)


def _no_second_derivative(ctx: Any, *grads: Tensor) -> tuple[None, ...]:
    raise RuntimeError('dcnv3 can be differentiated only once. For second derivatives use ops_dcnv3.dcnv3_reference.')


def dcnv3_macs(pixels: int, channels: int, points: int) -> int:
    """Multiply-adds of a forward, for the number of output pixels of all images and of sampling points per group."""
    return MACS_PER_SAMPLE * pixels * channels * points


def _flops(
    input_shape: torch.Size, offset_shape: torch.Size, mask_shape: torch.Size, kernel_size: Pair, *_: Any, **__: Any
) -> int:
    """Two per multiply-add, torch's convention."""
    return 2 * dcnv3_macs(math.prod(offset_shape[:3]), input_shape[-1], math.prod(kernel_size))


def _backward_flops(
    grad_output_shape: torch.Size,
    input_shape: torch.Size,
    offset_shape: torch.Size,
    mask_shape: torch.Size,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    offset_scale: float,
    mask_is_logits: bool,
    needs_input: bool,
    needs_sampling: bool,
    deterministic: bool,
    **_: Any,
) -> int:
    """As for convolutions: the gradients of data and of weights cost a forward each."""
    return (needs_input + needs_sampling) * _flops(input_shape, offset_shape, mask_shape, kernel_size)


if extension.has_schemas():
    library.register_fake('dcnv3::forward', _fake_forward)
    library.register_fake('dcnv3::backward', _fake_backward)
    library.register_autograd('dcnv3::forward', _backward, setup_context=_save_for_backward)
    library.register_autograd('dcnv3::backward', _no_second_derivative)
    register_flop_formula(torch.ops.dcnv3.forward)(_flops)
    register_flop_formula(torch.ops.dcnv3.backward)(_backward_flops)
