"""Linear layers, norms and activations for channels-last features, defined once for the operator and the backbone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAYER_NORM_EPS = 1e-6  # of every LayerNorm in InternImage; BatchNorm keeps PyTorch's default

HAS_ONEDNN = torch.backends.mkldnn.is_available()
NORM_LAYERS = ('LN', 'BN')
MIN_SIZE_TO_SCALE = 4  # bytes per number; scaled weights of 16-bit types would be rounded twice


class ToChannelsFirst(nn.Module):
    """(N, H, W, C) -> (N, C, H, W), a view."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)


class ToChannelsLast(nn.Module):
    """(N, C, H, W) -> (N, H, W, C), a view."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


class Linear(nn.Linear):
    """``nn.Linear``, as the 1x1 convolution that it is where PyTorch computes that faster.

    That is over feature maps (N, H, W, C) in float32 on the CPU: PyTorch leaves matrix products to MKL and convolutions
    to oneDNN, which needs about half the time on an AMD processor with AVX-512 (docs/performance.md).
    Elsewhere, and in exported models, it is a linear layer as ever. Where the input is not contiguous in memory, the
    output may not be either. Tools that look for the exact type ``nn.Linear`` must be told of this one.
    """

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """(..., in_features) -> (..., out_features), times ``scale`` (out_features,) if given, see :func:`scaled`."""
        if scale is None:
            return _linear(x, self.weight, self.bias)
        if not _is_cheaper_to_scale(self.weight, x):
            return scale * _linear(x, self.weight, self.bias)
        return _linear(x, scale[:, None] * self.weight, None if self.bias is None else scale * self.bias)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if not _is_faster_as_convolution(x):
        return F.linear(x, weight, bias)
    return F.conv2d(x.permute(0, 3, 1, 2), weight[:, :, None, None], bias).permute(0, 2, 3, 1)


class LayerNorm(nn.LayerNorm):
    """``nn.LayerNorm`` that takes a scale."""

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """(..., C) -> (..., C), times ``scale`` (C,) if given, see :func:`scaled`."""
        if scale is None:
            return super().forward(x)
        if self.weight.element_size() < MIN_SIZE_TO_SCALE:
            return scale * super().forward(x)
        return F.layer_norm(x, self.normalized_shape, scale * self.weight, scale * self.bias, self.eps)


class Norm(nn.Sequential):
    """A norm between the permutations that its input and output layouts call for, see :func:`build_norm`."""

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        *before, last = self
        for layer in before:
            x = layer(x)
        return scaled(last, x, scale)


def scaled(layer: nn.Module, x: Tensor, scale: Tensor | None) -> Tensor:
    """``scale * layer(x)`` over the last dimension, or ``layer(x)`` without a scale.

    Layers of this module scale their parameters instead of the output where that loses nothing: training then keeps no
    output in memory for the gradient of the scale. Any other layer, such as an adapter around one, works as well.
    """
    if scale is None:
        return layer(x)
    return layer(x, scale) if isinstance(layer, (Linear, LayerNorm, Norm)) else scale * layer(x)


def _is_cheaper_to_scale(weight: Tensor, x: Tensor) -> bool:
    """Whether a scaled weight is smaller than the output, and as exact."""
    in_features = weight.shape[1]
    if _is_exporting() or weight.element_size() < MIN_SIZE_TO_SCALE or x.numel() <= in_features**2:
        return False
    # The first value of a scale may be as small as 1e-5, which makes weights vanish in float16.
    return not (_is_autocast(x.device.type) and torch.get_autocast_dtype(x.device.type) == torch.float16)


def _is_faster_as_convolution(x: Tensor) -> bool:
    if not HAS_ONEDNN or _is_exporting() or x.device.type != 'cpu' or x.dim() != 4 or x.dtype != torch.float32:
        return False
    # In 16-bit types, as under autocast, oneDNN computes linear layers too.
    return x.numel() > 0 and not _is_autocast('cpu')


def _is_autocast(device_type: str) -> bool:
    return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)


def _is_exporting() -> bool:
    return torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export()


def build_norm(kind: str, channels: int, channels_first_in: bool = False, channels_first_out: bool = False) -> Norm:
    """A norm over the channels, between the permutations that its input and output layouts call for.

    The permutations have no parameters but take a place in the Sequential: published parameter names such as
    ``norm.1.weight`` depend on it.

    Args:
        kind: ``'LN'`` (LayerNorm, eps 1e-6) or ``'BN'`` (BatchNorm2d).
        channels: Number of channels C.
        channels_first_in: Whether the input is (N, C, H, W) instead of (N, H, W, C).
        channels_first_out: The same of the output.

    Raises:
        ValueError: ``kind`` is neither.
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


def init_on_regular_grid(layer: nn.Module) -> None:
    """Start of a DCNv3 layer, over images or sequences: zero offsets, equal weights, an average over a regular grid."""
    for name, init in (
        ('offset', nn.init.zeros_),
        ('mask', nn.init.zeros_),
        ('input_proj', nn.init.xavier_uniform_),
        ('output_proj', nn.init.xavier_uniform_),
    ):
        linear = getattr(layer, name)
        init(linear.weight)
        nn.init.zeros_(linear.bias)


class GELU(nn.GELU):
    """``nn.GELU``, in place where no gradients are recorded: nothing else may read its input, not even hooks."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if torch.is_grad_enabled() else torch.ops.aten.gelu_(x, approximate=self.approximate)


ACTIVATIONS: dict[str, type[nn.Module]] = {'GELU': GELU, 'ReLU': nn.ReLU, 'SiLU': nn.SiLU}


def build_activation(name: str) -> nn.Module:
    """The activation called ``name``: GELU (exact), ReLU or SiLU, to follow a layer whose output nothing else reads.

    Raises:
        ValueError: Any other name.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f'act_layer must be one of {", ".join(ACTIVATIONS)}, got {name!r}')
    return ACTIVATIONS[name]()
