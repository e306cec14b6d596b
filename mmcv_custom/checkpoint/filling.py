"""How far a state dict fills a model, and why not."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from .conversion import uses_dcnv4
from .errors import first_few
from .forms import BACKBONE_KEY
from .safe_loading import CheckpointError

_GAMMA = re.compile(r'\.gamma[12]$')
_STEM = 'patch_embed.conv2.weight'


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


def fill(model: nn.Module, state: Mapping[str, Tensor], source: str, complete: bool = False) -> LoadReport:
    """Loads a state dict into a model and logs in one line how much of the model it fills.

    Tensors of another shape are left out. A model may rename what it is given, so what counts is what it took.

    Args:
        model: The model.
        state: Names and tensors, as :func:`named_tensors` gives them.
        source: What the messages call the state dict: the name of a file.
        complete: Every tensor of the model must be filled.

    Raises:
        CheckpointError: ``complete``, and something is missing or of another shape. Otherwise: less than half of the
            model's parameters and less than half of its backbone's are filled (elements are counted, not tensors).
    """
    own = model.state_dict()
    misshaped = compare(own, state).misshaped
    found = model.load_state_dict({name: state[name] for name in state if name not in misshaped}, strict=False)
    unfilled = [name for name in found.missing_keys if not name.endswith('num_batches_tracked')]
    report = LoadReport(
        matched=[name for name in own if name not in found.missing_keys],
        missing=[name for name in unfilled if name not in misshaped],
        unexpected=list(found.unexpected_keys),
        misshaped=misshaped,
    )
    if complete:
        require_complete(model, state, report, source)
    else:
        require_half(model, state, report, source)
    log_report(model, report, source)
    return report


def filled_share(model: nn.Module, report: LoadReport, prefix: str = '') -> float:
    """The share of a model's parameters, or of those under a prefix, that was filled. Elements are counted."""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters() if name.startswith(prefix)}
    return sum(sizes.get(name, 0) for name in report.matched) / (sum(sizes.values()) or 1)


def require_half(model: nn.Module, state: Mapping[str, Tensor], report: LoadReport, source: str) -> None:
    """Raises :class:`CheckpointError` unless half of the model's parameters are filled, or half of its backbone's."""
    share = filled_share(model, report)
    if share < 0.5 and filled_share(model, report, 'backbone.') < 0.5:
        raise CheckpointError(
            f'{source} holds only {share:.0%} of the parameters of {type(model).__name__}: '
            f'{likely_cause(state, model, report)}'
        )


def require_complete(model: nn.Module, state: Mapping[str, Tensor], report: LoadReport, source: str) -> None:
    """Raises :class:`CheckpointError` if a tensor of the model is missing or has another shape."""
    if report.missing or report.misshaped:
        raise CheckpointError(f'{source} does not fill {type(model).__name__}: {likely_cause(state, model, report)}')


def log_report(model: nn.Module, report: LoadReport, source: str, note: str = '') -> None:
    """Logs one line: the share that was filled, and counts with examples."""
    summary = ', '.join(
        f'{len(names)} {what}' + (f' ({first_few(names)})' if names and what != 'matched' else '')
        for what, names in report._asdict().items()
    )
    level = logging.WARNING if report.missing or report.misshaped else logging.INFO
    share = filled_share(model, report)
    print_log(f'loaded {share:.1%} of {type(model).__name__} from {source}: {summary}{note}', 'current', level)


def layer_scale_of_one(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The factors that a backbone saved without layer scale has in a model with it, under the model's names: ones.

    The published tiny was trained without layer scale.
    """
    if any(map(_GAMMA.search, state)) or not any(map(BACKBONE_KEY.match, state)):
        return {}
    return {name: torch.ones_like(tensor) for name, tensor in own.items() if _GAMMA.search(name)}


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
    preset = arch.preset_of_width(stem.shape[0]) if hasattr(arch, 'preset_of_width') else None
    return f'{stem.shape[0]} channels wide' + (f' ({preset})' if preset else '')
