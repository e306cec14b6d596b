"""Weights of InternImage backbones, taken from any file that holds them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from .errors import first_few, redacted
from .filling import LoadReport, fill, layer_scale_of_one
from .forms import BACKBONE_KEY, named_tensors, renamed, unwrap
from .safe_loading import CheckpointError, load_safely
from .schemes import local_source


def backbone_state_dict(checkpoint: Mapping[str, Any], prefix: str | None = None) -> dict[str, Tensor]:
    """The backbone's weights in a checkpoint, under the backbone's own names.

    Reads official classification files (``model``, or ``module`` from DeepSpeed; the average in ``model_ema`` is not
    used), detectors and segmentors of MMCV and MMEngine (``state_dict``), bare state dicts, and the Hugging Face files,
    where ``gamma1`` is called ``layer_scale1``. Drops classifier weights.

    Args:
        checkpoint: Content of the file.
        prefix: Prefix of the backbone's names in the file, such as ``'backbone.'``; ``None`` to find out.

    Raises:
        ValueError: As :func:`named_tensors` and :func:`renamed` do; there are no InternImage weights, or none under
            ``prefix``.
    """
    state = renamed(named_tensors(unwrap(checkpoint)), lambda key: key.removeprefix('module.'))
    found = Counter(match['prefix'] for match in map(BACKBONE_KEY.match, state) if match)
    if not found:
        raise ValueError(f'it holds no InternImage weights; its keys begin with {first_few(list(state))}')
    if prefix is None:
        prefix = found.most_common(1)[0][0]
    elif prefix and not prefix.endswith('.'):
        prefix += '.'
    if prefix not in found:
        raise ValueError(
            f'no InternImage weights under prefix={prefix!r}, but under {first_few([repr(p) for p in found])}'
        )
    inside = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
    classifier = ('head.', 'conv_head.', 'fc_norm.', 'clip_projector.')
    kept = {name: tensor for name, tensor in inside.items() if not name.startswith(classifier)}
    return renamed(kept, lambda name: re.sub(r'\.layer_scale([12])$', r'.gamma\1', name))


def adapt(state: dict[str, Tensor], own: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """A state dict as a detector or segmentor that starts from it may take it.

    A backbone under its own names gets those of the model's, and layer scale that it lacks becomes one.

    Args:
        state: Names and tensors, of a whole model or of a backbone.
        own: The model's state dict.
        source: What the log calls ``state``.

    Raises:
        ValueError: As :func:`renamed` does.
    """
    if any(match and not match['prefix'] for match in map(BACKBONE_KEY.match, state)):
        backbone = {f'backbone.{name}': tensor for name, tensor in backbone_state_dict(state, prefix='').items()}
        state = backbone if backbone.keys() & own.keys() else state
    ones = layer_scale_of_one(own, state)
    if ones:
        print_log(f'{source} has no layer scale: the {len(ones)} factors become 1', 'current')
    return state | ones


def load_pretrained_backbone(
    model: nn.Module,
    checkpoint: str | os.PathLike[str],
    prefix: str | None = None,
    map_location: str | torch.device | None = 'cpu',
) -> LoadReport:
    """Loads a backbone's weights from any file that :func:`load_safely` and :func:`backbone_state_dict` can read.

    Tensors that do not fit keep their values, and the log names them. If the model has layer scale and the file has
    none, the factors become one: the published tiny was trained without layer scale. After an error about the weights
    the model holds a part of the file.

    Args:
        model: The backbone.
        checkpoint: File, http(s) URL, or a name in another of MMEngine's schemes, as :func:`local_source` takes it.
        prefix: Prefix of the backbone's names in the file; ``None`` to find out.
        map_location: Device on which the file is read.

    Raises:
        CheckpointError: There is no such file, it cannot be read or holds no such backbone, or :func:`fill` raises it:
            it holds less than half of the backbone's parameters, for example.
    """
    source = redacted(checkpoint)
    try:
        with local_source(os.fsdecode(checkpoint)) as place:
            state = backbone_state_dict(load_safely(place, map_location), prefix)
    except FileNotFoundError as error:
        raise CheckpointError(str(error)) from error
    except ValueError as error:
        raise CheckpointError(f'cannot load the backbone from {source}: {error}') from error
    return fill(model, adapt(state, model.state_dict(), source), source)
