"""How far a state dict fills a model, and why not."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Container, Mapping
from typing import Any, NamedTuple, cast

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel, BaseTTAModel, is_model_wrapper
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .conversion import uses_dcnv4
from .errors import first_few, one_line
from .forms import BACKBONE_KEY, is_extra_state
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
    A module's extra state may have any shape, or none.
    """
    both = [name for name in own if name in state]
    misshaped = [name for name in both if not is_extra_state(name) and state[name].shape != own[name].shape]
    return LoadReport(
        matched=[name for name in both if name not in misshaped],
        missing=[name for name in own if name not in state and not name.endswith('num_batches_tracked')],
        unexpected=[name for name in state if name not in own],
        misshaped=misshaped,
    )


def not_finite(parameters: Container[str], state: Mapping[str, Any]) -> list[str]:
    """The tensors of a state dict that hold NaN, or infinity in a parameter; a buffer may hold it on purpose.

    Args:
        parameters: Names of the model's parameters.
        state: Names and tensors.
    """

    def proper(name: str, tensor: Tensor) -> bool:
        values = tensor.float() if _has_8_bits(tensor) else tensor  # torch does not test these
        return bool((values.isfinite() if name.removeprefix('module.') in parameters else ~values.isnan()).all())

    tensors = {name: tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}  # no extra states
    return [name for name, tensor in tensors.items() if _is_inexact(tensor) and not proper(name, tensor)]


def _is_inexact(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _has_8_bits(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dtype.itemsize == 1


def unwrapped(model: nn.Module) -> nn.Module:
    """The model that a checkpoint holds, without what wraps it for several processes or test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = cast('nn.Module', model.module)
    return model


def fill(model: nn.Module, state: Mapping[str, Tensor], source: str, complete: bool = False) -> LoadReport:
    """Loads a state dict into a model and logs in one line how much of the model it fills.

    Tensors of another shape are left out. A model may rename or change what it is given, so what counts is what it
    holds afterwards. After an error it holds a part of the file.

    Args:
        model: The model.
        state: Names and tensors, as :func:`named_tensors` gives them.
        source: What the messages call the state dict: the name of a file.
        complete: Every tensor of the model must be filled.

    Raises:
        CheckpointError: As :func:`require_complete` does if ``complete``, else as :func:`require_enough`; as
            :func:`require_numbers` and :func:`require_finite` do; or a tensor that the model renames has another shape.
    """
    own = model.state_dict(keep_vars=True)
    misshaped = compare(own, state).misshaped
    fitting = {name: state[name] for name in state if name not in misshaped}
    try:
        with _Copies() as copies:
            found = model.load_state_dict(fitting, strict=False)
    except RuntimeError as error:
        raise CheckpointError(f'{source} does not fit {type(model).__name__}: {one_line(error)}') from error
    unfilled = [name for name in found.missing_keys if not name.endswith('num_batches_tracked')]
    report = LoadReport(
        matched=[name for name in own if name not in found.missing_keys],
        missing=[name for name in unfilled if name not in misshaped],
        unexpected=list(found.unexpected_keys),
        misshaped=misshaped,
    )
    taken = {name: copies.sources[id(own[name])] for name in report.matched if id(own[name]) in copies.sources}
    require_numbers(own, taken, source)
    held = model.state_dict()
    require_finite(dict(model.named_parameters()), {name: held[name] for name in report.matched}, source)
    if complete:
        require_complete(model, state, report, source)
    else:
        require_enough(model, state, report, source)
    eight = {str(tensor.dtype) for tensor in taken.values() if _has_8_bits(tensor)}
    log_report(model, report, source, f'; its numbers are as coarse as {", ".join(sorted(eight))}' if eight else '')
    return report


class _Copies(TorchFunctionMode):
    """Notes which tensor is copied into which: a model that renames tensors does not tell where it took them from."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: dict[int, Tensor] = {}  # by the id of the tensor that was written

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict | None = None
    ) -> Any:
        if function is Tensor.copy_:
            self.sources[id(args[0])] = args[1]
        return function(*args, **(kwargs or {}))


def filled_share(model: nn.Module, report: LoadReport, prefix: str = '') -> float:
    """The share of a model's parameters, or of those under a prefix, that was filled. Elements are counted.

    A model without parameters is filled; without parameters under the prefix nothing of it is.
    """
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters() if name.startswith(prefix)}
    if not any(sizes.values()):
        return 0.0 if prefix else 1.0
    return sum(sizes.get(name, 0) for name in report.matched) / sum(sizes.values())


def require_enough(model: nn.Module, state: Mapping[str, Tensor], report: LoadReport, source: str) -> None:
    """Checks that a state dict holds enough to start from.

    Raises:
        CheckpointError: It fills less than half of the parameters of a backbone, less than half of those of a whole
            model and of its backbone, or none of those of another part, such as a neck. Elements are counted, not
            tensors.
    """
    share = filled_share(model, report)
    if _is_backbone(model) or isinstance(model, BaseModel):
        enough = max(share, filled_share(model, report, 'backbone.')) >= 0.5
    else:
        enough = share > 0
    if not enough:
        raise CheckpointError(
            f'{source} holds only {share:.0%} of the parameters of {type(model).__name__}: '
            f'{likely_cause(state, model, report)}'
        )


def _is_backbone(model: nn.Module) -> bool:
    """Whether a model is InternImage, or of the ``backbones`` of mmdet, mmseg or any package that follows them."""
    return 'backbones' in type(model).__module__.split('.') or any(map(BACKBONE_KEY.match, model.state_dict()))


def require_complete(model: nn.Module, state: Mapping[str, Tensor], report: LoadReport, source: str) -> None:
    """Checks that a state dict holds the whole model.

    Raises:
        CheckpointError: A tensor is missing or has another shape.
    """
    if report.missing or report.misshaped:
        raise CheckpointError(f'{source} does not fill {type(model).__name__}: {likely_cause(state, model, report)}')


def require_numbers(own: Mapping[str, Tensor], taken: Mapping[str, Tensor], source: str) -> None:
    """Checks that a model's real numbers come from real numbers. Floating-point types convert to each other.

    Args:
        own: The model's state dict.
        taken: The tensors that fill it, under the model's names.
        source: What the message calls their file.

    Raises:
        CheckpointError: Whole numbers, truth values or complex numbers stand for real numbers.
    """
    unreal = [
        f'{name}: {tensor.dtype}'
        for name, tensor in taken.items()
        if (_is_inexact(own[name]) and not _is_inexact(tensor)) or (tensor.is_complex() and not own[name].is_complex())
    ]
    if unreal:
        raise CheckpointError(
            f'{source} does not hold real numbers in {len(unreal)} tensors that need them ({first_few(unreal)}): '
            'convert them to floating point, with their scale if they are quantized'
        )


def require_finite(parameters: Container[str], state: Mapping[str, Tensor], source: str) -> None:
    """Checks weights as :func:`not_finite` does.

    Raises:
        CheckpointError: Some are NaN or infinite.
    """
    if spoilt := not_finite(parameters, state):
        raise CheckpointError(
            f'{source} holds NaN or infinite numbers in {len(spoilt)} tensors ({first_few(spoilt)}): the training that '
            'saved it has diverged, or it is damaged; take another checkpoint'
        )


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
