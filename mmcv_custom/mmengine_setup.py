"""What importing ``mmcv_custom`` changes in MMEngine."""

from __future__ import annotations

import math
from typing import Any

import mmengine.registry
import torch
from mmengine.analysis import complexity_analysis
from mmengine.analysis.jit_handles import get_shape
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.registry import Registry
from mmengine.runner import CheckpointLoader

from ops_dcnv3.functional import dcnv3_macs

from .checkpoint import load_converted
from .registry import SCOPE, InheritedScope


def set_up_mmengine() -> None:
    """Lets MMEngine read checkpoints safely, find configs of two more packages, and count the FLOPs of DCNv3.

    - ``load_from``, ``resume`` and ``init_cfg`` read local files and http(s) URLs with
      :func:`mmcv_custom.checkpoint.load_converted`. MMEngine's other schemes (``open-mmlab://``, ``s3://`` ...) stay.
    - ``_base_ = 'mmcv_custom::detection/...'`` names a config of this project. Its classes are found in mmdet or mmseg
      (:mod:`mmcv_custom.registry`).
    - ``_base_ = 'mmseg::...'`` works with the onedl fork too. MMEngine looks for a distribution named mmsegmentation,
      which the fork calls onedl-mmsegmentation; it finds both by the module's name.
    - ``mmengine.analysis.get_model_complexity_info`` counts ``dcnv3::forward``.
    """
    CheckpointLoader.register_scheme(prefixes=('', 'http://', 'https://'), loader=load_from_safe, force=True)
    MODULE2PACKAGE.update(mmcv_custom='mmcv_custom', mmseg='mmseg')
    for registry in vars(mmengine.registry).values():
        if isinstance(registry, Registry) and SCOPE not in registry.children:
            InheritedScope(registry.name, parent=registry, scope=SCOPE)
    # get_model_complexity_info makes its analyser of this table.
    complexity_analysis._DEFAULT_SUPPORTED_FLOP_OPS['dcnv3::forward'] = count_dcnv3_flops


# MMEngine logs "Loads checkpoint by <name without load_from_> backend".
def load_from_safe(filename: str, map_location: str | torch.device | None = None) -> Any:
    """:func:`load_converted` with the parameters that MMEngine asks for."""
    return load_converted(filename, map_location)


def count_dcnv3_flops(inputs: list[Any], outputs: list[Any]) -> int:
    """FLOPs of one traced ``dcnv3::forward``, in MMEngine's convention: a multiply-add is one FLOP."""
    groups = inputs[7].toIValue()
    pixels = math.prod(get_shape(outputs[0])[:3])
    return dcnv3_macs(pixels, channels=get_shape(inputs[0])[-1], points=get_shape(inputs[2])[-1] // groups)
