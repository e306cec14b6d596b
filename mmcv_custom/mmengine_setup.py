"""What importing ``mmcv_custom`` changes in MMEngine."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import mmengine.registry
from mmengine.analysis import complexity_analysis
from mmengine.analysis.jit_handles import get_shape
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.infer import BaseInferencer
from mmengine.logging import print_log
from mmengine.registry import Registry
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from ops_dcnv3.functional import dcnv3_macs

from .checkpoint import UNSAFE_LOAD_VARIABLE, CheckpointError, fill, load_converted, unwrapped
from .checkpoint.errors import redacted
from .checkpoint.forms import under_prefix
from .checkpoint.schemes import local_source
from .registry import SCOPE, InheritedScope

# The file of each tensor that was read and is still in use, for messages: MMEngine does not pass it on.
_SOURCES: MutableMapping[Tensor, str] = WeakIdKeyDictionary()


def set_up_mmengine() -> None:
    """Lets MMEngine read checkpoints safely, find configs of two more packages, and count the FLOPs of DCNv3.

    - ``load_from``, ``resume``, ``init_cfg`` and the inferencers read checkpoints with
      :func:`mmcv_custom.checkpoint.load_converted`, whichever of MMEngine's schemes (``open-mmlab://``, ``s3://`` ...)
      names them. MMEngine's own loaders fall back to unsafe loading, and log passwords in URLs.
    - A file must fill half of a model or backbone, and something of any other part, that ``init_detector``,
      ``init_model``, inferencers or ``init_cfg`` load it into (:func:`load_state_dict`). MMEngine only warns.
    - Inferencers need a config, and do not run the one in a checkpoint (:func:`require_config`).
    - ``_base_ = 'mmcv_custom::detection/...'`` names a config of this project. Its classes are found in mmdet or mmseg
      (:mod:`mmcv_custom.registry`).
    - ``_base_ = 'mmseg::...'`` works with the onedl fork too. MMEngine looks for a distribution named mmsegmentation,
      which the fork calls onedl-mmsegmentation; it finds both by the module's name.
    - ``mmengine.analysis.get_model_complexity_info`` counts ``dcnv3::forward``.
    """
    CheckpointLoader.register_scheme(list(CheckpointLoader._schemes), loader=load_from_safe, force=True)
    CheckpointLoader.load_checkpoint = classmethod(load_checkpoint)
    mmengine_checkpoint.load_state_dict = load_state_dict
    mmengine_checkpoint._load_checkpoint_with_prefix = load_part
    if not hasattr(BaseInferencer._init_model, '__wrapped__'):
        BaseInferencer._init_model = require_config(BaseInferencer._init_model)
    MODULE2PACKAGE.update(mmcv_custom='mmcv_custom', mmseg='mmseg')
    for registry in vars(mmengine.registry).values():
        if isinstance(registry, Registry) and SCOPE not in registry.children:
            InheritedScope(registry.name, parent=registry, scope=SCOPE)
    # get_model_complexity_info makes its analyser of this table.
    complexity_analysis._DEFAULT_SUPPORTED_FLOP_OPS['dcnv3::forward'] = count_dcnv3_flops


def load_checkpoint(
    cls: type[CheckpointLoader], filename: str, map_location: Any = None, logger: str = 'current'
) -> Any:
    """Replaces ``CheckpointLoader.load_checkpoint``, which logs passwords and tokens of URLs."""
    print_log(f'Loads checkpoint from path: {redacted(filename)}', logger)
    return cls._get_checkpoint_loader(filename)(filename, map_location)


def load_from_safe(filename: str, map_location: Any = None) -> dict[str, Any]:
    """:func:`load_converted` for all names that MMEngine knows, with the parameters that it asks for.

    Raises:
        CheckpointError: The name leads nowhere, or :func:`load_converted` raises it.
    """
    with local_source(filename) as source:
        checkpoint = load_converted(source, map_location)
    if filename.startswith('mmcls://'):  # classifiers, of which detectors and segmentors take the backbone
        state, prefix = checkpoint['state_dict'], 'backbone.'
        checkpoint['state_dict'] = {n.removeprefix(prefix): state[n] for n in state if n.startswith(prefix)}
    for tensor in checkpoint['state_dict'].values():
        if isinstance(tensor, Tensor):  # no extra state of a module
            _SOURCES[tensor] = redacted(filename)
    return checkpoint


def load_part(prefix: str, filename: str, map_location: Any = None) -> dict[str, Tensor]:
    """Replaces ``_load_checkpoint_with_prefix``, which fails without the file's name and the prefixes that it has.

    Raises:
        CheckpointError: There is nothing under the prefix, or :func:`load_from_safe` raises it.
    """
    try:
        return under_prefix(CheckpointLoader.load_checkpoint(filename, map_location)['state_dict'], prefix)
    except ValueError as error:
        raise CheckpointError(f'cannot load a part of {redacted(filename)}: {error}') from error


def load_state_dict(module: nn.Module, state_dict: Mapping[str, Any], strict: bool = False, logger: Any = None) -> None:
    """Replaces ``mmengine.runner.checkpoint.load_state_dict``, which warns where a model stays at random.

    Args:
        module: Model, or a part of one.
        state_dict: Names and tensors.
        strict: Every tensor of the module must be filled.
        logger: Not used: the line about the result goes to the current logger.

    Raises:
        CheckpointError: As :func:`mmcv_custom.checkpoint.fill` does.
    """
    sources = (_SOURCES.get(tensor) for tensor in state_dict.values() if isinstance(tensor, Tensor))
    fill(unwrapped(module), state_dict, next(filter(None, sources), 'the state dict'), complete=strict)


def require_config(init_model: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps ``BaseInferencer._init_model``, which without a config runs the one in the checkpoint: that is code."""

    @functools.wraps(init_model)
    def _init_model(self: BaseInferencer, cfg: Any, weights: str | None, device: str = 'cpu') -> Any:
        if not cfg and os.environ.get(UNSAFE_LOAD_VARIABLE) != '1':
            raise CheckpointError(
                f'{type(self).__name__} needs the config of {redacted(str(weights))} as its argument model: the one '
                f'inside a checkpoint is code, which only {UNSAFE_LOAD_VARIABLE}=1 lets run'
            )
        return init_model(self, cfg, weights, device)

    return _init_model


def count_dcnv3_flops(inputs: list[Any], outputs: list[Any]) -> int:
    """FLOPs of one traced ``dcnv3::forward``, in MMEngine's convention: a multiply-add is one FLOP."""
    groups = inputs[7].toIValue()
    pixels = math.prod(get_shape(outputs[0])[:3])
    return dcnv3_macs(pixels, channels=get_shape(inputs[0])[-1], points=get_shape(inputs[2])[-1] // groups)
