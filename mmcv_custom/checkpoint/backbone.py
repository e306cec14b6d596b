"""Weights of InternImage backbones, taken from any file that holds them."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from .conversion import BACKBONE_KEY, first_few, unwrap, uses_dcnv4
from .safe_loading import CheckpointError, load_safely

_GAMMA = re.compile(r'\.gamma[12]$')
_STEM = 'patch_embed.conv2.weight'


def backbone_state_dict(checkpoint: Mapping[str, Any], prefix: str | None = None) -> dict[str, Tensor]:
    """The backbone's weights in a checkpoint, under the backbone's own names.

    Reads official classification files (``model``, or ``module`` from DeepSpeed; the average in ``model_ema`` is not
    used), detectors and segmentors of MMCV and MMEngine (``state_dict``), bare state dicts, and the Hugging Face files,
    where ``gamma1`` is called ``layer_scale1``. Drops classifier weights.

    Args:
        checkpoint: Content of the file.
        prefix: Prefix of the backbone's names in the file, such as ``'backbone.'``; ``None`` to find out.

    Raises:
        ValueError: There are no InternImage weights, or none under ``prefix``.
    """
    if not isinstance(checkpoint, Mapping):
        raise ValueError(f'expected a mapping of names to tensors, got {type(checkpoint).__name__}')
    tensors = {key: value for key, value in unwrap(checkpoint).items() if isinstance(value, Tensor)}
    state = {key.removeprefix('module.'): value for key, value in tensors.items()}
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
    names = {key: re.sub(r'\.layer_scale([12])$', r'.gamma\1', key.removeprefix(prefix)) for key in state}
    return {
        name: state[key]
        for key, name in names.items()
        if key.startswith(prefix) and not name.startswith(('head.', 'conv_head.', 'fc_norm.', 'clip_projector.'))
    }


class LoadReport(NamedTuple):
    """Names of the model's tensors (``matched``, ``missing``, ``misshaped``) and of the file's (``unexpected``)."""

    matched: list[str]
    missing: list[str]
    unexpected: list[str]
    misshaped: list[str]


def compare(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> LoadReport:
    """Which tensors of a model's ``own`` state dict another one would fill, by names and shapes.

    Batch counters (``num_batches_tracked``) never count as missing: older files lack them, and no result needs them.
    """
    return LoadReport(
        matched=[name for name in own if name in state and state[name].shape == own[name].shape],
        missing=[name for name in own if name not in state and not name.endswith('num_batches_tracked')],
        unexpected=[name for name in state if name not in own],
        misshaped=[name for name in own if name in state and state[name].shape != own[name].shape],
    )


def load_pretrained_backbone(
    model: nn.Module,
    checkpoint: str | os.PathLike[str],
    prefix: str | None = None,
    map_location: str | torch.device | None = 'cpu',
) -> LoadReport:
    """Loads a backbone's weights from any file that :func:`load_safely` and :func:`backbone_state_dict` can read.

    Tensors that do not fit keep their values, and the log names them. If the model has layer scale and the file has
    none, the factors become one: the published tiny was trained without layer scale.

    Args:
        model: The backbone.
        checkpoint: File or http(s) URL.
        prefix: Prefix of the backbone's names in the file; ``None`` to find out.
        map_location: Device on which the file is read.

    Raises:
        FileNotFoundError: No such file.
        CheckpointError: The file cannot be read, or holds less than half of the backbone's parameters (their elements
            are counted, not the tensors). The model is then unchanged.
    """
    try:
        state = backbone_state_dict(load_safely(checkpoint, map_location), prefix)
    except ValueError as error:
        raise CheckpointError(f'cannot load the backbone from {checkpoint}: {error}') from error
    own = model.state_dict()
    ones = {}
    if not any(map(_GAMMA.search, state)):
        ones = {name: torch.ones_like(tensor) for name, tensor in own.items() if _GAMMA.search(name)}
    report = compare({name: tensor for name, tensor in own.items() if name not in ones}, state)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters() if name not in ones}
    share = sum(sizes.get(name, 0) for name in report.matched) / sum(sizes.values())
    if share < 0.5:
        raise CheckpointError(
            f'{checkpoint} holds only {share:.0%} of the parameters of {type(model).__name__}: '
            f'{likely_cause(state, model, report)}'
        )
    model.load_state_dict({name: state[name] for name in report.matched} | ones, strict=False)
    summary = ', '.join(
        f'{len(names)} {what}' + (f' ({first_few(names)})' if names and what != 'matched' else '')
        for what, names in report._asdict().items()
    )
    note = '; it has no layer scale, whose factors are 1 now' if ones else ''
    level = logging.WARNING if report.missing or report.misshaped else logging.INFO
    print_log(f'loaded {share:.1%} of {type(model).__name__} from {checkpoint}: {summary}{note}', 'current', level)
    return report


def likely_cause(state: Mapping[str, Tensor], model: nn.Module, report: LoadReport) -> str:
    """In words, why a state dict does not fill a model."""
    if uses_dcnv4(list(state)):
        return 'it is of DCNv4 (FlashInternImage), another operator'
    own = model.state_dict()
    for name in report.misshaped:
        if name.endswith(_STEM):
            arch = getattr(getattr(model, 'backbone', model), 'arch', None)
            widths = f"its stem is {_width(state[name], arch)}, the model's {_width(own[name], arch)}"
            return f'{widths}; is it another variant of InternImage?'
    return f'{differences(state, own, report)}; was another architecture saved, or only a part?'


def differences(state: Mapping[str, Tensor], own: Mapping[str, Tensor], report: LoadReport) -> str:
    """In words, how a state dict differs from a model's ``own``; empty if it does not."""
    found = {
        'missing': report.missing,
        'unknown to the model': report.unexpected,
        'of another shape': [
            f'{name}: {tuple(state[name].shape)} for {tuple(own[name].shape)}' for name in report.misshaped
        ],
    }
    return ', '.join(f'{len(names)} tensors are {what} ({first_few(names)})' for what, names in found.items() if names)


def _width(stem: Tensor, arch: Any) -> str:
    """The width, and the name of the preset that has it, if the model's ``arch`` knows presets."""
    preset = arch and arch.preset_of_width(stem.shape[0])
    return f'{stem.shape[0]} channels wide' + (f' ({preset})' if preset else '')
