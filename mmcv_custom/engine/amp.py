"""Mixed precision on CPUs, which MMEngine lacks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import Tensor, nn
from torch.amp import custom_fwd


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """The counterpart of MMEngine's ``AmpOptimWrapper`` for CPUs: the forward runs under bfloat16 autocast.

    bfloat16 has the range of float32, so losses need no scaling. Arguments are ``OptimWrapper``'s.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        _keep_in_float32()

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """The context of the forward: autocast, and ``OptimWrapper``'s own for the accumulation of gradients."""
        with super().optim_context(model), torch.autocast('cpu', torch.bfloat16):
            yield


@cache
def _keep_in_float32() -> None:
    """Makes the operators of mmcv that lack bfloat16 on CPUs compute in float32."""
    from mmcv.ops.nms import NMSop
    from mmcv.ops.roi_align import RoIAlign

    NMSop.forward = staticmethod(custom_fwd(NMSop.forward, device_type='cpu', cast_inputs=torch.float32))
    align = RoIAlign.forward

    def forward(self: RoIAlign, input: Tensor, rois: Tensor) -> Tensor:
        if input.dtype is not torch.bfloat16:
            return align(self, input, rois)
        return align(self, input.float(), rois.float()).bfloat16()

    RoIAlign.forward = forward
