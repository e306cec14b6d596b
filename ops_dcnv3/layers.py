"""Linear layers, norms and activations for channels-last features, shared by the operator's layers and the backbone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .autocast import autocast_dtype

LAYER_NORM_EPS = 1e-6  # of every LayerNorm in InternImage; BatchNorm keeps PyTorch's default

HAS_ONEDNN = torch.backends.mkldnn.is_available()
NORM_LAYERS = ('LN', 'BN')


class ToChannelsFirst(nn.Module):
    """(N, H, W, C) -> (N, C, H, W), a view."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)


class ToChannelsLast(nn.Module):
    """(N, C, H, W) -> (N, H, W, C), a view."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


class Scalable:
    """A layer whose ``forward`` takes ``scale``, a factor per channel of its output, see :func:`scaled`."""


def scaled(layer: nn.Module, x: Tensor, scale: Tensor | None) -> Tensor:
    """``scale * layer(x)`` over the last dimension, or ``layer(x)`` without a scale.

    A :class:`Scalable` layer multiplies its parameters instead of its output where that is cheaper and as exact:
    autograd then keeps no output for the gradient of the scale. Hooks on the layer see the scaled output, and the scale
    as a keyword. A layer that a user puts in its place need not take a scale.
    """
    if scale is None:
        return layer(x)
    return layer(x, scale=scale) if isinstance(layer, Scalable) else scale * layer(x)


def _can_scale_parameters(weight: Tensor) -> bool:
    # torch.compile fuses the product with the output into its neighbours, which is faster. An exported model may be
    # converted to 16 bits.
    if torch.compiler.is_compiling() or _is_exporting():
        return False
    # Scaled 16-bit weights would be rounded twice, and may vanish in float16: a scale may start at 1e-5.
    return weight.element_size() >= 4 and autocast_dtype(weight.device.type) != torch.float16


class Linear(Scalable, nn.Linear):
    """``nn.Linear``, computed as a 1x1 convolution where PyTorch does that faster.

    That is on feature maps (N, H, W, C) in float32 on the CPU: PyTorch uses MKL for matrix products and oneDNN for
    convolutions, which takes about half the time on an AMD processor with AVX-512 (docs/performance.md). Elsewhere, and
    in exported models, it is an ordinary linear layer. Where the input is not contiguous in memory, the output may not
    be either. Tools that look for the exact type ``nn.Linear`` do not find this one.
    """

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """(..., in_features) -> (..., out_features), times ``scale`` (out_features,) if given."""
        weight, bias = self.weight, self.bias
        if scale is None:
            return _linear(x, weight, bias)
        if not _can_scale_parameters(weight) or x.numel() <= weight.shape[1] ** 2:  # the output is smaller
            return scale * _linear(x, weight, bias)
        y = _linear(x, scale[:, None] * weight, None if bias is None else scale * bias)
        return y.to(torch.promote_types(y.dtype, scale.dtype))  # as scaling it would


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if not _is_faster_as_convolution(x):
        return F.linear(x, weight, bias)
    return F.conv2d(x.permute(0, 3, 1, 2), weight[:, :, None, None], bias).permute(0, 2, 3, 1)


def _is_faster_as_convolution(x: Tensor) -> bool:
    if not HAS_ONEDNN or _is_exporting() or x.device.type != 'cpu' or x.dim() != 4 or x.dtype != torch.float32:
        return False
    # In 16-bit types, as under autocast, oneDNN computes linear layers too.
    return x.numel() > 0 and autocast_dtype('cpu') is None


def _is_exporting() -> bool:
    return torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export()


class LayerNorm(Scalable, nn.LayerNorm):
    """``nn.LayerNorm`` with an optional scale."""

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """(..., C) -> (..., C), times ``scale`` (C,) if given."""
        weight, bias = self.weight, self.bias
        if scale is None or bias is None or not _can_scale_parameters(weight):
            y = F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)
            return y if scale is None else scale * y
        y = F.layer_norm(x, self.normalized_shape, scale * weight, scale * bias, self.eps)
        return y.to(torch.promote_types(y.dtype, scale.dtype))


class Norm(Scalable, nn.Sequential):
    """A norm between the permutations that its input and output layouts need, see :func:`build_norm`."""

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        *before, last = self
        for layer in before:
            x = layer(x)
        return scaled(last, x, scale)


def build_norm(kind: str, channels: int, channels_first_in: bool = False, channels_first_out: bool = False) -> Norm:
    """A norm over the channels, between the permutations that its input and output layouts need.

    The permutations have no parameters but count as layers of the Sequential: published parameter names such as
    ``norm.1.weight`` depend on it.

    Args:
        kind: ``'LN'`` (LayerNorm, eps 1e-6) or ``'BN'`` (BatchNorm2d).
        channels: Number of channels C.
        channels_first_in: Whether the input is (N, C, H, W) instead of (N, H, W, C).
        channels_first_out: The same of the output.

    Raises:
        ValueError: ``kind`` is neither of the two.
    """
    if kind not in NORM_LAYERS:
        raise ValueError(f'norm_layer must be one of {", ".join(NORM_LAYERS)}, got {kind!r}')
    norm_is_channels_first = kind == 'BN'
    norm = nn.BatchNorm2d(channels) if norm_is_channels_first else LayerNorm(channels, eps=LAYER_NORM_EPS)
    return Norm(
        *_permutation(channels_first_in, norm_is_channels_first),
        norm,
        *_permutation(norm_is_channels_first, channels_first_out),
    )


def _permutation(from_channels_first: bool, to_channels_first: bool) -> list[nn.Module]:
    if from_channels_first == to_channels_first:
        return []
    return [ToChannelsFirst() if to_channels_first else ToChannelsLast()]


class GELU(nn.GELU):
    """``nn.GELU``, in place where no gradients are recorded: then nothing else, not even a hook, may read its input."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if torch.is_grad_enabled() else torch.ops.aten.gelu_(x, approximate=self.approximate)


ACTIVATIONS: dict[str, type[nn.Module]] = {'GELU': GELU, 'ReLU': nn.ReLU, 'SiLU': nn.SiLU}


def build_activation(name: str) -> nn.Module:
    """The activation called ``name``, GELU (exact), ReLU or SiLU, for a layer output that nothing else reads.

    Raises:
        ValueError: Any other name.
    """
    if name not in tuple(ACTIVATIONS):  # also where it cannot be hashed
        raise ValueError(f'act_layer must be one of {", ".join(ACTIVATIONS)}, got {name!r}')
    return ACTIVATIONS[name]()
