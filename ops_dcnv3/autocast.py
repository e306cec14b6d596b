"""How the operators and layers follow autocast."""

from __future__ import annotations

import torch
from torch import Tensor


def autocast_dtype(device_type: str) -> torch.dtype | None:
    """The dtype of autocast on this type of device; None where autocast is off or unknown."""
    if not torch.amp.is_autocast_available(device_type) or not torch.is_autocast_enabled(device_type):
        return None
    return torch.get_autocast_dtype(device_type)


def autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors, cast to autocast's dtype where it is on; float64 stays, as under torch's own rules."""
    dtype = autocast_dtype(tensors[0].device.type)
    if dtype is None:
        return tensors
    return tuple(t.to(dtype) if t.is_floating_point() and t.dtype != torch.float64 else t for t in tensors)
