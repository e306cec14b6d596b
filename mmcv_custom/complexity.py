"""Teaches MMEngine's ``get_model_complexity_info`` to count DCNv3."""

from __future__ import annotations

import math
from typing import Any

from mmengine.analysis import complexity_analysis
from mmengine.analysis.jit_handles import get_shape

from ops_dcnv3.functional import MACS_PER_SAMPLE


def dcnv3_flops(inputs: list[Any], outputs: list[Any]) -> int:
    """FLOPs of one traced ``dcnv3::forward``, in MMEngine's convention: a multiply-add is one FLOP."""
    channels, samples = get_shape(inputs[0])[-1], get_shape(inputs[2])[-1]
    groups = inputs[7].toIValue()
    return MACS_PER_SAMPLE * math.prod(get_shape(outputs[0])[:3]) * channels * samples // groups


def register_complexity() -> None:
    """Adds the formula to the default table, from which ``get_model_complexity_info`` makes its analyser."""
    complexity_analysis._DEFAULT_SUPPORTED_FLOP_OPS['dcnv3::forward'] = dcnv3_flops
